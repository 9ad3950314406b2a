# SPDX-License-Identifier: Apache-2.0
"""The shipped functions give the answers of independent implementations, however the input is cut."""
import array
import bisect
import collections
import ctypes
import ctypes.util
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
from decimal import Decimal, getcontext

import tap
from tap import LIO, Skip, run

getcontext().prec = 60

# Pieces of these sizes, on so many threads.
CUTS = [(), ("--chunk", "4K", "--threads", "3"), ("--chunk", "10007", "--threads", "1"),
        ("--chunk", "100K", "--threads", "2", "--io", "pread")]
if run(LIO, "run", "count", __file__, "--tier", "llvm")[0] == 0:
    CUTS.append(("--tier", "llvm", "--chunk", "64K", "--threads", "2"))
TEXT = ["/usr/share/common-licenses/GPL-3", "/usr/share/common-licenses/Apache-2.0", "/etc/services",
        "/etc/protocols", "/usr/share/perl/5.36.0/perl5db.pl", "/usr/bin/ldd"]
BINARY = ["/bin/bash", "/usr/bin/find", os.path.realpath(sys.executable)]


def existing(paths):
    return [p for p in paths if os.path.isfile(p)]


def temp(data, name="data"):
    path = os.path.join(os.environ["T"], name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def content(path):
    with open(path, "rb") as f:
        return f.read()


def lio(function, path, *args, options=()):
    status, out, err = run(LIO, "run", function, path, *args, "--raw", *options)
    assert status in (0, 1), f"lio run {function}: {err}"
    assert (status == 1) == (out == b""), f"status {status} with {len(out)} bytes"
    return out


def same(want, function, path, *args, cuts=CUTS):
    """The function's output is the wanted bytes, for every cut."""
    for options in cuts:
        got = lio(function, path, *args, options=options)
        assert got == want, (f"{function} {path} {args} {options}: got {len(got)} bytes "
                             f"{got[:200]!r}, want {len(want)} bytes {want[:200]!r}")


def tool(*argv, stdin=None):
    return subprocess.run(argv, stdin=stdin, stdout=subprocess.PIPE,
                          env={**os.environ, "LC_ALL": "C"}, check=False).stdout


def rng(seed):
    return random.Random(seed)


def random_text(seed, size=300_000):
    """Lines of words of all lengths, empty ones, and no newline at the end."""
    r = rng(seed)
    words = [b"alpha", b"Beta", b"LAMBDA", b"lambda", b"x", b"", b"\xff\xfe", b"mid\rdle", b"\t", b"\x00"]
    out = bytearray()
    while len(out) < size:
        out += b" ".join(r.choices(words, k=r.choice([0, 0, 1, 3, 20]))) + b"\n"
    return bytes(out) + b"the end has no newline, LAmbda"


# ---- numbers ----

def stats(code, data):
    a = array.array(code, data[:len(data) // struct.calcsize(code) * struct.calcsize(code)])
    if not a:
        return b""
    bits = 8 * a.itemsize
    total = (sum(a) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    return struct.pack(f"<3{code}", max(a), min(a), total)


def test_stats64_is_the_largest_smallest_and_wrapping_sum():
    for data in (rng(1).randbytes(800_000), struct.pack("<3q", -5, -5, -9), b""):
        same(stats("q", data), "stats64", temp(data))


def test_stats32_is_the_largest_smallest_and_sum_that_wraps_at_32_bits():
    for data in (rng(2).randbytes(400_004), struct.pack("<2i", 2**31 - 1, 5), b""):
        same(stats("i", data), "stats32", temp(data))


def test_stats64_leaves_out_a_last_record_that_is_cut_short():
    data = struct.pack("<2q", 7, 9) + b"\x7f\x7f\x7f"
    same(struct.pack("<3q", 9, 7, 16), "stats64", temp(data))


def test_statistics_of_a_real_binary_are_right():
    for path in existing(BINARY)[:2]:
        data = content(path)
        same(stats("q", data), "stats64", path)
        same(stats("i", data), "stats32", path)


def points(seed, n, spread=1000):
    r = rng(seed)
    return [(i * 7 - 3, [r.randrange(-spread, spread) for _ in range(255)]) for i in range(n)]


def packed(rows):
    return b"".join(struct.pack("<256q", i, *features) for i, features in rows)


def l1(features, query):
    return sum(abs(a - b) for a, b in zip(features, query))


def test_knn_gives_each_row_its_distance_to_the_default_query():
    rows = points(3, 150)
    want = b"".join(struct.pack("<2q", i, l1(f, range(255))) for i, f in rows)
    same(want, "knn", temp(packed(rows)))


def test_knn_takes_the_query_as_an_argument():
    rows, query = points(4, 40, 10**12), [rng(5).randrange(-10**12, 10**12) for _ in range(255)]
    want = b"".join(struct.pack("<2q", i, l1(f, query)) for i, f in rows)
    same(want, "knn", temp(packed(rows)), "query=" + ",".join(map(str, query)))


def test_knn_top_gives_the_nearest_first_and_the_smaller_id_of_equals():
    rows = points(6, 300, 50)
    rows += [(i - 10_000, f) for i, f in rows[:100]]  # the same distances again
    rng(7).shuffle(rows)
    path = temp(packed(rows))
    ranked = sorted((l1(f, range(255)), i) for i, f in rows)
    for k in (1, 10, 399, 400, 1000):
        want = b"".join(struct.pack("<2q", i, d) for d, i in ranked[:k])
        same(want, "knn-top", path, f"k={k}")


def test_rowgrep_gives_the_first_place_in_each_row_or_minus_one():
    r = rng(8)
    data = bytearray(r.randbytes(4096 * 60))
    for row in range(0, 60, 3):
        at = 4096 * row + r.randrange(4090)
        data[at:at + 6] = b"needle"
    data[4096 * 9 + 4093:4096 * 9 + 4099] = b"needle"  # across two rows: in neither
    path = temp(bytes(data))
    for pattern, args in ((b"DA", ()), (b"needle", ("needle",)), (b"\x07", ("pattern=\x07",))):
        want = b"".join(struct.pack("<q", bytes(data[i:i + 4096]).find(pattern))
                        for i in range(0, len(data), 4096))
        same(want, "rowgrep", path, *args)


# ---- a function for λ-write ----

def pairs(seed, n):
    r = rng(seed)
    return [(r.choice([1, 2, 7, 31, 32, 33, 64, 200, 255]), r.randrange(256)) for _ in range(n)]


def expanded(runs):
    return b"".join(bytes([value]) * count for count, value in runs)


def test_bitmap_expands_runs():
    runs = pairs(9, 30_000)
    same(expanded(runs), "bitmap", temp(bytes(b for pair in runs for b in pair)))


def test_bitmap_stops_at_a_count_of_zero_wherever_it_stands():
    for n in (0, 1, 2047, 2048, 5000):
        runs = pairs(10, n)
        data = bytes(b for pair in runs + [(0, 77)] + pairs(11, 9000) for b in pair)
        same(expanded(runs), "bitmap", temp(data))


def test_bitmap_writes_into_a_file_and_leaves_the_rest_of_it_alone():
    runs = pairs(12, 3000)
    source = temp(bytes(b for pair in runs for b in pair) + b"\0\0")
    for options in CUTS[:3]:
        target = temp(b"\xa5" * 700_000, "target")
        status, out, err = run(LIO, "write", "bitmap", source, target, "--offset", "1000", *options)
        assert (status, out) == (0, b""), err
        want = expanded(runs)
        got = content(target)
        assert got[:1000] == b"\xa5" * 1000 and got[1000:1000 + len(want)] == want
        assert got[1000 + len(want):] == b"\xa5" * (700_000 - 1000 - len(want))


# ---- lines ----

def patterns():
    return [b"e", b"the", b"The", b"lambda", b"LAMBDA", b"software", b"no such thing anywhere", b"#", b" ",
            b"10\t", b"", b"L"]


def each_grep():
    paths = existing(TEXT) + [temp(random_text(13), "lines"), temp(b"", "none"), temp(b"\n", "newline"),
                              temp(b"one", "one"), temp(b"a\n\nb\n\n", "gaps")]
    for path in paths:
        for pattern in patterns():
            for invert in (0, 1):
                for ignore in (0, 1):
                    flags = ["-aF"] + ["-v"] * invert + ["-i"] * ignore
                    yield path, pattern, flags, (os.fsdecode(pattern), f"invert={invert}",
                                                 f"ignore_case={ignore}")


def test_grep_gives_the_lines_of_grep():
    for i, (path, pattern, flags, args) in enumerate(each_grep()):
        same(tool("grep", *flags, "-e", pattern, path), "grep", path, *args, cuts=[CUTS[i % 4]])


def test_grep_number_gives_the_lines_of_grep_n():
    for i, (path, pattern, flags, args) in enumerate(each_grep()):
        same(tool("grep", *flags, "-n", "-e", pattern, path), "grep-number", path, *args, cuts=[CUTS[i % 4]])


def test_grep_count_gives_the_count_of_grep_c():
    for i, (path, pattern, flags, args) in enumerate(each_grep()):
        want = int(tool("grep", *flags, "-c", "-e", pattern, path) or 0)  # -v of an empty pattern: nothing
        same(struct.pack("<Q", want), "grep-count", path, *args, cuts=[CUTS[i % 4]])


def test_greps_of_one_piece_and_of_many_agree():
    path = temp(random_text(14))
    for function in ("grep", "grep-number", "grep-count"):
        same(lio(function, path, "lambda", "ignore_case=1"), function, path, "lambda", "ignore_case=1")


def test_grep_finds_what_crosses_the_blocks_of_a_lowered_copy():
    line = bytearray(b"." * 100_000)
    for at in (16380, 16384 - 3, 32768 - 1, 49150):
        line = bytearray(b"." * 100_000)
        line[at:at + 6] = b"NeeDLe"
        path = temp(b"first\n" + bytes(line) + b"\nlast\n")
        same(bytes(line) + b"\n", "grep", path, "needle", "ignore_case=1", cuts=CUTS[:1])


def test_grep_in_real_binaries_gives_the_lines_of_grep():
    for path in existing(BINARY)[:2]:
        for pattern in (b"lib", b"GLIBC"):
            same(tool("grep", "-aF", "-e", pattern, path), "grep", path, os.fsdecode(pattern))
            same(tool("grep", "-aFin", "-e", pattern, path), "grep-number", path, os.fsdecode(pattern), "0", "1")


def test_grep_refuses_a_pattern_with_a_newline():
    status, out, err = run(LIO, "run", "grep", temp(b"a\nb\n"), "a\nb")
    assert (status, out) == (2, b"") and err.count("\n") == 1 and "EINVAL" in err


def counted(data):
    return struct.pack("<3Q", data.count(b"\n"), len(data.split()), len(data))


def test_count_gives_the_lines_words_and_bytes_of_wc_on_text():
    for path in existing(TEXT):
        want = struct.pack("<3Q", *map(int, tool("wc", stdin=open(path, "rb")).split()))
        same(want, "count", path)


def test_count_gives_what_C_calls_white_space_on_any_bytes():
    r = rng(15)
    spaces = bytes(r.choices(b" \t\n\v\f\rab\x00\x1f\x21\x85\xa0\xff", k=200_001))
    for data in (r.randbytes(150_003), spaces, random_text(16), b"", b"x", b" ", b"\n", b"ab cd", b" ab\n"):
        same(counted(data), "count", temp(data))
    for n in range(40):
        data = spaces[n * 100:n * 101]
        same(counted(data), "count", temp(data), cuts=CUTS[:1])


def test_count_of_real_binaries_is_right():
    for path in existing(BINARY)[:2]:
        same(counted(content(path)), "count", path)


def chosen(path, *args):
    return lio("sample", path, *args).splitlines(keepends=True)


def test_sample_gives_lines_in_order_at_about_the_rate_and_always_the_same():
    lines = [b"%d\n" % i for i in range(60_000)]
    path = temp(b"".join(lines))
    for one_in in (1, 7, 100):
        picked = chosen(path, f"one_in={one_in}")
        numbers = [int(x) for x in picked]
        assert numbers == sorted(set(numbers)) and picked == [lines[i] for i in numbers]
        expected = len(lines) / one_in
        assert abs(len(picked) - expected) <= 6 * expected**0.5 * (one_in > 1), (one_in, len(picked))
        same(b"".join(picked), "sample", path, f"one_in={one_in}")
    assert chosen(path) != chosen(path, "seed=1")


def test_sample_chooses_equal_lines_independently():
    n = len(chosen(temp(b"same\n" * 40_000), "one_in=10"))
    assert 3600 < n < 4400, n


def test_distinct_is_within_three_percent():
    r = rng(17)
    for n in (1, 2, 10, 1000, 12_000, 40_000, 45_000, 200_000):
        lines = [b"%d" % r.randrange(10**15) for _ in range(n)]
        lines += r.choices(lines, k=n // 2)
        path = temp(b"\n".join(lines))
        want = len(set(lines))
        got, = struct.unpack("<Q", lio("distinct", path))
        assert abs(got - want) <= 0.03 * want + 0.5, (want, got)
        same(struct.pack("<Q", got), "distinct", path)
    same(struct.pack("<Q", 0), "distinct", temp(b""))


def test_distinct_counts_the_cells_of_a_column():
    r = rng(18)
    data = b"".join(b"%d|%d|x\n" % (i, r.randrange(50)) for i in range(20_000)) + b"short\n"
    same(struct.pack("<Q", 50), "distinct", temp(data), "2", "|")


# ---- bytes ----

def sizes():
    return [0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 4095, 4096, 4097, 10007, 300_001]


def test_sha256_is_that_of_sha256sum():
    for n in sizes():
        path = temp(rng(n).randbytes(n))
        same(tool("sha256sum", stdin=open(path, "rb"))[:64] + b"\n", "sha256", path)
    for path in existing(BINARY):
        same(hashlib.sha256(content(path)).hexdigest().encode() + b"\n", "sha256", path)


def crc32c(data):
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    crc = 0xffffffff
    for b in data:
        crc = crc >> 8 ^ table[(crc ^ b) & 255]
    return crc ^ 0xffffffff


def test_crc32c_is_castagnolis_and_merges():
    assert crc32c(b"123456789") == 0xe3069283  # RFC 3720's check value
    for n in sizes():
        data = rng(n).randbytes(n)
        same(struct.pack("<I", crc32c(data)), "crc32c", temp(data))


def test_xxh3_is_that_of_libxxhash():
    name = ctypes.util.find_library("xxhash")
    if not name:
        raise Skip("no libxxhash to compare with")
    xxh3 = ctypes.CDLL(name).XXH3_64bits
    xxh3.restype, xxh3.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    for n in sizes() + [240, 241, 255, 256, 257, 1024, 1025]:
        data = rng(n).randbytes(n)
        same(b"%016x\n" % xxh3(data, n), "xxh3", temp(data))


def test_histogram_counts_each_byte_value():
    for data in [content(p) for p in existing(BINARY)[:1]] + [rng(19).randbytes(99_999), b"a" * 70_000, b"ba", b""]:
        counts = sorted(collections.Counter(data).items())
        same(b"".join(struct.pack("<BQ", v, n) for v, n in counts), "histogram", temp(data))


# ---- CSV ----

def table(seed, n, delimiter=b"|"):
    """Like lineitem: keys, decimals, words; a few cells that are no numbers."""
    r = rng(seed)
    rows = []
    for i in range(n):
        price = b"%d.%02d" % (r.randrange(-100, 100_000), r.randrange(100))
        cells = [b"%d" % i, r.choice([price, price, price, b"-0.50", b"+7", b"n/a", b"", b" 12.5 "]),
                 r.choice([b"AIR", b"RAIL", b"TRUCK", b"air mail"]), b"%d" % r.randrange(50)]
        rows.append(delimiter.join(cells[:r.choice([4, 4, 4, 4, 4, 2])]))
    return rows


def number(cell):
    text = cell.strip(b" ").decode("latin-1")
    digits = text.lstrip("+-") if text[:2] not in ("+-", "-+", "++", "--") else "?"
    ok = digits.replace(".", "", 1).isdigit() and digits.isascii()
    return Decimal(text) if ok else None


def summed(rows, column, delimiter=b"|", keep=lambda cells: True):
    kept = [row.split(delimiter) for row in rows]
    kept = [c for c in kept if keep(c)]
    values = [number(c[column - 1]) if len(c) >= column else None for c in kept]
    skipped = sum(v is None for v in values)
    values = [v for v in values if v is not None]
    decimals = max((-v.as_tuple().exponent for v in values), default=0)
    texts = [sum(values, Decimal(0))] + ([min(values), max(values)] if values else [])
    texts = [format(abs(v) if not v else v, f".{decimals}f").encode() for v in texts] + [b""] * 2
    field = [struct.pack("<I", len(t)) + t for t in texts[:3]]
    return field[0] + struct.pack("<Q", len(values)) + field[1] + field[2] + struct.pack("<Q", skipped)


def test_csv_sum_is_exact():
    rows = table(20, 8000)
    path = temp(b"\n".join(rows) + b"\n")
    for column in (1, 2, 3, 4, 5):
        same(summed(rows, column), "csv-sum", path, str(column), "|")


def test_csv_sum_keeps_eighteen_decimals_and_the_widest_sums():
    r = rng(21)
    rows = [b"%s%d.%018d" % (r.choice([b"", b"-"]), r.randrange(10**18), r.randrange(10**18)) for _ in range(3000)]
    rows += [b"999999999999999999.999999999999999999"] * 3000 + [b"1" + b"0" * 18, b"0.0000000000000000001",
                                                                 b"0" * 30 + b"1.5", b"."]
    wanted = [row for row in rows[:-4]] + [b"1.5"]
    want = summed(wanted, 1)
    want = want[:-8] + struct.pack("<Q", 3)
    same(want, "csv-sum", temp(b"\n".join(rows)))


def test_csv_sum_where_a_condition_holds():
    rows = table(22, 5000)
    path = temp(b"\n".join(rows))
    same(summed(rows, 2, keep=lambda c: len(c) > 2 and c[2] == b"AIR"), "csv-sum", path, "2", "|", "where=3",
         "op==", "value=AIR")
    same(summed(rows, 2, keep=lambda c: len(c) > 3 and Decimal(c[3].decode()) >= 24), "csv-sum", path, "2", "|",
         "4", ">=", "24.0")


def test_csv_sum_agrees_with_awk():
    if not shutil.which("awk"):
        raise Skip("no awk")
    rows = [b"%d,%d" % (i, i * i % 9973) for i in range(30_000)]
    path = temp(b"\n".join(rows) + b"\n")
    want = tool("awk", "-F,", '{s+=$2} END {printf "%.0f", s}', path)
    got = lio("csv-sum", path, "column=2")
    assert got[4:4 + len(want)] == want and got[:4] == struct.pack("<I", len(want)), (got, want)


def filtered(rows, keep, delimiter=b"|"):
    return b"".join(row + b"\n" for row in rows if keep(row.split(delimiter)))


def order(cell, value):
    a, b = number(cell), number(value)
    a, b = (a, b) if a is not None and b is not None else (cell, value)
    return (a > b) - (a < b)


OPS = {"=": lambda c, v: order(c, v) == 0, "!=": lambda c, v: order(c, v) != 0,
       "<": lambda c, v: order(c, v) < 0, "<=": lambda c, v: order(c, v) <= 0,
       ">": lambda c, v: order(c, v) > 0, ">=": lambda c, v: order(c, v) >= 0,
       "contains": lambda c, v: v in c, "prefix": lambda c, v: c.startswith(v),
       "suffix": lambda c, v: c.endswith(v)}


def test_csv_filter_keeps_the_lines_that_meet_the_condition():
    rows = table(23, 4000)
    path = temp(b"\n".join(rows))
    for i, (op, holds) in enumerate(OPS.items()):
        for column, value in ((1, b"777"), (2, b"50000"), (2, b"12.50"), (3, b"AIR"), (3, b"air"), (4, b"25.0"),
                              (2, b"n/a"), (4, b""), (9, b"x")):
            want = filtered(rows, lambda c: len(c) >= column and holds(c[column - 1], value))
            same(want, "csv-filter", path, str(column), op, os.fsdecode(value), "|", cuts=[CUTS[i % 4]])


def test_csv_filter_passes_the_header_on_request():
    path = temp(b"name,age\nann,30\nbob,25\n")
    same(b"name,age\nann,30\n", "csv-filter", path, "2", ">", "26", "header=1")
    same(b"ann,30\n", "csv-filter", path, "1", "=", "ann")


def test_csv_reads_quoted_cells():
    rows = [b'1,"Doe, ""Jane""",5\n', b'2,"x",6\r\n', b'3,plain,7\n', b'4,"a""b" tail,8\n', b'"5",say "hi",9\n',
            b'6,"",10']
    path = temp(b"".join(rows))
    for value, want in (('Doe, "Jane"', rows[0]), ("x", rows[1]), ("plain", rows[2]), ('say "hi"', rows[4]),
                        ("", rows[5] + b"\n")):
        same(want, "csv-filter", path, "2", "=", value)
    same(rows[0] + rows[1], "csv-filter", path, "3", "<=", "6")
    same(rows[4], "csv-filter", path, "1", "=", "5")
    same(rows[0], "csv-filter", path, "2", "=", '"Doe', "quotes=0")
    got = lio("csv-sum", path, "3")
    assert got[:6] == b"\x02\0\0\x0045", got


def test_csv_in_long_lines_finds_the_same_cells():
    r = rng(24)
    rows = [b";".join(r.randbytes(r.randrange(12)).hex().encode() for _ in range(60)) for _ in range(1500)]
    path = temp(b"\n".join(rows))
    for column in (1, 2, 8, 9, 33, 60):
        wanted = rows[77].split(b";")[column - 1]
        want = filtered(rows, lambda c: c[column - 1] == wanted or order(c[column - 1], wanted) == 0, b";")
        same(want, "csv-filter", path, str(column), "=", wanted.decode(), ";", cuts=CUTS[:2])


def test_wrong_arguments_are_refused_by_every_function_that_has_them():
    path = temp(b"1,2\n")
    for argv in (("csv-sum", path, "column=0"), ("csv-sum", path, "delimiter=ab"), ("csv-sum", path, "delimiter="),
                 ("csv-filter", path, "1", "like", "x"), ("sample", path, "one_in=0"), ("csv-filter", path)):
        status, out, err = run(LIO, "run", *argv)
        assert (status, out) == (2, b"") and "EINVAL" in err and err.count("\n") == 1, (argv, err)
    data = temp(packed(points(25, 2)))
    for k in ("0", "1025"):
        status, out, err = run(LIO, "run", "knn-top", data, f"k={k}")
        assert (status, out) == (2, b"") and "EINVAL" in err, err


# ---- the law, by random cuts on every tier ----

def test_every_function_keeps_its_law():
    status, out, err = run(LIO, "functions", "--json")
    assert status == 0, err
    text, numbers = temp(random_text(26, 60_000), "law.txt"), temp(packed(points(27, 64)), "law.bin")
    table_ = temp(b"\n".join(table(28, 3000)), "law.csv")
    args = {"grep": ["lambda"], "grep-number": ["lambda", "0", "1"], "grep-count": ["lambda", "1"],
            "csv-filter": ["2", ">", "100", "|"], "csv-sum": ["2", "|"], "distinct": ["3", "|"], "sample": ["3"]}
    for name in FUNCTIONS:
        path = table_ if name.startswith("csv") or name == "distinct" else \
            numbers if name.startswith("knn") or name in ("rowgrep", "stats32", "stats64") else text
        status, out, err = run(LIO, "test", name, path, *args.get(name, []), "--rounds", "6")
        assert status == 0, err + out.decode()


FUNCTIONS = ["bitmap", "count", "crc32c", "csv-filter", "csv-sum", "distinct", "grep", "grep-count", "grep-number",
             "histogram", "knn", "knn-top", "rowgrep", "sample", "sha256", "stats32", "stats64", "xxh3"]


def test_all_of_them_are_shipped_and_say_what_they_do():
    status, out, err = run(LIO, "functions")
    assert status == 0, err
    named = {line.split()[0]: line for line in out.decode().splitlines() if line.strip()}
    for name in FUNCTIONS:
        assert name in named, f"{name} is not listed"
        assert f"\n * {name} - " in content(os.path.join(tap.SRC, "functions", name + ".c")).decode()


if __name__ == "__main__":
    tap.main()
