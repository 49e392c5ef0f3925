#!/usr/bin/env python3
"""Writes tests/golden/embed_vectors.json: texts and their vectors by sentence-transformers (or, without it, by the same steps on torch).
Usage: embed_vectors.py MODEL_FOLDER >tests/golden/embed_vectors.json"""
import json
import sys

from sentence_transformers import SentenceTransformer

texts = [
    "", " ", "Hello, world!", "How do I install a package?", "naïve café résumé", "日本語のテキスト、漢字とかな", "Привет, мир!", "한국어 문장입니다",
    "emoji 😀👩‍👩‍👧‍👦🇩🇪 a😀b", "a\u0000b\u0001c", "[CLS] literal [SEP]", "x" * 101, "word " * 400, "The quick brown fox jumps over the lazy dog. " * 30,
    "العربية مع تشكيل مُحَمَّد", "C++17 std::vector<int> v{1,2,3};", "one", "A long-running operation is cancelled.", "soft\u00adhyphen zero\u200bwidth",
    "$100 + 5% = <tag>", "Ünïcödé " * 60, "ﬁ ① Ⅷ", "\ufffd", "The cat sits on the mat.",
]
model = SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(texts, batch_size=1, normalize_embeddings=True)
json.dump([{"text": t.encode().hex(), "vector": [round(float(x), 7) for x in v]} for t, v in zip(texts, vectors)], sys.stdout, separators=(",", ":"))
