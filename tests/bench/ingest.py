#!/usr/bin/env python3
"""How fast folders become searchable, for programs of several versions or settings beside each other, in turn on one machine. Run by a person:

    scripts/with-services.sh /usr/bin/python3 tests/bench/ingest.py NAME=FOLDER[,SETTING=value…] …

FOLDER is the one with opstream-api and opstream-worker. Medians of BENCH_ROUNDS (3) rounds; ratios are to the first one.
"""
import os
import secrets
import statistics
import sys
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from support import documents as docs  # noqa: E402
from support import stack as stacks  # noqa: E402
from support.client import Client  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 3))


def story(i, words):
    text = " ".join(docs.STORIES.values()).split()
    return f"Letter {i} {secrets.token_hex(8)}. " + " ".join(text[(i + j) % len(text)] for j in range(words))


def folders(roots):
    """small: 500 texts of 25 words. office: 40 PDF and DOCX files of 250 words, with a member of a megabyte in each DOCX that costs time to look through."""
    for i in range(500):
        docs.write(roots, f"small/{i:03}.txt", story(i, 25))
    for i in range(20):
        docs.write(roots, f"office/{i:03}.pdf", docs.pdf(story(i, 250)))
        docs.write_docx(os.path.join(roots, "office"), f"{i:03}.docx", story(i, 250))
        with zipfile.ZipFile(os.path.join(roots, "office", f"{i:03}.docx"), "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("word/media/picture.bin", os.urandom(1 << 20))
    return "small", "office"


def measure(stack, user, name):
    collection = user.collection()["id"]
    operation = user.index(collection, os.path.join(stack.roots, name))
    seconds, documents, tokens = stack.sql("""SELECT extract(epoch FROM completed_at - started_at), processed, result ->> 'tokens_embedded' FROM operations
        WHERE uuid = :'v1'""", operation["id"])[0]
    user.ask("DELETE", "/api/v2/collections/" + collection)
    return int(documents) / float(seconds), int(tokens) / float(seconds)


def main():
    found = {}
    for _ in range(ROUNDS):
        for argument in sys.argv[1:]:
            name, _, rest = argument.partition("=")
            folder, *settings = rest.split(",")
            stacks.BIN = os.path.abspath(folder)
            stacks.Stack.program = staticmethod(lambda kind, bin=stacks.BIN: os.path.join(bin, "opstream-" + kind))
            stack = stacks.Stack(apis=1, workers=1, **dict(s.split("=") for s in settings))
            try:
                user = Client.registered(stack.apis[0].url)
                for kind in folders(stack.roots):
                    found.setdefault(kind, {}).setdefault(name, []).append(measure(stack, user, kind))
            finally:
                stack.close()
    for kind, by in found.items():
        first = None
        for name, figures in by.items():
            documents, tokens = (statistics.median(f[i] for f in figures) for i in (0, 1))
            first = first or documents
            print(f"{kind}: {name}: {documents:.1f} documents/s, {tokens:.0f} tokens/s, {documents / first:.2f} of the first; rounds " +
                  ", ".join(f"{f[0]:.1f}" for f in figures))


if __name__ == "__main__":
    main()
