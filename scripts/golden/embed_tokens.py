#!/usr/bin/env python3
"""Writes tests/golden/embed_tokens.json: texts and the ids that the reference implementation gives them, and for every block of 4,096 code
points a hash over the ids of "a<cp>b <cp>". Usage: embed_tokens.py MODEL_FOLDER >tests/golden/embed_tokens.json"""
import json
import random
import sys

from tokenizers import Tokenizer

t = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
t.no_truncation()
t.no_padding()
random.seed(20261124)

texts = [
    "", " ", "\n\t\r", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "naïve café résumé Ångström", "Straße ẞ",
    "日本語のテキスト、漢字とかな", "中文字符测试。没有空格", "한국어 문장입니다", "Привет, мир! Ё й", "Ελληνικά ΣΊΣΥΦΟΣ ς", "עברית עם ניקוד שָׁלוֹם", "العربية مع تشكيل مُحَمَّد",
    "हिन्दी में पाठ", "ไทยไม่มีช่องว่าง", "emoji 😀👩‍👩‍👧‍👦🇩🇪 a😀b", "zero\u200bwidth\u200djoin\ufeffbom", "soft\u00adhyphen", "a\u0000b\u0001c\u001fd\u007fe",
    "\ufffd\ufffd replacement", "[CLS] literal [SEP] and [sep] [MASK] [PAD][UNK]", "[CLS", "x" * 100, "x" * 101, "a" * 99 + "é", "ab" * 60,
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "ﬁ ① Ⅷ ｆｕｌｌ ｗｉｄｔｈ", "İstanbul ıI", "e\u0301 e\u0300\u0323 o\u0302\u0301",
    "tab\tsep\u00a0nbsp\u2003em\u3000ideographic\u2028line", "don't can't it's 'quoted' \"double\"", "a→b ∑ ≤ ≥ ± × ÷", "$100 + 5% = <tag> ^ `code` | ~x",
    "http://example.org/path?query=1&b=2#frag", "foo_bar-baz.qux@example.org", "C++17 std::vector<int> v{1,2,3};", "1234567890 3.14159 1e-9",
    "ＡＢＣ ⅷ ㎏ ½", "豈 更 車", "\U0001F600" * 5, "\U000E0041tag", "\u0378 unassigned \U0001FAFF", "word " * 400, "Ünïcödé " * 120,
    "मराठी ্বাংলা தமிழ்", "ꙮ ᚠᚢᚦ 𐍈 𝔘𝔫𝔦", "\u061c\u2066isolate\u2069", "ﷺ ﷽", "a\u0303\u0330b", "Ⅰ Ⅱ ⅲ Å K Ω",
]
alphabets = [
    "abcdefghijklmnopqrstuvwxyz ", "abcABC ,.;:!?-()[]{}'\"0123456789\n ", "àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœ ", "абвгдежзийклмнопрстуфхцчшщъыьэюя ",
    "的一是不了人我在有他这为之大来以个中上们 ", "あいうえおかきくけこがぎぐアイウエオ ", "αβγδεζηθικλμνξοπρστυφχψωάέ ", "abc\u0300\u0301\u0302\u0308\u0327 ",
]
for n in range(240):
    alphabet = alphabets[n % len(alphabets)]
    texts.append("".join(random.choice(alphabet) for _ in range(random.randint(1, 60))))
for _ in range(160):
    texts.append("".join(chr(random.choice([c for c in (random.randint(1, 0xFF), random.randint(0x100, 0x2FFF), random.randint(0x3000, 0xD7FF),
                 random.randint(0xE000, 0x1FFFF)) if not 0xD800 <= c <= 0xDFFF])) for _ in range(random.randint(1, 24))))

cases = [{"text": s.encode().hex(), "ids": t.encode(s).ids} for s in texts]
hashes = []
for block in range(0, 0x110000, 4096):
    h = 0xCBF29CE484222325
    for e in t.encode_batch([f"a{chr(c)}b {chr(c)}" for c in range(block, block + 4096) if not 0xD800 <= c <= 0xDFFF]):
        for i in e.ids:
            h = ((h ^ i) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    hashes.append(f"{h:016x}")
json.dump({"cases": cases, "block_hashes": hashes}, sys.stdout, separators=(",", ":"))
