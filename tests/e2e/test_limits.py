"""Time limits of attempts, and children that are replaced before they grow old or large."""
import json

from support.client import Client
from support.stack import wait_for
from test_cancel import add_noops
from test_main_job import assert_nothing_doubled
from test_poison import ends_of, folder_of


def pids_of_tasks(stack):
    return {line["pid"] for _, line in stack.log_lines() if line["event"] == "task_completed"}


def test_children_are_replaced_after_their_number_of_tasks_and_nothing_is_lost(make_stack):
    stack = make_stack(apis=1, workers=1, WORKER_MAX_TASKS_PER_CHILD=3)
    user = Client.registered(stack.apis[0].url)
    for _ in range(30):  # one by one: many at a time would be one order
        user.wait_over(add_noops(stack, user, 1, '{"sleep_ms": 1}')[0])
    assert len(pids_of_tasks(stack)) >= 10
    assert stack.sql_value("SELECT count(*) FROM operations WHERE type = 'noop' AND attempt = 1 AND failures = 0") == "30"


def test_children_that_have_grown_are_replaced_and_nothing_is_lost(make_stack):
    stack = make_stack(apis=1, workers=1, WORKER_CHILD_MAX_MB=1)
    user = Client.registered(stack.apis[0].url)
    for _ in range(12):
        user.wait_over(add_noops(stack, user, 1, '{"sleep_ms": 1}')[0])
    assert len(pids_of_tasks(stack)) == 12, "each one is larger than a megabyte after its first task"


def test_the_soft_limit_hands_back_for_free_as_long_as_documents_get_done(make_stack):
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT="before_document_commit:sleep=700", OPERATION_SOFT_TIME_LIMIT=1, EMBEDDING_BATCH_SIZE=8)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, 40))["id"]
    user.wait_over(operation)
    ends = ends_of(stack, operation)
    assert ends[-1] == "completed" and set(ends[:-1]) == {"soft_limit"}, ends
    assert stack.sql_value("SELECT failures FROM operations WHERE uuid = :'v1'", operation) == "0"
    assert_nothing_doubled(stack, collection, 40)


def test_an_attempt_over_the_hard_limit_is_killed_and_counted_with_its_reason(make_stack):
    stack = make_stack(apis=1, workers=1, OPERATION_SOFT_TIME_LIMIT=1, OPERATION_HARD_TIME_LIMIT=2)
    user = Client.registered(stack.apis[0].url)
    operation = add_noops(stack, user, 1, json.dumps({"sleep_ms": 600000, "deaf": True}))[0]
    wait_for("it to be given up", lambda: user.operation(operation)["status"] == "failed")
    assert ends_of(stack, operation) == ["hard_limit"] * 4
    assert "OPERATION_HARD_TIME_LIMIT 4 times" in user.operation(operation)["error_message"]
