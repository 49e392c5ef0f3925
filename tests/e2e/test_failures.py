"""What happens when something dies or is away: nothing that was accepted is lost, nothing is there twice, nobody waits for ever."""
import os
import signal
import time

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import wait_for
from test_main_job import assert_nothing_doubled

MANY = 200


def start_append(stack, user, count=MANY):
    """A folder of many documents being indexed, seen at work: (collection, operation, watch)."""
    folder = os.path.join(stack.roots, "many")
    docs.write_many(folder, count)
    collection = user.collection()
    watch = user.watch("/ws/operations")
    operation = user.add_source(collection["id"], folder)
    watch.wait("some documents", lambda f: f.get("type") == "document_processed" and f["data"]["operation_id"] == operation["id"] and f["data"]["processed"] >= 5)
    return collection, operation, watch


def test_another_worker_finishes_what_a_killed_worker_began(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, watch = start_append(stack, user)
    assert user.operation(operation["id"])["status"] == "processing"
    stack.workers[0].kill()
    stack.add("worker")
    last = watch.wait_type(*LAST, operation=operation["id"])
    assert last["type"] == "operation_completed", last
    assert_nothing_doubled(stack, collection["id"], MANY)
    assert int(stack.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation["id"])) == 2
    assert user.documents(collection["id"]).__len__() == MANY
    assert user.show(collection["id"])["status"] == "ready"
    assert sum(f["type"] in LAST for f in watch.events(operation["id"])) == 1


def test_a_frozen_worker_that_wakes_up_late_changes_nothing_any_more(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, watch = start_append(stack, user)
    frozen = stack.workers[0]
    os.killpg(frozen.pid, signal.SIGSTOP)
    for child in children_of(frozen.pid):
        os.kill(child, signal.SIGSTOP)
    stack.add("worker")
    last = watch.wait_type(*LAST, operation=operation["id"])
    assert last["type"] == "operation_completed", last
    for child in children_of(frozen.pid):
        os.kill(child, signal.SIGCONT)
    os.killpg(frozen.pid, signal.SIGCONT)
    # It notices that its lease is gone; what its attempt would still write is refused by the fence.
    wait_for("the late attempt's sessions to be gone", lambda: not int(stack.sql_value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^[0-9a-f-]{36}$' AND state = 'active'")))
    assert_nothing_doubled(stack, collection["id"], MANY)
    assert sum(f["type"] in LAST for f in watch.events(operation["id"])) == 1


def children_of(pid):
    """All descendants."""
    found, new = [], [pid]
    while new:
        parent = new.pop()
        for task in os.listdir(f"/proc/{parent}/task") if os.path.exists(f"/proc/{parent}/task") else []:
            try:
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    new += [int(child) for child in file.read().split()]
            except OSError:
                pass
        found += new[:]
    return list(dict.fromkeys(found))


def test_a_drained_worker_hands_back_and_nothing_is_counted_as_a_failure(make_stack):
    stack = make_stack(apis=1, workers=1, DRAIN_SECONDS=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, watch = start_append(stack, user)
    stack.workers[0].stop(patience=30)
    assert user.operation(operation["id"])["status"] in ("pending", "completed")
    stack.add("worker")
    assert watch.wait_type(*LAST, operation=operation["id"])["type"] == "operation_completed"
    assert stack.sql_value("SELECT failures FROM operations WHERE uuid = :'v1'", operation["id"]) == "0"
    assert_nothing_doubled(stack, collection["id"], MANY)


def test_a_restarted_api_goes_on_where_the_client_left(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, watch = start_append(stack, user)
    seen = watch.events(operation["id"])
    stack.apis[0].restart()
    watch.wait_closed()
    seen = watch.events(operation["id"])
    again = user.watch(f"/ws/operations/{operation['id']}?last_id={seen[-1]['id']}")
    last = again.wait_type(*LAST)
    assert last["type"] == "operation_completed"
    whole = user.watch(f"/ws/operations/{operation['id']}?last_id=0")
    whole.wait_type(*LAST)
    history = [e["id"] for e in whole.events(operation["id"])]
    assert [e["id"] for e in seen] + [e["id"] for e in again.events(operation["id"])] == history
    assert len(set(history)) == len(history)
    assert_nothing_doubled(stack, collection["id"], MANY)


def test_without_postgresql_requests_are_answered_503_until_it_is_back(make_stack):
    stack = make_stack(apis=1, workers=1)
    api = stack.apis[0]
    user = Client.registered(api.url)
    collection = user.collection()
    stack.postgres.shut()
    try:
        assert wait_for("readiness to fail", lambda: api.readiness()[0] == 503)
        assert user.ask("GET", "/api/v2/collections").status == 503
        assert user.ask("POST", "/api/auth/login", {"username": user.username, "password": "whatever it is"}).status == 503
        assert user.ask("GET", "/api/health/healthz").status == 200, "a restart would not bring PostgreSQL back"
        assert api.child.poll() is None and stack.workers[0].child.poll() is None
    finally:
        stack.postgres.open()
    wait_for("readiness", lambda: api.readiness()[0] == 200)
    wait_for("an answer", lambda: user.ask("GET", "/api/v2/collections").status == 200)
    folder = os.path.join(stack.roots, "after")
    docs.write_many(folder, 3)
    user.index(collection["id"], folder)


def test_an_outage_of_postgresql_in_the_middle_of_an_operation_only_delays_it(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, _ = start_append(stack, user)
    stack.postgres.shut()
    time.sleep(1)
    stack.postgres.open()
    wait_for("the API to be back", lambda: user.ask("GET", "/api/v2/collections").status == 200)

    def is_over():
        # The attempt may have ended as a transient error, to be tried again in a minute: the minute is skipped.
        stack.sql("UPDATE operations SET not_before = now() WHERE status = 'pending' AND not_before > now()")
        return user.operation(operation["id"])["status"] not in ("pending", "processing")
    wait_for("the operation to be over", is_over)
    assert user.operation(operation["id"])["status"] == "completed"
    assert_nothing_doubled(stack, collection["id"], MANY)


def test_without_redis_work_is_accepted_searched_and_done(make_stack):
    stack = make_stack(apis=1, workers=1)
    api = stack.apis[0]
    user = Client.registered(api.url)
    collection = user.collection()
    folder = os.path.join(stack.roots, "some")
    docs.write_many(folder, 3)
    stack.redis.shut()
    try:
        wait_for("readiness to say degraded", lambda: "degraded" in api.readiness()[1])
        assert api.readiness()[0] == 200
        operation = user.add_source(collection["id"], folder)
        # Workers find it by the reconciler's query.
        user.wait_over(operation["id"])
        assert user.search(collection["id"], "How do ships find their way at night?")["results"]
    finally:
        stack.redis.open()
    wait_for("the last event to be published", lambda: stack.sql_value("SELECT announced_at IS NOT NULL FROM operations WHERE uuid = :'v1'", operation["id"]) == "t")
    assert_nothing_doubled(stack, collection["id"], 3)
    watch = user.watch(f"/ws/operations/{operation['id']}")
    assert watch.wait_type("current_state")["data"]["status"] == "completed"


def test_a_lost_queue_is_filled_again_from_the_database(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()
    folder = os.path.join(stack.roots, "some")
    docs.write_many(folder, 3)
    stack.workers[0].stop()
    operation = user.add_source(collection["id"], folder)
    for key in stack.redis_cli("--scan", "--pattern", stack.name + ":queue:*", db=1).split():
        stack.redis_cli("del", key, db=1)
    stack.workers[0].start()
    user.wait_over(operation["id"])


def test_a_uuid_delivered_many_times_runs_once(make_stack):
    stack = make_stack(apis=1, workers=2)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()
    folder = os.path.join(stack.roots, "some")
    docs.write_many(folder, 30)
    operation = user.add_source(collection["id"], folder)
    for _ in range(50):
        stack.redis_cli("lpush", f"{stack.name}:queue:default", operation["id"], db=1)
    user.wait_over(operation["id"])
    assert stack.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation["id"]) == "1"
    assert_nothing_doubled(stack, collection["id"], 30)


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_sigterm_ends_an_idle_program_cleanly(make_stack, kind):
    stack = make_stack(apis=1, workers=1)
    process = stack.apis[0] if kind == "api" else stack.workers[0]
    assert process.stop() == 0, process.tail()
