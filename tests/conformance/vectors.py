# SPDX-License-Identifier: Apache-2.0
"""Writes conformance vectors, in the form of isa_vectors.tsv, with what the model says of each.

    vectors.py edges      every opcode over operands at the edges (kept as edge_vectors.tsv)
    vectors.py registers  every opcode over every pair of registers, and far jumps (made when tests are built)

A name is TITLE or TITLE@CASE; cases of one title are one promise.  Most vectors
apply one instruction to many operands and fold the results into r0, in order.
"""
import struct
import sys

from rfc9669 import *

EDGES = [0, 1, 2, 7, 0x1F, 0x20, 0x3F, 0x40, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000,
         0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFF80000000, 0xFFFFFFFFFFFFFFFF, 0x123456789ABCDEF0,
         0xFEDCBA9876543210]
TABLE = struct.pack(f"<{len(EDGES)}Q", *EDGES)
IMMEDIATES = [0, 1, -1, 2, 7, 31, 32, 33, 63, 64, 0x7F, -0x80, 0x7FFFFFFF, -0x80000000, 0x12345678]

ALU_NAMES = {ADD: "add", SUB: "sub", MUL: "mul", DIV: "div", OR: "or", AND: "and", LSH: "lsh", RSH: "rsh", MOD: "mod",
             XOR: "xor", MOV: "mov", ARSH: "arsh"}
JUMP_NAMES = {JEQ: "jeq", JGT: "jgt", JGE: "jge", JSET: "jset", JNE: "jne", JSGT: "jsgt", JSGE: "jsge", JLT: "jlt",
              JLE: "jle", JSLT: "jslt", JSLE: "jsle"}
SIZE_NAMES = {B: "b", H: "h", W: "w", DW: "dw"}
MOV_RR, MOV_RI = ALU64 | MOV | X, ALU64 | MOV | K
ADD_RR, ADD_RI = ALU64 | ADD | X, ALU64 | ADD | K
RETURN = insn(JMP | EXIT)


def mov(dst, src):
    return insn(MOV_RR, dst, src)


def ld(dst, base, off, size=DW):
    return insn(LDX | MEM | size, dst, base, off)


def fold(reg):
    """r0 = r0 * 31 + reg"""
    return insn(ALU64 | MUL | K, 0, imm=31) + insn(ADD_RR, 0, reg)


def start():
    return insn(MOV_RI, 0, imm=1)


def alu_forms():
    """(name, code, off, imm) of every arithmetic instruction; imm None: it has none to vary."""
    for cls, bits in ((ALU, 32), (ALU64, 64)):
        for op, name in ALU_NAMES.items():
            for src in (K, X):
                yield f"{name}{bits}", cls | op | src, 0, None
                if op in (DIV, MOD):
                    yield f"s{name}{bits}", cls | op | src, 1, None
        for off in (8, 16, 32):
            if off < bits:
                yield f"movsx{off}-{bits}", cls | MOV | X, off, None
        yield f"neg{bits}", cls | NEG, 0, 0
    for bits in (16, 32, 64):
        yield f"le{bits}", ALU | END | K, 0, bits
        yield f"be{bits}", ALU | END | X, 0, bits
        yield f"bswap{bits}", ALU64 | END | K, 0, bits


def is_unary(code):
    return code & 0xF0 in (NEG, END)


def over_table(body):
    """@body (which may use r6 = a value of the table) for each value in turn."""
    head = start() + mov(7, 1) + mov(8, 1) + insn(ADD_RR, 8, 2)
    loop = ld(6, 7, 0) + body + insn(ADD_RI, 7, imm=8)
    return head + loop + insn(JMP | JLT | X, 7, 8, -(len(loop) // 8 + 1)) + RETURN


def over_pairs(body):
    """@body for each pair of the table's values, r3 and r4."""
    inner = ld(4, 9, 0) + mov(3, 6) + body + insn(ADD_RI, 9, imm=8)
    inner += insn(JMP | JLT | X, 9, 8, -(len(inner) // 8 + 1))
    return over_table(mov(9, 1) + inner)


def alu_vectors():
    for name, code, off, imm in alu_forms():
        if imm is not None:
            body = mov(3, 6) + insn(code, 3, off=off, imm=imm) + fold(3)
            yield name, over_table(body), TABLE
        elif code & X:
            yield f"{name}-reg", over_pairs(insn(code, 3, 4, off) + fold(3)), TABLE
            yield f"{name}-self", over_table(insn(code, 6, 6, off) + fold(6)), TABLE
        else:
            body = b"".join(mov(3, 6) + insn(code, 3, off=off, imm=i) + fold(3) for i in IMMEDIATES)
            yield f"{name}-imm", over_table(body), TABLE


def branch(code, dst, src=0, imm=0):
    """Fold 5 where it is taken and 3 where not."""
    return (insn(MOV_RI, 5, imm=5) + insn(code, dst, src, 1, imm) + insn(MOV_RI, 5, imm=3) + fold(5))


def jump_vectors():
    for cls, bits in ((JMP, 64), (JMP32, 32)):
        for op, name in JUMP_NAMES.items():
            yield f"{name}{bits}-reg", over_pairs(branch(cls | op | X, 3, 4)), TABLE
            yield f"{name}{bits}-self", over_table(branch(cls | op | X, 6, 6)), TABLE
            body = b"".join(branch(cls | op | K, 6, imm=i) for i in IMMEDIATES)
            yield f"{name}{bits}-imm", over_table(body), TABLE
    for name, code, field in (("ja", JMP | JA, "off"), ("gotol", JMP32 | JA, "imm")):
        go = lambda n: insn(code, **{field: n})
        yield f"{name}-forward", start() + go(2) + fold(1) + fold(2) + RETURN, b"\x01"
        yield f"{name}-next", start() + go(0) + fold(2) + RETURN, b"\x01\x02"
        yield f"{name}-backward", go(3) + insn(MOV_RI, 0, imm=9) + RETURN + RETURN + go(-4), b""


BYTES = bytes((i * 37 + 0x85) & 0xFF for i in range(40))


def load_vectors():
    modes = [(f"ldx{n}", LDX | MEM | s) for s, n in SIZE_NAMES.items()]
    modes += [(f"ldxs{n}", LDX | MEMSX | s) for s, n in SIZE_NAMES.items() if s != DW]
    for name, code in modes:
        body = b"".join(insn(code, 3, 1, off) + fold(3) for off in range(32))
        yield name, start() + body + RETURN, BYTES
        yield f"{name}-negative-offset", mov(5, 1) + insn(ADD_RI, 5, imm=32) + insn(code, 0, 5, -31) + RETURN, BYTES
        yield f"{name}-over-its-address", insn(code, 1, 1, 3) + mov(0, 1) + RETURN, BYTES
        stack = lddw(3, 0x8182838485868788) + insn(STX | MEM | DW, 10, 3, -8)
        body = b"".join(insn(code, 4, 10, -8 + at) + fold(4) for at in range(0, 8, SIZES[code & 0x18]))
        yield f"{name}-stack", start() + stack + body + RETURN, b""


def all_memory(base, off, n):
    return b"".join(ld(5, base, off + 8 * i) + fold(5) for i in range(n))


def store_vectors():
    for size, name in SIZE_NAMES.items():
        for base, what, memory in ((1, "memory", BYTES), (10, "stack", b"\x01")):
            at = 0 if base == 1 else -40
            fill = b"" if base == 1 else b"".join(insn(ST | MEM | DW, 10, off=-8 * i, imm=-i) for i in range(1, 6))
            body = fill + lddw(3, 0xF1E2D3C4B5A69788)
            body += insn(STX | MEM | size, base, 3, at + 3) + insn(STX | MEM | size, base, 3, at + 16)
            yield f"stx{name}-{what}", start() + body + all_memory(base, at, 5) + RETURN, memory
            body = fill + b"".join(insn(ST | MEM | size, base, off=at + 9 * i, imm=v)
                                   for i, v in enumerate((-2, 0x12345678, -0x80000000)))
            yield f"st{name}-{what}", start() + body + all_memory(base, at, 5) + RETURN, memory
    yield "stxdw-own-address", insn(STX | MEM | DW, 10, 10, -8) + ld(0, 10, -8) + \
        insn(ALU64 | SUB | X, 0, 10) + RETURN, b""


def atomic_vectors():
    ops = {ADD: "add", OR: "or", AND: "and", XOR: "xor", ADD | FETCH: "fetch_add", OR | FETCH: "fetch_or",
           AND | FETCH: "fetch_and", XOR | FETCH: "fetch_xor", XCHG: "xchg", CMPXCHG: "cmpxchg"}
    for size, bits in ((W, 32), (DW, 64)):
        for op, name in ops.items():
            # r3 in memory, r4 the operand; cmpxchg compares with r0, which then holds what was there
            do = insn(STX | MEM | DW, 10, 3, -8) + mov(5, 0) + mov(0, 3)
            do += insn(STX | ATOMIC | size, 10, 4, -8, op) + mov(2, 0) + mov(0, 5)
            do += fold(2) + fold(4) + ld(5, 10, -8) + fold(5)
            yield f"lock_{name}{bits}", over_pairs(do), TABLE
            off = insn(STX | ATOMIC | size, 1, 3, 9, op)
            yield (f"lock_{name}{bits}-misaligned", lddw(0, 0x1122334455667788) + lddw(3, 0xA1B2C3D4E5F60718) + off +
                   fold(3) + all_memory(1, 0, 5) + RETURN, BYTES)
        miss = mov(5, 0) + mov(0, 4) + insn(STX | MEM | DW, 10, 3, -8) + mov(2, 6) + insn(ADD_RI, 2, imm=1)
        miss += insn(STX | ATOMIC | size, 10, 2, -8, CMPXCHG) + mov(2, 0) + mov(0, 5) + fold(2) + ld(5, 10, -8) + fold(5)
        yield f"lock_cmpxchg{bits}-pairs", over_pairs(miss), TABLE
        for op, name in ops.items():
            at_r0 = mov(0, 1) + lddw(3, 0x0123456789ABCDEF) + insn(STX | ATOMIC | size, 0, 3, 8, op)
            yield f"lock_{name}{bits}-address-in-r0", at_r0 + start() + fold(3) + all_memory(1, 0, 5) + RETURN, BYTES
            of_r0 = lddw(0, 0x89ABCDEF01234567) + insn(STX | ATOMIC | size, 1, 0, 8, op)
            yield f"lock_{name}{bits}-operand-r0", of_r0 + all_memory(1, 0, 5) + RETURN, BYTES


def link(*functions):
    """Functions are lists of code and of callees' indices."""
    sizes = [sum(1 if isinstance(part, int) else len(part) // 8 for part in f) for f in functions]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    program = b""
    for part in (part for f in functions for part in f):
        if isinstance(part, int):
            part = insn(JMP | CALL, 0, 1, 0, starts[part] - len(program) // 8 - 1)
        program += part
    return program


def call_vectors():
    saved = b"".join(lddw(r, 0x1111111111111111 * r) for r in range(6, 10))
    arguments = b"".join(insn(MOV_RI, r, imm=r) for r in range(1, 6))
    trash = b"".join(lddw(r, 0xDEAD0000 + r) for r in range(6, 10))
    fold_saved = b"".join(fold(r) for r in range(6, 10))
    fold_arguments = mov(0, 1) + b"".join(fold(r) for r in range(2, 6))
    yield "call-keeps-r6-to-r9", link([saved + arguments, 1, fold_saved + RETURN], [trash + fold_arguments + RETURN]), b""

    def level(depth):
        own = insn(MOV_RI, 6, imm=depth + 3) + insn(ST | MEM | DW, 10, off=-8, imm=depth + 5)
        own += insn(ST | MEM | DW, 10, off=-264, imm=depth + 7)
        check = fold(6) + ld(3, 10, -8) + fold(3) + ld(3, 10, -264) + fold(3) + RETURN
        return [own, depth + 1 if depth < 15 else insn(MOV_RI, 0, imm=77), check]

    yield "call-16-deep", link(*(level(depth) for depth in range(16))), b""
    lend = insn(ST | MEM | DW, 10, off=-8, imm=0x55) + mov(1, 10) + insn(ADD_RI, 1, imm=-8)
    borrow = insn(ST | MEM | DW, 10, off=-8, imm=0x77) + ld(0, 1, 0) + insn(ST | MEM | DW, 1, imm=0x1000) + RETURN
    yield "call-lends-its-frame", link([lend, 1, ld(3, 10, -8) + insn(ADD_RR, 0, 3) + RETURN], [borrow]), b""
    again = insn(ADD_RI, 6, imm=-1) + insn(JMP | JNE | K, 6, 0, -5)
    yield "call-in-a-loop", link([start() + insn(MOV_RI, 6, imm=10) + mov(1, 6) + mov(2, 0), 1, again + RETURN],
                                 [mov(0, 2) + fold(1) + RETURN]), b""
    yield "call-backwards-and-forwards", link([insn(MOV_RI, 1, imm=4), 2, RETURN], [mov(0, 1) + fold(1) + RETURN],
                                              [insn(ADD_RI, 1, imm=3), 1, fold(0) + RETURN]), b""
    yield "call-without-a-result", link([mov(6, 1), 1, ld(0, 6, 0) + RETURN],
                                        [insn(ST | MEM | DW, 1, imm=0x5A5A) + RETURN]), BYTES
    yield "stack-starts-zero", start() + b"".join(ld(3, 10, -8 * i) + fold(3) for i in range(1, 65)) + RETURN, b""
    again = insn(ADD_RI, 6, imm=-1) + insn(JMP | JNE | K, 6, 0, -3)
    yield "frames-start-zero-at-each-call", link([insn(MOV_RI, 6, imm=3), 1, again + RETURN],
                                                 [ld(0, 10, -16) + insn(ST | MEM | DW, 10, off=-16, imm=9) + RETURN]), b""
    yield "exit-in-the-middle", start() + insn(JMP | JEQ | K, 0, 0, 1) + RETURN + insn(MOV_RI, 0, imm=2) + RETURN, b""


def constant_vectors():
    yield "lddw-edges", start() + b"".join(lddw(3, v) + fold(3) for v in EDGES) + RETURN, b""
    yield "lddw-each-register", b"".join(lddw(r, 0x8000000080000001 * (r + 1)) for r in range(10)) + \
        b"".join(fold(r) for r in range(1, 10)) + RETURN, b""
    for cls, name in ((ALU, "mov32"), (ALU64, "mov64")):
        body = b"".join(lddw(3, M64) + insn(cls | MOV | K, 3, imm=i) + fold(3) for i in IMMEDIATES)
        yield f"{name}-imm-extension", start() + body + RETURN, b""
    yield "jump-over-lddw", start() + insn(JMP | JA, off=2) + lddw(0, 0x95) + fold(0) + RETURN, b""


def edges():
    for part in (alu_vectors, jump_vectors, load_vectors, store_vectors, atomic_vectors, call_vectors,
                 constant_vectors):
        yield from part()


def set_all(skip=()):
    return b"".join(lddw(r, (0x0123456789ABCDEF * (2 * r + 1)) & M64) for r in range(10) if r not in skip)


def fold_all(skip=()):
    return b"".join(fold(r) for r in range(1, 10) if r not in skip)


def far_vectors():
    far = insn(ALU64 | XOR | K, 0, imm=1)
    yield "ja-far", start() + insn(JMP | JA, off=32760) + far * 32760 + insn(ADD_RI, 0, imm=6) + RETURN, b""
    yield "gotol-far", start() + insn(JMP32 | JA, imm=40000) + far * 40000 + insn(ADD_RI, 0, imm=6) + RETURN, b""
    yield "gotol-far-back", start() + insn(JMP32 | JA, imm=40001) + far * 40000 + RETURN + \
        insn(JMP32 | JA, imm=-40002) + RETURN, b""


def register_vectors():
    """One instruction between known values in all registers, all of which count: for each dst and src."""
    pairs = [(d, s) for d in range(10) for s in range(10)]
    for name, code, off, imm in alu_forms():
        for d, s in pairs if code & X and not is_unary(code) else [(d, 0) for d in range(10)]:
            value = 0x31 if imm is None and not code & X else imm or 0
            body = insn(code, d, s if code & X and not is_unary(code) else 0, off, value)
            yield f"{name}-{'reg' if code & X else 'imm'}@r{d},r{s}", set_all() + body + fold_all() + RETURN, b""
    for cls, bits in ((JMP, 64), (JMP32, 32)):
        for op, name in JUMP_NAMES.items():
            for d, s in pairs:
                body = insn(cls | op | X, d, s, 1) + insn(ADD_RI, 0, imm=1)
                yield f"{name}{bits}-reg@r{d},r{s}", set_all() + body + fold_all() + RETURN, b""
    for size, name in SIZE_NAMES.items():
        for d, s in pairs:
            base = lambda r: mov(r, 10) + insn(ADD_RI, r, imm=-64)
            fill = b"".join(insn(ST | MEM | DW, 10, off=-8 * i, imm=0x71F3 * i) for i in range(1, 9))
            # addresses are no part of the result: they differ from machine to machine
            rest = lambda *a: insn(MOV_RI, 0, imm=1) + fold_all(a) if 0 in a else fold_all(a)
            yield (f"ldx{name}@r{d},r{s}", set_all() + fill + base(s) + insn(LDX | MEM | size, d, s, 5) +
                   (rest() if d == s else rest(s)) + RETURN, b"")
            yield (f"stx{name}@r{d},r{s}", set_all() + fill + base(d) + insn(STX | MEM | size, d, s, 5) + rest(d) +
                   (ld(5, 10, -56) + fold(5) + ld(5, 10, -64) + fold(5) if d != s else b"") + RETURN, b"")
    for size, bits in ((W, 32), (DW, 64)):
        for op, name in ((ADD, "add"), (ADD | FETCH, "fetch_add"), (OR | FETCH, "fetch_or"),
                         (AND | FETCH, "fetch_and"), (XOR | FETCH, "fetch_xor"), (XCHG, "xchg"), (CMPXCHG, "cmpxchg")):
            for d, s in pairs:
                if d == s or (op == CMPXCHG and d == 0):
                    continue
                body = insn(ST | MEM | DW, 10, off=-8, imm=0x12345) + mov(d, 10)
                body += insn(STX | ATOMIC | size, d, s, -8, op)
                keep = insn(MOV_RI, 0, imm=1) if d == 0 else b""
                yield (f"lock_{name}{bits}@r{d},r{s}", set_all() + body + keep + fold_all((d,)) + ld(5, 10, -8) + fold(5) +
                       RETURN, b"")


HEADER = """# Vectors made by vectors.py, in the form of isa_vectors.tsv; the expected values are the model's (rfc9669.py).
# name  program (hex)  memory (hex, may be empty)  expected r0
"""


def registers():
    yield from register_vectors()
    yield from far_vectors()


def main(what):
    print(HEADER, end="")
    for name, program, memory in {"edges": edges, "registers": registers}[what]():
        print(name, program.hex(), memory.hex(), f"{run(program, memory):#x}", sep="\t")


if __name__ == "__main__":
    main(sys.argv[1])
