/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liod.c - the storage server: what the command line asks for, and the process's life from there.
 *
 * The main thread sets up, then sleeps until a signal or the end of the command that it serves for.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "liod.h"

#define EXIT_FAILED 2
/* Descriptors beside those of connections: files, loops, listeners. */
#define SPARE_FILES 256u

#define LOCK_WAIT_MS 5000u
#define LOCK_POLL_MS 20u

extern char **environ;

struct options {
	const char *nqn;
	const char *serial;
	const char *config;
	const char *run;
	bool check;
	bool listens; /* given on the command line */
};

struct daemon {
	struct liod_config config;
	struct ctrl_server *server;
	struct liod_metrics *metrics;
	int sockets; /* from the service manager */
};

static const char help[] =
	"usage: liod --namespace FILE… | --export NAME=DIR… [OPTIONS]\n"
	"       liod --config FILE [OPTIONS]\n"
	"\n"
	"Serves files and block devices to NVMe over TCP hosts, each as a namespace (1, 2, …), "
	"and\n"
	"directories, on whose files lio runs functions: lio run FUNCTION lio://HOST/NAME/FILE\n"
	"\n"
	"  --namespace FILE[,ro]   a file or block device; or ram:SIZE, null:SIZE\n"
	"  --export NAME=DIR[,rw][,mounts][,functions=any|none|HASH+HASH…]\n"
	"                          a directory, read-only unless rw is said\n"
	"  --allow-uid UID         serve this user on loopback, beside root and the server's own\n"
	"  --listen ADDR:PORT      default " LIOD_ADDRESS "; [v6]:PORT; port 0 takes a free one\n"
	"  --nqn NQN               name of the subsystem, default " LIOD_NQN "\n"
	"  --serial TEXT           its serial number, default made from the name\n"
	"  --threads N             event loops, default one a core, up to 4\n"
	"  --metrics ADDR:PORT     Prometheus metrics at http://ADDR:PORT/metrics\n"
	"  --insecure-network      allow listening elsewhere than on loopback: hosts are neither\n"
	"                          authenticated nor encrypted\n"
	"  --config FILE           see liod.conf(5)\n"
	"  --set KEY=VALUE         as in the file\n"
	"  --check                 say whether all this could be served, and exit 0 or 2\n"
	"  --run COMMAND           serve for the life of a shell command, which finds "
	"LIOD_ADDRESS,\n"
	"                          LIOD_PORT and LIOD_NQN; exit with its status\n"
	"  --help, --version\n"
	"\n"
	"SIGTERM finishes what is outstanding and ends; SIGHUP looks for files that have grown "
	"and\n"
	"for namespaces and exports added to the configuration.\n";

/* ---- saying things ---- */

/* WHAT: WHY (ERRNO-NAME); FIX */
static int fail(const struct ctrl_error *err)
{
	const char *name = strerrorname_np(-err->code), *fix = strstr(err->text, "; ");
	size_t n = fix ? (size_t)(fix - err->text) : strlen(err->text);

	log_flush();
	fprintf(stderr, "liod: %.*s (%s)%s\n", (int)n, err->text, name ? name : "E?",
		fix ? fix : "");
	return EXIT_FAILED;
}

/* ---- the command line ---- */

enum liod_option {
	OPT_LISTEN = 256,
	OPT_NQN,
	OPT_SERIAL,
	OPT_NAMESPACE,
	OPT_THREADS,
	OPT_METRICS,
	OPT_INSECURE,
	OPT_CONFIG,
	OPT_SET,
	OPT_CHECK,
	OPT_RUN,
	OPT_EXPORT,
	OPT_ALLOW_UID,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"nqn", required_argument, NULL, OPT_NQN},
	{"serial", required_argument, NULL, OPT_SERIAL},
	{"namespace", required_argument, NULL, OPT_NAMESPACE},
	{"threads", required_argument, NULL, OPT_THREADS},
	{"metrics", required_argument, NULL, OPT_METRICS},
	{"insecure-network", no_argument, NULL, OPT_INSECURE},
	{"config", required_argument, NULL, OPT_CONFIG},
	{"set", required_argument, NULL, OPT_SET},
	{"check", no_argument, NULL, OPT_CHECK},
	{"run", required_argument, NULL, OPT_RUN},
	{"export", required_argument, NULL, OPT_EXPORT},
	{"allow-uid", required_argument, NULL, OPT_ALLOW_UID},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{0},
};

static int set_pair(struct liod_config *c, const char *pair, struct ctrl_error *err)
{
	const char *equals = strchr(pair, '=');
	char key[64];

	if (!equals || (size_t)(equals - pair) >= sizeof(key))
		return ctrl_fail(err, -EINVAL, "--set %s: no pair; write KEY=VALUE", pair);
	memcpy(key, pair, (size_t)(equals - pair));
	key[equals - pair] = '\0';
	return config_set(c, "--set", key, equals + 1, err);
}

/* What does not depend on the configuration file. */
static int first_pass(int argc, char **argv, struct options *o, struct ctrl_error *err)
{
	int opt, last = 1;

	opterr = 0;
	optind = 1;
	while ((opt = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		switch (opt) {
		case OPT_NQN:
			o->nqn = optarg;
			break;
		case OPT_SERIAL:
			o->serial = optarg;
			break;
		case OPT_CONFIG:
			o->config = optarg;
			break;
		case OPT_RUN:
			o->run = optarg;
			break;
		case OPT_CHECK:
			o->check = true;
			break;
		case OPT_LISTEN:
			o->listens = true;
			break;
		case OPT_HELP:
			fputs(help, stdout);
			exit(0);
		case OPT_VERSION:
			puts("liod " LIO_VERSION);
			exit(0);
		case '?':
			return ctrl_fail(err, -EINVAL, "%s: no such option; see liod --help",
					 argv[last]);
		case ':':
			return ctrl_fail(err, -EINVAL, "%s: its value is missing; see liod --help",
					 argv[last]);
		default:
			break;
		}
		last = optind;
	}
	if (optind < argc)
		return ctrl_fail(err, -EINVAL,
				 "%s: not an option; files are given with --namespace FILE",
				 argv[optind]);
	if (!o->nqn)
		o->nqn = LIOD_NQN;
	return 0;
}

static int second_pass(int argc, char **argv, const struct options *o, struct liod_config *c,
		       struct ctrl_error *err)
{
	int opt, rc = 0;

	optind = 1;
	while (!rc && (opt = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		if (opt == OPT_LISTEN)
			rc = config_listen(c, optarg, err);
		else if (opt == OPT_NAMESPACE)
			rc = config_namespace(c, o->nqn, optarg, err);
		else if (opt == OPT_EXPORT)
			rc = config_export(c, optarg, err);
		else if (opt == OPT_ALLOW_UID)
			rc = config_set(c, "--allow-uid", "allow_uid", optarg, err);
		else if (opt == OPT_THREADS)
			rc = config_set(c, "--threads", "threads", optarg, err);
		else if (opt == OPT_METRICS)
			rc = config_set(c, "--metrics", "metrics", optarg, err);
		else if (opt == OPT_INSECURE)
			rc = config_set(c, "--insecure-network", "insecure_network", "yes", err);
		else if (opt == OPT_SET)
			rc = set_pair(c, optarg, err);
	}
	return rc;
}

static int set_serial(struct liod_config *c, const struct options *o, struct ctrl_error *err)
{
	for (struct liod_subsystem *sub = c->subsystems; sub && o->serial; sub = sub->next) {
		if (strcmp(sub->nqn, o->nqn) != 0)
			continue;
		free(sub->serial);
		sub->serial = strdup(o->serial);
		return sub->serial ? 0 : ctrl_fail(err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* The configuration file, then the command line. */
static int configure(int argc, char **argv, struct options *o, struct liod_config *c,
		     struct ctrl_error *err)
{
	int rc = first_pass(argc, argv, o, err);

	if (!rc && o->config)
		rc = config_read(c, o->config, err);
	if (rc)
		return rc;
	if (o->listens) {
		while (c->n_listen)
			free(c->listen[--c->n_listen]);
	}
	rc = second_pass(argc, argv, o, c, err);
	if (!rc)
		rc = set_serial(c, o, err);
	if (rc)
		return rc;
	if (!c->subsystems && !c->n_exports)
		return ctrl_fail(err, -EINVAL,
				 "nothing to serve: no namespace and no export was given; give "
				 "--namespace FILE, --export NAME=DIR or --config FILE");
	if (!c->subsystems && config_subsystem(c, o->nqn, err))
		return err->code;
	if (c->insecure_network && c->n_allow_uids)
		return ctrl_fail(err, -EINVAL,
				 "allow_uid: with insecure_network every user is served; leave one "
				 "of them out");
	/* A command is told the port: two runs beside each other must not want the same. */
	return c->n_listen ? 0 : config_listen(c, o->run ? "127.0.0.1:0" : LIOD_ADDRESS, err);
}

/* ---- starting ---- */

/*
 * A server that was killed leaves its locks with the requests that it had under way, and those must have landed
 * before anything newer does: a lock is waited for, a while.
 */
static int open_store(const char *spec, bool wait, struct ctrl_store **store,
		      struct ctrl_error *err)
{
	int rc = ctrl_store_open(spec, false, store, err);

	for (uint32_t ms = 0; rc == -EBUSY && wait && ms < LOCK_WAIT_MS; ms += LOCK_POLL_MS) {
		usleep(LOCK_POLL_MS * 1000);
		rc = ctrl_store_open(spec, false, store, err);
	}
	return rc;
}

static int add_store(struct daemon *d, const struct liod_subsystem *sub, uint32_t i, bool check,
		     struct ctrl_error *err)
{
	struct ctrl_store *store;
	int rc = open_store(sub->specs[i], !check, &store, err);

	/* A server may be serving what is checked. */
	if (rc == -EBUSY && check)
		return 0;
	if (rc)
		return rc;
	rc = ctrl_server_add_namespace(d->server, sub->nqn, store, err);
	if (rc)
		ctrl_store_close(store);
	return rc;
}

static int add_subsystems(struct daemon *d, bool check, struct ctrl_error *err)
{
	int rc = 0;

	for (struct liod_subsystem *sub = d->config.subsystems; sub && !rc; sub = sub->next) {
		if (!sub->n && !d->config.n_exports)
			return ctrl_fail(err, -EINVAL,
					 "subsystem %s: it has no namespace; add namespace = FILE",
					 sub->nqn);
		rc = ctrl_server_add_subsystem(d->server, sub->nqn, sub->serial, err);
		for (uint32_t i = 0; i < sub->n && !rc; i++)
			rc = add_store(d, sub, i, check, err);
	}
	return rc;
}

static int add_exports(struct daemon *d, struct ctrl_error *err)
{
	int rc = 0;

	for (uint32_t i = 0; i < d->config.n_exports && !rc; i++)
		rc = ctrl_server_add_export(d->server, d->config.exports[i], err);
	return rc;
}

static int listen_everywhere(struct daemon *d, bool check, struct ctrl_error *err)
{
	struct liod_config *c = &d->config;
	char text[64];
	int rc = 0;

	for (int i = 0; i < d->sockets && !rc; i++)
		rc = ctrl_server_listen(d->server, "socket", 3 + i, err);
	for (uint32_t i = 0; i < c->n_listen && !d->sockets && !rc; i++)
		rc = check ? ctrl_listen_socket(c->listen[i], c->insecure_network, true, text, err)
			   : ctrl_server_listen(d->server, c->listen[i], -1, err);
	if (!rc && check && c->metrics)
		rc = ctrl_listen_socket(c->metrics, c->insecure_network, true, text, err);
	return rc;
}

static int prepare(struct daemon *d, bool check, struct ctrl_error *err)
{
	struct ctrl_server_opts opts = {
		.size = sizeof(opts),
		.limits = d->config.limits,
		.threads = d->config.threads,
		.insecure_network = d->config.insecure_network,
		.allow_uids = d->config.allow_uids,
		.n_allow_uids = d->config.n_allow_uids,
		.lambda = &d->config.lambda,
		.worker = d->config.worker,
		.log = log_line,
	};
	int rc;

	if (!d->config.io_uring)
		ctrl_ring_off();
	rc = ctrl_server_new(&opts, &d->server, err);
	if (!rc)
		rc = add_subsystems(d, check, err);
	if (!rc)
		rc = add_exports(d, err);
	if (!rc)
		rc = listen_everywhere(d, check, err);
	return rc;
}

static void log_namespaces(struct daemon *d, const struct liod_subsystem *from, uint32_t i)
{
	struct ctrl_subsystem *sub = ctrl_server_subsystems(d->server);

	while (strcmp(sub->nqn, from->nqn) != 0)
		sub = sub->next;
	for (; i < ctrl_subsystem_count(sub); i++) {
		const struct ctrl_store *store = sub->ns[i].store;

		ctrl_log(d->server,
			 "event=namespace nqn=%s nsid=%" PRIu32 " store=%s bytes=%" PRIu64
			 " block=%" PRIu32 " read_only=%d how=\"%s\"",
			 sub->nqn, sub->ns[i].nsid, from->specs[i], store->geo.bytes,
			 store->geo.block, store->geo.read_only, store->how);
	}
}

static int start(struct daemon *d, struct ctrl_error *err)
{
	const char *address;
	int rc = ctrl_server_start(d->server, err);

	if (!rc && d->config.metrics)
		rc = metrics_start(d->server, d->config.metrics, d->config.insecure_network,
				   &d->metrics, err);
	if (rc)
		return rc;
	for (struct liod_subsystem *sub = d->config.subsystems; sub; sub = sub->next)
		log_namespaces(d, sub, 0);
	for (uint32_t i = 0; i < d->config.n_exports; i++)
		ctrl_log(d->server, "event=export %s", d->config.exports[i]);
	if (d->metrics)
		ctrl_log(d->server, "event=metrics address=%s", metrics_address(d->metrics));
	for (unsigned int i = 0; (address = ctrl_server_address(d->server, i)); i++)
		ctrl_log(d->server, "event=listening address=%s", address);
	systemd_notify("READY=1");
	return 0;
}

/* As many connections as there may be descriptors for. */
static void raise_limits(struct liod_config *c)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		return;
	lim.rlim_cur = lim.rlim_max;
	setrlimit(RLIMIT_NOFILE, &lim);
	/* A quarter is for open objects. */
	if (c->n_exports)
		lim.rlim_cur -= lim.rlim_cur / 4;
	if (lim.rlim_cur > SPARE_FILES && c->limits.max_connections > lim.rlim_cur - SPARE_FILES)
		c->limits.max_connections = (uint32_t)(lim.rlim_cur - SPARE_FILES);
}

/* ---- the command that is served for ---- */

static int spawn(const struct daemon *d, const struct options *o, pid_t *pid,
		 struct ctrl_error *err)
{
	char address[64], *port,
				  *const argv[] = {(char[]){"sh"}, (char[]){"-c"},
						   (char *)(uintptr_t)o->run, NULL};
	posix_spawnattr_t attr;
	sigset_t none, defaults;
	int rc;

	snprintf(address, sizeof(address), "%s", ctrl_server_address(d->server, 0));
	port = strrchr(address, ':');
	*port++ = '\0';
	setenv("LIOD_ADDRESS", address, 1);
	setenv("LIOD_PORT", port, 1);
	setenv("LIOD_NQN", d->config.subsystems->nqn, 1);
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGXFSZ);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	rc = posix_spawn(pid, "/bin/sh", NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	return rc ? ctrl_fail(err, -rc, "--run: cannot start /bin/sh: %s", strerror(rc)) : 0;
}

/* ---- waiting and ending ---- */

static void block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, set, NULL); /* for all threads to come */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a write's error */
}

static struct liod_subsystem *subsystem_of(const struct liod_config *c, const char *nqn)
{
	struct liod_subsystem *sub = c->subsystems;

	while (sub && strcmp(sub->nqn, nqn) != 0)
		sub = sub->next;
	return sub;
}

static void log_kept(struct daemon *d, const struct liod_subsystem *served, uint32_t i,
		     const char *why)
{
	ctrl_log(d->server,
		 "event=reload-incomplete nqn=%s nsid=%" PRIu32
		 " store=%s why=\"%s in the configuration; it is served until the next start\"",
		 served->nqn, i + 1, served->specs[i], why);
}

/*
 * What was added behind the namespaces that are served.  A number belongs to a place in the configuration, now
 * and after a restart: so where one cannot be opened, those behind it wait for the next reload.
 */
static void serve_added(struct daemon *d, struct liod_subsystem *served,
			const struct liod_subsystem *fresh)
{
	struct ctrl_error err;

	while (served->n < fresh->n) {
		uint32_t i = served->n;
		struct ctrl_store *store;
		int rc = ctrl_store_open(fresh->specs[i], false, &store, &err);

		if (!rc) {
			rc = config_namespace(&d->config, served->nqn, fresh->specs[i], &err);
			if (!rc) {
				rc = ctrl_server_add_namespace(d->server, served->nqn, store, &err);
				if (rc)
					free(served->specs[--served->n]);
			}
			if (rc)
				ctrl_store_close(store);
		}
		if (rc) {
			ctrl_log(d->server,
				 "event=reload-failed nqn=%s nsid=%" PRIu32 " waiting=%" PRIu32
				 " error=\"%s\"",
				 served->nqn, i + 1, fresh->n - i - 1, err.text);
			return;
		}
		log_namespaces(d, served, i);
	}
}

static const char *export_of(const struct liod_config *c, const char *spec)
{
	size_t n = strcspn(spec, "=") + 1;

	for (uint32_t i = 0; i < c->n_exports; i++) {
		if (!strncmp(c->exports[i], spec, n))
			return c->exports[i];
	}
	return NULL;
}

static void apply_exports(struct daemon *d, const struct liod_config *fresh)
{
	struct ctrl_error err;

	for (uint32_t i = 0; i < d->config.n_exports; i++) {
		const char *served = d->config.exports[i], *now = export_of(fresh, served);

		if (!now || strcmp(now, served) != 0)
			ctrl_log(d->server,
				 "event=reload-incomplete export=%s why=\"%s in the configuration; "
				 "it is served until the next start\"",
				 served, now ? "altered" : "removed");
	}
	for (uint32_t i = 0; i < fresh->n_exports; i++) {
		const char *spec = fresh->exports[i];

		if (export_of(&d->config, spec))
			continue;
		/* First what may run out of memory, for the server cannot take back an export. */
		if (config_export(&d->config, spec, &err)) {
			ctrl_log(d->server, "event=reload-failed error=\"%s\"", err.text);
		} else if (ctrl_server_add_export(d->server, spec, &err)) {
			ctrl_log(d->server, "event=reload-failed error=\"%s\"", err.text);
			free(d->config.exports[--d->config.n_exports]);
		} else {
			ctrl_log(d->server, "event=export %s", spec);
		}
	}
}

static void apply(struct daemon *d, const struct liod_config *fresh)
{
	apply_exports(d, fresh);
	for (struct liod_subsystem *sub = d->config.subsystems; sub; sub = sub->next) {
		const struct liod_subsystem *now = subsystem_of(fresh, sub->nqn);
		uint32_t n = now ? now->n : 0;

		for (uint32_t i = 0; i < sub->n; i++) {
			if (i >= n)
				log_kept(d, sub, i, "removed");
			else if (strcmp(sub->specs[i], now->specs[i]) != 0)
				log_kept(d, sub, i, "altered");
		}
		if (now)
			serve_added(d, sub, now);
	}
	for (struct liod_subsystem *sub = fresh->subsystems; sub; sub = sub->next) {
		if (!subsystem_of(&d->config, sub->nqn))
			ctrl_log(d->server,
				 "event=reload-incomplete nqn=%s why=\"new subsystems are served "
				 "from the next start\"",
				 sub->nqn);
	}
}

static void reload(struct daemon *d, int argc, char **argv)
{
	struct liod_config fresh;
	struct options o = {0};
	struct ctrl_error err;

	for (struct ctrl_subsystem *sub = ctrl_server_subsystems(d->server); sub; sub = sub->next)
		ctrl_subsystem_refresh(sub);
	config_init(&fresh);
	if (configure(argc, argv, &o, &fresh, &err))
		ctrl_log(d->server, "event=reload-failed error=\"%s\"", err.text);
	else
		apply(d, &fresh);
	config_free(&fresh);
	ctrl_log(d->server, "event=reloaded");
}

/* Until it is time to end; the status to exit with. */
static int wait_for_end(struct daemon *d, const sigset_t *signals, pid_t child, int argc,
			char **argv)
{
	for (;;) {
		int sig = sigwaitinfo(signals, NULL), status;

		if (sig == SIGHUP) {
			reload(d, argc, argv);
		} else if (sig == SIGCHLD) {
			if (child <= 0 || waitpid(child, &status, WNOHANG) != child)
				continue;
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		} else if (sig == SIGTERM || sig == SIGINT) {
			if (child <= 0)
				return 0;
			kill(child, sig); /* its end is ours */
		}
	}
}

static int end(struct daemon *d, const sigset_t *signals, int status)
{
	int rc;

	systemd_notify("STOPPING=1");
	ctrl_log(d->server, "event=draining timeout_ms=%" PRIu32, d->config.drain_ms);
	/* A second signal ends at once: what was acknowledged as durable is. */
	pthread_sigmask(SIG_UNBLOCK, signals, NULL);
	metrics_stop(d->metrics);
	rc = ctrl_server_drain(d->server, d->config.drain_ms);
	if (rc == -ETIMEDOUT) {
		ctrl_log(d->server, "event=stopped error=\"a store does not answer\"");
		log_flush();
		_exit(EXIT_FAILED);
	}
	ctrl_log(d->server, rc ? "event=stopped error=\"a flush failed\"" : "event=stopped");
	return rc ? EXIT_FAILED : status;
}

static void report_check(const struct liod_config *c)
{
	uint32_t subsystems = 0, namespaces = 0;

	for (const struct liod_subsystem *sub = c->subsystems; sub; sub = sub->next) {
		subsystems++;
		namespaces += sub->n;
	}
	printf("valid: %" PRIu32 " subsystem%s, %" PRIu32 " namespace%s", subsystems,
	       subsystems == 1 ? "" : "s", namespaces, namespaces == 1 ? "" : "s");
	if (c->n_exports)
		printf(", %" PRIu32 " export%s", c->n_exports, c->n_exports == 1 ? "" : "s");
	putchar('\n');
}

int main(int argc, char **argv)
{
	struct daemon d = {0};
	struct options o = {0};
	struct ctrl_error err = {0};
	sigset_t signals;
	pid_t child = 0;
	int status = 0;

	block_signals(&signals);
	config_init(&d.config);
	d.sockets = systemd_sockets();
	if (configure(argc, argv, &o, &d.config, &err)) {
		status = fail(&err);
		goto out;
	}
	raise_limits(&d.config);
	log_start();
	if (prepare(&d, o.check, &err)) {
		status = fail(&err);
	} else if (o.check) {
		report_check(&d.config);
	} else if (start(&d, &err) || (o.run && spawn(&d, &o, &child, &err))) {
		metrics_stop(d.metrics);
		status = fail(&err);
	} else {
		status = wait_for_end(&d, &signals, child, argc, argv);
		status = end(&d, &signals, status);
	}
	ctrl_server_free(d.server);
	log_flush();
out:
	config_free(&d.config);
	return status;
}
