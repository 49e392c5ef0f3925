"""Cancel: what waits never starts, what runs stops whatever it is at, and of cancel and completion exactly one wins."""
import concurrent.futures
import contextlib
import json
import os
import secrets
import signal
import time

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import locked, wait_for
from test_failures import children_of
from test_main_job import assert_nothing_doubled

# A running task stops within a second. Three times that, for a machine that is busy with other things.
SOON = 3


def process_of(worker, option):
    """The descendant of the worker with that option."""
    for pid in children_of(worker.pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
            if option.encode() in command.read().split(b"\0"):
                return pid
    return None


@contextlib.contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def waits_for_a_lock(stack, task):
    return stack.sql_value("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = :'v1' AND wait_event_type = 'Lock'", task)


def task_of(stack, operation):
    return stack.sql_value("SELECT task_id FROM operations WHERE uuid = :'v1'", operation)


def events_of(stack, operation, *names):
    return [line for _, line in stack.log_lines() if line.get("operation") == operation and line.get("event") in names]


def folder_of(stack, count, name=None):
    """Documents of which none is like another, in this or any other folder."""
    folder = os.path.join(stack.roots, name or secrets.token_hex(4))
    for i in range(count):
        docs.write(folder, f"letter-{i}.txt", f"Letter {i}, written on paper {secrets.token_hex(8)}. " + list(docs.STORIES.values())[i % len(docs.STORIES)])
    return folder


@contextlib.contextmanager
def while_embedding(stack, user, collection):
    worker = stack.workers[0]
    with stopped(process_of(worker, "--embedder")):
        operation = user.add_source(collection, folder_of(stack, 30))["id"]
        wait_for("the scan", lambda: stack.sql_value("SELECT total FROM operations WHERE uuid = :'v1'", operation))
        time.sleep(0.5)
        yield operation


@contextlib.contextmanager
def while_extracting(stack, user, collection):
    # Its helper is there after the first group; the embedder is held up so that there is time to stop it.
    folder = folder_of(stack, 300)
    operation = user.add_source(collection, folder)["id"]
    helper = wait_for("the helper that reads documents", lambda: process_of(stack.workers[0], "--extractor"))
    with stopped(helper):
        time.sleep(0.5)
        yield operation
    wait_for("the helper to be gone", lambda: not os.path.exists(f"/proc/{helper}"))


@contextlib.contextmanager
def while_writing(stack, user, collection):
    with locked(stack.direct_url, "documents", "EXCLUSIVE"):
        operation = user.add_source(collection, folder_of(stack, 30))["id"]
        wait_for("the task to wait", lambda: (t := task_of(stack, operation)) and waits_for_a_lock(stack, t))
        yield operation


@contextlib.contextmanager
def while_building_a_graph(stack, user, collection):
    user.index(collection, folder_of(stack, 3))
    generation = stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection)
    with locked(stack.direct_url, f"vec.g{generation}", "ROW EXCLUSIVE"):  # rows may be written, but no index be made
        operation = user.add_source(collection, folder_of(stack, 30))["id"]
        wait_for("the task to wait", lambda: (t := task_of(stack, operation)) and waits_for_a_lock(stack, t))
        yield operation


STAGES = {"embedding": while_embedding, "extracting": while_extracting, "writing": while_writing, "building a graph": while_building_a_graph}


@pytest.fixture(scope="module")
def small():
    """One worker; graphs are built from six vectors on."""
    from support.stack import Stack
    made = Stack(apis=2, workers=1, EXACT_SCAN_ROWS=5, CANCEL_GRACE_SECONDS=8)
    yield made
    made.close()


@pytest.mark.parametrize("stage", STAGES)
def test_a_running_operation_stops_soon_whatever_it_is_at(small, stage):
    user = Client.registered(small.apis[0].url)
    watch = user.watch("/ws/operations")
    collection = user.collection()["id"]
    with STAGES[stage](small, user, collection) as operation:
        task = task_of(small, operation)
        started = time.time()
        shown = user.must("DELETE", f"/api/v2/operations/{operation}")
        assert shown["status"] == "cancelled" and shown["error_message"] is None
        assert user.show(collection)["status"] == "ready"
        wait_for("the task to stop", lambda: events_of(small, operation, "task_stopped", "child_ended"), seconds=30)
        took = time.time() - started
        wait_for("its session to be gone", lambda: not waits_for_a_lock(small, task), seconds=30)
        assert took < SOON, f"it took {took:.1f} s"
        assert events_of(small, operation, "task_stopped"), "it was killed and should have stopped by itself"
    # At once: the next operation on the collection is accepted and right.
    again = folder_of(small, 4)
    user.index(collection, again)
    last = watch.wait_type(*LAST, operation=operation)
    assert last["type"] == "operation_cancelled" and last["data"]["status"] == "cancelled" and "stay" in last["data"]["message"]
    history = watch.events(operation)
    assert history[-1] == last and sum(e["type"] in LAST for e in history) == 1
    living = int(small.sql_value("SELECT count(*) FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1' AND live_version > 0", collection))
    wait_for("what nobody sees to be removed", lambda: small.sql_value(
        """SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM chunks k JOIN collections c ON c.id = k.collection_id JOIN documents d ON d.id = k.document_id
           WHERE c.uuid = :'v1' AND k.version <> d.live_version)""", collection), seconds=60)
    assert_nothing_doubled(small, collection, living)


def test_a_task_that_does_not_listen_is_killed_after_the_grace(make_stack):
    stack = make_stack(apis=1, workers=1, CANCEL_GRACE_SECONDS=1)
    user = Client.registered(stack.apis[0].url)
    operation = add_noops(stack, user, 1, '{"sleep_ms": 120000, "deaf": true}')[0]
    wait_for("it to run", lambda: user.operation(operation)["status"] == "processing")
    user.must("DELETE", f"/api/v2/operations/{operation}")
    wait_for("its child to be killed", lambda: [e for e in events_of(stack, operation, "child_ended") if e["signal"] == 9], seconds=60)
    assert user.operation(operation)["status"] == "cancelled"


def add_noops(stack, user, count, config):
    """Accepted and pushed, as by the API."""
    rows = stack.sql("""INSERT INTO operations (user_id, type, mutates, queue, config) SELECT u.id, 'noop', false, 'default', :'v2'::jsonb
                        FROM users u, generate_series(1, :v3) WHERE u.username = :'v1' RETURNING uuid""", user.username, config, count)
    uuids = [row[0] for row in rows]
    stack.redis_cli("lpush", f"{stack.name}:queue:default", *uuids, db=1)
    return uuids


def cancel_all(users, operations):
    """Simultaneously, in turn through the given users. {operation: HTTP status}."""
    def one(i):
        return operations[i], users[i % len(users)].ask("DELETE", f"/api/v2/operations/{operations[i]}").status
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return dict(pool.map(one, range(len(operations))))


def assert_one_end(stack, operation, status):
    raw = json.loads(stack.redis_cli("--json", "xrange", f"{stack.name}:operation-progress:{operation}", "-", "+"))
    history = [json.loads(entry[1][1] if isinstance(entry[1], list) else entry[1]["message"]) for entry in raw]
    assert [e["type"] for e in history if e["type"] in LAST] == [f"operation_{status}"], history
    assert history[-1]["type"] == f"operation_{status}"


def test_of_cancel_and_completion_exactly_one_wins_and_the_answer_tells_which(small):
    user = Client.registered(small.apis[0].url)
    both = [user, user.at(small.apis[1])]
    seen = set()
    for i in range(20):
        operations = add_noops(small, user, 10, json.dumps({"sleep_ms": i % 10, "events": 2}))
        answers = cancel_all(both, operations)
        for operation in operations:
            shown = wait_for("its end", lambda: (s := user.operation(operation))["status"] not in ("pending", "processing") and s)
            assert (answers[operation], shown["status"]) in ((200, "cancelled"), (400, "completed")), (answers[operation], shown)
            seen.add(shown["status"])
            wait_for("its announcement", lambda: small.sql_value("SELECT 1 FROM operations WHERE uuid = :'v1' AND announced_at IS NOT NULL", operation))
            assert_one_end(small, operation, shown["status"])
            if not shown["started_at"]:
                assert not events_of(small, operation, "operation_claimed"), "it was cancelled before it began and began all the same"
    assert seen, "nothing was tried"


def test_of_cancel_and_completion_of_an_append_exactly_one_wins(small):
    user = Client.registered(small.apis[0].url)
    collection = user.collection()["id"]
    for i in range(12):
        folder = folder_of(small, 2)
        operation = user.add_source(collection, folder)["id"]
        time.sleep(0.03 * i)
        answer = user.ask("DELETE", f"/api/v2/operations/{operation}")
        shown = user.wait_over(operation, "cancelled" if answer.status == 200 else "completed")
        wait_for("its announcement", lambda: small.sql_value("SELECT 1 FROM operations WHERE uuid = :'v1' AND announced_at IS NOT NULL", operation))
        assert_one_end(small, operation, shown["status"])
        assert user.show(collection)["status"] == "ready"
    folder = folder_of(small, 3)
    user.index(collection, folder)
    count, vectors = small.sql("SELECT document_count, vector_count FROM collections WHERE uuid = :'v1'", collection)[0]
    real = small.sql("""SELECT count(*) FILTER (WHERE live_version > 0), coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0)
                        FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1'""", collection)[0]
    assert [count, vectors] == real


def test_of_many_who_cancel_at_once_one_is_told_that_he_did(small):
    user = Client.registered(small.apis[0].url)
    operation = add_noops(small, user, 1, '{"sleep_ms": 60000}')[0]
    wait_for("it to run", lambda: user.operation(operation)["status"] == "processing")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: user.at(small.apis[i % 2]).ask("DELETE", f"/api/v2/operations/{operation}").status, range(8)))
    assert sorted(answers) == [200] + [400] * 7
    assert_one_end(small, operation, "cancelled")


def test_without_redis_a_cancelled_task_finds_out_by_itself(make_stack):
    stack = make_stack(apis=1, workers=1, CANCEL_GRACE_SECONDS=8)
    user = Client.registered(stack.apis[0].url)
    operation = add_noops(stack, user, 1, '{"sleep_ms": 120000}')[0]
    wait_for("it to run", lambda: user.operation(operation)["status"] == "processing")
    stack.redis.shut()
    try:
        started = time.time()
        assert user.must("DELETE", f"/api/v2/operations/{operation}")["status"] == "cancelled"
        wait_for("the task to stop", lambda: events_of(stack, operation, "task_stopped"), seconds=60)
        assert time.time() - started < 20  # it looks once a second
    finally:
        stack.redis.open()
    wait_for("its announcement", lambda: stack.sql_value("SELECT 1 FROM operations WHERE uuid = :'v1' AND announced_at IS NOT NULL", operation))
    assert_one_end(stack, operation, "cancelled")


def test_a_frozen_worker_does_not_keep_a_cancelled_collection(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, 200))["id"]
    wait_for("some documents", lambda: int(stack.sql_value("SELECT processed FROM operations WHERE uuid = :'v1'", operation)) > 5)
    frozen = [stack.workers[0].pid, *children_of(stack.workers[0].pid)]
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):  # a process that parses one file may be over by now
            os.kill(pid, signal.SIGSTOP)
    try:
        assert user.must("DELETE", f"/api/v2/operations/{operation}")["status"] == "cancelled"
        stack.add("worker")
        user.index(collection, folder_of(stack, 3, "after"))
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    wait_for("the late attempt to be over", lambda: not stack.sql_value(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^[0-9a-f-]{36}$'"))
    assert user.operation(operation)["status"] == "cancelled"
    assert_one_end(stack, operation, "cancelled")
    living = int(stack.sql_value("SELECT count(*) FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1' AND live_version > 0", collection))
    wait_for("what nobody sees to be removed", lambda: stack.sql_value(
        """SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM chunks k JOIN collections c ON c.id = k.collection_id JOIN documents d ON d.id = k.document_id
           WHERE c.uuid = :'v1' AND k.version <> d.live_version)""", collection), seconds=60)
    assert_nothing_doubled(stack, collection, living)
