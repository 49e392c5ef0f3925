"""Failed documents that are read again, one or all of them, as the Files tab does it."""
import os
import secrets

import pytest
from support import documents as docs
from support.client import Client
from support.stack import Stack, wait_for
from test_main_job import assert_nothing_doubled
from test_sources import assert_counters_are_true, ended, folder_of, with_faults


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1, has_faults=True, FAULT_DIR="/nowhere")
    yield made
    made.close()


@pytest.fixture
def failed(stack, user):
    """A collection with two good documents and three that failed: one of each category."""
    class Failed:
        pass
    it = Failed()
    it.id, it.folder = user.collection()["id"], folder_of(stack, 2)
    for name in ("transient.txt", "unknown.txt", "permanent.pdf"):
        docs.write(it.folder, name, b"%PDF-1.7\nno pdf\n" + secrets.token_bytes(4).hex().encode())
    it.operation = user.index(it.id, it.folder)
    assert user.show(it.id)["error_count"] == 3
    for name in ("transient", "unknown"):
        stack.sql("UPDATE documents SET error_category = :'v1' WHERE file_name = :'v2' AND collection_id = (SELECT id FROM collections WHERE uuid = :'v3')",
                  name, name + ".txt", it.id)
    it.path = f"/api/v2/collections/{it.id}/documents"
    return it


def heal(it, *names):
    for name in names:
        docs.write(it.folder, name, f"{name} speaks of penguins now, {secrets.token_hex(8)}, and can be read.")


def count(user, it, query=""):
    return user.must("GET", it.path + "/failed/count" + query)


def test_failures_are_counted_by_category(user, failed):
    assert count(user, failed) == {"transient": 1, "permanent": 1, "unknown": 1, "total": 3}
    assert count(user, failed, "?retryable_only=true") == {"transient": 1, "permanent": 0, "unknown": 1, "total": 2}


def test_one_document_is_read_again_even_one_that_failed_for_good(stack, user, failed):
    heal(failed, "permanent.pdf")
    document = user.documents(failed.id)["permanent.pdf"]
    answer = user.ask("POST", f"{failed.path}/{document['id']}/retry")
    assert answer.status == 200
    assert (answer.json["id"], answer.json["status"], answer.json["retry_count"]) == (document["id"], "pending", 1)
    assert answer.json["last_retry_at"] and answer.json["error_message"] is None and answer.json["error_category"] is None
    operation = user.wait_over(answer.headers["X-Operation-ID"])
    assert operation["type"] == "retry_documents"
    after = user.documents(failed.id)["permanent.pdf"]
    assert (after["status"], after["retry_count"], after["chunk_count"]) == ("completed", 1, 1) and after["content_hash"] != document["content_hash"]
    assert user.search(failed.id, "penguins")["results"][0]["file_name"] == "permanent.pdf"
    assert user.show(failed.id)["status"] == "ready" and user.show(failed.id)["error_count"] == 2
    assert_counters_are_true(stack, failed.id)
    again = user.ask("POST", f"{failed.path}/{document['id']}/retry")
    assert again.status == 400 and again.json["detail"] == "Only failed documents can be retried"
    scanned = {e["type"]: e["data"] for e in ended(stack, user.index(failed.id, failed.folder)["id"])}
    assert scanned["scanning_completed"]["unchanged_documents_skipped"] == 3, "it is known by what was read"


def test_all_that_a_retry_may_help_are_read_again(stack, user, failed):
    heal(failed, "transient.txt", "unknown.txt", "permanent.pdf")
    answer = user.must("POST", failed.path + "/retry-failed", status=200)
    assert (answer["reset_count"], answer["pending_count"]) == (2, 0) and "2 failed documents" in answer["message"]
    user.wait_over(answer["operation_id"])
    told = ended(stack, answer["operation_id"])
    progress = [e["data"] for e in told if e["type"] == "processing_progress"]
    assert progress[0]["total"] == 2 and (progress[-1]["processed"], progress[-1]["failed"]) == (2, 0) and all(isinstance(e["message"], str) for e in progress)
    assert [e["type"] for e in told][-2:] == ["retry_documents_completed", "operation_completed"]
    assert {n: (d["status"], d["retry_count"]) for n, d in user.documents(failed.id).items() if not n.startswith("letter")} == {
        "transient.txt": ("completed", 1), "unknown.txt": ("completed", 1), "permanent.pdf": ("failed", 0)}
    assert_counters_are_true(stack, failed.id)
    nothing = user.must("POST", failed.path + "/retry-failed", status=200)
    assert (nothing["reset_count"], nothing["pending_count"], nothing["operation_id"]) == (0, 0, None)


def test_what_fails_again_is_failed_again_and_counts_its_retries(stack, user, failed):
    for retries in (1, 2):
        stack.sql("UPDATE documents SET error_category = 'transient' WHERE file_name = 'transient.txt' AND collection_id = (SELECT id FROM collections WHERE uuid = :'v1')",
                  failed.id)
        stack.sql("UPDATE documents SET error_category = 'permanent' WHERE file_name = 'unknown.txt' AND collection_id = (SELECT id FROM collections WHERE uuid = :'v1')",
                  failed.id)
        answer = user.must("POST", failed.path + "/retry-failed", status=200)
        assert answer["reset_count"] == 1
        user.wait_over(answer["operation_id"])
        shown = user.documents(failed.id)["transient.txt"]
        assert (shown["status"], shown["retry_count"]) == ("failed", retries) and shown["error_message"]
        collection = user.show(failed.id)
        assert (collection["status"], collection["status_message"], collection["error_count"]) == ("ready", "Completed with errors", 3)
    assert_counters_are_true(stack, failed.id)


def test_documents_that_wait_for_nobody_are_picked_up(stack, user, failed):
    heal(failed, "transient.txt")
    stack.sql("""UPDATE documents SET status = 'pending', error_category = NULL, updated_at = now() - interval '6 minutes'
        WHERE file_name = 'transient.txt' AND collection_id = (SELECT id FROM collections WHERE uuid = :'v1')""", failed.id)
    stack.sql("UPDATE documents SET error_category = 'permanent' WHERE file_name = 'unknown.txt' AND collection_id = (SELECT id FROM collections WHERE uuid = :'v1')", failed.id)
    answer = user.must("POST", failed.path + "/retry-failed", status=200)
    assert (answer["reset_count"], answer["pending_count"]) == (0, 1)
    user.wait_over(answer["operation_id"])
    assert user.documents(failed.id)["transient.txt"]["status"] == "completed"
    assert_counters_are_true(stack, failed.id)


def test_a_busy_collection_refuses_and_resets_nothing(stack, user, failed):
    document = user.documents(failed.id)["transient.txt"]
    stack.sql("""INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, not_before)
        SELECT id, uuid, owner_id, 'append', true, 'default', '{"source_id": 1}', 'infinity' FROM collections WHERE uuid = :'v1'""", failed.id)
    holder = stack.sql_value("SELECT uuid FROM operations WHERE collection_uuid = :'v1' AND status = 'pending'", failed.id)
    for path in (f"/{document['id']}/retry", "/retry-failed"):
        answer = user.ask("POST", failed.path + path)
        assert answer.status == 409 and holder in answer.json["detail"]
    assert user.documents(failed.id)["transient.txt"] == document
    stack.sql("DELETE FROM operations WHERE uuid = :'v1'", holder)
    assert user.show(failed.id)["error_count"] == 3


def test_only_the_owner_reads_documents_again(stack, user, failed):
    document = user.documents(failed.id)["transient.txt"]["id"]
    user.must("PUT", "/api/v2/collections/" + failed.id, {"is_public": True})
    other = Client.registered(stack.apis[0].url)
    assert other.must("GET", failed.path + "/failed/count")["total"] == 3
    for path in (f"/{document}/retry", "/retry-failed"):
        assert other.ask("POST", failed.path + path).status == 403
    elsewhere = user.collection()["id"]
    assert user.ask("POST", f"/api/v2/collections/{elsewhere}/documents/{document}/retry").status == 403
    assert user.ask("POST", f"{failed.path}/00000000-0000-4000-8000-000000000000/retry").status == 404


def test_a_source_that_is_away_makes_its_documents_fail_for_now(stack, user, failed):
    os.rename(failed.folder, failed.folder + ".away")
    answer = user.must("POST", failed.path + "/retry-failed", status=200)
    user.wait_over(answer["operation_id"])
    os.rename(failed.folder + ".away", failed.folder)
    shown = user.documents(failed.id)
    assert {shown[n]["error_category"] for n in ("transient.txt", "unknown.txt")} == {"transient"}
    assert shown["letter-000.txt"]["status"] == "completed"


def test_an_api_that_dies_before_its_commit_resets_nothing(stack, user, failed):
    document = user.documents(failed.id)["transient.txt"]
    has_fired = with_faults(stack, "retry_reset:kill*1")
    with pytest.raises(OSError):
        user.ask("POST", f"{failed.path}/{document['id']}/retry")
    assert has_fired("retry_reset")
    stack.apis[0].child.wait()
    with_faults(stack, "")
    assert user.documents(failed.id)["transient.txt"] == document and user.show(failed.id)["status"] == "ready"
    heal(failed, "transient.txt")
    user.wait_over(user.ask("POST", f"{failed.path}/{document['id']}/retry").headers["X-Operation-ID"])


@pytest.mark.parametrize("point", ["before_document_commit", "after_document_commit", "documents_reset"])
def test_a_retry_that_is_killed_is_finished_by_the_next_attempt(stack, user, failed, point):
    heal(failed, "transient.txt", "unknown.txt")
    has_fired = with_faults(stack, f"{point}:kill*1")
    answer = user.must("POST", failed.path + "/retry-failed", status=200)
    user.wait_over(answer["operation_id"])
    assert has_fired(point)
    with_faults(stack, "")
    assert_counters_are_true(stack, failed.id)
    assert_nothing_doubled(stack, failed.id, 4)


def test_what_a_cancelled_retry_did_not_read_is_read_by_the_next(stack, user, failed):
    heal(failed, "transient.txt", "unknown.txt")
    has_fired = with_faults(stack, "document_opened:sleep=3000*2")
    answer = user.must("POST", failed.path + "/retry-failed", status=200)
    wait_for("a document in hand", lambda: has_fired("document_opened"))
    user.must("DELETE", "/api/v2/operations/" + answer["operation_id"])
    user.wait_over(answer["operation_id"], "cancelled")
    with_faults(stack, "")
    assert {user.documents(failed.id)[n]["status"] for n in ("transient.txt", "unknown.txt")} == {"pending"}
    again = user.must("POST", failed.path + "/retry-failed", status=200)
    assert (again["reset_count"], again["pending_count"]) == (0, 2)
    user.wait_over(again["operation_id"])
    assert {user.documents(failed.id)[n]["status"] for n in ("transient.txt", "unknown.txt")} == {"completed"}
    assert_counters_are_true(stack, failed.id)
