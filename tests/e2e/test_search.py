"""Searches over REST, the API alone: vectors are put into the database by hand, a stand-in answers embedding requests."""
import time

import pytest

from support import rows
from support.client import Client
from support.stack import Stack

FIELDS = {"query", "results", "total_results", "collections_searched", "search_type", "search_mode_used", "warnings", "reranking_used", "reranker_model",
          "embedding_time_ms", "search_time_ms", "reranking_time_ms", "total_time_ms", "hyde_used", "hyde_info", "partial_failure", "failed_collections", "api_version"}
RESULT = {"document_id", "chunk_id", "score", "original_score", "reranked_score", "text", "metadata", "file_name", "file_path", "collection_id", "collection_name",
          "embedding_model", "chunk_index", "total_chunks"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def api():
    made = Stack(apis=1, workers=0)
    yield made
    made.close()


@pytest.fixture
def embedder(api):
    made = rows.FakeEmbedder()
    made.register(api, made.url)
    yield made
    api.sql("DELETE FROM workers")
    made.close()


@pytest.fixture
def me(api):
    return Client.registered(api.apis[0].url)


def filled(api, me, texts, **more):
    """A collection with one document a text: {text: vector}."""
    made = rows.ready_collection(api, me, **more)
    documents = [(rows.add_document(api, made["id"], f"/x/{made['id']}/{text}.txt"), text, vector) for text, vector in texts.items()]
    rows.add_vectors(api, made["id"], documents)
    return made


THREE = {"near": [1, 0, 0, 0], "middle": [0.6, 0.8, 0, 0], "far": [-1, 0, 0, 0]}


def test_the_front_ends_request_is_answered_best_first(api, me, embedder):
    made = filled(api, me, THREE)
    answer = me.must("POST", "/api/v2/search", {"query": "q", "collection_uuids": [made["id"]], "k": 10, "score_threshold": 0, "search_type": "semantic",
                                                "use_reranker": False, "rerank_model": None, "search_mode": "dense", "use_hyde": False})
    assert set(answer) == FIELDS and set(answer["results"][0]) == RESULT
    assert [r["text"] for r in answer["results"]] == ["near", "middle", "far"]
    first = answer["results"][0]
    assert first["score"] == pytest.approx(1, abs=1e-3) and first["original_score"] == first["score"] and first["file_name"] == "near.txt"
    assert first["collection_id"] == made["id"] and first["chunk_index"] == 0 and first["total_chunks"] == 1 and isinstance(first["chunk_id"], str)
    assert answer["total_results"] == 3 and answer["warnings"] == [] and answer["partial_failure"] is False and answer["failed_collections"] is None
    assert answer["collections_searched"] == [{"id": made["id"], "name": made["name"], "result_count": 3}]
    assert answer["api_version"] == "2.0" and answer["search_mode_used"] == "dense" and answer["embedding_time_ms"] > 0
    assert embedder.requests == [{"texts": ["q"], "mode": "query", "model": "all-MiniLM-L6-v2"}]
    assert embedder.keys == [api.env["INTERNAL_API_KEY"]]


def test_k_threshold_and_content_do_what_they_say(api, me, embedder):
    made = filled(api, me, THREE)
    assert [r["text"] for r in me.search(made["id"], "q", k=1)["results"]] == ["near"]
    assert [r["text"] for r in me.search(made["id"], "q", k=10, score_threshold=0.5)["results"]] == ["near", "middle"]
    assert [r["text"] for r in me.search(made["id"], "q", k=10, include_content=False)["results"]] == ["", "", ""]


def test_several_collections_are_merged_and_each_model_embedded_once(api, me, embedder):
    one = filled(api, me, {"a": [1, 0, 0, 0], "c": [0, 1, 0, 0]})
    two = filled(api, me, {"b": [0.8, 0.6, 0, 0]})
    empty = rows.ready_collection(api, me)
    answer = me.search([one["id"], two["id"], empty["id"], one["id"].upper()], "q", k=2)
    assert [r["text"] for r in answer["results"]] == ["a", "b"]
    assert [(c["id"], c["result_count"]) for c in answer["collections_searched"]] == [(one["id"], 1), (two["id"], 1), (empty["id"], 0)]
    assert len(embedder.requests) == 1


def test_an_empty_collection_needs_no_worker(api, me):
    made = rows.ready_collection(api, me)
    answer = me.search(made["id"], "q")
    assert answer["results"] == [] and answer["embedding_time_ms"] is None


def test_a_document_whose_version_is_not_live_is_not_found(api, me, embedder):
    made = filled(api, me, THREE)
    api.sql("UPDATE documents SET live_version = 2 WHERE file_name = 'near.txt' AND collection_id = (SELECT id FROM collections WHERE uuid = :'v1')", made["id"])
    assert [r["text"] for r in me.search(made["id"], "q")["results"]] == ["middle", "far"]


@pytest.mark.parametrize("asked, word", [({"search_mode": "hybrid"}, "Hybrid"), ({"search_type": "hybrid"}, "Hybrid"), ({"search_mode": "sparse"}, "Sparse"),
                                         ({"use_reranker": True}, "Reranking"), ({"use_hyde": True}, "HyDE"), ({"metadata_filter": {"a": 1}}, "metadata")])
def test_what_is_not_there_gets_a_warning_and_a_dense_answer(api, me, embedder, asked, word):
    made = filled(api, me, THREE)
    answer = me.search(made["id"], "q", **asked)
    assert len(answer["warnings"]) == 1 and word in answer["warnings"][0]
    assert answer["search_mode_used"] == "dense" and answer["reranking_used"] is False and len(answer["results"]) == 3


def test_nothing_is_found_in_what_may_not_be_seen(api, me, embedder):
    stranger = Client.registered(me.url)
    private, public = filled(api, me, THREE), filled(api, me, THREE, is_public=True)
    assert len(stranger.search(public["id"], "q")["results"]) == 3
    for ids, status in (([private["id"]], 403), ([public["id"], private["id"]], 403), ([public["id"], NOBODY], 404)):
        assert stranger.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": ids}).status == status
    assert Client(me.url).ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [public["id"]]}).status == 401
    me.ask("DELETE", "/api/v2/collections/" + private["id"])
    assert me.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [private["id"]]}).status == 404
    assert embedder.requests and all(r["texts"] == ["q"] for r in embedder.requests)


@pytest.mark.parametrize("change", [
    {"query": ""}, {"query": "  "}, {"query": "x" * 1001}, {"query": None}, {"query": 7}, {"collection_uuids": []}, {"collection_uuids": [NOBODY] * 11},
    {"collection_uuids": ["x"]}, {"collection_uuids": NOBODY}, {"k": 0}, {"k": 101}, {"k": "many"}, {"k": 1.5}, {"score_threshold": 1.1}, {"score_threshold": -0.1},
    {"search_type": "psychic"}, {"search_mode": "loud"}, {"rrf_k": 0}, {"surprise": 1}, {"metadata_filter": []},
])
def test_a_search_that_does_not_fit_is_422(me, change):
    answer = me.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [NOBODY], **change})
    assert answer.status == 422 and isinstance(answer.json["detail"], list), answer


def test_single_searches_one(api, me, embedder):
    made = filled(api, me, THREE)
    answer = me.must("POST", "/api/v2/search/single", {"collection_id": made["id"], "query": "q", "k": 2})
    assert [r["text"] for r in answer["results"]] == ["near", "middle"]
    assert me.ask("POST", "/api/v2/search/single", {"query": "q"}).status == 422
    assert me.ask("POST", "/api/v2/search/single", {"query": "q", "collection_id": NOBODY}).status == 404


def test_a_collection_that_cannot_be_searched_does_not_hide_the_others(api, me, embedder):
    good, bad = filled(api, me, THREE), filled(api, me, THREE)
    api.sql("UPDATE generations SET model = 'nobody-has-this' WHERE collection_id = (SELECT id FROM collections WHERE uuid = :'v1')", bad["id"])
    answer = me.search([bad["id"], good["id"]], "q")
    assert answer["partial_failure"] is True and len(answer["results"]) == 3
    failed = answer["failed_collections"]
    assert [f["collection_id"] for f in failed] == [bad["id"]] and failed[0]["error"] == "UNAVAILABLE" and failed[0]["error_message"]


def test_without_a_worker_a_search_is_503_and_says_when_to_come_back(api, me):
    made = filled(api, me, THREE)
    answer = me.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [made["id"]]})
    assert answer.status == 503 and answer.headers["Retry-After"]


def test_a_worker_that_fails_is_asked_no_more_than_twice(api, me, embedder):
    made = filled(api, me, THREE)
    body = {"query": "q", "collection_uuids": [made["id"]]}
    embedder.status = 503
    assert me.ask("POST", "/api/v2/search", body).status == 503
    assert len(embedder.requests) == 2
    embedder.status = 200
    for raw in (b"not json", b"{}", b'{"dim":4,"vectors":[[1,0,0]]}', b'{"dim":4,"vectors":[[0,0,0,0]]}', b'{"dim":4,"vectors":[]}', b'{"dim":4,"vectors":[["a",0,0,0]]}',
                b'{"dim":3,"vectors":[[1,0,0]]} x'):
        embedder.raw = raw
        assert me.ask("POST", "/api/v2/search", body).status == 503, raw
    embedder.raw = None
    assert me.ask("POST", "/api/v2/search", body).status == 200


def test_another_worker_is_asked_when_one_is_gone(api, me, embedder):
    made = filled(api, me, THREE)
    gone = rows.FakeEmbedder()
    gone.register(api, "gone")
    gone.close()
    for _ in range(6):
        assert len(me.search(made["id"], "q")["results"]) == 3


def test_a_worker_whose_lease_lapsed_is_not_asked(api, me):
    made = filled(api, me, THREE)
    late = rows.FakeEmbedder()
    late.register(api, "late", seconds=-1)
    assert me.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [made["id"]]}).status == 503
    assert late.requests == []
    late.close()


def test_connections_to_workers_are_kept(api, me, embedder):
    made = filled(api, me, THREE)
    for _ in range(30):
        me.search(made["id"], "q")
    assert len(embedder.requests) == 30 and embedder.connections <= int(api.env["API_THREADS"])


def test_a_slow_worker_holds_a_search_for_two_seconds_at_most(api, me, embedder):
    made = filled(api, me, THREE)
    embedder.delay = 20
    started = time.monotonic()
    assert me.ask("POST", "/api/v2/search", {"query": "q", "collection_uuids": [made["id"]]}).status == 503
    assert time.monotonic() - started < 15  # far below the worker's answer
