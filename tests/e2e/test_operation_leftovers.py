"""What an attempt leaves when it does not come to its end: counters, source, documents, and operations that nobody knows of."""
import os
import secrets
import signal

from support.client import Client
from support.stack import wait_for

MANY = 120  # several groups

COUNTERS = """SELECT c.document_count, c.vector_count, c.total_size_bytes, c.error_count FROM collections c WHERE c.uuid = :'v1'"""
REALITY = """SELECT count(*) FILTER (WHERE live_version > 0), coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0),
    coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0), count(*) FILTER (WHERE d.status = 'failed')
    FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1'"""


def embedder_of(worker):
    with open(f"/proc/{worker.pid}/task/{worker.pid}/children") as file:
        for pid in file.read().split():
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                if b"--embedder" in command.read().split(b"\0"):
                    return int(pid)
    raise AssertionError("there is no embedder")


def write(folder, name, text):
    with open(os.path.join(folder, name), "w" if isinstance(text, str) else "wb") as file:
        file.write(text)


def new_folder(stack, count=12):
    folder = os.path.join(stack.roots, secrets.token_hex(4))
    os.mkdir(folder)
    for i in range(count):
        write(folder, f"file-{i}.txt", f"the harbour has {i} lanterns and {secrets.token_hex(4)}")
    return folder


def is_scanned(stack, operation):
    return stack.sql_value("SELECT total FROM operations WHERE uuid = :'v1'", operation) not in (None, "")


def source_of(user, collection):
    return user.must("GET", f"/api/v2/collections/{collection}/sources")["items"][0]


def test_an_operation_whose_claim_was_never_answered_is_given_back(stack):
    user = Client.registered(stack.apis[0].url)
    operation = stack.sql_value("""INSERT INTO operations (user_id, type, mutates, status, queue, config, attempt, task_id, worker_id, started_at)
        SELECT u.id, 'noop', false, 'processing', 'default', '{"events": 1}', 1, gen_random_uuid(), w.id, now()
        FROM users u, workers w WHERE u.username = :'v1' RETURNING uuid""", user.username)
    user.wait_over(operation)
    assert stack.sql("SELECT attempt, failures FROM operations WHERE uuid = :'v1'", operation) == [["2", "0"]]


def test_a_cancelled_append_leaves_true_counters_and_a_source_that_is_not_running(stack):
    user = Client.registered(stack.apis[0].url)
    folder = new_folder(stack)
    write(folder, "bad.txt", b"\x7fELF" + bytes(range(200)))
    collection = user.collection()["id"]
    user.index(collection, folder)
    assert stack.sql(COUNTERS, collection) == stack.sql(REALITY, collection)
    assert source_of(user, collection)["last_run_status"] == "partial"
    write(folder, "file-1.txt", "longer by now " * 20)
    write(folder, "file-2.txt", open(os.path.join(folder, "file-3.txt")).read())
    write(folder, "bad.txt", "good by now")
    os.remove(os.path.join(folder, "file-4.txt"))
    os.mkfifo(os.path.join(folder, "file-4.txt"))
    embedder = embedder_of(stack.workers[0])
    os.kill(embedder, signal.SIGSTOP)
    try:
        operation = user.add_source(collection, folder)["id"]
        wait_for("the scan", lambda: is_scanned(stack, operation))
        assert source_of(user, collection)["last_run_status"] == "running"
        user.must("DELETE", "/api/v2/operations/" + operation)
    finally:
        os.kill(embedder, signal.SIGCONT)
    assert stack.sql(COUNTERS, collection) == stack.sql(REALITY, collection)
    assert source_of(user, collection)["last_run_status"] == "failed"
    user.index(collection, folder)
    assert stack.sql(COUNTERS, collection) == stack.sql(REALITY, collection)
    assert user.show(collection)["document_count"] == 11  # one is a named pipe now, one a copy, and the bad one is good


def test_a_source_that_goes_away_midway_takes_nothing_with_it(stack):
    user = Client.registered(stack.apis[0].url)
    folder = new_folder(stack, MANY)
    collection = user.collection()["id"]
    user.index(collection, folder)
    for i in range(MANY):
        write(folder, f"file-{i}.txt", f"the orchard has {i} thistles and {secrets.token_hex(4)}")
    embedder = embedder_of(stack.workers[0])
    os.kill(embedder, signal.SIGSTOP)
    try:
        operation = user.add_source(collection, folder)["id"]
        wait_for("the scan", lambda: is_scanned(stack, operation))
    finally:
        # The first fifty documents have been read by now and wait for the embedder; the others find nothing.
        os.rename(folder, folder + ".away")
        os.kill(embedder, signal.SIGCONT)
    try:
        wait_for("the attempt to be over", lambda: stack.sql_value("SELECT status FROM operations WHERE uuid = :'v1'", operation) != "processing")
        assert user.show(collection)["document_count"] == MANY
        assert stack.sql_value("SELECT count(*) FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1' AND d.status = 'failed'",
                               collection) == "0"
    finally:
        os.rename(folder + ".away", folder)
    stack.sql("UPDATE operations SET not_before = now() WHERE uuid = :'v1' AND status = 'pending'", operation)
    user.wait_over(operation)
    assert {d["status"] for d in user.documents(collection).values()} == {"completed"}
    assert stack.sql(COUNTERS, collection) == stack.sql(REALITY, collection)


def test_what_was_done_instead_of_an_unknown_strategy_is_told(stack):
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    stack.sql("UPDATE collections SET chunking_strategy = 'psychic' WHERE uuid = :'v1'", collection)  # as a newer version may have left it
    operation = user.index(collection, new_folder(stack, 150))["id"]
    note = stack.sql_value("SELECT result ->> 'note' FROM operations WHERE uuid = :'v1'", operation)
    assert note == "the chunking strategy 'psychic' is not known; 'recursive' was used"
