# SPDX-License-Identifier: Apache-2.0
"""`lio cc`: plain C becomes a λ-function with every clang there is, and what cannot is said in one place."""
import os
import shutil
import stat
import struct

import tap
from tap import LIO, Skip, run

ENV = {"LIO_INCLUDE": os.path.join(tap.SRC, "include")}
HEAD = b"""#include <lambdaio/function.h>
#include <errno.h>
#include <string.h>
LAMBDA_RECORD_ANY;
"""


def clangs():
    found = [c for c in ["clang-%d" % v for v in range(14, 20)] + ["clang"] if shutil.which(c)]
    if not found:
        raise Skip("no clang")
    return found


def path(name):
    return os.path.join(os.environ["T"], name)


def put(name, data):
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name)


def cc(source, *args, object_="f.o", env=None):
    c = put("f.c", source)
    if os.path.exists(path(object_)):
        os.remove(path(object_))
    return run(LIO, "cc", c, "-o", path(object_), *args, env={**ENV, **(env or {})})


def answer(source, data, *args):
    """What the function makes of the data, the same from every clang, instruction set and tier."""
    results = {}
    for clang in clangs():
        for cpu in ("v1", "v2", "v3", None):
            status, _, err = cc(HEAD + source, "--clang", clang, *(["--mcpu", cpu] if cpu else []))
            assert status == 0, f"{clang} {cpu}: {err}"
            for tier in ("interp", "template"):
                status, out, err = run(LIO, "run", path("f.o"), put("data", data), *args, "--raw", "--tier", tier)
                assert status in (0, 1), f"{clang} {cpu} {tier}: {err}"
                results[clang, cpu, tier] = out
    assert len(set(results.values())) == 1, results
    return out


def refused(*expected, source=HEAD, args=(), env=None):
    status, out, err = cc(source, *args, env=env)
    assert status == 2 and out == b"", (status, err)
    for text in expected:
        assert text in err, f"{text!r} is not in {err!r}"
    assert not os.path.exists(path("f.o")), "an object was left behind"
    return err


def test_memcpy_of_any_length_compiles_and_copies():
    data = bytes(range(256)) * 20
    assert answer(b"""LAMBDA_MAP(f) { if (ctx->out_cap < ctx->in_len) return -ENOSPC;
        memcpy(ctx->out, ctx->in, ctx->in_len); return ctx->in_len; }""", data) == data


def test_memmove_that_overlaps_moves():
    data = bytes(range(200))
    assert answer(b"""LAMBDA_MAP(f) { if (ctx->out_cap < 200) return -ENOSPC;
        memcpy(ctx->out, ctx->in, 200); memmove(ctx->out + 3, ctx->out, ctx->in_len - 3);
        memmove(ctx->out + 101, ctx->out + 100, 60); return 200; }""", data) == \
        (lambda b: b[:101] + b[100:160] + b[161:])(data[:3] + data[:197])


def test_zeroing_and_filling_loops_compile():
    assert answer(b"""LAMBDA_MAP(f) { uint64_t n = ctx->in_len; if (ctx->out_cap < 2 * n + 300) return -ENOSPC;
        for (uint64_t i = 0; i < n; i++) ctx->out[i] = 0;
        for (uint32_t i = 0; i < (uint32_t)n; i++) ctx->out[n + i] = ctx->in[0];
        memset(ctx->out + 2 * n, (int)ctx->in[1], 100); memset(ctx->out + 2 * n + 100, 9, 200);
        return 2 * n + 300; }""", b"ab" + bytes(700)) == bytes(702) + b"a" * 702 + b"b" * 100 + b"\x09" * 200


def test_large_structures_are_copied():
    data = bytes(i * 7 % 251 for i in range(3000))
    assert answer(b"""struct big { char x[3000]; }; static struct big table;
        LAMBDA_MAP(f) { if (ctx->out_cap < 3000) return -ENOSPC;
        table = *(struct big *)ctx->in; *(struct big *)ctx->out = table; return 3000; }""", data) == data


def test_misaligned_fields_are_read_and_written():
    data = bytes(range(1, 33))
    want = struct.pack("<QIHi", *struct.unpack_from("<QIHi", data, 1))
    assert answer(b"""struct __attribute__((packed)) row { char c; uint64_t a; uint32_t b; uint16_t h; int32_t i; };
        struct __attribute__((packed)) out { uint64_t a; uint32_t b; uint16_t h; int32_t i; };
        LAMBDA_MAP(f) { if (ctx->out_cap < 18) return -ENOSPC; struct row *r = (struct row *)ctx->in;
        *(struct out *)ctx->out = (struct out){r->a, r->b, r->h, r->i}; return 18; }""", data) == want


def test_comparisons_and_searches_of_the_c_library_work():
    assert answer(b"""#include <ctype.h>
        #include <stdlib.h>
        #include <inttypes.h>
        LAMBDA_MAP(f) { const char *s = (const char *)ctx->in; uint8_t *o = ctx->out;
        if (ctx->out_cap < 10) return -ENOSPC;
        o[0] = strlen(s); o[1] = strcmp(s, "needle") == 0; o[2] = strncmp(s, "need", 4) == 0;
        o[3] = (char *)memchr(s, 'd', ctx->in_len) - s; o[4] = (char *)memmem(s, 6, "dle", 3) - s;
        o[5] = memcmp(s, "needlf", 6) < 0; o[6] = memcmp(s, s + 7, ctx->in_len - 7) == 0;
        o[7] = toupper(s[0]); o[8] = isspace(' ') && !isdigit('x') && ispunct('.'); o[9] = abs(-(int)ctx->in_len);
        return 10; }""", b"needle\0needle\0") == bytes([6, 1, 1, 3, 3, 1, 1, ord("N"), 1, 14])


def test_numbers_are_read_and_strings_joined_as_in_C():
    cases = [("0", 10, 0, 1), ("  -42x", 10, -42, 5), ("+7 ", 0, 7, 2), ("0x1fg", 0, 31, 4), ("0X1F", 16, 31, 4), ("0755", 0, 493, 4),
             ("0x", 0, 0, 1), ("0xg", 16, 0, 1), ("zz", 36, 1295, 2), ("129", 2, 1, 1), ("", 10, 0, 0), ("-", 10, 0, 0), ("x", 10, 0, 0),
             ("9223372036854775807", 10, 2**63 - 1, 19), ("9223372036854775808", 10, 2**63 - 1, 19),
             ("-9223372036854775808", 10, -2**63, 20), ("-99999999999999999999", 10, -2**63, 21)]
    data = b"".join(text.encode().ljust(31, b"\0") + bytes([base]) for text, base, _, _ in cases)
    want = b"".join(struct.pack("<qQ", value, used) for _, _, value, used in cases)
    assert answer(b"""#include <stdlib.h>
        LAMBDA_MAP(f) { uint64_t n = ctx->in_len / 32; if (ctx->out_cap < 16 * n) return -ENOSPC;
        for (uint64_t i = 0; i < n; i++) { char *s = (char *)ctx->in + 32 * i, *end;
        lambda_store64(ctx->out + 16 * i, strtol(s, &end, s[31])); lambda_store64(ctx->out + 16 * i + 8, end - s); }
        return 16 * n; }""", data) == want
    assert answer(b"""#include <stdlib.h>
        LAMBDA_MAP(f) { char *s = (char *)ctx->in, *o = (char *)ctx->out; if (ctx->out_cap < 64) return -ENOSPC;
        strncpy(o, s, 20); strcpy(o + 20, strrchr(s, '/')); strcat(o + 20, strstr(s, "us")); o[50] = strspn(s, "/rsu");
        o[51] = strcspn(s + 1, "/"); o[52] = strstr(s, "nope") == 0; o[53] = atoi("12abc"); o[54] = strtoul("0xff", 0, 0);
        o[55] = strrchr(s, 'q') == 0; return 64; }""", b"/usr/bin\0") == \
        b"/usr/bin".ljust(20, b"\0") + b"/binusr/bin".ljust(30, b"\0") + bytes([5, 3, 1, 12, 255, 1]).ljust(14, b"\0")


def c_divide(a, b):
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def test_signed_division_rounds_towards_zero_in_every_instruction_set():
    values = [0, 1, -1, 7, -7, 10, -10, 255, -256, 2**31 - 1, -2**31, 2**31, 2**63 - 1, -2**63, 123456789]
    cases = [(a, b) for a in values for b in values if b and not (a == -2**63 and b == -1)]
    data = b"".join(struct.pack("<2q", a, b) for a, b in cases)
    want = b""
    for a, b in cases:
        a32, b32 = [(v + 2**31) % 2**32 - 2**31 for v in (a, b)]
        q32 = c_divide(a32, b32) if b32 and not (a32 == -2**31 and b32 == -1) else 0
        want += struct.pack("<4q", c_divide(a, b), a - b * c_divide(a, b), q32, c_divide(a, 10))
    assert answer(b"""LAMBDA_MAP(f) { int64_t *p = (int64_t *)ctx->in, *o = (int64_t *)ctx->out;
        uint64_t n = ctx->in_len / 16; if (ctx->out_cap < 32 * n) return -ENOSPC;
        for (; n; n--, p += 2, o += 4) { int32_t a = (int32_t)p[0], b = (int32_t)p[1];
        o[0] = p[0] / p[1]; o[1] = p[0] % p[1];
        o[2] = b && !(a == INT32_MIN && b == -1) ? a / b : 0; o[3] = p[0] / 10; }
        return (uint8_t *)o - ctx->out; }""", data) == want


def test_products_of_128_bits_and_overflow_are_as_on_any_machine():
    values = [0, 1, 2, 3, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 2, 0x123456789abcdef0, 10**19]
    cases = [(a, b) for a in values for b in values]
    want = b""
    for a, b in cases:
        s, t = [v - 2**64 if v >> 63 else v for v in (a, b)]
        p = (a * b + (b << 64)) * (a + 2**64 * 5)  # of which 128 bits are left
        want += struct.pack("<6Q", p % 2**64, (p >> 64) % 2**64, (s * t * 3 >> 64) % 2**64, a * b % 2**64,
                            (a * b >= 2**64) + 2 * (not -2**63 <= s * t < 2**63), s * t % 2**64)
    assert answer(b"""LAMBDA_MAP(f) { uint64_t n = ctx->in_len / 16; if (ctx->out_cap < 48 * n) return -ENOSPC;
        for (uint64_t i = 0; i < n; i++) { uint64_t a = lambda_load64(ctx->in + 16 * i), b = lambda_load64(ctx->in + 16 * i + 8), u;
        int64_t s; uint8_t *o = ctx->out + 48 * i;
        unsigned __int128 p = (unsigned __int128)a * b + ((unsigned __int128)b << 64);
        p *= a + ((unsigned __int128)5 << 64);
        lambda_store64(o, p); lambda_store64(o + 8, p >> 64);
        lambda_store64(o + 16, ((__int128)(int64_t)a * (int64_t)b * 3) >> 64);
        int over = __builtin_mul_overflow(a, b, &u) + 2 * __builtin_mul_overflow((int64_t)a, (int64_t)b, &s);
        lambda_store64(o + 24, u); lambda_store64(o + 32, over); lambda_store64(o + 40, s); }
        return 48 * n; }""", b"".join(struct.pack("<2Q", a, b) for a, b in cases)) == want


def test_functions_of_many_arguments_or_structures_are_inlined():
    work = " ".join(f"x = x * {i}u + (x >> {i % 7 + 1}); if (x % {i + 3} == 1) x ^= a + {i} * b;" for i in range(1, 60))
    data = bytes(range(1, 33))
    plain = b"""struct pair { uint64_t a, b, c, d; };
        static uint64_t six(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t x) { x += c ^ d ^ e; WORK return x; }
        static struct pair twice(struct pair p, uint64_t x) { uint64_t a = p.a, b = p.b; WORK p.a = x; p.d += x; return p; }
        LAMBDA_MAP(f) { const uint8_t *i = ctx->in; if (ctx->out_cap < 24 || ctx->in_len != 32) return -ENOSPC;
        uint64_t n = six(i[0], i[1], i[2], i[3], i[4], i[5]) + six(i[6], i[7], i[8], i[9], i[10], i[11]);
        struct pair p = twice((struct pair){i[1], i[2], i[3], i[4]}, n); p = twice(p, six(n, 2, 3, 4, 5, p.a)); p = twice(p, i[9]);
        lambda_store64(ctx->out, n); lambda_store64(ctx->out + 8, p.a); lambda_store64(ctx->out + 16, p.d); return 24; }"""
    out = answer(plain.replace(b"WORK", work.encode()), data)
    # The same C, compiled for this machine.
    host = put("host.c", b"#include <stdint.h>\n#include <string.h>\n#include <stdio.h>\n#include <errno.h>\n"
               b"struct lambda_ctx { uint8_t *in, *out; uint64_t in_len, out_cap; };\n"
               b"static void lambda_store64(void *p, uint64_t v) { memcpy(p, &v, 8); }\n"
               b"#define LAMBDA_MAP(f) int64_t f(struct lambda_ctx *ctx)\n" + plain.replace(b"WORK", work.encode()) +
               b"\nint main(void) { uint8_t in[32], out[24]; struct lambda_ctx c = {in, out, 32, 24};"
               b" for (int i = 0; i < 32; i++) in[i] = i + 1; f(&c); fwrite(out, 1, 24, stdout); return 0; }\n")
    assert run(clangs()[-1], "-O1", "-w", host, "-o", path("host"))[0] == 0
    assert run(path("host"))[1] == out


def test_atomic_operations_and_fences_of_one_thread_compile():
    data = struct.pack("<4Q", 5, 7, 2**40, 9)
    assert answer(b"""LAMBDA_MAP(f) { uint64_t *p = (uint64_t *)ctx->in; uint32_t *q = (uint32_t *)(ctx->in + 8);
        if (ctx->out_cap < 32 || ctx->in_len < 32) return -ENOSPC;
        uint64_t a = __atomic_load_n(p, __ATOMIC_ACQUIRE); uint32_t b = __atomic_load_n(q, __ATOMIC_SEQ_CST);
        __sync_synchronize(); __atomic_signal_fence(__ATOMIC_SEQ_CST);
        __atomic_store_n(p + 2, a + b, __ATOMIC_RELEASE); __sync_fetch_and_add(p + 3, a); __sync_lock_release(q);
        memcpy(ctx->out, ctx->in, 32); return 32; }""", data) == struct.pack("<4Q", 5, 0, 12, 14)


def test_zeros_and_ones_of_any_width_are_counted():
    values = [0, 1, 2, 3, 0x80, 0x7f, 0x8000, 0x10000, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 0x00f0000000000000]
    want = b""
    for v in values:
        for bits in (64, 32, 16):
            x = v % 2**bits
            want += bytes([(x & -x).bit_length() - 1 if x else 99, bits - x.bit_length() if x else 99, bin(x).count("1")])
    assert answer(b"""LAMBDA_MAP(f) { uint64_t n = ctx->in_len / 8; uint8_t *o = ctx->out; if (ctx->out_cap < 9 * n) return -ENOSPC;
        for (uint64_t i = 0; i < n; i++) { uint64_t v = lambda_load64(ctx->in + 8 * i); uint32_t w = v; uint16_t h = v;
        *o++ = v ? __builtin_ctzll(v) : 99; *o++ = v ? __builtin_clzll(v) : 99; *o++ = __builtin_popcountll(v);
        *o++ = w ? __builtin_ctz(w) : 99; *o++ = w ? __builtin_clz(w) : 99; *o++ = __builtin_popcount(w);
        *o++ = h ? __builtin_ctz(h) : 99; *o++ = h ? __builtin_clz(h) - 16 : 99; *o++ = __builtin_popcount(h); }
        return o - ctx->out; }""", struct.pack(f"<{len(values)}Q", *values)) == want


def test_the_header_alone_compiles_with_plain_clang():
    source = put("plain.c", b"""#include <lambdaio/function.h>
        #include <stdint.h>
        LAMBDA_MAP(plain) { if (!ctx->out_cap) return -28; ctx->out[0] = ctx->in[0] ^ UINT8_MAX; return 1; }""")
    for clang in clangs():
        status, _, err = run(clang, "-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-I",
                             os.path.join(tap.SRC, "include"), "-c", source, "-o", path("plain.o"))
        assert status == 0, f"{clang}: {err}"
        assert run(LIO, "run", path("plain.o"), put("data", b"\x0f"))[:2] == (0, b"\xf0"), clang


def test_debugging_information_leads_from_a_fault_to_the_line():
    status, _, err = cc(HEAD + b"LAMBDA_MAP(f)\n{\n\treturn *(char *)96;\n}\n")
    assert status == 0, err
    status, out, err = run(LIO, "run", path("f.o"), put("data", b"x"))
    assert status == 2 and "f.c:7" in err, err


def test_the_errors_of_clang_pass_through():
    err = refused("f.c:5:", "undeclared_thing", source=HEAD + b"LAMBDA_MAP(f) { return undeclared_thing; }")
    assert "lio:" not in err


def test_an_object_that_would_not_load_is_refused_at_once_with_its_line():
    refused("lio: ", "not_a_helper", source=HEAD + b"int not_a_helper(void);\nLAMBDA_MAP(f) { return not_a_helper(); }")
    refused("lio: ", "f.c:", source=HEAD + b"static int64_t f2(int64_t n);\n"
            b"__attribute__((noinline)) static int64_t f1(int64_t n) { return n < 2 ? n : f2(n - 1) * n; }\n"
            b"__attribute__((noinline)) static int64_t f2(int64_t n) { return f1(n - 1) + f1(n - 2); }\n"
            b"LAMBDA_MAP(f) { return f1(ctx->in_len); }")
    refused("lio: ", source=HEAD + b'LAMBDA_OUTPUT("max:int");\nLAMBDA_MAP(f) { return 0; }')


def test_a_program_that_is_no_lambda_function_compiles_too():
    status, _, err = cc(b"#include <stdint.h>\nuint64_t entry(uint64_t *p, uint64_t n)\n"
                        b"{ uint64_t s = 0; for (uint64_t i = 0; i < n; i++) s += p[i]; return s; }\n")
    assert status == 0, err


def test_a_failure_leaves_the_old_object_alone():
    put("old.o", b"old")
    status, _, _ = run(LIO, "cc", put("f.c", b"syntax error"), "-o", path("old.o"), env=ENV)
    with open(path("old.o"), "rb") as f:
        assert status == 2 and f.read() == b"old"


def test_an_object_that_cannot_be_written_is_no_reason_to_remove_what_is_there():
    source = put("f.c", HEAD + b"LAMBDA_MAP(f) { return 0; }")
    for full in (True, False):  # a device node needs root; a link to one is removed as easily
        try:
            os.mknod(path("full"), 0o600 | stat.S_IFCHR, os.makedev(1, 7)) if full else os.symlink("/dev/full", path("full"))
        except PermissionError:
            continue
        status, _, err = run(LIO, "cc", source, "-o", path("full"), env=ENV)
        if status == 2 and "ENOSPC" not in err:
            raise Skip("no device can be opened here")
        assert status == 2 and os.path.lexists(path("full")), err
        os.remove(path("full"))


def test_no_temporary_file_is_left_behind():
    os.makedirs(path("tmp"), exist_ok=True)
    before = sorted(os.listdir(os.environ["T"]) + ["f.o", "f.c"])
    for source in (HEAD + b"LAMBDA_MAP(f) { return 0; }", b"syntax error"):
        cc(source, env={"TMPDIR": path("tmp")})
    assert os.listdir(path("tmp")) == []
    assert set(os.listdir(os.environ["T"])) <= set(before)


def test_file_names_are_never_taken_for_options_or_commands():
    source = HEAD + b"LAMBDA_MAP(f) { return 0; }"
    for name in ("a b.c", "-v.c", "$(touch pwned).c", ";id.c"):
        put(name, source)
        status, _, err = run("sh", "-c", 'cd "$T" && exec "$0" cc -o out.o -- "$1"', os.path.abspath(LIO), name, env=ENV)
        assert status == 0 and not os.path.exists(path("pwned")), (name, err)


def test_the_object_is_named_for_the_source_in_the_current_directory():
    os.makedirs(path("dir"), exist_ok=True)
    put("dir/named.c", HEAD + b"LAMBDA_MAP(f) { return 0; }")
    status, _, err = run("sh", "-c", 'cd "$T" && exec "$0" cc dir/named.c', os.path.abspath(LIO), env=ENV)
    assert status == 0 and os.path.isfile(path("named.o")), err


def test_definitions_and_directories_reach_the_compiler():
    os.makedirs(path("inc"), exist_ok=True)
    put("inc/mine.h", b"#define BYTE 'q'\n")
    status, _, err = cc(HEAD + b"#include <mine.h>\nLAMBDA_MAP(f) { *ctx->out = BYTE; return N; }", "-I", path("inc"),
                        "-DN=1")
    assert status == 0, err
    status, out, err = run(LIO, "run", path("f.o"), put("data", b"x"))
    assert (status, out) == (0, b"q"), err


def test_options_that_people_are_used_to_are_taken():
    for options in (("-O2", "-g", "-c"), ("-O1",), ("-O3",), ("-Os",), ("-O0",)):
        status, _, err = cc(HEAD + b"LAMBDA_MAP(f) { for (int i = 0; i < 3; i++) ctx->out[i] = ctx->in[2 - i]; return 3; }", *options)
        assert status == 0, (options, err)
        assert run(LIO, "run", path("f.o"), put("data", b"abc"))[:2] == (0, b"cba"), options


def test_a_clang_can_be_named_and_what_is_none_is_said():
    clang = shutil.which(clangs()[-1])
    source = HEAD + b"LAMBDA_MAP(f) { return 0; }"
    assert cc(source, "--clang", clang)[0] == 0
    assert cc(source, env={"LIO_CLANG": clang})[0] == 0
    refused("no_such_clang", source=source, args=("--clang", "no_such_clang"))
    refused("/bin/true", "is it a clang", source=source, args=("--clang", "/bin/true"))
    refused("/bin/false", source=source, args=("--clang", "/bin/false"))
    refused("install clang", source=source, env={"PATH": path("nothing")})


def test_wrong_usage_is_one_line():
    for argv in ((), ("a.c", "b.c"), ("a.c", "-o"), ("a.c", "--mcpu", "v5"), ("a.c", "--no-such"), ("nothing.c",)):
        status, out, err = run(LIO, "cc", *argv)
        assert (status, out) == (2, b"") and err.count("\n") == 1 and err.startswith("lio: "), (argv, err)


if __name__ == "__main__":
    tap.main()
