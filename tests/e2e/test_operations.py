"""Operations over REST, the API alone: lists, access, cancel, the last event."""
import json
import os
import subprocess
import time

import pytest

from support import rows
from support.client import Client
from support.stack import Stack, wait_for

FIELDS = {"id", "collection_id", "type", "status", "config", "error_message", "created_at", "started_at", "completed_at", "progress", "eta"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def api():
    made = Stack(apis=1, workers=0)
    yield made
    made.close()


@pytest.fixture
def me(api):
    return Client.registered(api.apis[0].url)


@pytest.fixture
def other(api):
    return Client.registered(api.apis[0].url)


def append(api, me, **more):
    made = rows.ready_collection(api, me, **more)
    return made, me.add_source(made["id"], api.roots)


def events(api, operation_id):
    out = api.redis_cli("--json", "XRANGE", f"{api.name}:operation-progress:{operation_id}", "-", "+")
    return [json.loads(fields[fields.index("message") + 1]) for _, fields in json.loads(out or "[]")]


def test_the_list_is_the_callers_newest_first_and_filtered(api, me, other):
    made, pending = append(api, me)
    append(api, other)
    listed = me.must("GET", "/api/v2/operations?status=processing,%20pending&page=1&per_page=100")
    assert set(listed) == {"operations", "total", "page", "per_page"}
    assert [o["id"] for o in listed["operations"]] == [pending["id"]] and set(listed["operations"][0]) == FIELDS
    everything = me.must("GET", "/api/v2/operations")
    assert everything["total"] == 2 and [o["type"] for o in everything["operations"]] == ["append", "index"]
    assert me.must("GET", "/api/v2/operations?per_page=1&page=2")["operations"][0]["type"] == "index"
    assert me.must("GET", "/api/v2/operations?page=50") == {"operations": [], "total": 2, "page": 50, "per_page": 50}
    for query in ("operation_type=index", "type=index", "status=completed", "status=completed,failed&operation_type=index,append", "status=&type=index"):
        assert [o["type"] for o in me.must("GET", "/api/v2/operations?" + query)["operations"]] == ["index"], query
    own = me.must("GET", f"/api/v2/collections/{made['id']}/operations?limit=50")
    assert isinstance(own, list) and [o["type"] for o in own] == ["append", "index"]
    assert [o["type"] for o in me.must("GET", f"/api/v2/collections/{made['id']}/operations?status=pending")] == ["append"]


def test_an_unknown_filter_value_names_the_valid_ones(api, me):
    made = rows.ready_collection(api, me)
    for path in ("/api/v2/operations", f"/api/v2/collections/{made['id']}/operations"):
        answer = me.ask("GET", path + "?status=pending,done")
        assert answer.status == 400 and "processing" in answer.json["detail"] and "'done'" in answer.json["detail"]
        answer = me.ask("GET", path + "?operation_type=bake")
        assert answer.status == 400 and "append" in answer.json["detail"]
        assert me.ask("GET", path + "?page=0").status == 422
        assert me.ask("GET", path + "?per_page=1000").status == 422


def test_progress_and_eta_are_numbers_of_a_running_operation(api, me):
    _, operation = append(api, me)
    rows.claim(api, operation["id"], percent=50)
    shown = me.operation(operation["id"])
    assert shown["status"] == "processing" and shown["progress"] == 50 and 9 <= shown["eta"] <= 60 and shown["started_at"]
    rows.finish(api, me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex()})["initial_operation_id"])
    done = me.must("GET", "/api/v2/operations?status=completed")["operations"][0]
    assert done["progress"] == 100 and done["eta"] is None and done["completed_at"]


def test_who_may_see_and_who_may_cancel(api, me, other):
    private, of_private = append(api, me)
    public, of_public = append(api, me, is_public=True)
    assert private["is_public"] is False and public["is_public"] is True
    for method in ("GET", "DELETE"):
        assert me.ask(method, "/api/v2/operations/" + NOBODY).status == 404
        assert me.ask(method, "/api/v2/operations/nonsense").status == 404
        assert other.ask(method, "/api/v2/operations/" + of_private["id"]).status == 403
    assert other.operation(of_public["id"])["id"] == of_public["id"]
    assert other.ask("DELETE", "/api/v2/operations/" + of_public["id"]).status == 403
    assert me.operation(of_public["id"])["status"] == "pending"
    assert Client(me.url).ask("DELETE", "/api/v2/operations/" + of_public["id"]).status == 401


def test_cancel_frees_the_collection_at_once_and_is_announced_once(api, me):
    made, operation = append(api, me)
    cancelled = me.must("DELETE", "/api/v2/operations/" + operation["id"], status=200)
    assert set(cancelled) == FIELDS and cancelled["status"] == "cancelled" and cancelled["completed_at"]
    assert me.show(made["id"])["status"] == "ready"
    assert [e["type"] for e in events(api, operation["id"])] == ["operation_cancelled"]
    assert events(api, operation["id"])[0]["data"]["status"] == "cancelled"
    again = me.ask("DELETE", "/api/v2/operations/" + operation["id"])
    assert again.status == 400 and "cancelled" in again.json["detail"]
    assert me.add_source(made["id"], api.roots)["status"] == "pending"
    assert api.sql_value("SELECT action FROM audit_log WHERE operation_uuid = :'v1' ORDER BY id DESC LIMIT 1", operation["id"]) == "operation_append_cancelled"


def test_a_running_operation_is_cancelled_and_its_worker_told(api, me):
    made, operation = append(api, me)
    rows.claim(api, operation["id"])
    listener = subprocess.Popen(["redis-cli", "-u", os.environ["REDIS_URL"], "SUBSCRIBE", f"{api.name}:control:w"], stdout=subprocess.PIPE, text=True)
    try:
        assert [listener.stdout.readline().strip() for _ in range(3)][0] == "subscribe"
        assert me.must("DELETE", "/api/v2/operations/" + operation["id"])["status"] == "cancelled"
        told = [listener.stdout.readline().strip() for _ in range(3)][2]
    finally:
        listener.kill()
        listener.wait()
    assert json.loads(told) == {"action": "cancel", "operation_id": operation["id"]}
    assert me.show(made["id"])["status"] == "ready"


def test_cancelling_the_first_index_leaves_an_empty_collection_that_can_be_used(api, me):
    made = me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex()}, status=201)
    me.must("DELETE", "/api/v2/operations/" + made["initial_operation_id"])
    assert me.show(made["id"])["status"] == "ready"
    me.add_source(made["id"], api.roots)


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_what_is_over_cannot_be_cancelled(api, me, status):
    _, operation = append(api, me)
    rows.finish(api, operation["id"], status, "broken" if status == "failed" else None)
    answer = me.ask("DELETE", "/api/v2/operations/" + operation["id"])
    assert answer.status == 400 and status in answer.json["detail"]
    shown = me.operation(operation["id"])
    assert shown["status"] == status and shown["error_message"] == ("broken" if status == "failed" else None)


def test_without_redis_requests_are_accepted_and_cancelled_and_told_later(api, me):
    made = rows.ready_collection(api, me)
    api.redis.shut()
    try:
        started = time.monotonic()
        operation = me.add_source(made["id"], api.roots)
        assert me.must("DELETE", "/api/v2/operations/" + operation["id"])["status"] == "cancelled"
        waiting = me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex()}, status=201)["initial_operation_id"]
        assert time.monotonic() - started < 30
    finally:
        api.redis.open()
    wait_for("the cancel to be announced", lambda: [e["type"] for e in events(api, operation["id"])] == ["operation_cancelled"])
    wait_for("the job to be queued", lambda: waiting in api.redis_cli("LRANGE", f"{api.name}:queue:fast", "0", "-1", db=1).split())


def test_without_postgresql_answers_are_503_and_never_401(api, me):
    _, operation = append(api, me)
    api.postgres.shut()
    try:
        for method, path in (("GET", "/api/v2/collections"), ("GET", "/api/v2/operations/" + operation["id"]), ("DELETE", "/api/v2/operations/" + operation["id"])):
            answer = me.ask(method, path)
            assert answer.status == 503 and answer.headers["Retry-After"]
        assert me.must("GET", "/api/v2/system/health")["postgres"]["status"] == "unhealthy"
    finally:
        api.postgres.open()
    assert wait_for("PostgreSQL to be back", lambda: me.ask("GET", "/api/v2/operations/" + operation["id"]).status == 200)
    assert me.operation(operation["id"])["status"] == "pending"
