# SPDX-License-Identifier: Apache-2.0
"""Make corpus/fuzz_verify anew: short conformance programs that between them use every opcode."""
import os

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "corpus", "fuzz_verify")


def programs():
    for name in ("isa_vectors.tsv", "edge_vectors.tsv"):
        with open(os.path.join(HERE, "..", "conformance", name), encoding="ascii") as f:
            for line in f:
                if not line.startswith("#"):
                    name, program = line.split("\t")[:2]
                    yield name, bytes.fromhex(program)


os.makedirs(OUT, exist_ok=True)
seen = set()
for title, code in sorted(programs(), key=lambda p: len(p[1])):
    opcodes = {(code[at], code[at + 1] >> 4 if code[at] == 0x85 else code[at + 4] if code[at] in (0xC3, 0xDB) else 0)
               for at in range(0, len(code), 8)}
    if len(code) <= 512 and not opcodes <= seen:
        seen |= opcodes
        with open(os.path.join(OUT, title), "wb") as f:
            f.write(code)
