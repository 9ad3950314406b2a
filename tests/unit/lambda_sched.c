/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose turn it is, and who gets how much: the scheduler with a clock and jobs of the test's own.
 *
 * The machine is a simulation by the millisecond: threads of runs that are not gated share the cores evenly.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "device/lambda_sched.h"

#define MS 1000000ull

struct job {
	struct sched_turn t; /* first */
	uint32_t threads;
	uint64_t cpu, work;     /* had, and needs in all */
	uint32_t waits_percent; /* of its time it waits for data */
	uint64_t again_ms;
	bool shut, runs;
	int started; /* how many starts there were when it was started */
};

static struct sched s;
static int starts;

static struct job *job_of(struct sched_turn *t)
{
	return (struct job *)t;
}

static void op_start(struct sched_turn *t)
{
	job_of(t)->started = ++starts;
}

static void op_gate(struct sched_turn *t, bool open)
{
	job_of(t)->shut = !open;
}

static uint64_t op_cpu(struct sched_turn *t)
{
	return job_of(t)->cpu;
}

static uint64_t now_ms;

static uint64_t op_now(void)
{
	return now_ms * MS;
}

static const struct sched_ops ops = {op_start, op_gate, op_cpu, op_now};

static void begin(uint32_t cores, uint32_t max_running, uint32_t max_queued)
{
	starts = 0;
	sched_init(&s, &ops, cores, max_running, max_queued);
}

static void add(struct sched_host *host, struct job *j)
{
	j->started = 0;
	if (sched_add(&s, host, &j->t))
		j->started = ++starts;
}

/* ---- turns ---- */

static void turns_of_a_host_come_in_the_order_of_asking(void **state)
{
	struct sched_host a = {0};
	struct job j[6] = {0};

	begin(2, 1, 10);
	for (int i = 0; i < 6; i++)
		add(&a, &j[i]);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(j[i].started, i + 1);
		if (i < 5)
			assert_int_equal(j[i + 1].started, 0);
		sched_over(&s, &j[i].t, MS);
	}
	assert_null(s.hosts);
	sched_free(&s);
}

static void hosts_take_turns(void **state)
{
	struct sched_host a = {0}, b = {0}, c = {0};
	struct job ja[6] = {0}, jb[2] = {0}, jc[2] = {0};

	begin(1, 1, 10); /* two at once in all */
	for (int i = 0; i < 6; i++)
		add(&a, &ja[i]);
	for (int i = 0; i < 2; i++)
		add(&b, &jb[i]);
	for (int i = 0; i < 2; i++)
		add(&c, &jc[i]);
	/* a and b run; c came when their second ones waited, and has its turn in that round */
	assert_int_equal(ja[0].started, 1);
	assert_int_equal(jb[0].started, 2);
	sched_over(&s, &ja[0].t, MS);
	assert_int_equal(ja[1].started, 3);
	sched_over(&s, &ja[1].t, MS);
	assert_int_equal(jc[0].started, 4);
	sched_over(&s, &jb[0].t, MS);
	assert_int_equal(jb[1].started, 5);
	sched_over(&s, &jc[0].t, MS);
	assert_int_equal(ja[2].started, 6);
	sched_over(&s, &ja[2].t, MS);
	assert_int_equal(jc[1].started, 7);
	sched_free(&s);
}

static void no_more_run_than_may_of_a_host_and_in_all(void **state)
{
	struct sched_host h[4] = {0};
	struct job j[4][6] = {0};
	uint32_t queued, running;

	begin(4, 0, 10); /* of a host: the cores */
	for (int i = 0; i < 6; i++)
		add(&h[0], &j[0][i]);
	sched_load(&s, &queued, &running);
	assert_int_equal(running, 4);
	assert_int_equal(queued, 2);
	for (int k = 1; k < 4; k++)
		add(&h[k], &j[k][0]);
	sched_load(&s, &queued, &running);
	assert_int_equal(running, 5);
	assert_int_equal(queued, 4);
	sched_free(&s);
}

static void a_full_queue_says_so_and_when_to_come(void **state)
{
	struct sched_host a = {0}, b = {0};
	struct job j[5] = {0};
	uint32_t ms;

	begin(1, 1, 3);
	for (int i = 0; i < 4; i++) {
		assert_false(sched_full(&s, &a));
		add(&a, &j[i]);
	}
	assert_true(sched_full(&s, &a));
	assert_false(sched_full(&s, &b));
	ms = sched_busy_ms(&s);
	assert_in_range(ms, 1, 1000);
	for (int i = 0; i < 4; i++)
		sched_over(&s, &j[i].t, 3600000 * MS);
	assert_in_range(sched_busy_ms(&s), 1, 1000);
	sched_free(&s);
}

static void who_waits_can_withdraw_and_who_runs_cannot(void **state)
{
	struct sched_host a = {0};
	struct job j[4] = {0};

	begin(1, 1, 10);
	for (int i = 0; i < 4; i++)
		add(&a, &j[i]);
	assert_false(sched_withdraw(&s, &j[0].t));
	assert_true(sched_withdraw(&s, &j[3].t)); /* the last */
	assert_true(sched_withdraw(&s, &j[1].t)); /* the first of several */
	assert_false(sched_withdraw(&s, &j[1].t));
	add(&a, &j[1]);
	sched_over(&s, &j[0].t, MS);
	assert_int_equal(j[2].started, 2);
	sched_over(&s, &j[2].t, MS);
	assert_int_equal(j[1].started, 3);
	sched_over(&s, &j[1].t, MS);
	sched_over(&s, &j[1].t, MS); /* once more does nothing */
	assert_null(s.hosts);
	assert_int_equal(s.running, 0);
	sched_free(&s);
}

static void who_waits_for_its_reader_is_not_counted(void **state)
{
	struct sched_host a = {0}, b = {0};
	struct job j[3] = {0}, k[2] = {0};

	begin(1, 2, 10);
	add(&a, &j[0]);
	add(&a, &j[1]);
	add(&b, &k[0]);
	assert_int_equal(k[0].started, 0);
	sched_stall(&s, &j[0].t, true);
	assert_int_equal(k[0].started, 3);
	/* of the host it still is */
	add(&a, &j[2]);
	assert_int_equal(j[2].started, 0);
	sched_stall(&s, &j[0].t, false);
	sched_over(&s, &j[0].t, MS);
	assert_int_equal(j[2].started, 0); /* two run already */
	sched_over(&s, &j[1].t, MS);
	assert_int_equal(j[2].started, 4);
	sched_over(&s, &j[2].t, MS);
	sched_over(&s, &k[0].t, MS);
	assert_int_equal(s.stalled, 0);
	sched_free(&s);
}

static void threads_of_a_run_are_its_hosts_share_of_the_cores(void **state)
{
	struct sched_host h[3] = {0};
	struct job j[3] = {0};

	begin(8, 0, 10);
	assert_int_equal(sched_share(&s), 8);
	add(&h[0], &j[0]);
	assert_int_equal(sched_share(&s), 8);
	add(&h[1], &j[1]);
	assert_int_equal(sched_share(&s), 4);
	add(&h[2], &j[2]);
	assert_int_equal(sched_share(&s), 2);
	sched_free(&s);
	begin(1, 0, 10);
	add(&h[0], &j[0]);
	add(&h[1], &j[1]);
	assert_int_equal(sched_share(&s), 1);
	sched_free(&s);
}

/* ---- shares ---- */

#define MAX_JOBS 8

struct tenant {
	struct sched_host host;
	struct job jobs[MAX_JOBS];
	int n_jobs;
	uint32_t threads;
	uint64_t work; /* of each job; then it is asked for again */
	uint32_t waits_percent;
	bool gets_what_it_needs; /* the kernel prefers who uses little */
	uint64_t pause_ms;       /* between two jobs */
	uint64_t from_ms, to_ms; /* when it has anything to do */
	uint64_t cpu;            /* in all */
	uint64_t gated_ms;
};

static void ask_again(struct tenant *t, struct job *j)
{
	if (j->runs || j->t.queued || now_ms < t->from_ms || now_ms >= t->to_ms ||
	    now_ms < j->again_ms)
		return;
	*j = (struct job){
		.threads = t->threads, .work = t->work, .waits_percent = t->waits_percent};
	add(&t->host, j);
	j->runs = true;
}

static void simulate_ms(struct tenant *t, int n)
{
	uint32_t want = 0;

	for (int i = 0; i < n; i++) {
		for (int k = 0; k < t[i].n_jobs; k++) {
			struct job *j = &t[i].jobs[k];

			if (j->started && !j->shut)
				want += j->threads;
		}
		t[i].gated_ms += t[i].host.gated;
	}
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < t[i].n_jobs; k++) {
			struct job *j = &t[i].jobs[k];
			uint64_t ns = MS * j->threads;

			if (!j->started || j->shut)
				continue;
			if (want > s.cores && !t[i].gets_what_it_needs)
				ns = ns * s.cores / want;
			ns = ns * (100 - j->waits_percent) / 100;
			j->cpu += ns;
			t[i].cpu += ns;
		}
	}
}

static void simulate(struct tenant *t, int n, uint64_t ms)
{
	for (now_ms = 0; now_ms < ms; now_ms++) {
		for (int i = 0; i < n; i++) {
			for (int k = 0; k < t[i].n_jobs; k++) {
				struct job *j = &t[i].jobs[k];

				if (j->runs && j->started && j->cpu >= j->work) {
					j->runs = false;
					j->started = 0;
					j->again_ms = now_ms + t[i].pause_ms;
					sched_over(&s, &j->t, MS);
				}
				ask_again(&t[i], j);
				if (j->started && j->t.running && !j->t.started)
					sched_started(&s, &j->t, j->threads);
			}
		}
		simulate_ms(t, n);
		if (now_ms % 8 == 7)
			sched_tick(&s);
	}
}

static uint64_t percent(const struct tenant *t, int n, int of)
{
	uint64_t all = 0;

	for (int i = 0; i < n; i++)
		all += t[i].cpu;
	return t[of].cpu * 100 / all;
}

static void a_flooding_host_leaves_the_other_its_half(void **state)
{
	static const struct {
		uint32_t cores, flood_threads;
		uint64_t flood_work, work;
	} cases[] = {
		{2, 1, 100 * MS, 100 * MS}, {2, 2, 100 * MS, 100 * MS}, {2, 2, 3 * MS, 900 * MS},
		{2, 1, 5000 * MS, 3 * MS},  {1, 1, 10 * MS, 10 * MS},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tenant t[2] = {
			{.n_jobs = MAX_JOBS,
			 .threads = cases[i].flood_threads,
			 .work = cases[i].flood_work,
			 .to_ms = UINT64_MAX},
			{.n_jobs = 1, .threads = 1, .work = cases[i].work, .to_ms = UINT64_MAX},
		};

		begin(cases[i].cores, 0, 100);
		simulate(t, 2, 8000);
		assert_in_range(percent(t, 2, 1), 45, 55);
		sched_free(&s);
	}
}

static void equal_floods_get_equal_shares(void **state)
{
	for (int n = 2; n <= 3; n++) {
		struct tenant t[3];

		for (int i = 0; i < n; i++)
			t[i] = (struct tenant){.n_jobs = 5 + i,
					       .threads = 1,
					       .work = (10 + 70 * (uint64_t)i) * MS,
					       .to_ms = UINT64_MAX};
		begin(n == 2 ? 4 : 2, 0, 100);
		simulate(t, n, 8000);
		for (int i = 0; i < n; i++)
			assert_in_range(percent(t, n, i), 100 / n - 5, 100 / n + 5);
		sched_free(&s);
	}
}

static void who_waits_for_data_holds_nobody_back_for_long(void **state)
{
	for (uint32_t waits = 20; waits <= 98; waits += 13) {
		struct tenant t[2] = {
			{.n_jobs = 4, .threads = 1, .work = 100 * MS, .to_ms = UINT64_MAX},
			{.n_jobs = 1,
			 .threads = 1,
			 .work = 1000 * MS,
			 .waits_percent = waits,
			 .gets_what_it_needs = true,
			 .to_ms = UINT64_MAX},
		};

		begin(2, 0, 100);
		simulate(t, 2, 8000);
		assert_in_range(t[0].gated_ms, 0, 800);
		sched_free(&s);
	}
}

static void one_thing_after_another_is_no_new_host_each_time(void **state)
{
	struct tenant t[2] = {
		{.n_jobs = 4, .threads = 1, .work = 500 * MS, .to_ms = UINT64_MAX},
		{.n_jobs = 1, .threads = 1, .work = 5 * MS, .pause_ms = 1, .to_ms = UINT64_MAX},
	};

	begin(2, 0, 100);
	simulate(t, 2, 8000);
	assert_in_range(percent(t, 2, 1), 40, 55);
	sched_free(&s);
}

static void nobody_waits_while_there_are_cores_enough(void **state)
{
	struct tenant t[2] = {
		{.n_jobs = 1, .threads = 6, .work = 1000 * MS, .to_ms = UINT64_MAX},
		{.n_jobs = 1, .threads = 1, .work = 1000 * MS, .to_ms = UINT64_MAX},
	};

	begin(8, 0, 100);
	simulate(t, 2, 4000);
	assert_int_equal(t[0].gated_ms + t[1].gated_ms, 0);
	sched_free(&s);
}

static void what_was_not_used_is_not_saved_up(void **state)
{
	struct tenant t[2] = {
		{.n_jobs = 4, .threads = 1, .work = 50 * MS, .to_ms = UINT64_MAX},
		{.n_jobs = 2, .threads = 1, .work = 50 * MS, .from_ms = 5000, .to_ms = UINT64_MAX},
	};

	begin(2, 0, 100);
	simulate(t, 2, 6000);
	/* ten seconds of processor time ahead, and in the last second still half of it */
	assert_in_range(t[0].cpu / MS, 10800, 11200);
	sched_free(&s);
}

static void a_host_alone_is_never_held_back(void **state)
{
	struct tenant t[2] = {
		{.n_jobs = 8, .threads = 2, .work = 50 * MS, .to_ms = UINT64_MAX},
		{.n_jobs = 2, .threads = 1, .work = 50 * MS, .from_ms = 100, .to_ms = 400},
	};

	begin(2, 0, 100);
	simulate(t, 2, 3000);
	t[0].gated_ms = 0;
	t[1].from_ms = t[1].to_ms = 0;
	simulate(t, 2, 1000);
	assert_int_equal(t[0].gated_ms, 0);
	assert_false(sched_tick(&s));
	sched_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(turns_of_a_host_come_in_the_order_of_asking),
		cmocka_unit_test(hosts_take_turns),
		cmocka_unit_test(no_more_run_than_may_of_a_host_and_in_all),
		cmocka_unit_test(a_full_queue_says_so_and_when_to_come),
		cmocka_unit_test(who_waits_can_withdraw_and_who_runs_cannot),
		cmocka_unit_test(who_waits_for_its_reader_is_not_counted),
		cmocka_unit_test(threads_of_a_run_are_its_hosts_share_of_the_cores),
		cmocka_unit_test(a_flooding_host_leaves_the_other_its_half),
		cmocka_unit_test(equal_floods_get_equal_shares),
		cmocka_unit_test(who_waits_for_data_holds_nobody_back_for_long),
		cmocka_unit_test(one_thing_after_another_is_no_new_host_each_time),
		cmocka_unit_test(nobody_waits_while_there_are_cores_enough),
		cmocka_unit_test(what_was_not_used_is_not_saved_up),
		cmocka_unit_test(a_host_alone_is_never_held_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
