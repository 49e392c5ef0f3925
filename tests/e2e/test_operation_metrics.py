"""What an operation took: figures of each attempt, of those that died too, and their sums."""
import json
import os
import signal

import pytest
from support.client import Client
from support.stack import Stack, wait_for
from test_cancel import add_noops
from test_poison import folder_of

ATTEMPT = {"attempt", "recorded_at", "duration_seconds", "cpu_seconds", "memory_peak_bytes", "documents_processed", "documents_failed", "chunks", "tokens", "retries",
           "queue_wait_seconds"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1)
    yield made
    made.close()


@pytest.fixture
def user(stack):
    return Client.registered(stack.apis[0].url)


def metrics(client, operation, status=200):
    return client.must("GET", f"/api/v2/operations/{operation}/metrics", status=status)


def test_a_finished_operation_tells_what_it_took(stack, user):
    collection = user.collection()["id"]
    operation = user.index(collection, folder_of(stack, 12))["id"]
    shown = metrics(user, operation)
    assert set(shown) == {"operation_id", "type", "status", "totals", "attempts", "estimate"}
    assert (shown["operation_id"], shown["type"], shown["status"], shown["estimate"]) == (operation, "append", "completed", None)
    (attempt,), totals = shown["attempts"], shown["totals"]
    assert set(attempt) == ATTEMPT
    chunks = user.show(collection)["vector_count"]
    assert (attempt["documents_processed"], attempt["chunks"], attempt["retries"]) == (12, chunks, 0)
    assert attempt["tokens"] > chunks and attempt["cpu_seconds"] > 0 and attempt["duration_seconds"] > 0 and attempt["queue_wait_seconds"] >= 0
    assert 1 << 20 < attempt["memory_peak_bytes"] < 1 << 32
    assert totals["documents_processed"] == 12 and totals["chunks"] == chunks and totals["tokens"] == attempt["tokens"]
    assert totals["attempts"] == 1 and totals["retries"] == 0 and totals["elapsed_seconds"] >= totals["busy_seconds"] * 0.5
    assert totals["memory_peak_bytes"] == attempt["memory_peak_bytes"]


def test_one_that_waits_has_no_figures_yet(stack, user):
    collection = user.collection()["id"]
    stack.sql("UPDATE collections SET queue = 'nobody' WHERE uuid = :'v1'", collection)
    operation = user.add_source(collection, folder_of(stack, 1))["id"]
    shown = metrics(user, operation)
    assert shown["attempts"] == [] and shown["totals"]["elapsed_seconds"] is None and shown["totals"]["queue_wait_seconds"] >= 0
    assert shown["totals"]["attempts"] == shown["totals"]["retries"] == 0 and shown["totals"]["memory_peak_bytes"] is None


def test_attempts_that_died_leave_theirs_and_the_log_tells_of_the_retry(stack, user):
    operation = add_noops(stack, user, 1, json.dumps({"sleep_ms": 600000}))[0]
    wait_for("it to run", lambda: user.operation(operation)["status"] == "processing")
    child = wait_for("its process", lambda: stack.sql_value("SELECT meta #>> '{attempts,-1,started_at}' FROM operations WHERE uuid = :'v1'", operation)
                     and next((line["pid"] for _, line in stack.log_lines() if line["event"] == "task_started" and line["operation"] == operation), None))
    os.kill(child, signal.SIGKILL)
    wait_for("the second attempt", lambda: user.operation(operation)["attempt"] == 2)
    user.must("DELETE", f"/api/v2/operations/{operation}")
    shown = metrics(user, operation)
    assert [a["attempt"] for a in shown["attempts"]] == [1, 2] and shown["totals"]["retries"] == 1
    assert all(a["duration_seconds"] > 0 for a in shown["attempts"])
    told = user.must("GET", f"/api/v2/audit?operation_id={operation}")["entries"]
    retried = next(e["details"] for e in told if e["action"] == "operation_noop_retried")
    assert retried["ended"] == "crash" and retried["attempt"] == 1 and retried["duration"] > 0 and "signal 9" in retried["reason"]


def test_who_may_see_the_operation_sees_its_figures(stack, user):
    collection = user.collection()["id"]
    operation = user.index(collection, folder_of(stack, 1))["id"]
    other = Client.registered(stack.apis[0].url)
    metrics(other, operation, status=403)
    metrics(user, NOBODY, status=404)
    metrics(user, "1", status=404)
    user.must("PUT", f"/api/v2/collections/{collection}", {"is_public": True})
    metrics(other, operation)


def test_a_lost_workers_operations_are_told_as_swept(make_stack):
    stack = make_stack(apis=1, workers=1, WORKER_LEASE_SECONDS=1)
    user = Client.registered(stack.apis[0].url)
    operation = add_noops(stack, user, 1, json.dumps({"sleep_ms": 600000}))[0]
    wait_for("it to run", lambda: user.operation(operation)["status"] == "processing")
    stack.workers[0].kill()
    stack.add("worker")
    wait_for("the next attempt", lambda: user.operation(operation)["attempt"] == 2)
    told = user.must("GET", f"/api/v2/audit?operation_id={operation}")["entries"]
    swept = next(e["details"] for e in told if e["action"] == "operation_noop_swept")
    assert swept["attempt"] == 1 and swept["ended"] == "lease_lapsed" and swept["failures"] == 1
    assert metrics(user, operation)["attempts"][0]["duration_seconds"] > 0
