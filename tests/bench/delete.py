#!/usr/bin/env python3
"""What it costs to delete a collection of a million chunks, and what it leaves. Run by a person:

    scripts/with-services.sh /usr/bin/python3 tests/bench/delete.py          (BENCH_CHUNKS=1000000, BENCH_DOCUMENTS=10000)

Rows are made by SQL: text of about 30 words with its tsvector, vectors of 32 dimensions; beside them, in the same partition and between their rows, a tenth as
many of another collection, so that the file cannot simply be cut off. A worker and an API of their own delete it. Then as much is written again: what the
deletion left must be used for it.
"""
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from support.client import Client  # noqa: E402
from support.stack import Stack  # noqa: E402

CHUNKS = int(os.environ.get("BENCH_CHUNKS", 1_000_000))
DOCUMENTS = int(os.environ.get("BENCH_DOCUMENTS", 10_000))
MB = 1 << 20


def sql(stack, statement, *values):
    import subprocess
    command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", stack.direct_url]
    for i, value in enumerate(values):
        command += ["-v", f"v{i + 1}={value}"]
    out = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def fill(stack, collection, documents, chunks):
    """Documents of a source, `chunks` in all, visible."""
    sql(stack, """
        INSERT INTO sources (collection_id, source_path) VALUES (:v1, '/bench') ON CONFLICT DO NOTHING;
        INSERT INTO documents (collection_id, source_id, path, file_name, file_path, file_size, status, live_version, next_version, chunk_count)
        SELECT :v1, (SELECT id FROM sources WHERE collection_id = :v1), convert_to(n::text, 'UTF8'), n::text, n::text, 1000, 'completed', 1, 2, :v3 / :v2
        FROM generate_series(1, :v2) n;
        INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte)
        SELECT :v1, d.id, 1, o, (SELECT string_agg('word' || (d.id * 31 + o * 17 + w * w) % 5000, ' ') FROM generate_series(1, 30) w), 40, 0, 250
        FROM documents d, generate_series(0, :v3 / :v2 - 1) o WHERE d.collection_id = :v1;
        UPDATE collections SET document_count = :v2, vector_count = :v3, total_size_bytes = :v2 * 1000 WHERE id = :v1""", collection, documents, chunks)


def vectors(stack, collection):
    generation = sql(stack, "INSERT INTO generations (collection_id, model, dim, quantization, state) VALUES (:v1, 'all-MiniLM-L6-v2', 32, 'float16', 'active') RETURNING id",
                     collection)
    table = "vec.g" + generation
    zeros = "[1" + ",0" * 31 + "]"
    sql(stack, f"""CREATE TABLE {table} (chunk_id bigint PRIMARY KEY, document_id bigint NOT NULL, version integer NOT NULL, embedding halfvec(32) NOT NULL);
        CREATE INDEX ON {table} (document_id, version);
        INSERT INTO {table} SELECT id, document_id, version, '{zeros}' FROM chunks WHERE collection_id = :v1;
        UPDATE collections SET active_generation = {generation} WHERE id = :v1""", collection)


def sizes(stack, partition):
    return tuple(int(n) / MB for n in sql(stack, f"SELECT pg_total_relation_size('{partition}'), pg_total_relation_size('documents')").split("|"))


def peak_of_children(stack, peaks, is_over):
    """VmHWM of the worker's task processes, in MB."""
    while not is_over.is_set():
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    if b"--child" not in file.read().split(b"\0") or os.path.dirname(os.readlink(f"/proc/{entry}/exe")) != os.path.abspath(stack.bin):
                        continue
                with open(f"/proc/{entry}/status") as file:
                    peaks[entry] = next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
            except (OSError, ValueError, StopIteration):
                continue
            peaks["most"] = max(peaks.get("most", 0), peaks[entry])
            peaks.setdefault("first", peaks[entry])
        time.sleep(0.05)


def main():
    stack = Stack(apis=1, workers=1, LOG_LEVEL="info")
    try:
        user = Client.registered(stack.apis[0].url)
        big = user.collection()["id"]
        number = sql(stack, "SELECT id FROM collections WHERE uuid = :'v1'", big)
        remainder = sql(stack, "SELECT r FROM generate_series(0, 15) r WHERE satisfies_hash_partition('chunks'::regclass, 16, r, :v1::bigint)", number)
        partition = f"chunks_{int(remainder):02}"
        neighbour = number
        while neighbour == number or sql(stack, "SELECT satisfies_hash_partition('chunks'::regclass, 16, :v2, :v1::bigint)", neighbour, remainder) != "t":
            neighbour = sql(stack, "SELECT id FROM collections WHERE uuid = :'v1'", user.collection()["id"])
        for part in range(10):  # between each other
            fill_part(stack, number, neighbour, part)
        vectors(stack, number)
        sql(stack, "VACUUM (ANALYZE) documents")
        sql(stack, f"VACUUM (ANALYZE) {partition}")
        before, wal = sizes(stack, partition), sql(stack, "SELECT pg_current_wal_lsn()")
        peaks, is_over, others = {}, threading.Event(), []
        watcher = threading.Thread(target=peak_of_children, args=(stack, peaks, is_over))
        watcher.start()
        started = time.monotonic()
        answer = user.ask("DELETE", "/api/v2/collections/" + big)
        answered = time.monotonic() - started
        assert answer.status == 204, answer
        operation = answer.headers["X-Operation-ID"]
        while user.operation(operation)["status"] not in ("completed", "failed"):
            asked = time.monotonic()
            user.must("GET", "/api/v2/collections")
            others.append(time.monotonic() - asked)
            time.sleep(0.05)
        seconds = time.monotonic() - started
        is_over.set()
        watcher.join()
        assert user.operation(operation)["status"] == "completed"
        wal = int(sql(stack, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), :'v1')", wal).split(".")[0]) / MB
        dead = sql(stack, f"SELECT count(*) FROM chunks WHERE collection_id = {number}")
        after = sizes(stack, partition)
        again = sql(stack, "SELECT id FROM collections WHERE id = :v1", neighbour)
        other = sql(stack, """INSERT INTO collections (name, owner_id, embedding_model) SELECT 'refilled', owner_id, embedding_model FROM collections WHERE id = :v1
            RETURNING id""", again)
        while sql(stack, "SELECT satisfies_hash_partition('chunks'::regclass, 16, :v2, :v1::bigint)", other, remainder) != "t":
            sql(stack, "UPDATE collections SET name = 'x' || id WHERE id = :v1", other)
            other = sql(stack, """INSERT INTO collections (name, owner_id, embedding_model) SELECT 'refilled', owner_id, embedding_model FROM collections
                WHERE id = :v1 RETURNING id""", again)
        fill(stack, other, DOCUMENTS, CHUNKS)
        refilled = sizes(stack, partition)
        vacuumed = [line for _, line in stack.log_lines() if line.get("event") == "table_vacuumed"]
        print(f"{CHUNKS} chunks of {DOCUMENTS} documents, {CHUNKS // 10} of a neighbour between them in {partition}")
        print(f"answered after {answered * 1000:.1f} ms; all of it gone after {seconds:.1f} s, {dead} chunks left; {wal:.0f} MB of WAL")
        print(f"other requests meanwhile: {len(others)}, the slowest {max(others) * 1000:.0f} ms")
        print(f"a task process: {peaks.get('first', 0):.1f} MB at first, {peaks.get('most', 0):.1f} MB at most")
        print(f"partition: {before[0]:.0f} MB before, {after[0]:.0f} after, {refilled[0]:.0f} with as much written again; documents {before[1]:.1f}, {after[1]:.1f}, {refilled[1]:.1f}")
        for line in vacuumed:
            print(f"vacuum of {line['table']}: {line['seconds']:.1f} s, {line.get('problem') or 'done'}")
    finally:
        stack.close()


def fill_part(stack, number, neighbour, part):
    """A tenth of both."""
    for collection, documents, chunks in ((number, DOCUMENTS // 10, CHUNKS // 10), (neighbour, max(1, DOCUMENTS // 100), CHUNKS // 100)):
        sql(stack, """
            INSERT INTO sources (collection_id, source_path) VALUES (:v1, '/bench') ON CONFLICT DO NOTHING;
            WITH made AS (
                INSERT INTO documents (collection_id, source_id, path, file_name, file_path, file_size, status, live_version, next_version, chunk_count)
                SELECT :v1, (SELECT id FROM sources WHERE collection_id = :v1), convert_to(:v4 || '/' || n, 'UTF8'), n::text, n::text, 1000, 'completed', 1, 2, :v3 / :v2
                FROM generate_series(1, :v2) n RETURNING id)
            INSERT INTO chunks (collection_id, document_id, version, ordinal, content, tokens, start_byte, end_byte)
            SELECT :v1, d.id, 1, o, (SELECT string_agg('word' || (d.id * 31 + o * 17 + w * w) % 5000, ' ') FROM generate_series(1, 30) w), 40, 0, 250
            FROM made d, generate_series(0, :v3 / :v2 - 1) o;
            UPDATE collections SET document_count = document_count + :v2, vector_count = vector_count + :v3, total_size_bytes = total_size_bytes + :v2 * 1000
            WHERE id = :v1""", collection, documents, chunks, part)


if __name__ == "__main__":
    main()
