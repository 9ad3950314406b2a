/* SPDX-License-Identifier: Apache-2.0 */
/* spin: reads any bytes and never returns (a map). */
#include <lambdaio/function.h>

LAMBDA_DOC("never ends");

LAMBDA_MAP(spin)
{
	volatile uint8_t *in = ctx->in;

	for (;;)
		in[0]++;
}
