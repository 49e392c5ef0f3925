#!/usr/bin/env python3
"""What it costs to follow a source in which nothing, or little, has changed. Run by a person:

    scripts/with-services.sh /usr/bin/python3 tests/bench/sync.py            (BENCH_FILES=100000, BENCH_ROUNDS=3)

Small files in directories of 500; their documents are put in by SQL as an earlier run would have left them. Then the collection is synchronised by hand, some times
with nothing changed, and once with 50 files changed, 50 new and 50 gone (of which the embedding is a part).
"""
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from support.client import Client  # noqa: E402
from support.stack import Stack  # noqa: E402

FILES = int(os.environ.get("BENCH_FILES", 100_000))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 3))
A_DIRECTORY, CHANGED = 500, 50


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def make_files(folder):
    paths = []
    for n in range(FILES):
        directory = os.path.join(folder, f"d{n // A_DIRECTORY:05}")
        if n % A_DIRECTORY == 0:
            os.mkdir(directory)
        paths.append(os.path.join(directory, f"f{n:07}.txt"))
        write(paths[-1], f"file {n}\n")
    return paths


def put_in(stack, collection, source, paths):
    """As documents that were read, each with a content of its own."""
    rows = []
    for path in paths:
        facts = os.stat(path)
        rows.append("\t".join((str(collection), str(source), "\\\\x" + path.encode().hex(), os.path.basename(path), path, str(facts.st_size), str(facts.st_mtime_ns),
                               f"{hash(path) & (1 << 63) - 1:064x}", "completed", "1", "2")))
    done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", stack.direct_url, "-c",
                           "COPY documents (collection_id, source_id, path, file_name, file_path, file_size, mtime_ns, content_hash, status, live_version, "
                           "next_version) FROM STDIN"], input="\n".join(rows) + "\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stack.sql("ANALYZE documents")
    stack.sql("UPDATE collections SET document_count = :v2 WHERE id = :v1", collection, len(paths))


def sync(user, uuid):
    run = user.must("POST", f"/api/v2/collections/{uuid}/sync/run")
    started = time.monotonic()
    assert user.wait_over(run["operation_id"])
    took = time.monotonic() - started
    figures = user.must("GET", f"/api/v2/operations/{run['operation_id']}/metrics")["totals"]
    counts = user.must("GET", f"/api/v2/collections/{uuid}/sync/runs")["items"][0]
    kinds = ("added", "modified", "deleted", "unchanged")
    print(f"  {figures['busy_seconds']:6.2f} s of work ({took:.1f} s with waiting for it), {figures['cpu_seconds']:.2f} s CPU, "
          f"{figures['memory_peak_bytes'] / (1 << 20):.0f} MB: " + ", ".join(f"{counts['documents_' + kind]} {kind}" for kind in kinds), flush=True)
    return figures["busy_seconds"]


def measure(stack, user):
    folder = os.path.join(stack.roots, "followed")
    os.mkdir(folder)
    write(os.path.join(folder, "first.txt"), "the first file\n")
    uuid = user.collection(sync_mode="continuous", sync_interval_minutes=1440)["id"]
    user.index(uuid, folder)
    collection = stack.sql_value("SELECT id FROM collections WHERE uuid = :'v1'", uuid)
    source = stack.sql_value("SELECT id FROM sources WHERE collection_id = :v1", collection)
    paths = make_files(folder)
    put_in(stack, collection, source, paths)
    print(f"{FILES} files, nothing changed:")
    times = [sync(user, uuid) for _ in range(ROUNDS)]
    print(f"  median {statistics.median(times):.2f} s")
    for n in range(CHANGED):
        write(paths[n * 7], f"changed {n}\n")
        os.unlink(paths[n * 7 + 1])
        write(os.path.join(folder, f"new-{n}.txt"), f"new {n}\n")
    print(f"{CHANGED} changed, {CHANGED} new, {CHANGED} gone:")
    sync(user, uuid)


def main():
    stack = Stack(apis=1, workers=1, LOG_LEVEL="info")
    try:
        measure(stack, Client.registered(stack.apis[0].url))
    finally:
        stack.close()


if __name__ == "__main__":
    main()
