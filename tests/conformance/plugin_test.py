# SPDX-License-Identifier: Apache-2.0
"""sbpf plugin keeps the convention of conformance runners, for every published vector.

SBPF_ONE_IN=N takes one in N of them, where an emulator is slow to start.
"""
import os

import tap
from tap import SBPF

HERE = os.path.dirname(os.path.abspath(__file__))
TIERS = ("interp", "template", "llvm")
RETURN_42 = b"b7000000 2a000000 9500000000000000"


def tiers():
    for tier in TIERS:
        status, _, err = tap.run(SBPF, "plugin", "--tier", tier, stdin=RETURN_42)
        if status == 0:
            yield tier
        else:
            assert "EOPNOTSUPP" in err, err


def vectors():
    with open(os.path.join(HERE, "isa_vectors.tsv"), encoding="ascii") as f:
        lines = [line for line in f if not line.startswith("#")]
    for line in lines[:: int(os.environ.get("SBPF_ONE_IN", "1"))]:
        yield line.rstrip("\n").split("\t")


def refused(*args, stdin=RETURN_42):
    status, out, err = tap.run(SBPF, *args, stdin=stdin)
    assert status == 2 and out == b"", (status, out, err)
    assert err.startswith("sbpf: ") and err.count("\n") == 1, err
    return err


def test_every_published_vector_gives_its_r0_through_the_command():
    for tier in tiers():
        for name, program, memory, want in vectors():
            status, out, err = tap.run(SBPF, "plugin", "--tier", tier, memory, stdin=program.encode())
            assert status == 0, f"{name} on {tier}: {err}"
            assert out == f"{int(want, 16):x}\n".encode(), f"{name} on {tier}: {out}, not {want}"


def test_r0_is_plain_hex_and_the_tier_is_chosen_without_an_option():
    assert tap.run(SBPF, "plugin", stdin=RETURN_42)[1] == b"2a\n"


def test_white_space_is_ignored_in_program_and_memory():
    program = b"\n 71 10 0200 0000 0000\t\r\n 95000000 00000000\n\n"  # r0 = memory[2]
    assert tap.run(SBPF, "plugin", "0a 0b\n0c", stdin=program)[1] == b"c\n"


def test_without_memory_r1_and_r2_are_zero():
    program = b"bf10000000000000 4f20000000000000 9500000000000000"  # r0 = r1 | r2
    assert tap.run(SBPF, "plugin", stdin=program)[1] == b"0\n"
    assert tap.run(SBPF, "plugin", "", stdin=program)[1] == b"0\n"


def test_a_refused_program_is_one_line_with_its_reason():
    err = refused("plugin", stdin=b"bf30000000000000 9500000000000000")  # r0 = r3
    assert "r3 is read before it is written" in err and "(EINVAL)" in err, err


def test_a_fault_is_one_line_with_its_address():
    err = refused("plugin", stdin=b"7910080000000000 9500000000000000")  # r0 = *(u64 *)(0 + 8)
    assert "(EFAULT)" in err and "0x8" in err, err


def test_a_program_that_never_ends_is_ended():
    err = refused("plugin", "--fuel", "100000", stdin=b"0500ffff00000000")
    assert "(ETIME)" in err, err


def test_what_is_not_a_program_is_refused():
    assert "hexadecimal" in refused("plugin", stdin=b"b7 00 zz")
    assert "8 bytes" in refused("plugin", stdin=b"b700")
    assert "8 bytes" in refused("plugin", stdin=b"")
    assert "hexadecimal" in refused("plugin", stdin=b"b70")


def test_memory_that_is_not_hex_is_refused():
    assert "hexadecimal" in refused("plugin", "0x12")
    assert "hexadecimal" in refused("plugin", "123")


tap.main()
