"""Brief operations are taken many at a time by one child; that must be seen in their speed only."""
import json
import os
import signal
import time

from support.client import LAST, Client
from support.stack import wait_for
from test_cancel import add_noops, assert_one_end, events_of
from test_poison import ends_of

MANY = 300


def accept(stack, user, configs):
    """Accepted, and pushed in one go: {uuid: config}."""
    found = {}
    for config in configs:
        row = stack.sql("""INSERT INTO operations (user_id, type, mutates, queue, config, max_attempts) SELECT id, 'noop', false, 'default', :'v2'::jsonb, 4
                           FROM users WHERE username = :'v1' RETURNING uuid""", user.username, json.dumps(config))[0][0]
        found[row] = config
    stack.redis_cli("lpush", f"{stack.name}:queue:default", *found, db=1)
    return found


def wait_all(stack, operations):
    listed = ",".join(f"'{o}'" for o in operations)
    wait_for("all to be over", lambda: stack.sql_value(f"SELECT count(*) FROM operations WHERE uuid IN ({listed}) AND status IN ('pending', 'processing')") == "0")
    wait_for("all to be announced", lambda: stack.sql_value(f"SELECT count(*) FROM operations WHERE uuid IN ({listed}) AND announced_at IS NULL") == "0")


def batches(stack):
    """How many operations ended at the same moment: those that one statement ended."""
    return [int(row[0]) for row in stack.sql("SELECT count(*) FROM operations WHERE type = 'noop' AND completed_at IS NOT NULL GROUP BY completed_at")]


def test_many_brief_operations_end_together_and_each_has_its_whole_history(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    watch = user.watch("/ws/operations")
    operations = add_noops(stack, user, MANY, '{"events": 1}')
    wait_all(stack, operations)
    assert max(batches(stack)) > 1, "they were taken one by one"
    for operation in operations:
        shown = user.operation(operation)
        assert shown["status"] == "completed" and shown["progress"] == 100
    for operation in operations[::29]:
        assert_one_end(stack, operation, "completed")
        # A slow machine may give some back to be taken again.
        ends = ends_of(stack, operation)
        assert ends[-1] == "completed" and set(ends[:-1]) <= {"handed_back"}, stack.sql("SELECT meta FROM operations WHERE uuid = :'v1'", operation)
        watch.wait_type(*LAST, operation=operation)
        types = [e["type"] for e in watch.events(operation)]
        assert types[-3:] == ["operation_started", "processing_progress", "operation_completed"]
    assert stack.sql_value("SELECT count(*) FROM audit_log WHERE action = 'operation_noop_completed'") == str(MANY)
    assert stack.sql_value("SELECT count(DISTINCT f.operation_uuid) FROM operation_figures f JOIN operations o ON o.uuid = f.operation_uuid WHERE o.type = 'noop'") == str(MANY)


def test_nothing_waits_behind_one_that_takes_long(make_stack):
    stack = make_stack(apis=1, workers=1, WORKER_CONCURRENCY=2)
    user = Client.registered(stack.apis[0].url)
    accept(stack, user, [{"events": 0}] * 3)
    sleeper = accept(stack, user, [{"events": 0}] * 20 + [{"sleep_ms": 60000}] + [{"events": 0}] * 20)
    quick = [o for o, config in sleeper.items() if "sleep_ms" not in config]
    wait_all(stack, quick)
    slow = next(o for o, config in sleeper.items() if "sleep_ms" in config)
    assert user.operation(slow)["status"] == "processing"
    assert stack.sql_value("SELECT max(failures) FROM operations WHERE type = 'noop'") == "0"
    # It is told of while it runs, and can be cancelled by itself.
    user.must("DELETE", f"/api/v2/operations/{slow}")
    wait_for("it to stop", lambda: events_of(stack, slow, "task_stopped"))
    assert_one_end(stack, slow, "cancelled")


def test_only_the_one_that_killed_its_child_is_blamed(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    accept(stack, user, [{"events": 0}] * 3)
    operations = accept(stack, user, [{"events": 0}] * 15 + [{"crash": int(signal.SIGKILL)}] + [{"events": 0}] * 15)
    wait_all(stack, operations)
    for operation, config in operations.items():
        shown = stack.sql("SELECT status, failures FROM operations WHERE uuid = :'v1'", operation)[0]
        assert shown == (["failed", "4"] if "crash" in config else ["completed", "0"]), (config, shown)
        assert_one_end(stack, operation, shown[0])


def test_failures_in_a_batch_are_each_ones_own(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    accept(stack, user, [{"events": 0}] * 3)
    operations = accept(stack, user, [{"events": 0}, {"fail": "permanent"}, {"fail": "transient", "fail_attempts": 1}] * 12)
    wait_all(stack, operations)
    for operation, config in operations.items():
        ends = [e for e in ends_of(stack, operation) if e != "handed_back"]
        wanted = ["failed", "completed"] if "fail_attempts" in config else ["failed"] if "fail" in config else ["completed"]
        assert ends == wanted, (config, ends)


def test_a_drained_worker_gives_back_what_of_a_batch_it_has_not_begun(make_stack):
    stack = make_stack(apis=1, workers=1, DRAIN_SECONDS=1, WORKER_CONCURRENCY=1)
    user = Client.registered(stack.apis[0].url)
    accept(stack, user, [{"events": 0}] * 3)
    operations = accept(stack, user, [{"sleep_ms": 30, "sleep_attempts": 1}] * 120)
    wait_for("some of them", lambda: int(stack.sql_value("SELECT count(*) FROM operations WHERE type = 'noop' AND status = 'completed'")) > 5)
    assert stack.workers[0].stop() == 0
    assert stack.sql_value("SELECT count(*) FROM operations WHERE status = 'processing'") == "0"
    stack.add("worker")
    wait_all(stack, operations)
    assert stack.sql_value("SELECT max(failures) FROM operations WHERE type = 'noop'") == "0"
    assert stack.sql_value("SELECT count(*) FROM operations WHERE type = 'noop' AND status = 'completed'") == "123"


def test_a_worker_killed_in_a_batch_loses_and_doubles_nothing(make_stack):
    stack = make_stack(apis=1, workers=2)
    user = Client.registered(stack.apis[0].url)
    operations = add_noops(stack, user, 1500, '{"events": 0}')
    for _ in range(3):
        done = int(stack.sql_value("SELECT count(*) FROM operations WHERE type = 'noop' AND status = 'completed'"))
        if done == 1500:
            break
        stack.workers[0].kill()
        stack.workers[0].start()
        time.sleep(0.1)
    wait_all(stack, operations)
    assert stack.sql_value("SELECT count(*) FROM operations WHERE type = 'noop' AND status = 'completed'") == "1500"
    assert stack.sql_value("SELECT count(*) FROM audit_log WHERE action = 'operation_noop_completed'") == "1500"
    for operation in operations[::211]:
        assert_one_end(stack, operation, "completed")


def test_long_operations_are_not_hoarded_behind_brief_ones(make_stack):
    stack = make_stack(apis=1, workers=1, WORKER_CONCURRENCY=1)
    user = Client.registered(stack.apis[0].url)
    folder = os.path.join(stack.roots, "some")
    os.mkdir(folder)
    with open(os.path.join(folder, "a.txt"), "w") as file:
        file.write("the harbour has lanterns")
    collection = user.collection()["id"]
    stack.workers[0].stop()
    brief = list(accept(stack, user, [{"events": 0}] * 20))
    append = user.add_source(collection, folder)["id"]
    brief += list(accept(stack, user, [{"events": 0}] * 20))
    stack.workers[0].start()
    wait_all(stack, [*brief, append])
    assert stack.sql("SELECT status, attempt FROM operations WHERE uuid = :'v1'", append) == [["completed", "1"]]
