"""Collections and sources over REST, the API alone: what a worker would do is put into the database by hand."""
import concurrent.futures
import os
import uuid

import pytest

from support import rows
from support.client import Client
from support.stack import Stack, wait_for

FIELDS = {"id", "name", "description", "owner_id", "vector_store_name", "embedding_model", "quantization", "chunk_size", "chunk_overlap", "chunking_strategy",
          "chunking_config", "is_public", "metadata", "default_reranker_id", "extraction_config", "created_at", "updated_at", "document_count", "vector_count",
          "total_size_bytes", "status", "status_message", "error_count", "initial_operation_id", "sync_mode", "sync_interval_minutes", "sync_paused_at",
          "sync_next_run_at", "sync_last_run_started_at", "sync_last_run_completed_at", "sync_last_run_status", "sync_last_error"}
OPERATION = {"id", "collection_id", "type", "status", "config", "error_message", "created_at", "started_at", "completed_at", "progress", "eta"}
HISTORY = {"attempt", "max_attempts", "failures", "next_attempt_at", "attempts", "earlier_attempts"}  # of one operation alone
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def api():
    made = Stack(apis=1, workers=0, API_THREADS=16)
    os.mkdir(os.path.join(made.roots, "letters"))
    with open(os.path.join(made.roots, "letters", "a.txt"), "w", encoding="utf-8") as file:
        file.write("hello")
    yield made
    made.close()


@pytest.fixture
def me(api):
    return Client.registered(api.apis[0].url)


@pytest.fixture
def other(api):
    return Client.registered(api.apis[0].url)


def letters(api):
    return os.path.join(api.roots, "letters")


def wizard(name, **more):
    return {"name": name, "embedding_model": "dense_local", "quantization": "float16", "chunking_strategy": "semantic", "chunking_config": {}, "sync_mode": "one_time",
            "pipeline_config": {"id": "p", "version": "1", "nodes": [{"id": "n", "type": "chunker", "plugin_id": "semantic", "config": {}}],
                                "edges": [{"from_node": "_source", "to_node": "n", "when": None}]}, **more}


def queued(api, queue):
    return api.redis_cli("LRANGE", f"{api.name}:queue:{queue}", "0", "-1", db=1).split()


def test_the_wizards_request_makes_a_pending_collection_and_a_fast_index(api, me):
    made = me.must("POST", "/api/v2/collections", wizard("  wizard's own  ", description="d"), status=201)
    assert set(made) == FIELDS
    assert made["name"] == "wizard's own" and made["status"] == "pending" and made["embedding_model"] == "all-MiniLM-L6-v2"
    operation = me.operation(made["initial_operation_id"])
    assert set(operation) == OPERATION | HISTORY
    assert operation["type"] == "index" and operation["status"] == "pending" and operation["config"] and operation["progress"] == 0
    assert api.sql_value("SELECT queue FROM operations WHERE uuid = :'v1'", operation["id"]) == "fast"
    assert operation["id"] in queued(api, "fast")
    shown = me.show(made["id"])
    assert set(shown) == FIELDS and shown["initial_operation_id"] is None


def test_a_collection_made_with_a_source_is_filled_by_its_one_index_operation(api, me):
    made = me.must("POST", "/api/v2/collections", {"name": "with source " + os.urandom(4).hex(), "source_path": letters(api)}, status=201)
    assert made["operation_id"] == made["initial_operation_id"] and made["status"] == "pending"
    config = me.operation(made["operation_id"])["config"]
    assert config["source_path"] == letters(api) and config["source_id"] and config["source_config"] == {"path": letters(api)}
    assert made["operation_id"] in queued(api, "default") and made["operation_id"] not in queued(api, "fast")
    assert me.must("GET", f"/api/v2/collections/{made['id']}/sources")["total"] == 1


def test_a_bad_source_makes_no_collection(api, me):
    assert me.ask("POST", "/api/v2/collections", {"name": "nothing of it", "source_path": "/etc"}).status == 400
    assert api.sql_value("SELECT count(*) FROM collections WHERE name = 'nothing of it'") == "0"


@pytest.mark.parametrize("given", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "SENTENCE-TRANSFORMERS/ALL-MINILM-L6-V2", "dense_local", None])
def test_a_models_name_may_be_written_in_many_ways(me, given):
    made = me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex(), "embedding_model": given}, status=201)
    assert made["embedding_model"] == "all-MiniLM-L6-v2"


def test_an_unknown_model_is_refused_naming_what_is_there(api, me):
    api.sql("INSERT INTO workers (id, host, pid, models, expires_at) VALUES ('m', 'h', 1, '{bge-small-en-v1.5}', now() + interval '1 hour') ON CONFLICT DO NOTHING")
    answer = me.ask("POST", "/api/v2/collections", {"name": "x", "embedding_model": "no/such"})
    assert answer.status == 400 and "all-MiniLM-L6-v2" in answer.json["detail"] and "bge-small-en-v1.5" in answer.json["detail"]
    assert answer.json["reference"].startswith("ERR-")
    assert me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex(), "embedding_model": "BAAI/BGE-small-en-v1.5"})["embedding_model"] == "bge-small-en-v1.5"


def test_names_are_unique_over_all_users_until_the_collection_is_deleted(api, me, other):
    made = rows.ready_collection(api, me)
    answer = other.ask("POST", "/api/v2/collections", {"name": " " + made["name"] + " "})
    assert answer.status == 409 and made["name"] in answer.json["detail"]
    gone = me.ask("DELETE", "/api/v2/collections/" + made["id"])
    assert gone.status == 204 and gone.raw == b"" and gone.headers["X-Operation-ID"]
    other.must("POST", "/api/v2/collections", {"name": made["name"]}, status=201)


@pytest.mark.parametrize("body", [
    {}, {"name": ""}, {"name": "   "}, {"name": "x" * 256}, {"name": "a/b"}, {"name": "a\\b"}, {"name": 'a"b'}, {"name": "a\nb"}, {"name": 7}, {"name": None},
    {"name": "n", "chunk_size": 99}, {"name": "n", "chunk_size": 10001}, {"name": "n", "chunk_size": "big"}, {"name": "n", "chunk_overlap": -1},
    {"name": "n", "chunk_overlap": 1001}, {"name": "n", "quantization": "float8"}, {"name": "n", "is_public": "yes"}, {"name": "n", "metadata": []},
    {"name": "n", "sync_mode": "often"}, {"name": "n", "sync_mode": "continuous"}, {"name": "n", "sync_mode": "continuous", "sync_interval_minutes": 14},
    {"name": "n", "sync_interval_minutes": 3}, {"name": "n", "description": 1}, {"name": "n", "chunking_config": "x"}, [], "text", 7,
])
def test_a_body_that_does_not_fit_is_422(me, body):
    answer = me.ask("POST", "/api/v2/collections", body)
    assert answer.status == 422, answer
    assert all({"type", "loc", "msg", "input"} <= set(fault) for fault in answer.json["detail"])


@pytest.mark.parametrize("body", [
    {"chunking_config": {"a": 1}}, {"chunking_strategy": "sideways"}, {"chunk_size": 100, "chunk_overlap": 100}, {"pipeline_config": {"nodes": 3}},
    {"pipeline_config": {"nodes": [{}]}}, {"chunking_strategy": "semantic", "chunking_config": {"chunk_size": "x"}}, {"source_path": "relative"},
    {"source_path": "/etc/../etc"}, {"source_type": "git", "source_path": "x"}, {"source_config": {}}, {"source_config": {"path": "/etc"}},
])
def test_what_makes_no_sense_is_400(me, body):
    answer = me.ask("POST", "/api/v2/collections", {"name": "n", **body})
    assert answer.status == 400 and isinstance(answer.json["detail"], str), answer


def test_continuous_collections_know_when_they_are_due(me):
    made = me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex(), "sync_mode": "continuous", "sync_interval_minutes": 15}, status=201)
    assert made["sync_mode"] == "continuous" and made["sync_interval_minutes"] == 15 and made["sync_next_run_at"]


def test_chunk_sizes_are_kept_as_given(me):
    made = me.must("POST", "/api/v2/collections", {"name": os.urandom(6).hex(), "chunk_size": 300, "chunk_overlap": 20, "chunking_strategy": "recursive",
                                                   "chunking_config": {"keep": [1, {"a": None}]}, "metadata": {"k": "v"}}, status=201)
    assert (made["chunk_size"], made["chunk_overlap"]) == (300, 20)
    assert made["chunking_config"] == {"keep": [1, {"a": None}]} and made["metadata"] == {"k": "v"}


def test_the_list_holds_own_and_public_collections_in_pages(api, me, other):
    mine = [rows.ready_collection(api, me)["id"] for _ in range(3)]
    public = rows.ready_collection(api, other, is_public=True)["id"]
    private = rows.ready_collection(api, other)["id"]
    seen = [c["id"] for c in me.must("GET", "/api/v2/collections?per_page=100&limit=3&junk=1")["collections"]]
    assert set(mine) <= set(seen) and public in seen and private not in seen
    assert seen.index(mine[2]) < seen.index(mine[0])
    own = me.must("GET", "/api/v2/collections?include_public=false&per_page=2&page=2")
    assert own["total"] == 3 and own["page"] == 2 and own["per_page"] == 2 and [c["id"] for c in own["collections"]] == [mine[0]]
    beyond = me.must("GET", "/api/v2/collections?include_public=false&page=9")
    assert beyond["total"] == 3 and beyond["collections"] == []
    for bad in ("page=0", "per_page=101", "per_page=x", "page=-1", "per_page=0"):
        assert me.ask("GET", "/api/v2/collections?" + bad).status == 422


def test_access_is_404_for_what_is_not_and_403_for_what_is_not_yours(api, me, other):
    theirs = rows.ready_collection(api, other)["id"]
    public = rows.ready_collection(api, other, is_public=True)["id"]
    for path in ("", "/sources", "/documents", "/operations", "/documents/failed/count", "/sparse-index", "/projections"):
        assert me.ask("GET", f"/api/v2/collections/{NOBODY}{path}").status == 404
        assert me.ask("GET", f"/api/v2/collections/{theirs}{path}").status == 403
        assert me.ask("GET", f"/api/v2/collections/{public}{path}").status == 200
    for collection, status in ((NOBODY, 404), (theirs, 403), (public, 403)):
        assert me.ask("PUT", "/api/v2/collections/" + collection, {"name": "mine now"}).status == status
        assert me.ask("DELETE", "/api/v2/collections/" + collection).status == status
        assert me.ask("POST", f"/api/v2/collections/{collection}/sources", {"source_path": letters(api)}).status == status
        assert me.ask("POST", f"/api/v2/collections/{collection}/reindex", {}).status == status
        assert me.ask("DELETE", f"/api/v2/collections/{collection}/sources?source_path=/x").status == status
    assert f"'{NOBODY}' not found" in me.ask("GET", f"/api/v2/collections/{NOBODY}").json["detail"]
    assert me.ask("GET", "/api/v2/collections/not-a-uuid").status == 404


def test_put_changes_what_is_given_and_nothing_else(api, me):
    made = rows.ready_collection(api, me, description="old", metadata={"a": 1})
    path = "/api/v2/collections/" + made["id"]
    name = "renamed " + os.urandom(4).hex()
    assert me.must("PUT", path, {"name": name})["name"] == name
    shown = me.show(made["id"])
    assert shown["description"] == "old" and shown["metadata"] == {"a": 1} and not shown["is_public"] and shown["updated_at"] > made["updated_at"]
    shown = me.must("PUT", path, {"description": None, "is_public": True, "metadata": None, "sync_mode": "continuous", "sync_interval_minutes": 60})
    assert (shown["description"], shown["is_public"], shown["metadata"], shown["sync_interval_minutes"]) == (None, True, None, 60)
    assert shown["sync_next_run_at"]
    assert me.must("PUT", path, {"sync_mode": "one_time"})["sync_next_run_at"] is None
    taken = rows.ready_collection(api, me)["name"]
    assert me.ask("PUT", path, {"name": taken}).status == 409
    assert me.ask("PUT", path, {"name": "a|b"}).status == 422
    assert me.ask("PUT", path, {"sync_mode": "never"}).status == 422
    assert me.ask("PUT", path, {"name": name}).status == 200


def test_adding_a_source_takes_the_collection_and_a_second_is_told_by_whom(api, me):
    made = rows.ready_collection(api, me)
    operation = me.add_source(made["id"], letters(api), recursive=True)
    assert set(operation) == OPERATION and operation["type"] == "append" and operation["status"] == "pending"
    assert set(operation["config"]) == {"source_id", "source_type", "source_config", "source_path", "additional_config"}
    assert operation["config"]["source_config"] == {"path": letters(api), "recursive": True}
    assert me.show(made["id"])["status"] == "processing" and operation["id"] in queued(api, "default")
    again = me.ask("POST", f"/api/v2/collections/{made['id']}/sources", {"source_path": letters(api)})
    assert again.status == 409 and operation["id"] in again.json["detail"]
    refused = me.ask("DELETE", "/api/v2/collections/" + made["id"])
    assert refused.status == 409 and operation["id"] in refused.json["detail"]
    rows.finish(api, operation["id"])
    assert me.add_source(made["id"], letters(api) + "/")["config"]["source_id"] == operation["config"]["source_id"]


@pytest.mark.parametrize("body", [
    {"sourceType": "directory", "sourceConfig": {"path": "{}"}}, {"sourcePath": "{}"}, {"source_config": {"path": "{}"}, "secrets": {"a": "b"}, "config": {"x": 1}},
    {"source_type": "directory", "source_config": {"path": "{}", "include_patterns": ["*.txt"], "exclude_patterns": []}, "unknown": 1},
    {"source_config": {"path": "{}"}, "source_path": ""},
])
def test_sources_go_by_all_their_names(api, me, body):
    def filled(value):
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        return letters(api) if value == "{}" else value
    made = rows.ready_collection(api, me)
    operation = me.must("POST", f"/api/v2/collections/{made['id']}/sources", filled(body), status=202)
    assert operation["config"]["source_path"] == letters(api)


@pytest.mark.parametrize("body, status", [
    ({}, 400), ({"source_type": "git", "source_config": {"url": "x"}}, 400), ({"source_config": {}}, 400), ({"source_path": "docs"}, 400), ({"source_path": "/etc"}, 400),
    ({"source_path": "/"}, 400), ({"source_config": {"path": 7}}, 400), ({"source_path": 7}, 422), ({"source_config": []}, 422), ({"source_type": 1}, 422),
    ({"source_config": {"path": "{}", "recursive": "yes"}}, 400), ({"source_config": {"path": "{}", "include_patterns": "*.md"}}, 400), ({"source_path": "{}/nothing"}, 400),
    ({"source_path": "{}/../letters"}, 400), ({"source_path": "{}-elsewhere"}, 400), ({"source_path": ""}, 400), ({"source_config": {}, "source_path": ""}, 400),
    ({"source_type": "web", "source_config": {}, "source_path": ""}, 400),
])
def test_bad_sources_are_refused_and_leave_the_collection_alone(api, me, body, status):
    made = rows.ready_collection(api, me)
    text = {k: (v.replace("{}", letters(api)) if isinstance(v, str) else
                {a: (b.replace("{}", letters(api)) if isinstance(b, str) else b) for a, b in v.items()} if isinstance(v, dict) else v) for k, v in body.items()}
    answer = me.ask("POST", f"/api/v2/collections/{made['id']}/sources", text)
    assert answer.status == status, answer
    assert me.show(made["id"])["status"] == "ready"
    assert me.must("GET", f"/api/v2/collections/{made['id']}/sources")["total"] == 0


def test_of_fifty_simultaneous_sources_exactly_one_is_accepted(api, me):
    made = rows.ready_collection(api, me)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda i: me.ask("POST", f"/api/v2/collections/{made['id']}/sources", {"source_path": letters(api) if i % 2 else api.roots}), range(50)))
    statuses = sorted(a.status for a in answers)
    assert statuses == [202] + [409] * 49
    accepted = next(a for a in answers if a.status == 202).json["id"]
    assert all(accepted in a.json["detail"] for a in answers if a.status == 409)
    assert me.must("GET", f"/api/v2/collections/{made['id']}/sources")["total"] == 1


def test_of_sources_that_arrive_together_each_keeps_its_own_outcome(api, me):
    """Whoever is refused, replayed or held up must not change what becomes of the others of its statement."""
    other = Client.registered(api.apis[0].url)
    good = [rows.ready_collection(api, me)["id"] for _ in range(12)]
    keyed, busy, foreign = (rows.ready_collection(api, who)["id"] for who in (me, me, other))
    first = me.add_source(busy, api.roots)["id"]
    wanted = [(one, letters(api), {}, 202) for one in good]
    wanted += [(keyed, letters(api), {"Idempotency-Key": "together"}, 202)] * 2
    wanted += [(busy, letters(api), {}, 409), (foreign, letters(api), {}, 403), (str(uuid.uuid4()), letters(api), {}, 404), (good[0], "relative", {}, 400)]
    with concurrent.futures.ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(lambda w: me.ask("POST", f"/api/v2/collections/{w[0]}/sources", {"source_path": w[1]}, headers=w[2]), wanted))
    assert [a.status for a in answers] == [w[3] for w in wanted]
    assert first in answers[14].json["detail"]
    assert answers[12].json["id"] == answers[13].json["id"]
    accepted = {a.json["id"]: a.json["collection_id"] for a in answers if a.status == 202}
    assert len(accepted) == 13 and sorted(accepted.values()) == sorted(good + [keyed])
    for collection_id in good + [keyed]:
        assert me.show(collection_id)["status"] == "processing"
        assert me.must("GET", f"/api/v2/collections/{collection_id}/sources")["total"] == 1
    waiting = queued(api, "default")
    assert all(waiting.count(one) == 1 for one in accepted)


def test_a_locked_collection_does_not_hold_up_sources_of_others(api, me):
    locked, *free = (rows.ready_collection(api, me)["id"] for _ in range(9))
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        holder = pool.submit(api.sql, "BEGIN; SELECT id FROM collections WHERE uuid = :'v1' FOR UPDATE; SELECT pg_sleep(3); ROLLBACK", locked)
        wait_for("the lock", lambda: api.sql_value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'") == "1")
        held = pool.submit(me.ask, "POST", f"/api/v2/collections/{locked}/sources", {"source_path": letters(api)})
        answers = list(pool.map(lambda one: (me.ask("POST", f"/api/v2/collections/{one}/sources", {"source_path": letters(api)}), holder.done()), free))
        holder.result()
        assert held.result().status == 202
    assert all(answer.status == 202 and not was_late for answer, was_late in answers)


def test_a_collection_in_error_takes_no_source(api, me):
    made = rows.ready_collection(api, me)
    api.sql("UPDATE collections SET status = 'error' WHERE uuid = :'v1'", made["id"])
    answer = me.ask("POST", f"/api/v2/collections/{made['id']}/sources", {"source_path": letters(api)})
    assert answer.status == 409 and "error" in answer.json["detail"]


def test_sources_are_listed_and_shown(api, me):
    made = rows.ready_collection(api, me)
    rows.finish(api, me.add_source(made["id"], letters(api))["id"])
    listed = me.must("GET", f"/api/v2/collections/{made['id']}/sources?offset=0&limit=1")
    assert (listed["total"], listed["offset"], listed["limit"]) == (1, 0, 1)
    source = listed["items"][0]
    assert isinstance(source["id"], int) and source["collection_id"] == made["id"] and source["source_path"] == letters(api) and source["has_token"] is False
    assert me.must("GET", f"/api/v2/collections/{made['id']}/sources/{source['id']}") == source
    assert me.ask("GET", f"/api/v2/collections/{made['id']}/sources/999999").status == 404
    assert me.ask("GET", f"/api/v2/collections/{made['id']}/sources?limit=0").status == 422
    assert me.ask("DELETE", f"/api/v2/collections/{made['id']}/sources").status == 422
    assert me.ask("DELETE", f"/api/v2/collections/{made['id']}/sources?source_path=/none").status == 404
    for answer in (me.ask("DELETE", f"/api/v2/collections/{made['id']}/sources?source_path={letters(api)}"),
                   me.ask("DELETE", f"/api/v2/collections/{made['id']}/sources", {"source_path": letters(api)})):
        assert answer.status == 501 and "not available" in answer.json["detail"]


def test_roots_may_be_for_users_with_a_grant_only(api):
    process = api.add("api", SOURCE_ROOTS_FOR="granted")
    granted = Client.registered(process.url)
    made = rows.ready_collection(api, granted)
    path = f"/api/v2/collections/{made['id']}/sources"
    assert granted.ask("POST", path, {"source_path": letters(api)}).status == 403
    api.sql("INSERT INTO source_grants SELECT id, convert_to(:'v2', 'UTF8') FROM users WHERE username = :'v1'", granted.username, letters(api))
    assert granted.ask("POST", path, {"source_path": api.roots}).status == 403
    assert granted.ask("POST", path, {"source_path": letters(api)}).status == 202
    process.stop()


def test_deletion_hides_at_once_and_leaves_the_work_to_an_operation(api, me):
    made = rows.ready_collection(api, me, is_public=True)
    document = rows.add_document(api, made["id"], letters(api) + "/a.txt")
    answer = me.ask("DELETE", "/api/v2/collections/" + made["id"])
    assert answer.status == 204
    operation = answer.headers["X-Operation-ID"]
    assert me.operation(operation)["type"] == "delete" and operation in queued(api, "fast")
    for path in ("", "/documents", f"/documents/{document}", f"/documents/{document}/content", "/operations", "/sources"):
        assert me.ask("GET", f"/api/v2/collections/{made['id']}{path}").status == 404
    assert me.ask("DELETE", "/api/v2/collections/" + made["id"]).status == 404
    assert made["id"] not in [c["id"] for c in me.must("GET", "/api/v2/collections")["collections"]]
    refused = me.ask("DELETE", "/api/v2/operations/" + operation)
    assert refused.status == 400 and "deletion" in refused.json["detail"]


def test_a_request_with_a_key_is_accepted_once_however_often_it_is_sent(api, me, other):
    key = {"Idempotency-Key": os.urandom(8).hex()}
    body = {"name": os.urandom(6).hex()}
    first = me.ask("POST", "/api/v2/collections", body, headers=key)
    again = me.ask("POST", "/api/v2/collections", body, headers=key)
    assert first.status == again.status == 201 and first.raw == again.raw and again.headers["Idempotency-Replayed"] == "true"
    assert me.ask("POST", "/api/v2/collections", {"name": "another"}, headers=key).status == 422
    assert other.ask("POST", "/api/v2/collections", {"name": os.urandom(6).hex()}, headers=key).status == 201
    rows.finish(api, first.json["initial_operation_id"])
    path, key = f"/api/v2/collections/{first.json['id']}/sources", {"Idempotency-Key": os.urandom(8).hex()}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: me.ask("POST", path, {"source_path": letters(api)}, headers=key), range(8)))
    assert {a.status for a in answers} == {202} and len({a.json["id"] for a in answers}) == 1
    assert me.ask("POST", path, {"source_path": letters(api)}, headers={"Idempotency-Key": "x" * 300}).status == 422


def test_a_refused_request_does_not_use_up_its_key(api, me):
    made = rows.ready_collection(api, me)
    operation = me.add_source(made["id"], letters(api))
    key = {"Idempotency-Key": os.urandom(8).hex()}
    path = f"/api/v2/collections/{made['id']}/sources"
    assert me.ask("POST", path, {"source_path": letters(api)}, headers=key).status == 409
    rows.finish(api, operation["id"])
    assert me.ask("POST", path, {"source_path": letters(api)}, headers=key).status == 202


def test_a_preview_counts_without_indexing(api, me):
    answer = me.must("POST", "/api/v2/directory-scan/preview", {"path": letters(api), "scan_id": NOBODY})
    assert answer["total_files"] == 1 and answer["total_size"] == 5 and answer["scan_id"] == NOBODY and answer["files"][0]["file_name"] == "a.txt"
    assert me.must("POST", "/api/v2/directory-scan/preview", {"path": letters(api), "exclude_patterns": ["*.txt"]})["total_files"] == 0
    for path, status in (("/etc", 400), ("x", 400), (7, 422)):
        assert me.ask("POST", "/api/v2/directory-scan/preview", {"path": path}).status == status


def test_preferences_have_defaults_ranges_and_a_way_back(me):
    shown = me.must("GET", "/api/v2/preferences")
    assert shown["search"]["top_k"] == 10 and shown["search"]["similarity_threshold"] is None and shown["collection_defaults"]["chunk_size"] == 1024
    assert shown["interface"]["animation_enabled"] is True and shown["created_at"] and shown["updated_at"]
    changed = me.must("PUT", "/api/v2/preferences", {"search": {"top_k": 25, "similarity_threshold": 0.5}, "interface": {"animation_enabled": False}})
    assert changed["search"]["top_k"] == 25 and changed["search"]["mode"] == "dense" and changed["interface"]["animation_enabled"] is False
    assert me.must("PUT", "/api/v2/preferences", {"search": {"similarity_threshold": None}})["search"]["top_k"] == 25
    for bad in ({"search": {"top_k": 0}}, {"search": {"top_k": 1.5}}, {"search": {"mode": "sideways"}}, {"search": {"nope": 1}}, {"nope": {}}, {"search": 1},
                {"search": {"top_k": None}}, {"interface": {"animation_enabled": 1}}, {"collection_defaults": {"quantization": "float8"}}):
        assert me.ask("PUT", "/api/v2/preferences", bad).status == 422, bad
    reset = me.must("POST", "/api/v2/preferences/reset/search")
    assert reset["search"]["top_k"] == 10 and reset["interface"]["animation_enabled"] is False
    assert me.must("POST", "/api/v2/preferences/reset/interface")["interface"]["animation_enabled"] is True
    assert me.must("POST", "/api/v2/preferences/reset/collection-defaults")["collection_defaults"]["quantization"] == "float16"


def test_the_screens_that_ask_for_other_things_stay_quiet(api, me):
    for path in ("agent/conversations?status=active", "plugins", "plugins/available", "plugins/pipeline?plugin_type=chunker", "models?model_type=embedding", "mcp/profiles",
                 "api-keys", "templates", "benchmarks", "benchmark-datasets", "llm/settings", "llm/models", "llm/usage", "system-settings", "system-settings/effective",
                 "system-settings/defaults", "system/status", "system/info", "system/health", "connectors", "connectors/directory", "plugins/semantic/config-schema"):
        assert me.ask("GET", "/api/v2/" + path).status == 200, path
    fields = me.must("GET", "/api/v2/connectors")["connectors"]["directory"]["fields"]
    assert [f["name"] for f in fields] == ["path", "recursive", "include_patterns", "exclude_patterns"] and fields[0]["required"] and fields[0]["type"] == "text"
    assert all(p["type"] == "chunker" for p in me.must("GET", "/api/v2/plugins/pipeline?plugin_type=chunker")["plugins"])
    assert me.ask("GET", "/api/v2/connectors/git").status == 404
    assert me.ask("GET", "/api/models").status == 200 and me.ask("GET", "/api/settings/stats").status == 200
    made = rows.ready_collection(api, me)
    assert me.must("GET", f"/api/v2/collections/{made['id']}/sparse-index")["enabled"] is False
    assert me.must("GET", f"/api/v2/collections/{made['id']}/sync/runs")["items"] == []
    assert me.ask("POST", f"/api/v2/collections/{made['id']}/sync/run").status == 400
    anonymous = Client(me.url)
    for path in ("/api/v2/system/info", "/api/v2/system/health"):
        assert anonymous.ask("GET", path).status == 200
    for path in ("/api/v2/collections", "/api/v2/operations", "/api/v2/preferences", "/api/v2/connectors"):
        assert anonymous.ask("GET", path).status == 401
