/* SPDX-License-Identifier: Apache-2.0 */
#include "lambdaio/lambdaio.h"
