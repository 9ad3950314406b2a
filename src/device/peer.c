/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer.c - may this connection be served?
 *
 * A server on loopback is reached by every local user, and gives what its own user may read.  So the kernel is asked
 * (sock_diag) whose socket the other end is: the server's own user's, root's, or one's that is allowed.
 *
 * The other end's state is part of the answer: a socket that its process has closed belongs to nobody any more, and
 * kernels before 6.17 call that root's.  So only an established one counts, and only if it still is one when
 * asked again: what was said of its owner in between was said of an open socket.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/lambda.h"
#include "device/server_private.h"

/* The answer carries attributes that nobody asked for. */
#define ANSWER_BYTES 4096u
/* A uid that is not mapped into this user namespace looks like this one: it is nobody in particular. */
#define OVERFLOW_UID 65534u

struct end {                 /* of a connection: v4-mapped addresses are v4 */
	uint32_t address[4]; /* network order; v4: the first */
	uint16_t port;       /* network order */
};

struct pair {
	uint8_t family;
	struct end peer, local;
};

static bool read_end(const struct sockaddr_storage *ss, uint8_t *family, struct end *out)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)ss;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)ss;

	*out = (struct end){.port = v4->sin_port};
	*family = AF_INET;
	if (ss->ss_family == AF_INET) {
		out->address[0] = v4->sin_addr.s_addr;
		return true;
	}
	if (ss->ss_family != AF_INET6)
		return false;
	out->port = v6->sin6_port;
	if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		memcpy(out->address, v6->sin6_addr.s6_addr + 12, 4);
		return true;
	}
	*family = AF_INET6;
	memcpy(out->address, v6->sin6_addr.s6_addr, 16);
	return true;
}

static bool read_pair(int fd, struct pair *out)
{
	struct sockaddr_storage peer, local;
	socklen_t n = sizeof(peer), m = sizeof(local);
	uint8_t family;

	return !getpeername(fd, (struct sockaddr *)&peer, &n) &&
	       !getsockname(fd, (struct sockaddr *)&local, &m) &&
	       read_end(&peer, &out->family, &out->peer) &&
	       read_end(&local, &family, &out->local) && family == out->family;
}

/* ---- the kernel's answer ---- */

static int open_diag(struct ctrl_server *s)
{
	const struct timeval patience = {.tv_sec = 1};

	if (s->diag >= 0)
		return 0;
	s->diag = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (s->diag < 0)
		return -errno;
	/* The answer is there when send() returns; a loop does not sleep for what a kernel never should do. */
	setsockopt(s->diag, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return 0;
}

static int ask(struct ctrl_server *s, uint8_t family, const struct end *from, const struct end *to,
	       struct inet_diag_msg *out)
{
	struct {
		struct nlmsghdr hdr;
		struct inet_diag_req_v2 req;
	} q = {
		.hdr = {.nlmsg_len = sizeof(q),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST,
			.nlmsg_seq = ++s->diag_seq},
		.req = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u},
	};
	union {
		struct nlmsghdr hdr;
		uint8_t bytes[ANSWER_BYTES];
	} a;
	ssize_t n;

	q.req.id.idiag_sport = from->port;
	q.req.id.idiag_dport = to->port;
	memcpy(q.req.id.idiag_src, from->address, sizeof(from->address));
	memcpy(q.req.id.idiag_dst, to->address, sizeof(to->address));
	q.req.id.idiag_cookie[0] = q.req.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	if (send(s->diag, &q, sizeof(q), 0) != (ssize_t)sizeof(q))
		return -errno;
	do {
		n = recv(s->diag, &a, sizeof(a), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* What answers an earlier question, one that we did not wait for, is passed over. */
	} while (n < (ssize_t)sizeof(a.hdr) || a.hdr.nlmsg_seq != s->diag_seq);
	if (a.hdr.nlmsg_type == NLMSG_ERROR && n >= (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
		return ((struct nlmsgerr *)NLMSG_DATA(&a.hdr))->error;
	if (a.hdr.nlmsg_type != SOCK_DIAG_BY_FAMILY || n < (ssize_t)NLMSG_LENGTH(sizeof(*out)))
		return -EPROTO;
	memcpy(out, NLMSG_DATA(&a.hdr), sizeof(*out));
	return 0;
}

static bool same_end(uint8_t family, const struct end *e, const uint32_t address[4], uint16_t port)
{
	static const uint32_t mapped[3] = {0, 0, 0};

	if (e->port != port)
		return false;
	if (family == AF_INET6)
		return !memcmp(e->address, address, 16);
	/* A v6 socket that speaks v4 says so in its own way: ::ffff:127.0.0.1. */
	if (!memcmp(address, mapped, 8) && address[2] == htonl(0xffff))
		return address[3] == e->address[0];
	return address[0] == e->address[0];
}

/* It is the other end of that very connection, and its process holds it open. */
static bool is_peer(const struct pair *p, const struct inet_diag_msg *m)
{
	return m->idiag_state == TCP_ESTABLISHED && m->idiag_inode &&
	       same_end(p->family, &p->peer, m->id.idiag_src, m->id.idiag_sport) &&
	       same_end(p->family, &p->local, m->id.idiag_dst, m->id.idiag_dport);
}

/* The uid of the peer's socket. */
static int peer_uid(struct ctrl_server *s, const struct pair *p, uint32_t *uid)
{
	struct inet_diag_msg first, second;
	int rc = open_diag(s);

	if (!rc)
		rc = ask(s, p->family, &p->peer, &p->local, &first);
	if (!rc && !is_peer(p, &first))
		rc = -ENOTCONN;
	if (!rc)
		rc = ask(s, p->family, &p->peer, &p->local, &second);
	if (!rc && (!is_peer(p, &second) || second.idiag_uid != first.idiag_uid ||
		    second.idiag_inode != first.idiag_inode))
		rc = -ENOTCONN;
	if (!rc)
		*uid = first.idiag_uid;
	return rc;
}

/* ---- who may ---- */

static bool uid_allowed(const struct ctrl_server *s, uint32_t uid)
{
	for (uint32_t i = 0; i < s->opts.n_allow_uids; i++) {
		if (s->opts.allow_uids[i] == uid)
			return true;
	}
	return !uid || (uid == geteuid() && uid != OVERFLOW_UID);
}

int ctrl_peer_allowed(struct ctrl_server *s, int fd, struct ctrl_error *err)
{
	struct pair p;
	uint32_t uid;
	int rc;

	/* Whoever reaches the port is served then: a local user reaches it by other addresses than loopback, too. */
	if (s->opts.insecure_network)
		return 0;
	if (!read_pair(fd, &p))
		return ctrl_fail(err, -ENOTCONN, "it is gone already");
	rc = peer_uid(s, &p, &uid);
	if (rc == -ENOENT)
		return ctrl_fail(
			err, -EACCES,
			"its socket is not found here: it is gone, or the listening socket "
			"is of another network namespace than the server");
	if (rc == -ENOTCONN)
		return ctrl_fail(err, -EACCES, "it was closed before its owner was known");
	if (rc)
		return ctrl_fail(err, -EACCES, "its owner cannot be learned: sock_diag: %s",
				 strerror(-rc));
	if (!uid_allowed(s, uid))
		return ctrl_fail(err, -EACCES,
				 "uid %u is neither root nor the server's (%u); allow it with "
				 "--allow-uid %u",
				 uid, (unsigned int)geteuid(), uid);
	return 0;
}

/* Learn at the start, not with the first host, that owners cannot be learned: by asking for our own listener. */
int peer_check(struct ctrl_server *s, int fd, struct ctrl_error *err)
{
	const struct end any = {0};
	struct sockaddr_storage ss;
	struct inet_diag_msg m;
	socklen_t n = sizeof(ss);
	struct end end;
	uint8_t family;
	int rc;

	if (s->opts.insecure_network || getsockname(fd, (struct sockaddr *)&ss, &n) ||
	    !read_end(&ss, &family, &end))
		return 0;
	rc = open_diag(s);
	if (!rc)
		rc = ask(s, family, &end, &any, &m);
	if (!rc)
		return 0;
	return ctrl_fail(
		err, rc,
		"sock_diag: %s: cannot learn which user a connection on loopback is of; %s",
		strerror(-rc),
		rc == -ENOENT ? "load the kernel module tcp_diag, run the server in the "
				"network namespace of its listening socket, or serve every "
				"user with --insecure-network"
			      : "allow the server AF_NETLINK sockets, or serve every user "
				"with --insecure-network");
}
