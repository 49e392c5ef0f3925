"""How texts are cut, as a user meets it: each strategy from the request to the hits, previews, figures, and what is refused."""
import concurrent.futures
import json
import os
import signal
import subprocess
import uuid

import pytest
from support.client import Client
from support.stack import Stack, wait_for
from test_cancel import process_of, stopped

STRATEGIES = ("character", "recursive", "markdown", "semantic", "hierarchical", "hybrid")
SEA = ("The harbour lies below the cliffs and ships wait there for the tide. Sailors mend the nets and paint the hulls. "
       "At night the lighthouse shows the way past the rocks. A pilot boards every vessel that enters the bay. ")
BREAD = ("Bakers knead the dough before sunrise and let it rise twice. A hot oven gives the loaf its crust. "
         "Salt and time make the taste of good bread. Rye flour keeps a loaf moist for a week. ")
MANUAL = f"# Harbour\n\n{SEA}\n\n## Tides\n\n| hour | metres |\n|------|--------|\n| 3 | 0.4 |\n| 9 | 2.1 |\n\n# Bakery\n\n{BREAD}\n\n```\nmix(flour, water)\nbake(dough)\n```\n"
LONG = (SEA * 3 + BREAD * 3) * 3
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1, VECTOR_UPLOAD_BATCH_SIZE=5)
    yield made
    made.close()


@pytest.fixture(scope="module")
def me(stack):
    return Client.registered(stack.apis[0].url)


@pytest.fixture(scope="module")
def folder(stack):
    path = os.path.join(stack.roots, "mixed")
    os.mkdir(path)
    for name, text in (("manual.md", MANUAL), ("long.txt", LONG), ("line.txt", "One short line."), ("log.txt", "".join(f"host{i % 7} daemon value {i}\n" for i in range(300)))):
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            file.write(text)
    return path


@pytest.fixture(scope="module")
def indexed(me, folder):
    """{strategy: collection}, filled when it is asked for the first time."""
    made = {}

    def get(strategy):
        if strategy not in made:
            collection = me.collection(chunking_strategy=strategy, chunk_size=100, chunk_overlap=20, chunking_config=CONFIG.get(strategy, {}))
            me.index(collection["id"], folder)
            made[strategy] = me.show(collection["id"])
        return made[strategy]
    return get


CONFIG = {"hierarchical": {"parent_chunk_size": 300}, "semantic": {"breakpoint_percentile": 80, "unknown": 1}}


def stored(stack, collection, name):
    """The rows of a document's visible chunks: (is parent, ordinal, start, end, tokens, parent's ordinal, text)."""
    return stack.sql("""SELECT k.is_parent, k.ordinal, k.start_byte, k.end_byte, k.tokens, coalesce(k.parent_ordinal, 0), k.content FROM chunks k
                        JOIN documents d ON d.id = k.document_id AND d.live_version = k.version JOIN collections c ON c.id = d.collection_id
                        WHERE c.uuid = :'v1' AND d.file_name = :'v2' ORDER BY k.is_parent, abs(k.ordinal)""", collection, name)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_indexes_a_folder_and_its_chunks_are_found(stack, me, indexed, strategy):
    collection = indexed(strategy)
    documents = me.documents(collection["id"])
    assert {d["status"] for d in documents.values()} == {"completed"}
    vectors = int(stack.sql_value("SELECT count(*) FROM chunks k JOIN collections c ON c.id = k.collection_id WHERE c.uuid = :'v1' AND NOT is_parent", collection["id"]))
    assert collection["vector_count"] == vectors == sum(d["chunk_count"] for d in documents.values())
    generation = stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection["id"])
    assert int(stack.sql_value(f"SELECT count(*) FROM vec.g{int(generation)}")) == vectors
    assert stack.sql(f"SELECT 1 FROM vec.g{int(generation)} v JOIN chunks k ON k.id = v.chunk_id WHERE k.is_parent") == []
    hits = me.search(collection["id"], "How do ships find the way at night?", k=3)["results"]
    assert "lighthouse" in hits[0]["text"] and hits[0]["chunk_index"] >= 0 and hits[0]["total_chunks"] == documents[hits[0]["file_name"]]["chunk_count"]
    for name in documents:
        chunks = [row for row in stored(stack, collection["id"], name) if row[0] == "f"]
        assert [int(row[1]) for row in chunks] == list(range(documents[name]["chunk_count"]))
        assert max(int(row[4]) for row in chunks) <= 100


def test_hits_of_small_chunks_bring_the_large_one_along(me, indexed):
    collection = indexed("hierarchical")
    hits = me.search(collection["id"], "What gives bread its crust?", k=5)["results"]
    for hit in hits:
        parent = hit["metadata"]["parent"]
        assert hit["text"] in parent["text"] and parent["start"] < parent["end"] and parent["chunk_id"] != hit["chunk_id"]
    assert any(len(hit["metadata"]["parent"]["text"]) > 2 * len(hit["text"]) for hit in hits)
    bare = me.search(collection["id"], "What gives bread its crust?", k=1, include_content=False)["results"][0]
    assert bare["text"] == "" and bare["metadata"]["parent"]["text"] == ""
    other = me.search(indexed("recursive")["id"], "crust", k=1)["results"][0]
    assert "parent" not in other["metadata"]


def test_a_document_that_is_read_again_keeps_no_old_parents(stack, me):
    path = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(path)
    file = os.path.join(path, "a.txt")
    collection = me.collection(chunking_strategy="hierarchical", chunk_size=100, chunk_overlap=0)
    for text, parents in ((LONG, 2), ("Short now.", 1)):
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
        me.index(collection["id"], path)
        rows = stack.sql("SELECT is_parent, count(*) FROM chunks k JOIN collections c ON c.id = k.collection_id WHERE c.uuid = :'v1' GROUP BY 1 ORDER BY 1", collection["id"])
        counts = {row[0]: int(row[1]) for row in rows}
        assert counts["f"] == me.show(collection["id"])["vector_count"] and counts["t"] >= parents
    assert counts == {"f": 1, "t": 1}


def test_semantic_cuts_where_the_subject_changes(me):
    answer = me.must("POST", "/api/v2/chunking/preview", {"text": SEA + BREAD, "strategy": "semantic", "chunk_size": 200, "config": {"min_chunk_size": 10}})
    assert answer["total_chunks"] == 2, answer["chunks"]
    assert answer["chunks"][0]["text"] == SEA.strip() and answer["chunks"][1]["text"] == BREAD.strip()


def test_hybrid_keeps_tables_and_code_whole_and_tells_how_each_chunk_was_cut(me):
    answer = me.must("POST", "/api/v2/chunking/preview", {"text": MANUAL + "\n# Both\n\n" + LONG, "strategy": "hybrid", "chunk_size": 100})
    texts = [c["text"] for c in answer["chunks"]]
    assert any("| hour | metres |" in t and "| 9 | 2.1 |" in t for t in texts) and any("mix(flour, water)\nbake(dough)" in t for t in texts)
    assert {c["chunking"] for c in answer["chunks"]} == {"markdown", "semantic"}
    assert {c["heading"] for c in answer["chunks"] if c["chunking"] == "semantic"} == {"Both"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_preview_shows_what_indexing_stores(stack, me, indexed, strategy):
    collection = indexed(strategy)
    for name, document in me.documents(collection["id"]).items():
        answer = me.must("POST", "/api/v2/chunking/preview", {"collection_id": collection["id"], "document_id": document["id"], "max_chunks": 1000})
        assert answer["strategy"] == strategy and answer["chunk_size"] == 100 and answer["note"] is None
        assert answer["total_chunks"] == len(answer["chunks"]) == document["chunk_count"] == answer["statistics"]["count"]
        shown = [["f", str(c["index"]), str(c["start"]), str(c["end"]), str(c["tokens"]), str(0 if c["parent_index"] is None else -1 - c["parent_index"]), c["text"]]
                 for c in answer["chunks"]]
        shown += [["t", str(-1 - c["index"]), str(c["start"]), str(c["end"]), str(c["tokens"]), "0", c["text"]] for c in answer["parents"]]
        assert stored(stack, collection["id"], name) == shown


def test_a_preview_says_what_it_did_instead(me):
    answer = me.must("POST", "/api/v2/chunking/preview", {"text": LONG, "chunk_size": 5000, "chunk_overlap": 100, "max_chunks": 2})
    assert answer["strategy"] == "recursive" and answer["chunk_size"] == 254 and "larger than what the model reads" in answer["note"]
    assert len(answer["chunks"]) == 2 < answer["total_chunks"]
    tokens = answer["statistics"]["tokens"]
    assert 0 < tokens["min"] <= tokens["avg"] <= tokens["max"] <= 254 and tokens["total"] > 254
    cut_off = me.must("POST", "/api/v2/chunking/preview", {"text": "é" * 40000 + " words", "strategy": "hybrid", "config": {"semantic_from": 100000}, "max_chunks": 1})
    assert "first 64 KiB" in cut_off["note"] and cut_off["statistics"]["tokens"]["total"] > 0
    empty = me.must("POST", "/api/v2/chunking/preview", {"text": " \n "})
    assert empty["chunks"] == [] and empty["total_chunks"] == 0


def test_strategies_are_listed_with_their_keys(me):
    answer = me.must("GET", "/api/v2/chunking/strategies")
    assert tuple(s["name"] for s in answer["strategies"]) == STRATEGIES and answer["default_strategy"] == "recursive"
    keys = {s["name"]: {k["name"]: k for k in s["config"]} for s in answer["strategies"]}
    assert keys["semantic"]["breakpoint_percentile"]["default"] == 95 and keys["semantic"]["breakpoint_type"]["values"][0] == "percentile"
    assert keys["hierarchical"]["parent_chunk_size"]["minimum"] == 20 and "parent_chunk_size" not in keys["recursive"]
    offered = me.must("GET", "/api/v2/plugins/pipeline?plugin_type=chunker")["plugins"]
    assert tuple(p["id"] for p in offered) == STRATEGIES
    # Every key's bounds hold, at creation and in previews.
    for name, of in keys.items():
        for key, facts in of.items():
            if facts["type"] not in ("integer", "number"):
                continue
            for value in (facts["minimum"] - 1, facts["maximum"] + 1, "x", [], True):
                for method, body in (("/api/v2/collections", {"name": "n-" + uuid.uuid4().hex, "chunking_strategy": name, "chunking_config": {key: value}}),
                                     ("/api/v2/chunking/preview", {"text": "a", "strategy": name, "config": {key: value}})):
                    refused = me.ask("POST", method, body)
                    assert refused.status == 400 and key in refused.json["detail"], (name, key, value, refused)


@pytest.mark.parametrize("body, words", [
    ({"chunking_strategy": "sideways"}, "character, recursive, markdown, semantic, hierarchical, hybrid"),
    ({"chunk_size": 100, "chunk_overlap": 100}, "chunk_overlap (100) must be smaller than chunk_size (100)"),
    ({"chunk_overlap": 220}, "chunk_overlap (220) must be smaller than chunk_size (220)"),
    ({"chunking_strategy": "character", "chunking_config": {"chunk_size": 50, "chunk_overlap": 60}}, "must be smaller"),
    ({"chunking_strategy": "hierarchical", "chunking_config": {"chunk_size": 200, "parent_chunk_size": 200}}, "parent_chunk_size (200) must be more than chunk_size (200)"),
    ({"chunking_strategy": "semantic", "chunking_config": {"min_chunk_size": 500}}, "min_chunk_size (500) must not be more than chunk_size (220)"),
    ({"chunking_strategy": "semantic", "chunking_config": {"breakpoint_type": "loud"}}, "percentile standard_deviation interquartile"),
    ({"chunking_strategy": "recursive", "chunking_config": {"separators": [""]}}, "separators"),
    ({"chunking_strategy": "recursive", "chunking_config": {"separators": "x"}}, "separators"),
    ({"chunking_strategy": "recursive", "chunking_config": {"chunk_size": 12.5}}, "whole number"),
    ({"chunking_config": {"chunk_size": 100}}, "chunking_strategy"),
])
def test_what_cannot_be_is_refused_with_a_sentence_and_changes_nothing(stack, me, body, words):
    before = stack.sql_value("SELECT count(*) FROM collections")
    answer = me.ask("POST", "/api/v2/collections", {"name": "n-" + uuid.uuid4().hex, **body})
    assert answer.status == 400 and words in answer.json["detail"], answer
    assert stack.sql_value("SELECT count(*) FROM collections") == before
    asked = {"text": "a", **{{"chunking_strategy": "strategy", "chunking_config": "config"}.get(k, k): v for k, v in body.items()}}
    if "strategy" in asked or "config" not in asked:
        answer = me.ask("POST", "/api/v2/chunking/preview", asked)
        assert answer.status == 400 and words in answer.json["detail"], answer


def test_previews_are_for_those_who_may_read_the_document(stack, me, indexed):
    stranger = Client.registered(me.url)
    collection = indexed("recursive")
    document = next(iter(me.documents(collection["id"]).values()))["id"]
    other = me.collection()["id"]
    for client, body, status in ((stranger, {"collection_id": collection["id"], "document_id": document}, 403), (me, {"collection_id": other, "document_id": document}, 403),
                                 (me, {"collection_id": collection["id"], "document_id": NOBODY}, 404), (me, {"collection_id": NOBODY, "text": "a"}, 404),
                                 (me, {"document_id": document}, 422), (me, {}, 422), (me, {"text": "a", "collection_id": other, "document_id": document}, 422),
                                 (me, {"text": "a", "surprise": 1}, 422), (me, {"text": "a", "max_chunks": 0}, 422), (me, {"text": "a", "embedding_model": "nobody"}, 400),
                                 (me, {"text": "a", "collection_id": other, "chunk_overlap": 500}, 400), (Client(me.url), {"text": "a"}, 401)):
        answer = client.ask("POST", "/api/v2/chunking/preview", body)
        assert answer.status == status, (body, answer)
    assert me.must("POST", "/api/v2/chunking/preview", {"text": "a", "collection_id": collection["id"]})["chunk_size"] == 100
    assert stranger.ask("GET", f"/api/v2/collections/{collection['id']}/chunking-stats").status == 403
    key = {"X-Internal-Api-Key": "guess"}
    assert Client(stack.workers[0].url).ask("POST", "/internal/chunk", {"text": "a"}, headers=key).status == 401


def test_a_document_whose_file_is_gone_has_no_preview(stack, me):
    path = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(path)
    with open(os.path.join(path, "a.txt"), "w", encoding="utf-8") as file:
        file.write(SEA)
    collection = me.collection()
    me.index(collection["id"], path)
    document = me.documents(collection["id"])["a.txt"]["id"]
    os.unlink(os.path.join(path, "a.txt"))
    answer = me.ask("POST", "/api/v2/chunking/preview", {"collection_id": collection["id"], "document_id": document})
    assert answer.status == 404 and path not in answer.json["detail"], answer


def test_one_text_is_compared_by_several_strategies(me):
    answer = me.must("POST", "/api/v2/chunking/compare", {"text": MANUAL, "chunk_size": 60, "chunk_overlap": 10})
    assert tuple(c["strategy"] for c in answer["comparisons"]) == STRATEGIES
    assert all(len(c["chunks"]) == min(3, c["total_chunks"]) for c in answer["comparisons"])
    two = me.must("POST", "/api/v2/chunking/compare", {"text": MANUAL, "strategies": ["markdown", "character"], "max_chunks": 1})
    assert [c["strategy"] for c in two["comparisons"]] == ["markdown", "character"] and len(two["comparisons"][0]["chunks"]) == 1
    for strategies, status in ((["sideways"], 400), ([7], 422), ([], 422), (["character"] * 7, 422)):
        assert me.ask("POST", "/api/v2/chunking/compare", {"text": "a", "strategies": strategies}).status == status


@pytest.mark.parametrize("strategy", ["hierarchical", "hybrid"])
def test_the_figures_of_a_collection_are_those_of_its_chunks(stack, me, indexed, strategy):
    collection = indexed(strategy)
    answer = me.must("GET", f"/api/v2/collections/{collection['id']}/chunking-stats")
    figures = answer["statistics"]
    rows = [row for name in me.documents(collection["id"]) for row in stored(stack, collection["id"], name)]
    tokens = sorted(int(row[4]) for row in rows if row[0] == "f")
    assert answer["strategy"] == strategy and answer["is_current"] and answer["vector_count"] == figures["chunks"] == len(tokens)
    assert figures["parents"] == len(rows) - len(tokens) and (figures["parents"] > 0) == (strategy == "hierarchical")
    assert figures["tokens"]["total"] == sum(tokens) and figures["tokens"]["min"] == tokens[0] and figures["tokens"]["max"] == tokens[-1]
    assert figures["tokens"]["p50"] in tokens and figures["tokens"]["p50"] <= figures["tokens"]["p95"]
    assert sum(bar["count"] for bar in figures["histogram"]) == len(tokens) and figures["documents"] == 4
    assert sum(figures["by_strategy"].values()) == len(tokens)
    for bar in figures["histogram"]:
        assert bar["count"] == sum(bar["from"] <= n <= bar["to"] for n in tokens)


def test_figures_follow_changes_and_the_clock_counts_what_has_changed(stack, me, folder):
    collection = me.collection(chunk_size=100)
    stats = f"/api/v2/collections/{collection['id']}/chunking-stats"
    empty = me.must("GET", stats)
    assert empty["statistics"]["chunks"] == 0 and empty["statistics"]["tokens"]["max"] == 0 and empty["statistics"]["histogram"] == []
    me.index(collection["id"], folder)
    first = me.must("GET", stats)
    assert first["statistics"]["chunks"] == me.show(collection["id"])["vector_count"] > 0
    assert me.must("GET", stats)["computed_at"] == first["computed_at"], "nothing has changed, so nothing is counted"

    def run():
        out = subprocess.run([Stack.program("worker", stack.bin), "--run-scheduled", "collection_statistics"], env=stack.workers[0].env, capture_output=True, text=True, timeout=60, check=False)
        assert out.returncode == 0, out.stdout + out.stderr
        return json.loads(stack.sql_value("SELECT result FROM system_tasks WHERE name = 'collection_statistics' ORDER BY id DESC LIMIT 1"))
    run()
    assert run() == {"collections": 0, "failed": 0}
    stack.sql("UPDATE collections SET vector_count = 60000, updated_at = now() WHERE uuid = :'v1'", collection["id"])
    assert me.must("GET", stats)["is_current"] is False, "a large collection is not counted while a client waits"
    assert run() == {"collections": 1, "failed": 0}
    assert me.must("GET", stats)["is_current"] is True


@pytest.fixture
def held(stack, me, folder):
    """A semantic collection whose indexing waits for the embedder: (collection, operation, the embedder's pid)."""
    collection = me.collection(chunking_strategy="semantic", chunk_size=100)
    embedder = process_of(stack.workers[0], "--embedder")
    with stopped(embedder):
        operation = me.add_source(collection["id"], folder)["id"]
        wait_for("the scan", lambda: stack.sql_value("SELECT total FROM operations WHERE uuid = :'v1'", operation))
        yield collection["id"], operation, embedder


def test_a_document_is_cut_by_meaning_although_the_embedder_dies_meanwhile(me, held):
    collection, operation, embedder = held
    os.kill(embedder, signal.SIGKILL)
    me.wait_over(operation)
    assert {d["status"] for d in me.documents(collection).values()} == {"completed"}


def test_an_operation_that_waits_to_cut_by_meaning_is_cancelled(stack, me, held):
    collection, operation, _ = held
    assert me.ask("DELETE", "/api/v2/operations/" + operation).status == 200
    wait_for("the attempt to be gone", lambda: not int(stack.sql_value(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = (SELECT task_id::text FROM operations WHERE uuid = :'v1')", operation)))
    assert me.wait_ready(collection)["vector_count"] == 0


def test_previews_do_not_keep_the_worker_from_others_and_too_many_are_told_to_come_back(stack):
    worker = Client(stack.workers[0].url)
    key = {"X-Internal-Api-Key": stack.env["INTERNAL_API_KEY"]}
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        with stopped(process_of(stack.workers[0], "--embedder")):
            asked = [pool.submit(worker.ask, "POST", "/internal/chunk", {"text": LONG, "strategy": "semantic"}, headers=key, timeout=120) for _ in range(10)]
            refused = wait_for("refusals", lambda: [a for a in asked if a.done()] if sum(a.done() for a in asked) == 4 else None)
            assert all(a.result().status == 503 and a.result().headers["Retry-After"] for a in refused)
            assert all(worker.ask("GET", "/healthz").status == 200 for _ in range(10)), "two threads of the six that wait are at work, none reads connections"
        assert sorted(a.result().status for a in asked) == [200] * 6 + [503] * 4


def test_without_a_worker_there_is_no_preview(make_stack):
    lame = make_stack(apis=1, workers=0)
    client = Client.registered(lame.apis[0].url)
    answer = client.ask("POST", "/api/v2/chunking/preview", {"text": "a"})
    assert answer.status == 503 and answer.headers["Retry-After"], answer
    assert client.ask("POST", "/api/v2/chunking/preview", {"text": "a", "chunk_size": 5}).status == 422
    assert client.ask("GET", "/api/v2/chunking/strategies").status == 200


def test_previews_are_limited(make_stack):
    lame = make_stack(apis=1, workers=0, RATE_LIMITS="on")
    client = Client.registered(lame.apis[0].url)
    statuses = [client.ask("POST", "/api/v2/chunking/preview", {"text": "a"}).status for _ in range(31)]
    assert statuses[-1] == 429 and set(statuses[:30]) == {503}, "there is no worker to ask"


def test_parts_of_nothing_but_a_parent_are_written_too(make_stack):
    made = make_stack(apis=1, workers=1, VECTOR_UPLOAD_BATCH_SIZE=1)
    client = Client.registered(made.apis[0].url)
    path = os.path.join(made.roots, "a")
    os.mkdir(path)
    with open(os.path.join(path, "a.txt"), "w", encoding="utf-8") as file:
        file.write(SEA + BREAD)
    collection = client.collection(chunking_strategy="hierarchical", chunking_config={"chunk_size": 30, "parent_chunk_size": 60})
    client.index(collection["id"], path)
    rows = stored(made, collection["id"], "a.txt")
    assert sum(row[0] == "t" for row in rows) > 1 and client.show(collection["id"])["vector_count"] == sum(row[0] == "f" for row in rows) > 2
    assert all(hit["metadata"]["parent"]["text"] for hit in client.search(collection["id"], "bread")["results"])


def test_all_that_was_written_fits_together(stack, me, indexed):
    for strategy in ("hierarchical", "semantic"):
        indexed(strategy)
    command = [Stack.program("worker", stack.bin), "--check-integrity", "--json"]
    if "--check-integrity" not in subprocess.run([command[0], "--help"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("these programs do not look at that")
    out = subprocess.run(command, env=stack.env, capture_output=True, text=True, timeout=120, check=False)
    assert not {k for k in json.loads(out.stdout)["findings"] if "document" in k or "chunk" in k or "vector" in k}, out.stdout
