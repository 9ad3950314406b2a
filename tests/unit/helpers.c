/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers against plain reference implementations, and against ranges that no helper may touch. */
#include <openssl/evp.h>
#include <xxhash.h>

#include "lambdaio/function.h"
#include "insns.h"
#include "sbpf/helpers.h"

#define ROUNDS 300

/* Deterministic: a failure is the same each time. */
static uint64_t seed = 88172645463325252ull;

static uint64_t random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void fill(uint8_t *p, size_t n, unsigned int symbols)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(random64() % symbols);
}

/* ---- one helper called by a program: its arguments come from the context ---- */

struct rig {
	struct sbpf_program *prog;
	struct sbpf_sandbox *sb;
	uint64_t *args; /* of the call, as the program reads them */
	uint8_t *in, *out, *heap;
};

#define WINDOW (16 * SBPF_PAGE)
#define HEAP   sbpf_window_offset(SBPF_WIN_HEAP)
#define ARG    sbpf_window_offset(SBPF_WIN_ARG)

static struct rig rig_new(int helper)
{
	struct rig rig = {.prog = ASSEMBLE(MOVR(6, 1), LOAD(BPF_DW, 1, 6, 0), LOAD(BPF_DW, 2, 6, 8),
					   LOAD(BPF_DW, 3, 6, 16), LOAD(BPF_DW, 4, 6, 24),
					   LOAD(BPF_DW, 5, 6, 32), HELPER(helper), EXIT)};
	static const enum sbpf_window wins[] = {SBPF_WIN_CTX, SBPF_WIN_ARG, SBPF_WIN_HEAP,
						SBPF_WIN_IN, SBPF_WIN_OUT};

	rig.sb = take(rig.prog);
	for (size_t i = 0; i < N_ELEMS(wins); i++)
		assert_int_equal(sbpf_sandbox_resize(rig.sb, wins[i], WINDOW), 0);
	rig.args = sbpf_sandbox_ptr(rig.sb, SBPF_WIN_CTX);
	rig.in = sbpf_sandbox_ptr(rig.sb, SBPF_WIN_IN);
	rig.out = sbpf_sandbox_ptr(rig.sb, SBPF_WIN_OUT);
	rig.heap = sbpf_sandbox_ptr(rig.sb, SBPF_WIN_HEAP);
	return rig;
}

static void rig_free(struct rig *rig)
{
	sbpf_sandbox_put(rig->sb);
	sbpf_program_unref(rig->prog);
}

static uint64_t rig_call(struct rig *rig, enum sbpf_tier tier, int want, uint64_t a1, uint64_t a2,
			 uint64_t a3, uint64_t a4)
{
	struct sbpf_call call = a_call(tier, CTX, 0);
	struct sbpf_error err;

	memcpy(rig->args, (uint64_t[]){a1, a2, a3, a4, 0}, 40);
	call.fuel = SBPF_FUEL_UNLIMITED;
	expect(rig->sb, &call, want, &err);
	if (want)
		assert_int_equal(err.insn, 6);
	return want ? 0 : call.r0;
}

/* ---- against references ---- */

static void memory_helpers_do_what_libc_does(void **state)
{
	static uint8_t want[WINDOW];
	struct rig move = rig_new(H_MEMMOVE), copy = rig_new(H_MEMCPY), set = rig_new(H_MEMSET);

	EACH_TIER(tier)
	for (int i = 0; i < ROUNDS; i++) {
		struct rig *rig = i % 2 ? &move : &copy;
		uint64_t n = random64() % 300, to = random64() % 200, from = random64() % 200;

		fill(rig->out, 600, 256);
		memcpy(want, rig->out, 600);
		memmove(want + to, want + from, n);
		assert_int_equal(rig_call(rig, tier, 0, OUT + to, OUT + from, n, 0), OUT + to);
		assert_memory_equal(rig->out, want, 600);

		memcpy(set.out, want, 600);
		memset(want + to, (int)from, n);
		/* Of the byte's register only the low eight bits count. */
		assert_int_equal(rig_call(&set, tier, 0, OUT + to, from | 0xabcdef00, n, 0),
				 OUT + to);
		assert_memory_equal(set.out, want, 600);
	}
	rig_free(&move);
	rig_free(&copy);
	rig_free(&set);
}

static void comparing_gives_minus_one_zero_or_one(void **state)
{
	struct rig rig = rig_new(H_MEMCMP);

	EACH_TIER(tier)
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t n = random64() % 40, at = random64() % 40;
		int want;

		fill(rig.in, 80, 2);
		fill(rig.out, 80, 2);
		if (i % 3 == 0)
			memcpy(rig.out, rig.in + at, n);
		want = memcmp(rig.in + at, rig.out, n);
		assert_int_equal((int64_t)rig_call(&rig, tier, 0, IN + at, OUT, n, 0),
				 (want > 0) - (want < 0));
	}
	rig.in[0] = 0x80;
	rig.out[0] = 0x7f;
	assert_int_equal(rig_call(&rig, SBPF_TIER_INTERP, 0, IN, OUT, 1, 0), 1);
	assert_int_equal((int64_t)rig_call(&rig, SBPF_TIER_INTERP, 0, OUT, IN, 1, 0), -1);
	rig_free(&rig);
}

static void searching_finds_the_first_place_or_null(void **state)
{
	struct rig chr = rig_new(H_MEMCHR), mem = rig_new(H_MEMMEM);

	EACH_TIER(tier)
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t n = random64() % 500, m = random64() % 8, at = random64() % 100;
		const uint8_t *found;

		fill(mem.in, 700, 3);
		fill(mem.out, 8, 3);
		memcpy(chr.in, mem.in, 700);
		found = memmem(mem.in + at, n, mem.out, m);
		assert_int_equal(rig_call(&mem, tier, 0, IN + at, n, OUT, m),
				 found ? IN + (uint64_t)(found - mem.in) : 0);
		found = n ? memchr(chr.in + at, (int)m, n) : NULL;
		assert_int_equal(rig_call(&chr, tier, 0, IN + at, m | 0xff00, n, 0),
				 found ? IN + (uint64_t)(found - chr.in) : 0);
	}
	assert_int_equal(rig_call(&mem, SBPF_TIER_INTERP, 0, IN + 5, 0, OUT, 0), IN + 5);
	rig_free(&chr);
	rig_free(&mem);
}

static const uint8_t *naive_memmem(const uint8_t *hay, size_t n, const uint8_t *needle, size_t m)
{
	for (size_t i = 0; i + m <= n; i++)
		if (!memcmp(hay + i, needle, m))
			return hay + i;
	return NULL;
}

/* Buffers of their exact size, so that a sanitizer sees the byte too many. */
static void the_vector_search_agrees_with_a_naive_one_at_every_size(void **state)
{
	for (size_t n = 0; n < 300; n++)
		for (int i = 0; i < 60; i++) {
			size_t m = random64() % (i % 2 ? 5 : n + 2);
			uint8_t *hay = malloc(n ? n : 1), *needle = malloc(m ? m : 1);

			fill(hay, n, 1 + (unsigned int)random64() % 4);
			fill(needle, m, 2);
			/* Most often it is there: somewhere, or at the very end. */
			if (m <= n && i % 4)
				memcpy(needle,
				       hay + (i % 4 == 1 ? n - m : random64() % (n - m + 1)), m);
			assert_ptr_equal(sbpf_memmem(hay, n, needle, m),
					 naive_memmem(hay, n, needle, m));
			free(hay);
			free(needle);
		}
}

static void text_made_to_defeat_the_search_is_searched_right(void **state)
{
	const size_t n = 1 << 20, m = 3000;
	uint8_t *hay = malloc(n), *needle = malloc(m);

	/* Each place matches in both bytes that are looked at; the needle is at the end or nowhere. */
	memset(hay, 'a', n);
	memset(needle, 'a', m);
	needle[m / 2] = 'b';
	assert_null(sbpf_memmem(hay, n, needle, m));
	hay[n - 1 - m + m / 2] = 'b';
	assert_ptr_equal(sbpf_memmem(hay, n, needle, m), hay + n - 1 - m);
	free(hay);
	free(needle);
}

static uint32_t bitwise_crc32c(uint32_t crc, const uint8_t *p, size_t n)
{
	crc = ~crc;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void crc32c_is_rfc_3720s_and_continues(void **state)
{
	struct rig rig = rig_new(H_CRC32C);

	memcpy(rig.in, "123456789", 9);
	EACH_TIER(tier)
	{
		assert_int_equal(rig_call(&rig, tier, 0, 0, IN, 9, 0), 0xe3069283);
		assert_int_equal(rig_call(&rig, tier, 0, 0, IN, 0, 0), 0);
	}
	fill(rig.in, WINDOW, 256);
	EACH_TIER(tier)
	for (int i = 0; i < 100; i++) {
		uint64_t n = random64() % (i % 2 ? 20000 : 100), at = random64() % 64;
		uint64_t cut = n ? random64() % n : 0;
		uint64_t crc = rig_call(&rig, tier, 0, 0, IN + at, cut, 0);

		/* Above the 32 bits of the sum a register may hold anything. */
		crc = rig_call(&rig, tier, 0, crc | 1ull << 40, IN + at + cut, n - cut, 0);
		assert_int_equal(crc, bitwise_crc32c(0, rig.in + at, n));
	}
	rig_free(&rig);
}

static void sha256_blocks_make_openssls_digest(void **state)
{
	static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	struct rig rig = rig_new(H_SHA256_BLOCKS);

	EACH_TIER(tier)
	for (uint64_t blocks = 1; blocks < 20; blocks++) {
		uint64_t len = blocks * 64 - 9; /* just room for the padding */
		uint64_t half = blocks / 2;
		uint8_t digest[32];
		uint32_t words[8];

		fill(rig.in, len, 256);
		EVP_Digest(rig.in, len, digest, NULL, EVP_sha256(), NULL);
		rig.in[len] = 0x80;
		for (int i = 0; i < 8; i++)
			rig.in[len + 1 + (unsigned int)i] = (uint8_t)(len * 8 >> (56 - 8 * i));
		memcpy(rig.out + 3, start, sizeof(start));
		assert_int_equal(rig_call(&rig, tier, 0, OUT + 3, IN, half, 0), 0);
		assert_int_equal(rig_call(&rig, tier, 0, OUT + 3, IN + 64 * half, blocks - half, 0),
				 0);
		memcpy(words, rig.out + 3, sizeof(words));
		for (int i = 0; i < 8; i++)
			words[i] = __builtin_bswap32(words[i]);
		assert_memory_equal(words, digest, 32);
	}
	rig_free(&rig);
}

static void xxh3_in_any_pieces_is_the_librarys(void **state)
{
	struct rig update = rig_new(H_XXH3_UPDATE), digest = rig_new(H_XXH3_DIGEST);

	fill(update.in, WINDOW, 256);
	EACH_TIER(tier)
	for (int i = 0; i < ROUNDS; i++) {
		uint64_t total = random64() % (i % 3 ? 600 : 20000), done = 0;

		memset(update.out, 0, sizeof(struct lambda_xxh3));
		while (done < total) {
			uint64_t n = random64() % (i % 2 ? 3000 : 100);

			if (n > total - done)
				n = total - done;
			assert_int_equal(rig_call(&update, tier, 0, OUT, IN + done, n, 0), 0);
			done += n;
		}
		memcpy(digest.out, update.out, sizeof(struct lambda_xxh3));
		assert_int_equal(rig_call(&digest, tier, 0, OUT, 0, 0, 0),
				 XXH3_64bits(update.in, total));
	}
	rig_free(&update);
	rig_free(&digest);
}

static void a_hash_state_shows_nothing_of_the_hosts_stack(void **state)
{
	static const struct lambda_xxh3 fresh;
	struct rig rig = rig_new(H_XXH3_UPDATE);
	struct lambda_xxh3 *xxh = (struct lambda_xxh3 *)rig.out;

	EACH_TIER(tier)
	{
		memcpy(rig.out, &fresh, sizeof(fresh));
		rig_call(&rig, tier, 0, OUT, IN, 10, 0);
		assert_int_equal(xxh->buffered, 10);
		assert_memory_equal(xxh->buffer + 10, fresh.buffer + 10, sizeof(fresh.buffer) - 10);
	}
	rig_free(&rig);
}

/* ---- hostile arguments ---- */

static void forged_hash_states_are_refused(void **state)
{
	static const struct lambda_xxh3 forged[] = {
		{.total = 100, .buffered = 257, .stripes = 0},
		{.total = 1000, .buffered = 0xffffffff},
		{.total = 100, .buffered = 0},
		{.total = 0, .buffered = 1},
		{.total = 0, .stripes = 1},
		{.total = 256, .buffered = 64, .stripes = 16},
		{.total = 256, .buffered = 64, .stripes = 0xffffffff},
		{.total = 64, .buffered = 128},
		{.total = 321, .buffered = 64, .stripes = 4},
		{.total = UINT64_MAX, .buffered = 256},
	};
	struct rig rigs[] = {rig_new(H_XXH3_UPDATE), rig_new(H_XXH3_DIGEST)};

	EACH_TIER(tier)
	for (size_t i = 0; i < N_ELEMS(forged); i++)
		for (size_t k = 0; k < N_ELEMS(rigs); k++) {
			memcpy(rigs[k].out, &forged[i], sizeof(forged[i]));
			rig_call(&rigs[k], tier, -EINVAL, OUT, IN, 10, 0);
			assert_memory_equal(rigs[k].out, &forged[i], sizeof(forged[i]));
		}
	rig_free(&rigs[0]);
	rig_free(&rigs[1]);
}

/* Where a helper's arguments say an address, and its length. */
struct range {
	int helper;
	unsigned int address, length; /* index of the argument; length 4: fixed */
	bool write;
	uint64_t unit; /* bytes for each of the length */
};
static const struct range ranges[] = {
	{H_MEMCPY, 0, 2, true, 1},         {H_MEMCPY, 1, 2, false, 1},
	{H_MEMMOVE, 0, 2, true, 1},        {H_MEMMOVE, 1, 2, false, 1},
	{H_MEMSET, 0, 2, true, 1},         {H_MEMCMP, 0, 2, false, 1},
	{H_MEMCMP, 1, 2, false, 1},        {H_MEMCHR, 0, 2, false, 1},
	{H_MEMMEM, 0, 1, false, 1},        {H_MEMMEM, 2, 3, false, 1},
	{H_CRC32C, 1, 2, false, 1},        {H_SHA256_BLOCKS, 1, 2, false, 64},
	{H_SHA256_BLOCKS, 0, 4, true, 32}, {H_TRACE, 0, 1, false, 1},
	{H_XXH3_UPDATE, 1, 2, false, 1},   {H_XXH3_UPDATE, 0, 4, true, 336},
	{H_XXH3_DIGEST, 0, 4, false, 336},
};

/* Arguments with which the call is good. */
static void good_args(int helper, uint64_t args[4])
{
	const uint64_t by_helper[][4] = {
		[H_MEMCPY] = {OUT + 8, IN + 8, 64}, [H_MEMMOVE] = {OUT + 8, IN + 8, 64},
		[H_MEMSET] = {OUT + 8, 1, 64},      [H_MEMCMP] = {IN + 8, OUT + 8, 64},
		[H_MEMCHR] = {IN + 8, 1, 64},       [H_MEMMEM] = {IN + 8, 64, OUT + 8, 64},
		[H_CRC32C] = {0, IN + 8, 64},       [H_SHA256_BLOCKS] = {OUT + 8, IN + 8, 1},
		[H_TRACE] = {IN + 8, 64},           [H_XXH3_UPDATE] = {OUT + 8, IN + 8, 64},
		[H_XXH3_DIGEST] = {OUT + 8},
	};

	memcpy(args, by_helper[helper], 32);
}

static void check_range(struct rig *rig, const struct range *range, enum sbpf_tier tier)
{
	const uint64_t end = IN + WINDOW,
		       big[] = {
			       UINT64_MAX,        UINT64_MAX - IN, 1ull << 63, 1ull << 32,
			       (1ull << 32) - IN, 1ull << 58,      WINDOW + 1,
		       };
	const uint64_t holes[] = {0, 96, 0xffff, 0x1000, 0x7ffff000, 0xfffffff8, 0xffff0000};
	uint64_t good[4], args[4];
	uint64_t n;

	good_args(range->helper, good);
	n = (range->length < 4 ? good[range->length] : 1) * range->unit;
#define TRY(want) rig_call(rig, tier, want, args[0], args[1], args[2], args[3])
#define AT(value) (memcpy(args, good, sizeof(args)), args[range->address] = (value))
	memset(rig->out, 0, WINDOW);
	AT(good[range->address]);
	TRY(0);
	/* Up to the window's last byte, and not one further. */
	AT(end - n);
	memset(rig->in, 0, WINDOW);
	TRY(0);
	AT(end - n + 1);
	TRY(-EFAULT);
	AT(IN - 1);
	TRY(-EFAULT);
	for (size_t i = 0; i < N_ELEMS(holes); i++) {
		AT(holes[i]);
		TRY(-EFAULT);
	}
	AT(ARG);
	TRY(range->write ? -EFAULT : 0);
	/* Loads and stores take an address's low 32 bits; so do helpers. */
	AT(good[range->address] | 0xdead00000000);
	TRY(0);
	for (size_t i = 0; range->length < 4 && i < N_ELEMS(big); i++) {
		AT(good[range->address]);
		args[range->length] = big[i];
		TRY(-EFAULT);
	}
	/* Of nothing, any address will do. */
	if (range->length < 4) {
		AT(96);
		args[range->length] = 0;
		TRY(0);
	}
#undef TRY
#undef AT
}

static void every_range_is_checked_to_the_byte(void **state)
{
	for (size_t i = 0; i < N_ELEMS(ranges); i++) {
		struct rig rig = rig_new(ranges[i].helper);

		EACH_TIER(tier)
		check_range(&rig, &ranges[i], tier);
		rig_free(&rig);
	}
}

static void a_range_must_not_run_from_one_window_into_another(void **state)
{
	struct rig rig = rig_new(H_MEMSET);
	uint64_t stack_end = STACK + sbpf_sandbox_size(rig.sb, SBPF_WIN_STACK);

	assert_int_equal(sbpf_sandbox_resize(rig.sb, SBPF_WIN_STATE, SBPF_PAGE), 0);
	EACH_TIER(tier)
	{
		rig_call(&rig, tier, 0, stack_end - 8, 0, 8, 0);
		rig_call(&rig, tier, -EFAULT, stack_end - 8, 0,
			 sbpf_window_offset(SBPF_WIN_STATE) - stack_end + 16, 0);
	}
	rig_free(&rig);
}

static void fuel_is_charged_for_every_eight_bytes(void **state)
{
	static const uint64_t lengths[] = {0, 1, 8, 9, 4096, 4097};
	struct rig rig = rig_new(H_MEMSET);

	EACH_TIER(tier)
	for (size_t i = 0; i < N_ELEMS(lengths); i++) {
		struct sbpf_call call = a_call(tier, CTX, 0);
		struct sbpf_error err;

		memcpy(rig.args, (uint64_t[]){OUT, 0, lengths[i]}, 24);
		expect(rig.sb, &call, 0, &err);
		assert_int_equal(call.fuel_used, 8 + 1 + (lengths[i] + 7) / 8);
		/* One less is too little, and then nothing was written. */
		memset(rig.out, 1, WINDOW);
		call.fuel = call.fuel_used - 1;
		expect(rig.sb, &call, -ETIME, &err);
		assert_int_equal(err.insn, 6);
		assert_int_equal(rig.out[0], 1);
		assert_int_equal(rig.out[4096], 1);
	}
	rig_free(&rig);
}

static uint64_t fuel_of(struct rig *rig, enum sbpf_tier tier, uint64_t a1, uint64_t a2, uint64_t a3,
			uint64_t a4)
{
	struct sbpf_call call = a_call(tier, CTX, 0);
	struct sbpf_error err;

	memcpy(rig->args, (uint64_t[]){a1, a2, a3, a4}, 32);
	expect(rig->sb, &call, 0, &err);
	return call.fuel_used - 8; /* of the program around it */
}

static void a_search_costs_what_it_looked_through(void **state)
{
	struct rig chr = rig_new(H_MEMCHR), mem = rig_new(H_MEMMEM);

	chr.in[99] = 1;
	memcpy(mem.in + 90, "needle", 6);
	memcpy(mem.out, "needle", 6);
	EACH_TIER(tier)
	{
		assert_int_equal(fuel_of(&chr, tier, IN, 1, WINDOW, 0), 1 + 13);
		assert_int_equal(fuel_of(&chr, tier, IN, 2, WINDOW, 0), 1 + WINDOW / 8);
		/* The needle is looked at, too. */
		assert_int_equal(fuel_of(&mem, tier, IN, WINDOW, OUT, 6), 1 + 1 + 1 + 12);
		assert_int_equal(fuel_of(&mem, tier, IN + 100, 8000, OUT, 6), 1 + 1 + 1 + 1000);
	}
	rig_free(&chr);
	rig_free(&mem);
}

/* ---- trace and names ---- */

static char traced[8192];
static size_t traced_len;

static void keep_trace(void *arg, const char *text, size_t len)
{
	assert_ptr_equal(arg, traced);
	memcpy(traced, text, len);
	traced_len = len;
}

static void a_trace_reaches_the_callers_sink(void **state)
{
	struct rig rig = rig_new(H_TRACE);

	memcpy(rig.in, "hello", 5);
	EACH_TIER(tier)
	{
		struct sbpf_call call = a_call(tier, CTX, 0);
		struct sbpf_error err;

		memcpy(rig.args, (uint64_t[]){IN, 5}, 16);
		call.trace = keep_trace;
		call.trace_arg = traced;
		expect(rig.sb, &call, 0, &err);
		assert_int_equal(call.r0, 0);
		assert_int_equal(traced_len, 5);
		assert_memory_equal(traced, "hello", 5);
		/* A line is cut at 4096 bytes. */
		rig.args[1] = WINDOW;
		expect(rig.sb, &call, 0, &err);
		assert_int_equal(traced_len, 4096);
	}
	rig_free(&rig);
}

static void names_and_libcs_names_find_their_rows(void **state)
{
	static const char *const names[] = {
		"lambda_memcpy", "lambda_memmove",     "lambda_memset",      "lambda_memcmp",
		"lambda_memchr", "lambda_memmem",      "lambda_crc32c",      "lambda_sha256_blocks",
		"lambda_trace",  "lambda_xxh3_update", "lambda_xxh3_digest",
	};

	assert_int_equal(sbpf_n_helpers, N_ELEMS(names));
	for (size_t i = 0; i < N_ELEMS(names); i++) {
		assert_int_equal(sbpf_helper_find(names[i]), i);
		assert_string_equal(sbpf_helper_name((unsigned int)i), names[i]);
	}
	assert_null(sbpf_helper_name(N_ELEMS(names)));
	assert_int_equal(sbpf_helper_find("memcpy"), H_MEMCPY);
	assert_int_equal(sbpf_helper_find("memmove"), H_MEMMOVE);
	assert_int_equal(sbpf_helper_find("memset"), H_MEMSET);
	assert_int_equal(sbpf_helper_find("memcmp"), H_MEMCMP);
	assert_int_equal(sbpf_helper_find("bcmp"), H_MEMCMP);
	assert_int_equal(sbpf_helper_find("memchr"), H_MEMCHR);
	assert_int_equal(sbpf_helper_find("system"), -1);
	assert_int_equal(sbpf_helper_find(""), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_helpers_do_what_libc_does),
		cmocka_unit_test(comparing_gives_minus_one_zero_or_one),
		cmocka_unit_test(searching_finds_the_first_place_or_null),
		cmocka_unit_test(the_vector_search_agrees_with_a_naive_one_at_every_size),
		cmocka_unit_test(text_made_to_defeat_the_search_is_searched_right),
		cmocka_unit_test(crc32c_is_rfc_3720s_and_continues),
		cmocka_unit_test(sha256_blocks_make_openssls_digest),
		cmocka_unit_test(xxh3_in_any_pieces_is_the_librarys),
		cmocka_unit_test(a_hash_state_shows_nothing_of_the_hosts_stack),
		cmocka_unit_test(forged_hash_states_are_refused),
		cmocka_unit_test(every_range_is_checked_to_the_byte),
		cmocka_unit_test(a_range_must_not_run_from_one_window_into_another),
		cmocka_unit_test(fuel_is_charged_for_every_eight_bytes),
		cmocka_unit_test(a_search_costs_what_it_looked_through),
		cmocka_unit_test(a_trace_reaches_the_callers_sink),
		cmocka_unit_test(names_and_libcs_names_find_their_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
