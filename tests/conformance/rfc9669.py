# SPDX-License-Identifier: Apache-2.0
"""RFC 9669 as a model: runs raw instructions, slowly and by the letter.

Written from the RFC's tables, sharing nothing with src/sbpf, so that expected values have a second
opinion.  Where the RFC leaves a choice it is the project's: frames are zero when they are entered.
Memory is one input buffer and one stack; an access elsewhere is an error of the program.
"""
import struct

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
W, H, B, DW = 0x00, 0x08, 0x10, 0x18
IMM, MEM, MEMSX, ATOMIC = 0x00, 0x60, 0x80, 0xC0
K, X = 0x00, 0x08
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH, END = range(0x00, 0xE0, 0x10)
JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, CALL, EXIT, JLT, JLE, JSLT, JSLE = range(0x00, 0xE0, 0x10)
FETCH, XCHG, CMPXCHG = 0x01, 0xE1, 0xF1
SIZES = {W: 4, H: 2, B: 1, DW: 8}

INPUT, STACK_TOP, STACK_BYTES = 0x10000000, 0x20000000, 16 * 4096


def insn(code, dst=0, src=0, off=0, imm=0):
    """One instruction's 8 bytes; imm may be given signed or unsigned."""
    return struct.pack("<BBhI", code, dst | src << 4, off, imm & M32)


def lddw(dst, value):
    value &= M64
    return insn(LD | IMM | DW, dst, imm=value & M32) + insn(0, imm=value >> 32)


def sext(value, bits):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def divide(a, b, bits, signed, modulo):
    """Section 4.1: by zero gives 0, or leaves dst; signed division truncates towards zero."""
    if b == 0:
        return a if modulo else 0
    if not signed:
        return a % b if modulo else a // b
    sa, sb = sext(a, bits), sext(b, bits)
    quotient = abs(sa) // abs(sb)
    if (sa < 0) != (sb < 0):
        quotient = -quotient
    return sa - sb * quotient if modulo else quotient


def arithmetic(op, a, b, bits, off):
    """@a and @b are unsigned, of @bits."""
    shift = b & (bits - 1)
    if op == ADD:
        return a + b
    if op == SUB:
        return a - b
    if op == MUL:
        return a * b
    if op in (DIV, MOD):
        return divide(a, b, bits, off == 1, op == MOD)
    if op == OR:
        return a | b
    if op == AND:
        return a & b
    if op == XOR:
        return a ^ b
    if op == LSH:
        return a << shift
    if op == RSH:
        return a >> shift
    if op == ARSH:
        return sext(a, bits) >> shift
    if op == NEG:
        return -a
    if op == MOV:
        return sext(b, off) if off else b
    raise ValueError(f"operation {op:#x}")


def swap(value, cls, to_big, bits):
    """Section 4.2: on a little-endian machine "le" only truncates, "be" and bswap reverse."""
    raw = (value & ((1 << bits) - 1)).to_bytes(bits // 8, "little")
    return int.from_bytes(raw, "big" if cls == ALU64 or to_big else "little")


def compare(op, a, b, bits):
    sa, sb = sext(a, bits), sext(b, bits)
    return {
        JEQ: a == b, JGT: a > b, JGE: a >= b, JSET: a & b != 0, JNE: a != b, JSGT: sa > sb, JSGE: sa >= sb,
        JLT: a < b, JLE: a <= b, JSLT: sa < sb, JSLE: sa <= sb,
    }[op]


class Machine:
    def __init__(self, program, memory=b""):
        self.code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
        self.input = bytearray(memory)
        self.stack = bytearray(STACK_BYTES)
        self.r = [0] * 10 + [STACK_TOP]
        if memory:
            self.r[1], self.r[2] = INPUT, len(memory)
        self.calls = []

    def place(self, address, size):
        address &= M64
        if INPUT <= address <= INPUT + len(self.input) - size:
            return self.input, address - INPUT
        if STACK_TOP - STACK_BYTES <= address <= STACK_TOP - size:
            return self.stack, address - (STACK_TOP - STACK_BYTES)
        raise MemoryError(f"{size} bytes at {address:#x}")

    def load(self, address, size):
        buf, at = self.place(address, size)
        return int.from_bytes(buf[at:at + size], "little")

    def store(self, address, size, value):
        buf, at = self.place(address, size)
        buf[at:at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def atomic(self, size, address, src, op):
        old, value = self.load(address, size), self.r[src]
        mask = (1 << 8 * size) - 1
        if op == CMPXCHG:
            if old == self.r[0] & mask:
                self.store(address, size, value)
            self.r[0] = old
            return
        if op == XCHG:
            new = value
        else:
            new = arithmetic(op & ~FETCH, old, value & mask, 8 * size, 0)
        self.store(address, size, new)
        if op & FETCH:
            self.r[src] = old

    def memory(self, code, dst, src, off, imm):
        cls, size, mode = code & 7, SIZES[code & 0x18], code & 0xE0
        if cls == LDX:
            value = self.load(self.r[src] + off, size)
            self.r[dst] = sext(value, 8 * size) & M64 if mode == MEMSX else value
        elif mode == ATOMIC:
            self.atomic(size, self.r[dst] + off, src, imm)
        else:
            self.store(self.r[dst] + off, size, imm if cls == ST else self.r[src])

    def alu(self, code, dst, src, off, imm):
        cls, op = code & 7, code & 0xF0
        bits = 64 if cls == ALU64 else 32
        mask = (1 << bits) - 1
        if op == END:
            self.r[dst] = swap(self.r[dst], cls, code & X, imm)
            return
        b = self.r[src] if code & X else imm
        self.r[dst] = arithmetic(op, self.r[dst] & mask, b & mask, bits, off) & mask

    def jump(self, code, dst, src, off, imm):
        """Distance to jump, 0 if not taken."""
        bits = 64 if code & 7 == JMP else 32
        mask = (1 << bits) - 1
        if code & 0xF0 == JA:
            return off if bits == 64 else imm
        b = self.r[src] if code & X else imm
        return off if compare(code & 0xF0, self.r[dst] & mask, b & mask, bits) else 0

    def run(self):
        pc = 0
        while True:
            code, regs, off, imm = self.code[pc]
            dst, src, cls = regs & 15, regs >> 4, code & 7
            pc += 1
            if code == LD | IMM | DW:
                self.r[dst] = (imm & M32) | (self.code[pc][3] & M32) << 32
                pc += 1
            elif cls in (LDX, ST, STX):
                self.memory(code, dst, src, off, imm)
            elif cls in (ALU, ALU64):
                self.alu(code, dst, src, off, imm)
            elif code == JMP | CALL and src == 1:
                self.calls.append((pc, self.r[6:11]))
                self.r[10] -= 4096
                self.place(self.r[10] - 4096, 4096)  # 16 deep
                self.stack[self.r[10] - STACK_TOP - 4096:self.r[10] - STACK_TOP] = bytes(4096)
                pc += imm
            elif code == JMP | CALL and imm == 5:  # the suites' "unwind" returns its argument
                self.r[0] = self.r[1]
            elif code == JMP | EXIT:
                if not self.calls:
                    return self.r[0]
                pc, self.r[6:11] = self.calls.pop()
            else:
                pc += self.jump(code, dst, src, off, imm)


def run(program, memory=b""):
    return Machine(program, memory).run()
