/* SPDX-License-Identifier: Apache-2.0 */
#include "sbpf/internal.h"
