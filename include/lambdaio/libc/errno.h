/* SPDX-License-Identifier: Apache-2.0 */
/*
 * errno.h - Linux's error numbers, for λ-functions: return -EINVAL and the like.  There is no errno.
 */
#ifndef LAMBDAIO_LIBC_ERRNO_H
#define LAMBDAIO_LIBC_ERRNO_H

#define EPERM      1
#define ENOENT     2
#define EINTR      4
#define EIO        5
#define E2BIG      7
#define EBADF      9
#define EAGAIN     11
#define ENOMEM     12
#define EACCES     13
#define EFAULT     14
#define EBUSY      16
#define EEXIST     17
#define ENOTDIR    20
#define EISDIR     21
#define EINVAL     22
#define EFBIG      27
#define ENOSPC     28
#define EPIPE      32
#define EDOM       33
#define ERANGE     34
#define ENOSYS     38
#define ENODATA    61
#define ETIME      62
#define EPROTO     71
#define EBADMSG    74
#define EOVERFLOW  75
#define EILSEQ     84
#define EMSGSIZE   90
#define EOPNOTSUPP 95
#define ENOTSUP    EOPNOTSUPP
#define ETIMEDOUT  110
#define EALREADY   114
#define ECANCELED  125

#endif /* LAMBDAIO_LIBC_ERRNO_H */
