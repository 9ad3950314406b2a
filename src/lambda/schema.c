/* SPDX-License-Identifier: Apache-2.0 */
#include "lambda/lambda.h"
