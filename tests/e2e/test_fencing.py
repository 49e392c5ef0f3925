"""An attempt that lost its operation changes nothing any more, wherever it was when it lost it and however late it wakes up."""
import contextlib
import os
import secrets
import signal
import urllib.parse

from support import documents as docs
from support.client import LAST, Client
from support.stack import Gate, locked, wait_for
from test_cancel import assert_one_end, task_of, waits_for_a_lock
from test_failures import children_of
from test_main_job import assert_nothing_doubled
from test_poison import ends_of, folder_of


@contextlib.contextmanager
def frozen(worker):
    """The worker and all its processes, as a machine that is suspended."""
    pids = [worker.pid, *children_of(worker.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def wait_until_it_started_over(stack, worker):
    wait_for("the late worker to start over", lambda: any(name == worker.name and line["event"] == "worker_started_over" for name, line in stack.log_lines()))


def expect_whole(stack, user, collection, operation, count, attempts=2):
    assert_one_end(stack, operation, "completed")
    assert_nothing_doubled(stack, collection, count)
    assert int(stack.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation)) == attempts
    wait_for("what nobody sees to be removed", lambda: stack.sql_value(
        """SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM chunks k JOIN collections c ON c.id = k.collection_id JOIN documents d ON d.id = k.document_id
           WHERE c.uuid = :'v1' AND k.version <> d.live_version)""", collection), seconds=60)
    assert user.show(collection)["status"] == "ready"


def wait_announced(stack, operation):
    wait_for("its announcement", lambda: stack.sql_value("SELECT 1 FROM operations WHERE uuid = :'v1' AND announced_at IS NOT NULL", operation))


def test_a_worker_that_was_cut_off_from_the_database_writes_nothing_when_its_bytes_arrive_late(make_stack):
    stack = make_stack(apis=1, workers=0)
    target = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
    gate = Gate(target.hostname, target.port)
    through = urllib.parse.urlsplit(stack.direct_url)
    url = through._replace(netloc=through.netloc.rsplit(":", 1)[0] + f":{gate.port}").geturl()
    cut_off = stack.add("worker", DATABASE_URL=url)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, 150))["id"]
    wait_for("some documents", lambda: int(stack.sql_value("SELECT processed FROM operations WHERE uuid = :'v1'", operation)) > 5)
    gate.hold()
    try:
        other = stack.add("worker")
        user.wait_over(operation)
    finally:
        gate.release()
    wait_until_it_started_over(stack, cut_off)
    wait_announced(stack, operation)
    expect_whole(stack, user, collection, operation, 150)
    # And it works again.
    other.stop()
    user.index(collection, folder_of(stack, 3))
    gate.shut()


def test_a_worker_frozen_in_the_middle_of_a_documents_transaction_commits_nothing_of_it(make_stack):
    stack = make_stack(apis=1, workers=0, has_faults=True)
    folder = os.path.join(stack.dir, "faults")
    os.mkdir(folder)
    late = stack.add("worker", FAULT="before_document_commit:sleep=1000*1", FAULT_DIR=folder)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, 40))["id"]
    wait_for("the open transaction", lambda: os.listdir(folder))
    with frozen(late):
        stack.add("worker")
        user.wait_over(operation)
    wait_until_it_started_over(stack, late)
    wait_announced(stack, operation)
    expect_whole(stack, user, collection, operation, 40)


def test_a_child_frozen_between_its_end_and_the_announcement_announces_nothing_twice(make_stack):
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT="after_final_before_announce:sleep=6000")
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    watch = user.watch("/ws/operations")
    operation = user.add_source(collection, folder_of(stack, 5))["id"]
    user.wait_over(operation)
    # The reconciler announces it while its own child still sleeps.
    assert watch.wait_type(*LAST, operation=operation)["type"] == "operation_completed"
    wait_for("the child to go on", lambda: any(line.get("operation") == operation and line["event"] == "task_completed" for _, line in stack.log_lines()))
    assert_one_end(stack, operation, "completed")
    assert sum(e["type"] in LAST for e in watch.events(operation)) == 1


def test_a_worker_frozen_while_it_builds_a_graph_leaves_none(make_stack):
    stack = make_stack(apis=1, workers=1, EXACT_SCAN_ROWS=5)
    late = stack.workers[0]
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    user.index(collection, folder_of(stack, 3))
    generation = stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection)
    with contextlib.ExitStack() as thaw:
        with locked(stack.direct_url, f"vec.g{generation}", "ROW EXCLUSIVE"):
            operation = user.add_source(collection, folder_of(stack, 30))["id"]
            wait_for("the task to wait", lambda: (t := task_of(stack, operation)) and waits_for_a_lock(stack, t))
            first = task_of(stack, operation)
            thaw.enter_context(frozen(late))
            stack.add("worker")
            wait_for("the next attempt to wait there", lambda: (t := task_of(stack, operation)) != first and t and waits_for_a_lock(stack, t))
            assert not waits_for_a_lock(stack, first), "the session of the attempt before was ended"
        user.wait_over(operation)
    wait_until_it_started_over(stack, late)
    wait_announced(stack, operation)
    expect_whole(stack, user, collection, operation, 33)
    assert stack.sql_value("SELECT count(*) FROM pg_indexes WHERE schemaname = 'vec' AND tablename = :'v1' AND indexdef ~ 'hnsw'", f"g{generation}") == "1"


def test_a_session_that_outlives_its_child_commits_nothing(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    folder = folder_of(stack, 30)
    with locked(stack.direct_url, "documents", "EXCLUSIVE"):
        operation = user.add_source(collection, folder)["id"]
        wait_for("the task to wait", lambda: (t := task_of(stack, operation)) and waits_for_a_lock(stack, t))
        first = task_of(stack, operation)
        for pid in children_of(stack.workers[0].pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
                if b"--child" in command.read().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)
        wait_for("the next attempt", lambda: task_of(stack, operation) != first)
        assert not stack.sql_value("SELECT 1 FROM pg_stat_activity WHERE application_name = :'v1'", first), "its session is ended before the next attempt begins"
    user.wait_over(operation)
    assert ends_of(stack, operation) == ["crash", "completed"]
    wait_announced(stack, operation)
    expect_whole(stack, user, collection, operation, 30)


def test_a_worker_frozen_while_it_deletes_a_collection_does_no_harm(make_stack):
    stack = make_stack(apis=1, workers=1)
    late = stack.workers[0]
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    user.index(collection, folder_of(stack, 30))
    kept = user.collection()["id"]
    user.index(kept, folder_of(stack, 8))
    number = stack.sql_value("SELECT id FROM collections WHERE uuid = :'v1'", collection)
    with contextlib.ExitStack() as thaw:
        with locked(stack.direct_url, "documents", "EXCLUSIVE"):
            operation = user.ask("DELETE", f"/api/v2/collections/{collection}").headers["X-Operation-ID"]
            wait_for("the task to wait", lambda: (t := task_of(stack, operation)) and waits_for_a_lock(stack, t))
            thaw.enter_context(frozen(late))
            stack.add("worker")
            wait_for("the next attempt", lambda: int(stack.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation)) == 2)
        wait_for("the deletion", lambda: stack.sql_value("SELECT status FROM operations WHERE uuid = :'v1'", operation) == "completed")
    wait_until_it_started_over(stack, late)
    wait_announced(stack, operation)
    assert_one_end(stack, operation, "completed")
    assert ends_of(stack, operation) == ["lease_lapsed", "completed"], stack.sql("SELECT meta FROM operations WHERE uuid = :'v1'", operation)
    for table in ("documents", "chunks", "generations", "sources"):
        assert stack.sql_value(f"SELECT count(*) FROM {table} WHERE collection_id = :v1", number) == "0"
    assert_nothing_doubled(stack, kept, 8)
