"""The audit log: every state change of operations and every administrative act, one's own or all for superusers."""
import os
import secrets
import urllib.parse

import pytest
from support import documents as docs
from support.client import Client
from support.stack import Stack

ENTRY = {"id", "user_id", "username", "action", "collection_id", "operation_id", "details", "created_at"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def admin(stack):
    return Client.registered(stack.apis[0].url)


@pytest.fixture
def user(stack, admin):
    return Client.registered(stack.apis[0].url)


def audit(client, **filters):
    return client.must("GET", "/api/v2/audit?" + urllib.parse.urlencode({"per_page": 100, **filters}))


def actions(client, **filters):
    """Oldest first."""
    return [e["action"] for e in reversed(audit(client, **filters)["entries"])]


def folder_of(stack, count):
    folder = os.path.join(stack.roots, secrets.token_hex(4))
    for i in range(count):
        docs.write(folder, f"{i}.txt", f"Note {i} {secrets.token_hex(8)}. " + docs.STORIES["bees"])
    return folder


def test_an_operation_is_told_from_its_acceptance_to_its_end(stack, user):
    collection = user.collection()["id"]
    folder = folder_of(stack, 3)
    operation = user.index(collection, folder)["id"]
    page = audit(user, operation_id=operation)
    assert set(page) == {"entries", "total", "total_is_exact", "page", "per_page", "next_before"}
    assert page["total"] == 3 and page["total_is_exact"] and page["next_before"] is None
    end, began, accepted = page["entries"]
    assert [e["action"] for e in (accepted, began, end)] == ["operation_append_pending", "operation_append_processing", "operation_append_completed"]
    for entry in page["entries"]:
        assert set(entry) == ENTRY
        assert (entry["collection_id"], entry["operation_id"], entry["username"]) == (collection, operation, user.username)
    assert accepted["details"]["source_path"] == folder
    assert end["details"]["documents_processed"] == 3 and end["details"]["duration"] > 0 and end["details"]["attempt"] == 1
    assert accepted["created_at"] <= began["created_at"] <= end["created_at"]
    shown = user.operation(operation)
    assert began["created_at"] == shown["started_at"] and end["created_at"] == shown["completed_at"]


def test_a_cancel_names_who_asked_and_what_it_was(stack, user):
    collection = user.collection()["id"]
    stack.sql("UPDATE collections SET queue = 'nobody' WHERE uuid = :'v1'", collection)
    operation = user.add_source(collection, folder_of(stack, 1))["id"]
    user.must("DELETE", f"/api/v2/operations/{operation}")
    assert actions(user, operation_id=operation) == ["operation_append_pending", "operation_cancel_requested", "operation_append_cancelled"]
    end = audit(user, operation_id=operation)["entries"][0]["details"]
    assert end["was"] == "pending" and end["documents_processed"] == 0 and end["duration"] == 0 and isinstance(end["cancelled_by"], int)


def test_acts_on_collections_are_told_without_what_is_the_owners_alone(user):
    collection = user.collection(description="a secret of mine", metadata={"key": "hidden"})["id"]
    user.must("PUT", f"/api/v2/collections/{collection}", {"description": "another secret", "is_public": True})
    user.must("DELETE", f"/api/v2/collections/{collection}", status=204)
    told = audit(user, collection_id=collection)["entries"]
    assert {"collection_created", "collection_updated", "collection_deleted", "operation_index_pending", "operation_delete_pending"} <= {e["action"] for e in told}
    changed = next(e for e in told if e["action"] == "collection_updated")
    assert changed["details"] == {"is_public": True, "description": True}
    assert "secret" not in str(told) and "hidden" not in str(told)


def test_logins_and_revocations_are_told_and_no_secret_is(stack, admin, user):
    password, wrong = "correct horse battery", "a wrong password " + secrets.token_hex(4)
    user.ask("POST", "/api/auth/login", {"username": user.username, "password": wrong})
    user.ask("POST", "/api/auth/login", {"username": "nobody_" + wrong.split()[-1], "password": wrong})
    tokens = user.must("POST", "/api/auth/login", {"username": user.username, "password": password})
    user.must("POST", "/api/auth/logout", {"refresh_token": tokens["refresh_token"]}, status=200)
    assert actions(user) == ["user_registered", "login", "login_failed", "login", "tokens_revoked"]
    reused = user.must("POST", "/api/auth/login", {"username": user.username, "password": password})
    user.must("POST", "/api/auth/refresh", {"refresh_token": reused["refresh_token"]}, status=200)
    user.must("POST", "/api/auth/refresh", {"refresh_token": reused["refresh_token"]}, status=401)
    assert actions(user)[-1] == "tokens_revoked"
    everything = stack.sql_value("SELECT string_agg(details::text, ' ') FROM audit_log")
    assert wrong.split()[-1] not in everything and password not in everything and tokens["refresh_token"] not in everything


def test_everybody_reads_his_own_and_superusers_all(stack, admin, user):
    other = Client.registered(stack.apis[0].url)
    other_id = other.must("GET", "/api/auth/me")["id"]
    collection = other.collection()["id"]
    assert audit(user, collection_id=collection)["entries"] == []
    user.must("GET", f"/api/v2/audit?user_id={other_id}", status=403)
    assert {e["user_id"] for e in audit(other)["entries"]} == {other_id}
    assert other_id in {e["user_id"] for e in audit(admin)["entries"]}
    assert "collection_created" in actions(admin, user_id=other_id)
    assert Client(stack.apis[0].url).ask("GET", "/api/v2/audit").status == 401
    for method in ("POST", "PUT", "DELETE"):
        assert admin.ask(method, "/api/v2/audit", {} if method != "DELETE" else None).status == 405


def test_pages_and_filters(stack, user):
    for _ in range(3):
        user.collection()
    everything = audit(user)
    ids = [e["id"] for e in everything["entries"]]
    assert ids == sorted(ids, reverse=True) and len(ids) == everything["total"] == 2 + 3 * 4  # created, and three of its operation
    got, before = [], None
    while True:
        page = audit(user, per_page=4, **({"before": before} if before else {}))
        got += [e["id"] for e in page["entries"]]
        before = page["next_before"]
        if before is None:
            break
    assert got == ids
    assert [e["id"] for e in audit(user, per_page=4, page=2)["entries"]] == ids[4:8]
    assert actions(user, action="collection_created") == ["collection_created"] * 3
    middle = everything["entries"][5]["created_at"]
    later, earlier = audit(user, **{"from": middle})["total"], audit(user, to=middle)["total"]
    assert later >= 6 and later + earlier == len(ids)
    assert audit(user, **{"from": "2000-01-01", "to": "2001-01-01T00:00:00+02:00"})["total"] == 0
    assert audit(user, page=10_000_000)["entries"] == []


@pytest.mark.parametrize("bad", [
    {"action": "DROP TABLE"}, {"action": "x" * 65}, {"collection_id": "1"}, {"operation_id": NOBODY + "0"}, {"user_id": "-1"}, {"user_id": "x"},
    {"from": "yesterday"}, {"from": "2026-13-45"}, {"to": "2026-01-31T25:99:00Z"}, {"to": "now"}, {"from": "infinity"}, {"before": "0"}, {"per_page": "101"}])
def test_bad_filters_are_refused(user, bad):
    answer = user.ask("GET", "/api/v2/audit?" + urllib.parse.urlencode(bad))
    assert answer.status == 422 and answer.json["detail"][0]["msg"], answer
    assert answer.json["detail"][0]["loc"][-1] in bad


def test_a_count_that_would_be_long_is_cut_and_said_so(stack, user):
    number = user.must("GET", "/api/auth/me")["id"]
    stack.sql("INSERT INTO audit_log (user_id, action) SELECT :v1, 'thing_done' FROM generate_series(1, 10050)", str(number))
    page = audit(user, action="thing_done")
    assert page["total"] == 10000 and page["total_is_exact"] is False
