"""What users may take: limits that superusers set, refusals with numbers, estimates, reservations."""
import concurrent.futures
import os
import secrets

import pytest
from support import documents as docs
from support import rows
from support.client import Client
from support.stack import Stack, wait_for

KINDS = ("collections", "documents", "bytes", "concurrent_operations")


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=2, workers=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def admin(stack):
    return Client.registered(stack.apis[0].url)  # the first one


@pytest.fixture
def user(stack, admin):
    return Client.registered(stack.apis[0].url)


def id_of(client):
    return client.must("GET", "/api/auth/me")["id"]


def limit(admin, user, status=200, **limits):
    return admin.must("PUT", f"/api/v2/users/{id_of(user)}/limits", limits, status=status)


def folder_of(stack, count, size=200):
    folder = os.path.join(stack.roots, secrets.token_hex(4))
    for i in range(count):
        docs.write(folder, f"{i:03}.txt", (f"Note {i} {secrets.token_hex(8)}. " + " ".join(docs.STORIES.values()))[:size].ljust(size, "."))
    return folder


def test_without_limits_nothing_is_refused_and_the_numbers_say_so(stack, user):
    shown = user.must("GET", "/api/v2/limits")
    assert set(shown) == {"user_id", "updated_at", *KINDS} and shown["updated_at"] is None
    assert all(shown[kind] == {"limit": None, "used": 0, "left": None, "set_by": "default"} for kind in KINDS)
    info = user.must("GET", "/api/v2/system/info")["limits"]
    assert info == {"max_collections_per_user": 1000000, "max_storage_gb_per_user": 1000000}


def test_only_superusers_set_limits_and_bad_ones_change_nothing(stack, admin, user):
    path = f"/api/v2/users/{id_of(user)}/limits"
    for method in ("GET", "PUT", "DELETE"):
        user.must(method, path, {} if method == "PUT" else None, status=403)
    for bad in ({"max_collections": -2}, {"max_documents": 1.5}, {"max_bytes": "much"}, {"max_bytes": 1e300}, {"max_operations": 1}, {"force": None}, []):
        admin.must("PUT", path, bad, status=422)
    for nobody in ("999999", "0", "99999999999999999999", "x"):
        admin.must("GET", f"/api/v2/users/{nobody}/limits", status=404)
        admin.must("PUT", f"/api/v2/users/{nobody}/limits", {"max_bytes": 1}, status=404)
    assert user.must("GET", "/api/v2/limits")["updated_at"] is None


def test_collections_over_the_limit_are_refused_with_the_numbers(stack, admin, user):
    limit(admin, user, max_collections=1)
    first = user.collection()
    answer = user.ask("POST", "/api/v2/collections", {"name": secrets.token_hex(6)})
    assert answer.status == 429
    body = answer.json
    assert (body["error"], body["resource"], body["limit"], body["used"], body["requested"]) == ("resource_limit_exceeded", "collections", 1, 1, 1)
    assert "1 of at most 1 collections" in body["detail"] and "Retry-After" not in answer.headers
    user.must("DELETE", f"/api/v2/collections/{first['id']}", status=204)
    user.collection()
    assert user.must("GET", "/api/v2/limits")["collections"] == {"limit": 1, "used": 1, "left": 0, "set_by": "superuser"}


def test_limits_below_use_are_refused_unless_forced_and_delete_nothing(stack, admin, user):
    made = [user.collection()["id"] for _ in range(2)]
    limit(admin, user, max_collections=5, max_documents=7)
    refused = limit(admin, user, status=409, max_collections=1, max_bytes=10)
    assert refused["error"] == "limits_below_use" and refused["conflicts"] == [{"resource": "collections", "limit": 1, "used": 2}]
    shown = user.must("GET", "/api/v2/limits")
    assert (shown["collections"]["limit"], shown["bytes"]["limit"]) == (5, None), "nothing of it was taken over"
    shown = limit(admin, user, max_collections=1, force=True)
    assert shown["collections"] == {"limit": 1, "used": 2, "left": 0, "set_by": "superuser"} and shown["documents"]["limit"] == 7
    assert all(user.show(c)["status"] == "ready" for c in made)
    user.must("POST", "/api/v2/collections", {"name": secrets.token_hex(6)}, status=429)
    assert limit(admin, user, max_collections=None)["collections"]["set_by"] == "default"
    assert limit(admin, user, max_collections=-1)["collections"] == {"limit": None, "used": 2, "left": None, "set_by": "superuser"}
    admin.must("DELETE", f"/api/v2/users/{id_of(user)}/limits", status=200)
    assert user.must("GET", "/api/v2/limits")["documents"]["set_by"] == "default"
    acts = admin.must("GET", f"/api/v2/audit?action=limits_changed&per_page=100")["entries"]
    mine = [a["details"] for a in acts if a["details"]["of_user"] == id_of(user)]
    assert [m["max_collections"] for m in mine] == [{"from": "default", "to": -1}, {"from": 1, "to": "default"}, {"from": 5, "to": 1}, {"from": "default", "to": 5}]
    assert mine[2]["forced"] is True


def test_of_ten_requests_at_once_to_two_instances_exactly_the_limit_is_accepted(make_stack):
    stack = make_stack(apis=2, workers=0)
    admin, user = Client.registered(stack.apis[0].url), Client.registered(stack.apis[0].url)
    limit(admin, user, max_concurrent_operations=3)
    made = [rows.ready_collection(stack, user)["id"] for _ in range(10)]
    folder = folder_of(stack, 1)

    def add(i):
        return user.at(stack.apis[i % 2]).ask("POST", f"/api/v2/collections/{made[i]}/sources", {"source_path": folder, "source_type": "directory"})

    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(add, range(10)))
    assert sorted(a.status for a in answers) == [202] * 3 + [429] * 7
    body = next(a for a in answers if a.status == 429)
    assert body.json["resource"] == "concurrent_operations" and body.json["limit"] == body.json["used"] == 3
    assert int(body.headers["Retry-After"]) == body.json["retry_after"] > 0
    assert user.must("GET", "/api/v2/limits")["concurrent_operations"]["left"] == 0
    refused = next(i for i, a in enumerate(answers) if a.status == 429)
    assert user.show(made[refused])["status"] == "ready" and user.must("GET", f"/api/v2/collections/{made[refused]}/sources")["total"] == 0
    user.must("POST", "/api/v2/collections", {"name": secrets.token_hex(6)}, status=429)
    user.must("DELETE", f"/api/v2/collections/{made[refused]}", status=204)  # what removes is never refused
    accepted = next(a.json["id"] for a in answers if a.status == 202)
    user.must("DELETE", f"/api/v2/operations/{accepted}")
    limit(admin, user, max_concurrent_operations=4)  # the deletion waits, too
    user.must("POST", f"/api/v2/collections/{made[next(i for i, a in enumerate(answers) if a.status == 429 and i != refused)]}/sources",
              {"source_path": folder, "source_type": "directory"}, status=202, headers={"Idempotency-Key": secrets.token_hex(8)})


def test_documents_over_the_limit_are_left_out_and_come_when_there_is_room(stack, admin, make_stack):
    mine = make_stack(apis=1, workers=1)
    boss, user = Client.registered(mine.apis[0].url), Client.registered(mine.apis[0].url)
    limit(boss, user, max_documents=4)
    collection = user.collection()["id"]
    folder = folder_of(mine, 6)
    over = user.index(collection, folder)
    shown = user.show(collection)
    assert shown["document_count"] == 4 and shown["status"] == "ready"
    assert "2 files were left out" in shown["status_message"] and "4 documents" in shown["status_message"]
    refused = user.ask("POST", f"/api/v2/collections/{collection}/sources", {"source_path": folder, "source_type": "directory"})
    assert refused.status == 429 and refused.json["resource"] == "documents" and refused.json["used"] == 4
    limit(boss, user, max_documents=None, max_bytes=5 * 200 + 100)
    user.index(collection, folder)
    assert user.show(collection)["document_count"] == 5
    operation = user.add_source(collection, folder)["id"]
    failed = user.wait_over(operation, status="failed")
    assert "nothing was added: 1 file was left out" in failed["error_message"] and "1100 bytes" in failed["error_message"]
    assert mine.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation) == "1", "it is not tried again"
    assert user.show(collection)["document_count"] == 5 and user.show(collection)["status"] == "ready"
    boss.must("DELETE", f"/api/v2/users/{id_of(user)}/limits", status=200)
    user.index(collection, folder)
    assert user.show(collection)["document_count"] == 6 and not user.show(collection)["status_message"]
    assert over["status"] == "completed"


def test_default_limits_hold_for_all_and_are_told(make_stack):
    stack = make_stack(apis=1, workers=0, DEFAULT_MAX_COLLECTIONS_PER_USER=1, DEFAULT_MAX_BYTES_PER_USER=3 << 30, DEFAULT_MAX_CONCURRENT_OPERATIONS_PER_USER=2)
    boss, user = Client.registered(stack.apis[0].url), Client.registered(stack.apis[0].url)
    assert user.must("GET", "/api/v2/system/info")["limits"] == {"max_collections_per_user": 1, "max_storage_gb_per_user": 3}
    made = rows.ready_collection(stack, user)
    user.must("POST", "/api/v2/collections", {"name": secrets.token_hex(6)}, status=429)
    user.add_source(made["id"], folder_of(stack, 1))
    other = rows.ready_collection(stack, boss)  # another user's use is his own
    assert other["id"] and boss.must("GET", "/api/v2/limits")["collections"]["used"] == 1
    shown = limit(boss, user, max_collections=-1)
    assert shown["concurrent_operations"]["limit"] == 2 and shown["collections"]["limit"] is None
    user.must("POST", "/api/v2/collections", {"name": secrets.token_hex(6)}, status=201)
    body = user.ask("POST", "/api/v2/collections", {"name": secrets.token_hex(6)})
    assert body.status == 429 and body.json["resource"] == "concurrent_operations", "the index and the append wait"


def test_an_estimate_tells_what_an_append_would_take_and_begins_nothing(stack, admin, user):
    collection = user.collection()["id"]
    folder = folder_of(stack, 5, size=1000)
    path = f"/api/v2/collections/{collection}/estimate"
    told = user.must("POST", path, {"type": "append", "source_path": folder}, status=200)
    assert (told["documents"], told["bytes"], told["is_complete"], told["fits"], told["exceeds"]) == (5, 5000, True, True, [])
    assert told["chunks"] >= 5 and told["tokens"] > 0 and told["seconds"] > 0 and told["vector_bytes"] > 0 and told["gpu_memory_bytes"] == 0
    assert "guess" in told["basis"]
    assert user.must("GET", f"/api/v2/collections/{collection}/operations")[0]["type"] == "index"
    user.index(collection, folder)
    assert user.must("POST", path, {"type": "append", "source_path": folder}, status=200)["documents"] == 0
    whole = user.must("POST", path, {"type": "reindex"}, status=200)
    assert (whole["documents"], whole["bytes"], whole["chunks"]) == (5, 5000, user.show(collection)["vector_count"])
    assert "your past operations" in whole["basis"]
    wide = user.must("POST", path, {"type": "reindex", "quantization": "float32", "chunk_size": 100}, status=200)
    assert wide["chunks"] > whole["chunks"] and wide["vector_bytes"] > whole["vector_bytes"]
    docs.write(folder, "more.txt", "One more. " * 10)
    assert user.must("POST", path, {"type": "sync"}, status=200)["documents"] == 1
    limit(admin, user, max_bytes=5050)
    more = user.must("POST", path, {"type": "append", "source_path": folder}, status=200)
    assert more["fits"] is False and more["exceeds"] == ["bytes"]


def reindex(user, collection):
    answer = user.ask("POST", f"/api/v2/collections/{collection}/reindex", {"quantization": "float32"})
    if answer.status == 501:
        pytest.skip("re-indexing is not available")
    return answer


def test_a_reindex_reserves_its_space_and_notes_its_estimate(make_stack):
    stack = make_stack(apis=1, workers=0)
    user = Client.registered(stack.apis[0].url)
    collection = rows.ready_collection(stack, user)["id"]
    stack.sql("UPDATE collections SET document_count = 10, total_size_bytes = 100000, vector_count = 150 WHERE uuid = :'v1'", collection)
    answer = reindex(user, collection)
    assert answer.status == 202, answer
    operation = answer.json["id"]
    estimate = user.must("GET", f"/api/v2/operations/{operation}/metrics")["estimate"]
    assert estimate["chunks"] == 150 and estimate["vector_bytes"] > 150 * 4 * 384
    (reserved,) = user.must("GET", "/api/v2/system/resources")["reservations"]
    assert reserved["id"] == operation and reserved["remaining_bytes"] == reserved["bytes"] == estimate["vector_bytes"] + estimate["text_bytes"]
    user.must("DELETE", f"/api/v2/operations/{operation}")
    shown = user.must("GET", "/api/v2/system/resources")
    assert shown["reservations"] == [] and shown["database"]["reserved_bytes"] == 0


def test_a_reindex_for_which_there_is_no_space_is_refused_with_the_numbers(make_stack):
    stack = make_stack(apis=1, workers=0, MAX_DATABASE_BYTES=1 << 20)
    user = Client.registered(stack.apis[0].url)
    collection = rows.ready_collection(stack, user)["id"]
    stack.sql("UPDATE collections SET document_count = 10, total_size_bytes = 100000, vector_count = 150 WHERE uuid = :'v1'", collection)
    answer = reindex(user, collection)
    assert answer.status == 507, answer
    detail = answer.json["detail"]
    assert detail["error"] == "insufficient_space" and detail["message"] and detail["suggestion"]
    assert detail["limit"] == 1 << 20 and detail["used"] > detail["limit"] and detail["requested"] > 0 and detail["reserved"] == 0
    assert user.show(collection)["status"] == "ready" and len(user.must("GET", f"/api/v2/collections/{collection}/operations")) == 1
    assert user.must("GET", "/api/v2/system/resources")["database"]["left_bytes"] == 0


def test_bad_estimates_are_refused(stack, user):
    collection = user.collection()["id"]
    path = f"/api/v2/collections/{collection}/estimate"
    for bad in ({}, {"type": "delete"}, {"type": 1}, {"type": "reindex", "chunk_size": -1}):
        user.must("POST", path, bad, status=422)
    for bad in ({"type": "append"}, {"type": "append", "source_path": "/etc"}, {"type": "append", "source_path": "relative"}):
        user.must("POST", path, bad, status=400)
    other = Client.registered(stack.apis[0].url)
    other.must("POST", path, {"type": "reindex"}, status=403)


def test_superusers_see_what_the_system_has(stack, admin, user):
    user.must("GET", "/api/v2/system/resources", status=403)
    shown = admin.must("GET", "/api/v2/system/resources")
    assert shown["machine"]["memory_total_bytes"] >= shown["machine"]["memory_free_bytes"] > 0
    assert shown["machine"]["disk_total_bytes"] >= shown["machine"]["disk_free_bytes"] > 0
    assert shown["database"]["bytes"] > 0 and shown["database"]["limit_bytes"] is None
    assert shown["workers"] and shown["workers"][0]["slots"] >= 1 and isinstance(shown["workers"][0]["queues"], list)


def test_a_worker_without_memory_or_disk_gives_operations_back_with_the_reason(make_stack):
    stack = make_stack(apis=1, workers=1, MIN_FREE_MEMORY_MB=1 << 30)
    user = Client.registered(stack.apis[0].url)
    made = user.must("POST", "/api/v2/collections", {"name": secrets.token_hex(6)}, status=201)
    operation = made["initial_operation_id"]
    shown = wait_for("it to be given back", lambda: (o := user.operation(operation))["next_attempt_at"] and o)
    assert shown["status"] == "pending" and shown["attempts"][0]["error_class"] == "resource"
    assert "MB of memory left, less than MIN_FREE_MEMORY_MB" in shown["attempts"][0]["reason"]
