#!/usr/bin/env python3
"""Writes worker/embed/unicode_tables.c: what a BERT normalizer (lower-casing, accents stripped) makes of each code point.

The rules mix several Unicode versions (research: clean_text and marks are Unicode 8's, lower-casing a current one), so the table is read off
the reference implementation, the `tokenizers` package, code point by code point. Usage: unicode_tables.py >worker/embed/unicode_tables.c
"""
import sys

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

KEEP, DROP, SPACE, PUNCT, CJK, FIRST_SEQUENCE = 0, 1, 2, 3, 4, 8
BLOCK = 128
normalize = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True).normalize_str
split = BertPreTokenizer().pre_tokenize_str

sequences = []  # flat: length, code points …
index_of = {}


def sequence(s):
    if s not in index_of:
        index_of[s] = len(sequences)
        sequences.extend([len(s), *map(ord, s)])
    return FIRST_SEQUENCE + index_of[s]


def entry(cp):
    if 0xD800 <= cp <= 0xDFFF:
        return DROP
    if 0xAC00 <= cp <= 0xD7A3:
        return KEEP  # Hangul syllables fall apart by arithmetic, in the C code
    c = chr(cp)
    n = normalize(c)
    if n == "":
        return DROP
    if n == " ":
        return SPACE
    if n == f" {c} ":
        return CJK
    if n != c:
        return sequence(n)
    return PUNCT if len(split(f"a{c}b")) == 3 else KEEP


entries = [entry(cp) for cp in range(0x110000)]
blocks, numbers = {}, []
for at in range(0, 0x110000, BLOCK):
    numbers.append(blocks.setdefault(tuple(entries[at : at + BLOCK]), len(blocks)))


def array(kind, name, values):
    print(f"const {kind} {name}[] = {{")
    for at in range(0, len(values), 20):
        print("    " + ", ".join(str(v) for v in values[at : at + 20]) + ",")
    print("};\n")


assert max(max(b) for b in blocks) < 65536
print("/* Made by scripts/golden/unicode_tables.py; do not edit. */")
print("// clang-format off")
print('#include "worker/embed/unicode_tables.h"\n')
array("uint16_t", "unicode_block_of", numbers)
array("uint16_t", "unicode_entries", [v for b in blocks for v in b])
array("uint32_t", "unicode_sequences", sequences)
print(f"{len(blocks)} blocks, {len(sequences)} sequence words", file=sys.stderr)
