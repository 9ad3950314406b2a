/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs that would not end by themselves: another thread's cancel and the time limit end them, in
 * the function and in a wait for input.
 */
#include "fault/fixture.h"

static int cancel;

static void *cancel_soon(void *arg)
{
	nanosleep(&(struct timespec){0, 30000000}, NULL);
	__atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
	return NULL;
}

static const enum lio_tier tiers[] = {LIO_TIER_INTERP, LIO_TIER_AUTO};

static void another_thread_cancels_a_function_that_never_ends(void **state)
{
	struct lio_function *spin = load("spin");
	struct lio_file *file;
	char buf[8];

	put("data", "abc", 3);
	file = open_in("data", O_RDWR);
	for (int i = 0; i < 2; i++) {
		struct lio_run_opts opts = {.size = sizeof(opts),
					    .tier = tiers[i],
					    .fuel = UINT64_MAX - 1,
					    .cancel = &cancel};
		struct lio_result res = {.size = sizeof(res)};
		pthread_t thread;

		cancel = 0;
		pthread_create(&thread, NULL, cancel_soon, NULL);
		RUN_FAILS(lio_lambda_read(file, spin, 0, LIO_TO_END, &opts, buf, 8, NULL),
			  -ECANCELED, "");
		pthread_join(thread, NULL);
		/* From now on it is cancelled before it begins. */
		RUN_FAILS(lio_lambda_write(file, 0, spin, file, 0, 3, &opts, &res), -ECANCELED, "");
		assert_int_equal(res.bytes_written, 0);
	}
	OK(lio_close(file));
	lio_unload(spin);
}

static void the_time_limit_ends_a_function_that_never_does(void **state)
{
	struct lio_function *spin = load("spin");
	struct lio_file *file;
	char buf[8];

	put("data", "abc", 3);
	file = open_in("data", O_RDONLY);
	for (int i = 0; i < 2; i++) {
		struct lio_run_opts opts = {.size = sizeof(opts),
					    .tier = tiers[i],
					    .fuel = UINT64_MAX - 1,
					    .timeout_ns = 30000000};

		RUN_FAILS(lio_lambda_read(file, spin, 0, LIO_TO_END, &opts, buf, 8, NULL), -ETIME,
			  "");
		opts.timeout_ns = 1;
		RUN_FAILS(lio_lambda_read(file, spin, 0, LIO_TO_END, &opts, buf, 8, NULL), -ETIME,
			  "");
	}
	OK(lio_close(file));
	lio_unload(spin);
}

static void without_a_limit_fuel_ends_a_function_that_never_does(void **state)
{
	struct lio_function *spin = load("spin");
	struct lio_run_opts opts = {.size = sizeof(opts), .fuel = 1000000};
	struct lio_file *file;
	char buf[8];

	put("data", "abc", 3);
	file = open_in("data", O_RDONLY);
	RUN_FAILS(lio_lambda_read(file, spin, 0, LIO_TO_END, NULL, buf, 8, NULL), -ETIME, "fuel");
	RUN_FAILS(lio_lambda_read(file, spin, 0, LIO_TO_END, &opts, buf, 8, NULL), -ETIME, "fuel");
	OK(lio_close(file));
	lio_unload(spin);
}

static void a_wait_for_input_ends_at_the_limit_or_when_cancelled(void **state)
{
	struct lio_function *echo = load("echo");
	struct lio_run_opts opts = {.size = sizeof(opts)};
	struct lio_file *in;
	char buf[8];

	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	for (int i = 0; i < 4; i++) {
		pthread_t thread;

		in = open_in("fifo", O_RDWR); /* for both, so that it never ends */
		opts.decompress = i & 1 ? LIO_DECOMPRESS_NONE : LIO_DECOMPRESS_AUTO;
		opts.timeout_ns = i < 2 ? 30000000 : 0;
		opts.cancel = i < 2 ? NULL : &cancel;
		cancel = 0;
		if (i >= 2)
			pthread_create(&thread, NULL, cancel_soon, NULL);
		FAILS(lio_lambda_read(in, echo, 0, LIO_TO_END, &opts, buf, 8, NULL),
		      i < 2 ? -ETIME : -ECANCELED, "fifo");
		if (i >= 2)
			pthread_join(thread, NULL);
		OK(lio_close(in));
	}
	lio_unload(echo);
}

static uint64_t progress_done, progress_total;

static void progress(void *arg, uint64_t done, uint64_t total)
{
	assert_true(done >= progress_done);
	progress_done = done;
	progress_total = total;
	if (arg && done > MIB)
		__atomic_store_n((int *)arg, 1, __ATOMIC_RELAXED);
}

static void progress_reaches_the_end_and_may_cancel(void **state)
{
	uint8_t *bytes = noise(5 * MIB), *buf = malloc(5 * MIB);
	struct lio_function *echo = load("echo");
	struct lio_run_opts opts = {.size = sizeof(opts), .progress = progress, .chunk = 256 * KIB};
	struct lio_file *file;

	put("data", bytes, 5 * MIB);
	file = open_in("data", O_RDONLY);
	progress_done = 0;
	OK(lio_lambda_read(file, echo, 0, LIO_TO_END, &opts, buf, 5 * MIB, NULL));
	assert_int_equal(progress_done, 5 * MIB);
	assert_int_equal(progress_total, 5 * MIB);
	progress_done = 0;
	cancel = 0;
	opts.cancel = opts.hook_arg = &cancel;
	opts.threads = 1;
	RUN_FAILS(lio_lambda_read(file, echo, 0, LIO_TO_END, &opts, buf, 5 * MIB, NULL), -ECANCELED,
		  "");
	assert_true(progress_done < 5 * MIB);
	OK(lio_close(file));
	lio_unload(echo);
	free(buf);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_thread_cancels_a_function_that_never_ends),
		cmocka_unit_test(the_time_limit_ends_a_function_that_never_does),
		cmocka_unit_test(without_a_limit_fuel_ends_a_function_that_never_does),
		cmocka_unit_test(a_wait_for_input_ends_at_the_limit_or_when_cancelled),
		cmocka_unit_test(progress_reaches_the_end_and_may_cancel),
	};

	return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
