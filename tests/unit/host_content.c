/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed files: known by their content, read whole, never trusted.
 */
#include <zlib.h>
#include <zstd.h>

#include "fault/fixture.h"

struct bytes {
	uint8_t *p;
	size_t len;
};

static void add(struct bytes *b, const void *p, size_t len)
{
	b->p = realloc(b->p, b->len + len + 1);
	assert_non_null(b->p);
	memcpy(b->p + b->len, p, len);
	b->len += len;
}

static void add_gzip(struct bytes *b, const void *p, size_t len)
{
	size_t cap = len + len / 10 + 100;
	uint8_t *out = malloc(cap);
	z_stream z = {.next_in = (Bytef *)(uintptr_t)p, .avail_in = (uInt)len, .next_out = out};

	z.avail_out = (uInt)cap;
	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	add(b, out, cap - z.avail_out);
	deflateEnd(&z);
	free(out);
}

static void add_zstd(struct bytes *b, const void *p, size_t len)
{
	size_t cap = ZSTD_compressBound(len);
	uint8_t *out = malloc(cap);
	ZSTD_CCtx *ctx = ZSTD_createCCtx();

	ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
	cap = ZSTD_compress2(ctx, out, cap, p, len);
	assert_false(ZSTD_isError(cap));
	add(b, out, cap);
	ZSTD_freeCCtx(ctx);
	free(out);
}

static void add_skippable(struct bytes *b, uint32_t len)
{
	uint32_t head[2] = {0x184d2a53, len};
	uint8_t *rest = calloc(1, len + 1);

	add(b, head, sizeof(head));
	add(b, rest, len);
	free(rest);
}

/* λ-read "echo" over a file that holds @b. */
static int64_t read_echo(const struct bytes *b, uint64_t at, uint64_t len, enum lio_decompress how,
			 uint8_t *out, size_t cap, struct lio_result *res)
{
	struct lio_run_opts opts = {.size = sizeof(opts), .decompress = how};
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	int64_t rc;

	put("data", b->p, b->len);
	file = open_in("data", O_RDONLY);
	rc = lio_lambda_read(file, echo, at, len, &opts, out, cap, res);
	OK(lio_close(file));
	lio_unload(echo);
	return rc;
}

#define LEN (3 * MIB + 333)

static void reads_back(const struct bytes *b, const uint8_t *plain, const char *io)
{
	struct lio_result res = {.size = sizeof(res)};
	uint8_t *out = malloc(LEN + 1);

	OK(read_echo(b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, LEN + 1, &res));
	assert_int_equal(res.bytes_out, LEN);
	assert_memory_equal(out, plain, LEN);
	assert_string_equal(res.io, io);
	assert_non_null(strstr(res.why, io));
	OK(read_echo(b, 2 * MIB + 1, 4097, LIO_DECOMPRESS_AUTO, out, LEN, &res));
	assert_int_equal(res.bytes_out, 4097);
	assert_memory_equal(out, plain + 2 * MIB + 1, 4097);
	free(out);
}

static void all_members_of_a_gzip_file_are_read(void **state)
{
	uint8_t *plain = noise(LEN);
	struct bytes b = {0};

	add_gzip(&b, plain, MIB);
	add_gzip(&b, plain, 0);
	add_gzip(&b, plain + MIB, LEN - MIB);
	reads_back(&b, plain, "gzip");
	add(&b, "\0\0\0\0\0\0\0", 7); /* padding as on tapes */
	reads_back(&b, plain, "gzip");
	free(b.p);
	free(plain);
}

static void all_frames_of_a_zstd_file_are_read_and_skippable_ones_skipped(void **state)
{
	uint8_t *plain = noise(LEN);
	struct bytes b = {0};

	add_skippable(&b, 5);
	add_zstd(&b, plain, MIB);
	add_skippable(&b, 300000);
	add_zstd(&b, plain, 0);
	add_zstd(&b, plain + MIB, LEN - MIB);
	add_skippable(&b, 0);
	reads_back(&b, plain, "zstd");
	free(b.p);
	free(plain);
}

static void highly_compressible_content_is_read_in_bounded_pieces(void **state)
{
	size_t len = 64 * MIB;
	uint8_t *zero = calloc(1, len);
	struct lio_function *total = load("total");
	struct bytes b = {0};
	uint64_t row[2];

	for (int zst = 0; zst < 2; zst++) {
		struct lio_file *file;

		b.len = 0;
		zst ? add_zstd(&b, zero, len) : add_gzip(&b, zero, len);
		assert_true(b.len < MIB);
		put("data", b.p, b.len);
		file = open_in("data", O_RDONLY);
		OK(lio_lambda_read(file, total, 0, LIO_TO_END, NULL, row, 16, NULL));
		assert_int_equal(row[0], len / 8);
		OK(lio_close(file));
	}
	lio_unload(total);
	free(b.p);
	free(zero);
}

static void decompress_none_reads_the_file_as_it_is(void **state)
{
	uint8_t plain[100] = "plain", out[200];
	struct bytes b = {0};

	add_gzip(&b, plain, sizeof(plain));
	assert_int_equal(read_echo(&b, 0, LIO_TO_END, LIO_DECOMPRESS_NONE, out, 200, NULL), b.len);
	assert_memory_equal(out, b.p, b.len);
	free(b.p);
}

static void compressed_standard_input_is_known_by_its_content(void **state)
{
	uint8_t plain[5000], out[6000];
	struct lio_function *echo = load("echo");
	struct bytes b[3] = {0};

	memset(plain, 'x', sizeof(plain));
	add_gzip(&b[0], plain, sizeof(plain));
	add_zstd(&b[1], plain, sizeof(plain));
	add(&b[2], plain, sizeof(plain));
	for (int i = 0; i < 3; i++) {
		struct lio_result res = {.size = sizeof(res)};
		struct lio_file *in;
		int fds[2], saved = dup(STDIN_FILENO);

		assert_int_equal(pipe(fds), 0);
		assert_int_equal(write(fds[1], b[i].p, b[i].len), b[i].len);
		close(fds[1]);
		dup2(fds[0], STDIN_FILENO);
		close(fds[0]);
		OK(lio_open("-", O_RDONLY, 0, &in));
		assert_int_equal(
			lio_lambda_read(in, echo, 0, LIO_TO_END, NULL, out, sizeof(out), &res),
			sizeof(plain));
		assert_memory_equal(out, plain, sizeof(plain));
		assert_string_equal(res.io, i == 0 ? "gzip" : i == 1 ? "zstd" : "stream");
		OK(lio_close(in));
		dup2(saved, STDIN_FILENO);
		close(saved);
		free(b[i].p);
	}
	lio_unload(echo);
}

static void a_file_that_changes_under_its_handle_is_looked_at_again(void **state)
{
	uint8_t plain[100] = "plain", out[200];
	struct lio_function *echo = load("echo");
	struct lio_file *file;
	struct bytes b = {0};

	put("data", "", 0);
	file = open_in("data", O_RDWR);
	assert_int_equal(lio_lambda_read(file, echo, 0, LIO_TO_END, NULL, out, 200, NULL), 0);
	add_gzip(&b, plain, sizeof(plain));
	assert_int_equal(lio_pwrite(file, b.p, b.len, 0), b.len);
	assert_int_equal(lio_lambda_read(file, echo, 0, LIO_TO_END, NULL, out, 200, NULL), 100);
	assert_int_equal(lio_pwrite(file, "no", 2, 0), 2);
	assert_int_equal(lio_lambda_read(file, echo, 0, LIO_TO_END, NULL, out, 200, NULL), b.len);
	OK(lio_close(file));
	lio_unload(echo);
	free(b.p);
}

/* Every way to cut it short fails, names the file, and says where. */
static void refuses_all_prefixes(struct bytes *b, const char *codec)
{
	size_t whole = b->len;
	uint8_t out[5000];

	for (b->len = 4; b->len < whole; b->len++) {
		FAILS(read_echo(b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, sizeof(out), NULL),
		      -EBADMSG, codec);
		assert_non_null(strstr(lio_error(), "data at compressed byte"));
		assert_non_null(strstr(lio_error(), "/data: "));
	}
	b->len = whole;
}

static void truncated_data_is_refused_with_its_place(void **state)
{
	uint8_t *plain = noise(200);
	struct bytes gzip = {0}, zst = {0};

	add_gzip(&gzip, plain, 200);
	refuses_all_prefixes(&gzip, "gzip");
	add_zstd(&zst, plain, 200);
	refuses_all_prefixes(&zst, "zstd");
	free(gzip.p);
	free(zst.p);
	free(plain);
}

static void damaged_data_is_refused_or_harmless_wherever_the_damage_is(void **state)
{
	uint8_t *plain = noise(600), out[5000];

	for (int zst = 0; zst < 2; zst++) {
		struct bytes b = {0};

		zst ? add_zstd(&b, plain, 600) : add_gzip(&b, plain, 600);
		for (size_t i = 0; i < b.len; i++) {
			int64_t rc;

			b.p[i] ^= 0x41;
			rc = read_echo(&b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, sizeof(out),
				       NULL);
			/* In the magic: read as it is.  In a gzip header's time or name: of no importance. */
			if (rc >= 0 && i >= 4)
				assert_memory_equal(out, plain, 600);
			else if (rc < 0 && rc != -E2BIG)
				assert_int_equal(rc, -EBADMSG);
			b.p[i] ^= 0x41;
		}
		free(b.p);
	}
	free(plain);
}

static void what_follows_the_data_and_is_none_is_refused(void **state)
{
	uint8_t plain[100] = "plain", out[200];
	struct bytes b = {0};

	add_gzip(&b, plain, 100);
	add(&b, "garbage", 7);
	FAILS(read_echo(&b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, 200, NULL), -EBADMSG, "gzip");
	b.len = 0;
	add_zstd(&b, plain, 100);
	add(&b, "garbage", 7);
	FAILS(read_echo(&b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, 200, NULL), -EBADMSG, "zstd");
	free(b.p);
}

static void a_zstd_window_beyond_the_limit_is_refused_before_it_is_allocated(void **state)
{
	/* RFC 8878, 3.1.1.1: no content size, window descriptor 0x90: 2^28; a last empty raw block */
	const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x90, 0x01, 0x00, 0x00};
	struct bytes b = {0};
	uint8_t out[10];

	add(&b, frame, sizeof(frame));
	FAILS(read_echo(&b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, 10, NULL), -E2BIG, "128 MiB");
	b.p[5] = 0x80; /* 2^26 */
	assert_int_equal(read_echo(&b, 0, LIO_TO_END, LIO_DECOMPRESS_AUTO, out, 10, NULL), 0);
	free(b.p);
}

static void compressed_input_can_be_written_elsewhere(void **state)
{
	uint8_t plain[6] = "a\nb\nc\n";
	struct lio_function *lines = load("lines");
	struct lio_file *input, *file;
	struct bytes b = {0};
	char *after;
	size_t len;

	add_zstd(&b, plain, sizeof(plain));
	put("data", b.p, b.len);
	input = open_in("data", O_RDONLY);
	file = open_in("target", O_RDWR | O_CREAT);
	OK(lio_lambda_write(file, 0, lines, input, 0, LIO_TO_END, NULL, NULL));
	OK(lio_close(file));
	OK(lio_close(input));
	after = get("target", &len);
	assert_string_equal(after, "1 a\n2 b\n3 c\n");
	free(after);
	free(b.p);
	lio_unload(lines);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_members_of_a_gzip_file_are_read),
		cmocka_unit_test(all_frames_of_a_zstd_file_are_read_and_skippable_ones_skipped),
		cmocka_unit_test(highly_compressible_content_is_read_in_bounded_pieces),
		cmocka_unit_test(decompress_none_reads_the_file_as_it_is),
		cmocka_unit_test(compressed_standard_input_is_known_by_its_content),
		cmocka_unit_test(a_file_that_changes_under_its_handle_is_looked_at_again),
		cmocka_unit_test(truncated_data_is_refused_with_its_place),
		cmocka_unit_test(damaged_data_is_refused_or_harmless_wherever_the_damage_is),
		cmocka_unit_test(what_follows_the_data_and_is_none_is_refused),
		cmocka_unit_test(a_zstd_window_beyond_the_limit_is_refused_before_it_is_allocated),
		cmocka_unit_test(compressed_input_can_be_written_elsewhere),
	};

	return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
