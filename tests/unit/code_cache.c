/* SPDX-License-Identifier: Apache-2.0 */
/* Code that is kept comes back as it was, or not at all: whatever was done to its file, its directory or its secret. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "insns.h"
#include "sbpf/tier_llvm.h"

#define ANSWER 300u
#define CAP    (64ull << 20)

static char top[] = "/tmp/cache-XXXXXX", dir[64], file[160], secret[96];
static uint8_t key[SBPF_CACHE_KEY], answer[ANSWER];

static void path_of(const uint8_t *k, char *path, size_t size)
{
	int n = snprintf(path, size, "%s/", dir);

	for (unsigned int i = 0; i < SBPF_CACHE_KEY; i++)
		n += snprintf(path + n, size - (size_t)n, "%02x", k[i]);
}

static bool comes_back(void)
{
	size_t len = 0;
	uint8_t *got = sbpf_cache_get(key, &len);

	if (!got)
		return false;
	assert_int_equal(len, ANSWER);
	assert_memory_equal(got, answer, ANSWER);
	free(got);
	return true;
}

static void remove_all(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	unlink(dir);
	rmdir(dir);
}

/* One entry, in a directory that was not there before. */
static int fresh(void **state)
{
	remove_all();
	sbpf_cache_bytes = CAP;
	setenv("LIO_CODE_CACHE", dir, 1);
	if (!sbpf_cache_key("question", 8, "/proc/self/exe", key))
		return -1;
	for (unsigned int i = 0; i < ANSWER; i++)
		answer[i] = (uint8_t)(i * 7);
	path_of(key, file, sizeof(file));
	snprintf(secret, sizeof(secret), "%s/secret", dir);
	sbpf_cache_put(key, answer, ANSWER);
	return 0;
}

static unsigned int mode_of(const char *path)
{
	struct stat st;

	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

static uint64_t size_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) ? 0 : (uint64_t)st.st_size;
}

static void what_was_put_comes_back_and_is_nobody_elses(void **state)
{
	assert_true(comes_back());
	assert_int_equal(mode_of(dir), 0700);
	assert_int_equal(mode_of(file), 0600);
	assert_int_equal(mode_of(secret), 0600);
	assert_int_equal(size_of(secret), 32);
}

static void another_program_or_compiler_has_another_key(void **state)
{
	uint8_t other[SBPF_CACHE_KEY];
	size_t len;

	assert_true(sbpf_cache_key("question", 7, "/proc/self/exe", other));
	assert_memory_not_equal(key, other, SBPF_CACHE_KEY);
	assert_null(sbpf_cache_get(other, &len));
	assert_true(sbpf_cache_key("question", 8, "/bin/sh", other));
	assert_memory_not_equal(key, other, SBPF_CACHE_KEY);
	assert_false(sbpf_cache_key("question", 8, "/no/such/compiler", other));
}

static void it_can_be_switched_off(void **state)
{
	uint8_t other[SBPF_CACHE_KEY];

	setenv("LIO_CODE_CACHE", "off", 1);
	assert_false(sbpf_cache_key("question", 8, "/proc/self/exe", other));
	assert_false(comes_back());
	setenv("LIO_CODE_CACHE", "relative/path", 1);
	assert_false(sbpf_cache_key("question", 8, "/proc/self/exe", other));
}

static void it_lies_in_the_users_cache_directory(void **state)
{
	char path[128];
	struct stat st;

	unsetenv("LIO_CODE_CACHE");
	setenv("XDG_CACHE_HOME", top, 1);
	sbpf_cache_put(key, answer, ANSWER);
	assert_true(comes_back());
	snprintf(path, sizeof(path), "%s/lambda-io", top);
	assert_int_equal(mode_of(path), 0700);
	assert_int_equal(stat(path, &st), 0);
	strcpy(dir, path);
	remove_all();
	snprintf(dir, sizeof(dir), "%s/cache", top);
	/* A home without a cache directory gets one. */
	unsetenv("XDG_CACHE_HOME");
	setenv("HOME", top, 1);
	sbpf_cache_put(key, answer, ANSWER);
	assert_true(comes_back());
	snprintf(dir, sizeof(dir), "%s/.cache/lambda-io", top);
	remove_all();
	snprintf(path, sizeof(path), "%s/.cache", top);
	assert_int_equal(rmdir(path), 0);
	snprintf(dir, sizeof(dir), "%s/cache", top);
}

/* ---- tampering ---- */

static void change_byte(const char *path, uint64_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 0x20;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

static void any_changed_byte_is_noticed(void **state)
{
	uint64_t size = size_of(file);

	assert_true(size > ANSWER);
	for (uint64_t at = 0; at < size; at++) {
		change_byte(file, at);
		assert_false(comes_back());
		change_byte(file, at);
	}
	assert_true(comes_back());
}

static void any_other_length_is_noticed(void **state)
{
	uint64_t size = size_of(file);

	for (uint64_t len = size + 40; len--;) {
		assert_int_equal(truncate(file, (off_t)len), 0);
		if (len != size)
			assert_false(comes_back());
	}
	sbpf_cache_put(key, answer, ANSWER);
	assert_true(comes_back());
}

static void an_entry_under_another_name_is_refused(void **state)
{
	uint8_t other[SBPF_CACHE_KEY];
	char path[160];
	size_t len;

	assert_true(sbpf_cache_key("another", 7, "/proc/self/exe", other));
	path_of(other, path, sizeof(path));
	assert_int_equal(rename(file, path), 0);
	assert_null(sbpf_cache_get(other, &len));
}

static void another_secret_voids_all(void **state)
{
	for (uint64_t at = 0; at < 32; at++) {
		change_byte(secret, at);
		assert_false(comes_back());
		change_byte(secret, at);
	}
	assert_true(comes_back());
	assert_int_equal(truncate(secret, 31), 0);
	assert_false(comes_back());
	assert_int_equal(unlink(secret), 0);
	assert_false(comes_back());
	/* A new one is made, and what is signed with it counts. */
	sbpf_cache_put(key, answer, ANSWER);
	assert_true(comes_back());
	assert_int_equal(mode_of(secret), 0600);
}

static void what_others_can_touch_is_refused(void **state)
{
	const char *const paths[] = {dir, file, secret};

	for (size_t i = 0; i < N_ELEMS(paths); i++) {
		unsigned int mode = mode_of(paths[i]);

		for (unsigned int bit = 0; bit < 6; bit++) {
			assert_int_equal(chmod(paths[i], mode | 1u << bit), 0);
			assert_false(comes_back());
		}
		assert_int_equal(chmod(paths[i], mode), 0);
		assert_true(comes_back());
	}
}

static void what_belongs_to_someone_else_is_refused(void **state)
{
	const char *const paths[] = {dir, file, secret};

	if (geteuid())
		skip();
	for (size_t i = 0; i < N_ELEMS(paths); i++) {
		assert_int_equal(chown(paths[i], 12345, (gid_t)-1), 0);
		assert_false(comes_back());
		assert_int_equal(chown(paths[i], 0, (gid_t)-1), 0);
		assert_true(comes_back());
	}
}

static void links_are_refused(void **state)
{
	const char *const paths[] = {file, secret, dir};
	char aside[96];

	snprintf(aside, sizeof(aside), "%s/aside", top);
	for (size_t i = 0; i < N_ELEMS(paths); i++) {
		assert_int_equal(rename(paths[i], aside), 0);
		assert_int_equal(symlink(aside, paths[i]), 0);
		assert_false(comes_back());
		assert_int_equal(unlink(paths[i]), 0);
		assert_int_equal(rename(aside, paths[i]), 0);
		assert_true(comes_back());
	}
	/* A second name: someone may hold it who could write once. */
	assert_int_equal(link(file, aside), 0);
	assert_false(comes_back());
	assert_int_equal(unlink(aside), 0);
	assert_true(comes_back());
}

static void what_is_no_file_is_refused(void **state)
{
	assert_int_equal(unlink(file), 0);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_false(comes_back()); /* and nobody waits for a writer */
	assert_int_equal(unlink(file), 0);
	assert_int_equal(mkdir(file, 0700), 0);
	assert_false(comes_back());
	assert_int_equal(rmdir(file), 0);
}

/* ---- size, and many at once ---- */

static void numbered_key(uint32_t i, uint8_t k[SBPF_CACHE_KEY])
{
	memset(k, 0, SBPF_CACHE_KEY);
	memcpy(k, &i, sizeof(i));
}

static void the_ones_used_longest_ago_make_room(void **state)
{
	uint8_t k[SBPF_CACHE_KEY];
	uint64_t total = 0, size = size_of(file);
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	struct dirent *e;
	char path[160];
	DIR *d;

	sbpf_cache_bytes = 10 * size;
	/* Entry 0 is older than all, but used; entry 1 is not. */
	for (uint32_t i = 0; i < 2; i++) {
		numbered_key(i, k);
		sbpf_cache_put(k, answer, ANSWER);
		path_of(k, path, sizeof(path));
		assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
	}
	numbered_key(0, k);
	free(sbpf_cache_get(k, &total));
	for (uint32_t i = 2; i < 10; i++) {
		numbered_key(i, k);
		sbpf_cache_put(k, answer, ANSWER);
	}
	numbered_key(0, k);
	path_of(k, path, sizeof(path));
	assert_int_equal(size_of(path), size);
	numbered_key(1, k);
	path_of(k, path, sizeof(path));
	assert_int_equal(size_of(path), 0);
	for (uint32_t i = 10; i < 100; i++) {
		numbered_key(i, k);
		sbpf_cache_put(k, answer, ANSWER);
	}
	d = opendir(dir);
	assert_non_null(d);
	total = 0;
	while ((e = readdir(d)))
		if (strlen(e->d_name) == 64)
			total += size;
	closedir(d);
	assert_in_range(total, size, sbpf_cache_bytes);
	/* What would fill much of it is not kept at all. */
	numbered_key(1000, k);
	sbpf_cache_bytes = 2 * size;
	sbpf_cache_put(k, answer, ANSWER);
	path_of(k, path, sizeof(path));
	assert_int_equal(size_of(path), 0);
}

static void many_writers_and_readers_see_whole_entries(void **state)
{
	pid_t pids[6];
	int status, got = 0;

	remove_all();
	for (unsigned int p = 0; p < N_ELEMS(pids); p++) {
		pids[p] = fork();
		if (pids[p])
			continue;
		for (int i = 0; i < 200; i++) {
			size_t len;
			uint8_t *a;

			sbpf_cache_put(key, answer, ANSWER);
			a = sbpf_cache_get(key, &len);
			if (a && (len != ANSWER || memcmp(a, answer, ANSWER) != 0))
				_exit(2);
			got += a != NULL;
			free(a);
		}
		_exit(got ? 0 : 1);
	}
	for (unsigned int p = 0; p < N_ELEMS(pids); p++) {
		assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
		assert_int_equal(status, 0);
	}
	assert_true(comes_back());
}

static void a_full_or_forbidden_disk_costs_nothing_but_the_entry(void **state)
{
	remove_all();
	setenv("LIO_CODE_CACHE", "/proc/no/such/place", 1);
	sbpf_cache_put(key, answer, ANSWER);
	assert_false(comes_back());
}

static int set_up(void **state)
{
	if (!mkdtemp(top))
		return -1;
	snprintf(dir, sizeof(dir), "%s/cache", top);
	return 0;
}

static int tear_down(void **state)
{
	remove_all();
	return rmdir(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_was_put_comes_back_and_is_nobody_elses, fresh),
		cmocka_unit_test_setup(another_program_or_compiler_has_another_key, fresh),
		cmocka_unit_test_setup(it_can_be_switched_off, fresh),
		cmocka_unit_test_setup(it_lies_in_the_users_cache_directory, fresh),
		cmocka_unit_test_setup(any_changed_byte_is_noticed, fresh),
		cmocka_unit_test_setup(any_other_length_is_noticed, fresh),
		cmocka_unit_test_setup(an_entry_under_another_name_is_refused, fresh),
		cmocka_unit_test_setup(another_secret_voids_all, fresh),
		cmocka_unit_test_setup(what_others_can_touch_is_refused, fresh),
		cmocka_unit_test_setup(what_belongs_to_someone_else_is_refused, fresh),
		cmocka_unit_test_setup(links_are_refused, fresh),
		cmocka_unit_test_setup(what_is_no_file_is_refused, fresh),
		cmocka_unit_test_setup(the_ones_used_longest_ago_make_room, fresh),
		cmocka_unit_test_setup(many_writers_and_readers_see_whole_entries, fresh),
		cmocka_unit_test_setup(a_full_or_forbidden_disk_costs_nothing_but_the_entry, fresh),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
