# SPDX-License-Identifier: Apache-2.0
"""The vectors and the model that made them: they agree with each other and leave no opcode out."""
import contextlib
import io
import os
import struct

import rfc9669
import tap
import vectors

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    with open(os.path.join(HERE, name), encoding="ascii") as f:
        for line in f:
            if not line.startswith("#"):
                title, program, memory, want = line.rstrip("\n").split("\t")
                yield title, bytes.fromhex(program), bytes.fromhex(memory), int(want, 16)


def forms(program):
    """What tells instructions apart: the opcode and the fields that select an operation."""
    skip = False
    for code, regs, off, imm in struct.iter_unpack("<BBhi", program):
        cls, op = code & 7, code & 0xF0
        if skip:
            skip = False
            continue
        skip = code == 0x18
        if cls in (rfc9669.ALU, rfc9669.ALU64):
            yield (code, off if op in (rfc9669.MOV, rfc9669.DIV, rfc9669.MOD) else 0, imm if op == rfc9669.END else 0)
        elif cls == rfc9669.STX and code & 0xE0 == rfc9669.ATOMIC:
            yield code, 0, imm
        elif code == rfc9669.JMP | rfc9669.CALL:
            yield code, 0, regs >> 4
        else:
            yield code, 0, 0


def every_form():
    from rfc9669 import (ADD, ALU, ALU64, AND, ATOMIC, CALL, CMPXCHG, DW, EXIT, FETCH, JA, JMP, JMP32, K, LDX, MEM,
                         MEMSX, OR, ST, STX, W, X, XCHG, XOR)
    for _, code, off, imm in vectors.alu_forms():
        yield code, off, imm or 0
    for cls in (JMP, JMP32):
        for op in vectors.JUMP_NAMES:
            yield cls | op | K, 0, 0
            yield cls | op | X, 0, 0
        yield cls | JA, 0, 0
    for size in vectors.SIZE_NAMES:
        for cls in (LDX, ST, STX):
            yield cls | MEM | size, 0, 0
        if size != DW:
            yield LDX | MEMSX | size, 0, 0
    for size in (W, DW):
        for op in (ADD, OR, AND, XOR):
            yield STX | ATOMIC | size, 0, op
            yield STX | ATOMIC | size, 0, op | FETCH
        yield STX | ATOMIC | size, 0, XCHG
        yield STX | ATOMIC | size, 0, CMPXCHG
    yield JMP | CALL, 0, 1
    yield JMP | EXIT, 0, 0
    yield 0x18, 0, 0


def test_the_model_agrees_with_every_published_vector():
    for title, program, memory, want in read("isa_vectors.tsv"):
        got = rfc9669.run(program, memory)
        assert got == want, f"{title}: {got:#x}, not {want:#x}"


def test_the_edge_vectors_are_what_the_generator_writes():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        vectors.main("edges")
    with open(os.path.join(HERE, "edge_vectors.tsv"), encoding="ascii") as f:
        assert f.read() == out.getvalue(), "run vectors.py edges > edge_vectors.tsv"


def test_the_edge_vectors_use_every_instruction_of_the_rfc():
    used = {form for _, program, _, _ in read("edge_vectors.tsv") for form in forms(program)}
    missing = [f"{code:#04x} off {off} imm {imm:#x}" for code, off, imm in every_form() if (code, off, imm) not in used]
    assert not missing, missing


tap.main()
