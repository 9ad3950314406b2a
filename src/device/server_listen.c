/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_listen.c - listening sockets, and which loop a new connection goes to.
 *
 * Until hosts can be authenticated and the channel encrypted, anything but loopback has to be asked for.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "device/server_private.h"

#define ACCEPT_BATCH     64
#define ACCEPT_AGAIN_MS  100u
#define NVME_TCP_SERVICE "4420"

/* ---- addresses ---- */

/* ADDR:PORT, [v6]:PORT, ADDR or [v6]. */
static int split(const char *where, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(where, ':'), *end;
	size_t n;

	if (*where == '[') {
		end = strchr(where, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		where++;
		*port = end[1] ? end + 2 : NVME_TCP_SERVICE;
		n = (size_t)(end - where);
	} else {
		if (colon && memchr(where, ':', (size_t)(colon - where)))
			return -EINVAL; /* a bare v6 address: where does it end? */
		*port = colon ? colon + 1 : NVME_TCP_SERVICE;
		n = colon ? (size_t)(colon - where) : strlen(where);
	}
	if (!n || n >= size || !**port)
		return -EINVAL;
	memcpy(host, where, n);
	host[n] = '\0';
	return 0;
}

static bool is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >>
			       24 ==
		       127;
	return sa->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static int describe(int fd, char *text, size_t size, bool *loopback)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char host[INET6_ADDRSTRLEN + 20], port[8];

	if (getsockname(fd, (struct sockaddr *)&ss, &len))
		return -errno;
	*loopback = is_loopback((struct sockaddr *)&ss);
	if ((ss.ss_family != AF_INET && ss.ss_family != AF_INET6) ||
	    getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		return -EAFNOSUPPORT;
	snprintf(text, size, ss.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	return 0;
}

static int open_socket(const char *where, const struct addrinfo *ai, struct ctrl_error *err)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int one = 1;
	int e;

	if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) &&
	    (ai->ai_family != AF_INET6 ||
	     !setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) &&
	    !bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, SOMAXCONN))
		return fd;
	e = errno;
	if (fd >= 0)
		close(fd);
	return ctrl_fail(err, -e, "%s: cannot listen: %s; %s", where, strerror(e),
			 e == EADDRINUSE
				 ? "another server is there: choose another port, or 0 for any"
			 : e == EACCES ? "ports below 1024 are root's: choose a higher one"
				       : "give an address of this machine");
}

int ctrl_listen_socket(const char *where, bool insecure_network, bool dry, char text[64],
		       struct ctrl_error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *ai;
	const char *port;
	char host[256];
	bool loopback;
	int rc;

	if (split(where, host, sizeof(host), &port))
		return ctrl_fail(err, -EINVAL, "%s: no address; write 127.0.0.1:4420 or [::1]:4420",
				 where);
	rc = getaddrinfo(host, port, &hints, &ai);
	if (rc)
		return ctrl_fail(err, -EINVAL, "%s: %s; write 127.0.0.1:4420 or [::1]:4420", where,
				 gai_strerror(rc));
	if (!insecure_network && !is_loopback(ai->ai_addr))
		rc = ctrl_fail(
			err, -EPERM,
			"%s: not a loopback address, and hosts are neither authenticated nor "
			"encrypted; listen on 127.0.0.1, or accept that with --insecure-network",
			where);
	else if (!dry)
		rc = open_socket(where, ai, err);
	freeaddrinfo(ai);
	if (rc > 0 && describe(rc, text, 64, &loopback))
		snprintf(text, 64, "?");
	return rc;
}

static int check_inherited(struct ctrl_server *s, int fd, char text[64], struct ctrl_error *err)
{
	int listening = 0, type = 0;
	socklen_t n = sizeof(int);
	bool loopback;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) || !listening ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) || type != SOCK_STREAM ||
	    describe(fd, text, 64, &loopback))
		return ctrl_fail(err, -EINVAL,
				 "descriptor %d: not a listening TCP socket; see ListenStream= in "
				 "systemd.socket(5)",
				 fd);
	if (!loopback && !s->opts.insecure_network)
		return ctrl_fail(
			err, -EPERM,
			"%s: not a loopback address, and hosts are neither authenticated nor "
			"encrypted; let the socket unit listen on 127.0.0.1, or accept that with "
			"--insecure-network",
			text);
	return fd;
}

int ctrl_server_listen(struct ctrl_server *s, const char *where, int fd, struct ctrl_error *err)
{
	struct listener *l = &s->listeners[s->n_listeners];

	if (s->n_listeners == SERVER_LISTENERS)
		return ctrl_fail(err, -E2BIG, "%s: more than %u listening addresses", where,
				 SERVER_LISTENERS);
	fd = fd < 0 ? ctrl_listen_socket(where, s->opts.insecure_network, false, l->address, err)
		    : check_inherited(s, fd, l->address, err);
	if (fd < 0)
		return fd;
	l->watch.fd = fd;
	l->server = s;
	s->n_listeners++;
	return 0;
}

const char *ctrl_server_address(const struct ctrl_server *s, unsigned int n)
{
	return n < s->n_listeners ? s->listeners[n].address : NULL;
}

/* ---- connections ---- */

struct handoff {
	struct server_loop *loop;
	int fd;
};

static void serve(void *arg)
{
	struct handoff h = *(struct handoff *)arg;

	free(arg);
	if (ctrl_tcp_serve(h.loop->server, h.loop->loop, h.fd))
		server_gone(h.loop);
}

/*
 * The loop with the fewest I/O queues, then the fewest connections: admin queues do nearly nothing, and
 * dealing by turns would put every first I/O queue on the same loop.
 */
static struct server_loop *choose(struct ctrl_server *s)
{
	struct server_loop *best = NULL;
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < s->n_loops; i++) {
		struct server_loop *l = &s->loops[(s->next_loop + i) % s->n_loops];
		uint64_t load = (uint64_t)atomic_load(&l->io_queues) << 32 |
				(uint32_t)atomic_load(&l->connections);

		if (load < least) {
			least = load;
			best = l;
		}
	}
	s->next_loop++;
	return best;
}

/* False: it was closed, and that is on record. */
static bool admit(struct ctrl_server *s, int fd)
{
	struct ctrl_error err = {0};
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char host[INET6_ADDRSTRLEN + 20] = "?", port[8] = "?";

	if (!ctrl_peer_allowed(s, fd, &err))
		return true;
	if (!getpeername(fd, (struct sockaddr *)&ss, &len))
		(void)getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port,
				  sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
	ctrl_log(s, "event=connection-refused peer=%s:%s why=\"%s\"", host, port, err.text);
	ctrl_server_reject(s, "peer");
	close(fd);
	return false;
}

static void hand_over(struct ctrl_server *s, int fd)
{
	struct server_loop *l = choose(s);
	struct handoff *h = malloc(sizeof(*h));
	const int one = 1;

	/* Answers are small and waited for. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	atomic_fetch_add(&s->accepted, 1);
	atomic_fetch_add(&s->connections, 1);
	atomic_fetch_add(&l->connections, 1);
	if (h) {
		*h = (struct handoff){l, fd};
		if (!ctrl_loop_post(l->loop, serve, h))
			return;
	}
	free(h);
	close(fd);
	server_gone(l);
	ctrl_server_reject(s, "memory");
}

static void watch_all(struct ctrl_server *s, uint32_t events)
{
	for (uint32_t i = 0; i < s->n_listeners; i++)
		ctrl_loop_rewatch(s->loops[0].loop, &s->listeners[i].watch, events);
}

static void accept_again(struct ctrl_timer *t)
{
	watch_all((struct ctrl_server *)((char *)t - offsetof(struct ctrl_server, accept_again)),
		  EPOLLIN);
}

static void accept_ready(struct ctrl_watch *w, uint32_t events)
{
	struct ctrl_server *s = ((struct listener *)w)->server;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			if (atomic_load(&s->connections) >= s->opts.limits.max_connections) {
				/* Counted before the peer can see it. */
				ctrl_server_reject(s, "connections");
				close(fd);
			} else if (admit(s, fd)) {
				hand_over(s, fd);
			}
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			   errno == ENOMEM) {
			/* The socket stays ready: do not spin on it. */
			ctrl_server_reject(s, "descriptors");
			watch_all(s, 0);
			ctrl_timer_arm(s->loops[0].loop, &s->accept_again, ACCEPT_AGAIN_MS);
			return;
		} else if (errno == EAGAIN) {
			return;
		} /* else: that one connection is gone already; see accept(2) */
	}
}

struct start {
	struct ctrl_server *server;
	struct ctrl_error *err;
	int error;
};

static void start(void *arg)
{
	struct start *st = arg;
	struct ctrl_server *s = st->server;

	s->accept_again.fire = accept_again;
	for (uint32_t i = 0; i < s->n_listeners && !st->error; i++) {
		struct ctrl_watch *w = &s->listeners[i].watch;

		w->ready = accept_ready;
		st->error = peer_check(s, w->fd, st->err);
		if (!st->error && (st->error = ctrl_loop_watch(s->loops[0].loop, w, EPOLLIN)))
			ctrl_fail(st->err, st->error, "%s: cannot watch it: %s",
				  s->listeners[i].address, strerror(-st->error));
	}
}

int listeners_start(struct ctrl_server *s, struct ctrl_error *err)
{
	struct start st = {.server = s, .err = err};

	server_call(s, s->loops[0].loop, start, &st);
	return st.error;
}

static void stop(void *arg)
{
	struct ctrl_server *s = arg;

	ctrl_timer_cancel(s->loops[0].loop, &s->accept_again);
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		ctrl_loop_unwatch(s->loops[0].loop, &s->listeners[i].watch);
		close(s->listeners[i].watch.fd);
	}
	s->n_listeners = 0;
}

void listeners_stop(struct ctrl_server *s)
{
	if (s->n_loops) {
		server_call(s, s->loops[0].loop, stop, s);
		return;
	}
	for (uint32_t i = 0; i < s->n_listeners; i++)
		close(s->listeners[i].watch.fd);
	s->n_listeners = 0;
}
