"""`opstream-worker --check-integrity` as an operator runs it, beside working programs."""
import json
import subprocess
import threading

import pytest
from support import documents as docs
from support.stack import Stack, wait_for
from test_sources import folder_of, remove


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1, DOCUMENT_REMOVAL_BATCH_SIZE=5)
    yield made
    made.close()


def check(stack, *flags, env=None):
    return subprocess.run([Stack.program("worker", stack.bin), "--check-integrity", *flags], env={**stack.env, **(env or {})}, capture_output=True, text=True,
                          timeout=60, check=False)


def findings(stack, *flags):
    out = check(stack, "--json", *flags)
    assert out.returncode in (0, 1), out.stderr
    return json.loads(out.stdout)


def test_nothing_is_left_by_what_operations_do(stack, user):
    seen, is_over = [], threading.Event()

    def look():
        while not is_over.is_set():
            seen.append(findings(stack))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        collection, one, other = user.collection()["id"], folder_of(stack, 25), folder_of(stack, 15)
        docs.write(one, "broken.pdf", b"%PDF-1.7\nno pdf\n")
        docs.write(other, "same.txt", open(f"{one}/letter-001.txt", "rb").read())
        user.index(collection, one)
        user.index(collection, other)
        docs.write(one, "letter-002.txt", docs.STORIES["bees"])
        user.index(collection, one)
        broken = stack.sql_value("SELECT uuid FROM documents WHERE file_name = 'broken.pdf'")
        user.wait_over(user.ask("POST", f"/api/v2/collections/{collection}/documents/{broken}/retry").headers["X-Operation-ID"])
        operation = user.add_source(collection, folder_of(stack, 60))["id"]
        user.ask("DELETE", "/api/v2/operations/" + operation)
        wait_for("its end", lambda: user.operation(operation)["status"] in ("cancelled", "completed"))
        wait_for("the collection", lambda: user.show(collection)["status"] == "ready")
        user.wait_over(remove(user, collection, one)["id"])
        gone = user.ask("DELETE", "/api/v2/collections/" + collection)
        user.wait_over(gone.headers["X-Operation-ID"])
    finally:
        is_over.set()
        looker.join()
    assert len(seen) > 3
    assert [s["findings"] for s in seen if not s["clean"]] == []
    last = findings(stack)
    assert last["clean"] and last["redis_checked"] and last["streams"] > 3
    for table in ("documents", "chunks", "generations", "sources"):
        assert stack.sql_value(f"SELECT count(*) FROM {table}") == "0", table


def test_damage_is_told_and_mended(stack, user):
    collection, folder = user.collection()["id"], folder_of(stack, 4)
    user.index(collection, folder)
    generation = stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection)
    clean = check(stack)
    assert clean.returncode == 0 and "all of it fits together" in clean.stdout, clean
    stack.sql("DELETE FROM chunks WHERE id = (SELECT max(id) FROM chunks)")
    stack.sql("UPDATE collections SET document_count = 99 WHERE uuid = :'v1'", collection)
    stack.sql("CREATE TABLE vec.g777777 (LIKE vec.g0)")
    told = check(stack)
    assert told.returncode == 1
    for word in ("orphan_vectors", "incomplete_documents", "wrong_counters", "unknown_tables", "vec.g777777", "document_count 99 of 4", "--repair"):
        assert word in told.stdout, told.stdout
    as_json = findings(stack)
    assert {k: f["count"] for k, f in as_json["findings"].items()} == {"orphan_vectors": 1, "incomplete_documents": 1, "wrong_counters": 1, "unknown_tables": 1}
    mended = check(stack, "--repair", "--json")
    assert mended.returncode == 0 and all(f["repaired"] == f["count"] for f in json.loads(mended.stdout)["findings"].values()), mended
    assert findings(stack)["clean"]
    again = user.must("POST", f"/api/v2/collections/{collection}/documents/retry-failed", status=200)
    assert again["pending_count"] == 1
    user.wait_over(again["operation_id"])
    assert user.show(collection)["vector_count"] == int(stack.sql_value(f"SELECT count(*) FROM vec.g{generation}")) == 4
    assert findings(stack)["clean"]


def test_what_cannot_be_looked_at_is_said(stack):
    away = check(stack, env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    assert away.returncode == 2 and away.stderr.startswith("opstream-worker: ") and not away.stdout
    redis = check(stack, "--json", env={"REDIS_URL": "redis://127.0.0.1:1"})
    assert redis.returncode == 2 and json.loads(redis.stdout)["redis_checked"] is False
    assert check(stack, "--mend").returncode == 2
    assert check(stack, "--json", "--repair", "--json").returncode == 2
