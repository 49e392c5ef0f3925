"""The quality of searches, measured: datasets in both forms, a grid, figures that independent code finds again, and what goes wrong."""
import json
import math
import os
import uuid

import pytest
from support import documents as docs
from support.client import Client
from support.stack import Stack, wait_for

TOPICS = {"q1": ("lamp that guides ships at sea", {"lighthouse.txt": 2, "bakery.txt": 0}), "q2": ("fresh bread in the morning", {"bakery.txt": 3, "bees.txt": 1}),
          "q3": ("lava from a crater", {"volcano.txt": 1}), "q4": ("insects and flowers", {"bees.txt": 2, "glacier.txt": 1}), "q5": ("nobody judged this", {})}
AS_JSON = {"name": "stories", "queries": [{"id": q, "text": text, "relevant": [{"file_name": d, "relevance": n} for d, n in judged.items()]}
                                          for q, (text, judged) in TOPICS.items()]}
AS_TREC = {"name": "stories as of TREC", "format": "trec", "queries": "".join(f"{q}\t{text}\n" for q, (text, _) in TOPICS.items()),
           "qrels": "".join(f"{q} 0 {d} {n}\n" for q, (_, judged) in TOPICS.items() for d, n in judged.items())}
METRICS = ("precision", "recall", "mrr", "ndcg", "map")


def write_stories(folder):
    os.makedirs(folder, exist_ok=True)
    for name, story in docs.STORIES.items():
        docs.write(folder, name + ".txt", story + "\n")
    # A document of many chunks, so that chunks and documents are not the same.
    docs.write(folder, "almanac.txt", "\n\n".join(f"Part {i}. The almanac tells of weather, markets and tides, and of day {i}." * 6 for i in range(40)))


class World:
    def __init__(self, stack=None):
        self.stack = stack or Stack(apis=1, workers=1)
        self.me = Client.registered(self.stack.apis[0].url)
        self.folder = os.path.join(self.stack.roots, "stories")
        write_stories(self.folder)
        self.collection = self.me.collection()["id"]
        self.me.index(self.collection, self.folder)

    def dataset(self, body):
        return self.me.must("POST", "/api/v2/benchmark-datasets", body, status=201)

    def benchmark(self, dataset, k=(3,), status="completed", **more):
        made = self.me.must("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": dataset["id"], "collection_id": self.collection,
                                                           "configurations": {"k": list(k)}, **more}, status=202)
        self.me.wait_over(made["operation_id"], status)
        return self.me.must("GET", "/api/v2/benchmarks/" + made["id"])


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.stack.close()


@pytest.fixture(scope="module")
def dataset(world):
    return world.dataset(AS_JSON)


@pytest.fixture(scope="module")
def measured(world, dataset):
    return world.benchmark(dataset, (1, 3, 5), repeats=2)


def lines_of(world, path):
    answer = world.me.ask("GET", path)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain"), answer
    return [line.split() for line in answer.raw.decode().splitlines()]


def evaluate(run, qrels, k):
    """The definitions of trec_eval, by somebody else: the run file's scores alone decide the order."""
    judged, found = {}, {}
    for q, _, d, n in qrels:
        judged.setdefault(q, {})[d] = int(n)
    for q, _, d, _, score, _ in run:
        found.setdefault(q, []).append((float(score), d))
    sums, count = dict.fromkeys(METRICS, 0.0), 0
    for q, grades in judged.items():
        relevant = sum(n > 0 for n in grades.values())
        if not relevant:
            continue
        count += 1
        ranking = [grades.get(d, 0) for _, d in sorted(found.get(q, []), reverse=True)][:k]
        ideal = sorted(grades.values(), reverse=True)[:k]
        def dcg(gains):
            return sum(g / math.log2(i + 2) for i, g in enumerate(gains))
        hits = [i for i, n in enumerate(ranking) if n > 0]
        sums["precision"] += len(hits) / k
        sums["recall"] += len(hits) / relevant
        sums["mrr"] += 1 / (hits[0] + 1) if hits else 0
        sums["ndcg"] += dcg(ranking) / dcg(ideal)
        sums["map"] += sum((n + 1) / (i + 1) for n, i in enumerate(hits)) / relevant
    return {name: total / count for name, total in sums.items()}


def test_a_dataset_in_both_forms_is_the_same(world, dataset):
    # File names in JSON are known to be such; in TREC's files they may be anything, so the same content is written with `document`.
    plain = json.loads(json.dumps(AS_JSON).replace('"file_name"', '"document"'))
    a, b = world.dataset(plain), world.dataset(AS_TREC)
    assert a["content_hash"] == b["content_hash"] != dataset["content_hash"]
    assert (b["query_count"], b["judgment_count"], b["format"]) == (5, 7, "trec")
    shown = world.me.must("GET", f"/api/v2/benchmark-datasets/{b['id']}?per_page=2")
    assert shown["total"] == 5 and [q["id"] for q in shown["queries"]] == ["q1", "q2"]
    assert shown["queries"][1]["relevant"] == [{"document": "bakery.txt", "relevance": 3}, {"document": "bees.txt", "relevance": 1}]
    listed = world.me.must("GET", "/api/v2/benchmark-datasets")
    assert listed["total"] >= 3 and {"datasets", "total", "page", "per_page"} == set(listed)
    for one in (a, b):
        world.me.must("DELETE", "/api/v2/benchmark-datasets/" + one["id"], status=204)
    assert world.me.ask("GET", "/api/v2/benchmark-datasets/" + a["id"]).status == 404


def test_every_configuration_of_the_grid_is_measured(world, measured):
    assert measured["status"] == "completed" and measured["configurations_completed"] == measured["configurations_total"] == 3
    assert [c["k"] for c in measured["configurations"]] == [1, 3, 5]
    for c in measured["configurations"]:
        assert c["metrics"]["queries"] == 4 and c["metrics"]["queries_left_out"] == 1
        assert c["latency"]["search_ms"]["samples"] == 10 and 0 < c["latency"]["search_ms"]["p50"] <= c["latency"]["search_ms"]["p99"]
        assert c["latency"]["embedding_ms"]["samples"] == 5
        assert c["details"]["model"] == "all-MiniLM-L6-v2" and c["details"]["index"] == "exact" and not c["details"]["changed_meanwhile"]
    assert measured["configurations"][0]["metrics"]["precision"] == 1, "each question's first document is the one it is about"
    assert measured["details"]["software_version"]


def test_the_run_file_evaluated_by_other_code_gives_the_same_figures(world, measured):
    one = "/api/v2/benchmarks/" + measured["id"]
    qrels = lines_of(world, one + "/qrels")
    assert len(qrels) == 7
    for c in measured["configurations"]:
        run = lines_of(world, f"{one}/run?configuration={c['configuration']}")
        assert len(run) == 5 * c["k"], "as many documents as were asked for, however many chunks they have"
        expected = evaluate(run, qrels, c["k"])
        for name in METRICS:
            assert c["metrics"][name] == pytest.approx(expected[name], abs=1e-12), name


def test_results_show_query_by_query_what_was_found(world, measured):
    page = world.me.must("GET", f"/api/v2/benchmarks/{measured['id']}/results?configuration=1&per_page=2&page=1")
    assert page["total"] == 5 and [r["id"] for r in page["results"]] == ["q1", "q2"]
    first = page["results"][0]
    assert first["documents"][0]["file_name"] == "lighthouse.txt" and first["documents"][0]["relevance"] == 2 and first["documents"][0]["rank"] == 1
    assert first["mrr"] == 1 and first["relevant"] == 1 and len(first["documents"]) == 3
    assert world.me.ask("GET", f"/api/v2/benchmarks/{measured['id']}/results?configuration=3").status == 404


def test_the_same_measured_again_is_the_same_and_compares(world, dataset, measured):
    again = world.benchmark(dataset, (5, 3))
    for c in again["configurations"]:
        other = next(o for o in measured["configurations"] if o["k"] == c["k"])
        assert {n: c["metrics"][n] for n in METRICS} == {n: other["metrics"][n] for n in METRICS}
    compared = world.me.must("GET", f"/api/v2/benchmarks/compare?ids={measured['id']},{again['id']}")
    assert [(c["a"]["k"], c["b"]["k"]) for c in compared["comparisons"]] == [(3, 3), (5, 5)]
    for c in compared["comparisons"]:
        assert c["queries"] == 4
        assert all(m["difference"] == 0 and m["p_value"] == 1 for m in c["metrics"].values())
    named = world.me.must("GET", f"/api/v2/benchmarks/compare?ids={measured['id']},{measured['id']}&configurations=0,2")
    precision = named["comparisons"][0]["metrics"]["precision"]
    assert precision["difference"] < 0 and precision["queries_worse"] == 4 and precision["queries_better"] == 0
    assert precision["p_value"] == 0.125, "of the 16 ways to sign four differences two are as far from 0"


def test_benchmarks_of_different_datasets_are_not_compared(world, measured):
    other = world.dataset({"name": "other", "queries": [{"id": "x", "text": "bees", "relevant": [{"document": "bees.txt"}]}]})
    made = world.benchmark(other)
    answer = world.me.ask("GET", f"/api/v2/benchmarks/compare?ids={measured['id']},{made['id']}")
    assert answer.status == 400 and "different datasets" in answer.json["detail"]
    for ids in ("", measured["id"], f"{measured['id']},x", f"{measured['id']},{measured['id']}&configurations=0", f"{measured['id']},{measured['id']}&configurations=0,9"):
        assert world.me.ask("GET", f"/api/v2/benchmarks/compare?ids={ids}").status == 400, ids
    assert world.me.ask("GET", f"/api/v2/benchmarks/compare?ids={measured['id']},{uuid.uuid4()}").status == 404
    assert world.me.ask("DELETE", "/api/v2/benchmark-datasets/" + other["id"]).status == 409
    world.me.must("DELETE", "/api/v2/benchmarks/" + made["id"], status=204)
    world.me.must("DELETE", "/api/v2/benchmark-datasets/" + other["id"], status=204)


def counts(world):
    return world.stack.sql("SELECT (SELECT count(*) FROM benchmark_datasets), (SELECT count(*) FROM benchmark_queries), (SELECT count(*) FROM benchmarks), "
                           "(SELECT count(*) FROM benchmark_judged), (SELECT count(*) FROM operations)")


@pytest.mark.parametrize("body, field, words", [
    ({"queries": []}, "queries", "no list, or an empty one"),
    ({"queries": [{"id": "a", "text": ""}]}, "queries", "query 1 ('a'): text is empty"),
    ({"queries": [{"id": "a", "text": "x", "relevant": [{"document": "d", "relevance": -1}]}]}, "queries", "judgment 1: relevance"),
    ({"queries": [{"id": "a", "text": "x", "relevant": [{"document": "d"}]}, {"id": "a", "text": "y"}]}, "queries", "query 2 has the same id as query 1"),
    ({"queries": [{"id": "a", "text": "x", "relevant": [{"document": "d"}, {"document": "d"}]}]}, "queries", "two judgments"),
    ({"format": "trec", "queries": "1\tx\n"}, "qrels", "qrels is a string"),
    ({"format": "trec", "queries": "1\tx\n", "qrels": "1 0 d 1\n2 0 d 1\n"}, "qrels", "line 2: there is no query '2'"),
    ({"format": "trec", "queries": "1\tx\n", "qrels": "1 0 d -2\n"}, "qrels", "line 1: the grade is negative"),
    ({"format": "trec", "queries": "1\tx\n1\ty\n", "qrels": "1 0 d 1\n"}, "queries", "query 2 has the same id"),
    ({"format": "trec", "queries": "no tab\n", "qrels": "1 0 d 1\n"}, "queries", "line 1: there is no tab"),
    ({"format": "trec", "queries": [], "qrels": "1 0 d 1\n"}, "queries", "queries is a string"),
    ({"format": "csv", "queries": []}, "format", "json, trec"),
    ({"queries": [{"id": "a", "text": "x"}], "more": 1}, "more", "not permitted"),
])
def test_a_bad_dataset_is_refused_with_the_place_and_nothing_changes(world, body, field, words):
    before = counts(world)
    answer = world.me.ask("POST", "/api/v2/benchmark-datasets", {"name": "bad", **body})
    assert answer.status == 422, answer
    entry = answer.json["detail"][0]
    assert entry["loc"] == ["body", field] and words in entry["msg"], entry
    assert counts(world) == before


@pytest.mark.parametrize("configurations, words", [
    ({}, "k is missing"), ({"k": []}, "empty"), ({"k": [0]}, "1 to 100"), ({"k": [101]}, "1 to 100"), ({"k": [1.5]}, "1 to 100"), ({"k": [3, 3]}, "twice"),
    ({"k": [3], "mode": ["hybrid"]}, "not available"), ({"k": [3], "mode": ["sideways"]}, "dense"), ({"k": [3], "depth": [1]}, "no 'depth'"),
    ({"k": list(range(1, 70))}, "more than 64"), ({"k": [3], "chunking": [{"strategy": "recursive", "config": {str(n): n for n in range(600)}}]}, "more than 512"), ({"k": 3}, "no list"), ({"k": [3], "chunking": ["small"]}, "chunking"),
    ({"k": [3], "chunking": [{"chunk_size": 5}]}, "chunk_size"), ({"k": [3], "chunking": [{"size": 5}]}, "no 'size'"), ({"k": [3], "chunking": [{}]}, "object"),
])
def test_a_bad_grid_is_refused_and_nothing_changes(world, dataset, configurations, words):
    before = counts(world)
    answer = world.me.ask("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": dataset["id"], "collection_id": world.collection, "configurations": configurations})
    assert answer.status == 422 and words in answer.json["detail"][0]["msg"], answer
    assert counts(world) == before


def test_unknown_documents_are_named_and_nothing_changes(world):
    made = world.dataset({"name": "odd", "queries": [{"id": "a", "text": "bees", "relevant": [{"document": "bees.txt"}, {"file_name": "nowhere.txt"}, {"document": "x.pdf"}]}]})
    ask = {"name": "b", "dataset_id": made["id"], "collection_id": world.collection, "configurations": {"k": [3]}}
    before = counts(world)
    answer = world.me.ask("POST", "/api/v2/benchmarks", ask)
    assert answer.status == 400 and "2 documents" in answer.json["detail"] and "'nowhere.txt'" in answer.json["detail"], answer
    assert counts(world) == before
    shown = world.benchmark(made, ignore_unknown=True)
    assert shown["ignored"] == {"count": 2, "first": ["nowhere.txt", "x.pdf"]}
    assert shown["configurations"][0]["metrics"]["relevant"] == 1


def test_a_name_of_several_documents_is_refused_and_a_path_is_not(world):
    me, folder = world.me, os.path.join(world.stack.roots, "twins")
    docs.write(folder, "a/note.txt", "The first note is about sailing boats.")
    docs.write(folder, "b/note.txt", "The second note is about mountain goats.")
    collection = me.collection()["id"]
    me.index(collection, folder)
    by_name = world.dataset({"name": "twins", "queries": [{"id": "a", "text": "boats", "relevant": [{"document": "note.txt"}]}]})
    by_path = world.dataset({"name": "paths", "queries": [{"id": "a", "text": "boats", "relevant": [{"path": os.path.join(folder, "a/note.txt")}]}]})
    ask = {"name": "b", "collection_id": collection, "configurations": {"k": [1]}}
    answer = me.ask("POST", "/api/v2/benchmarks", {**ask, "dataset_id": by_name["id"], "ignore_unknown": True})
    assert answer.status == 400 and "'note.txt'" in answer.json["detail"] and "several documents" in answer.json["detail"], answer
    made = me.must("POST", "/api/v2/benchmarks", {**ask, "dataset_id": by_path["id"]}, status=202)
    me.wait_over(made["operation_id"])
    assert me.must("GET", "/api/v2/benchmarks/" + made["id"])["configurations"][0]["metrics"]["mrr"] == 1


def test_what_is_not_public_any_more_is_named_no_more_and_a_benchmark_is_its_users_own(world):
    stranger = Client.registered(world.stack.apis[0].url)
    where = "/api/v2/collections/" + world.collection
    world.me.must("PUT", where, {"is_public": True})
    try:
        own = stranger.must("POST", "/api/v2/benchmark-datasets", AS_JSON, status=201)
        ask = {"name": "a secret plan", "dataset_id": own["id"], "collection_id": world.collection, "configurations": {"k": [3]}, "ignore_unknown": True}
        made = stranger.must("POST", "/api/v2/benchmarks", ask, status=202)
        stranger.wait_over(made["operation_id"])
        first = lambda: stranger.must("GET", f"/api/v2/benchmarks/{made['id']}/results")["results"][0]["documents"][0]  # noqa: E731
        assert first()["file_name"]
        config = next(o for o in world.me.must("GET", where + "/operations") if o["id"] == made["operation_id"])["config"]
        assert "secret" not in str(config) and own["id"] not in str(config)
    finally:
        world.me.must("PUT", where, {"is_public": False})
    assert first()["file_name"] is None
    assert stranger.ask("POST", "/api/v2/benchmarks", ask).status == 403


def test_a_dataset_that_is_sent_twice_with_its_key_is_one(world):
    before = world.me.must("GET", "/api/v2/benchmark-datasets")["total"]
    made = [world.me.ask("POST", "/api/v2/benchmark-datasets", {**AS_JSON, "name": "once"}, headers={"Idempotency-Key": "dataset-once"}) for _ in range(2)]
    assert [a.status for a in made] == [201, 201] and made[0].json["id"] == made[1].json["id"]
    assert world.me.must("GET", "/api/v2/benchmark-datasets")["total"] == before + 1


def test_nobody_sees_or_uses_what_is_anothers(world, dataset, measured):
    stranger = Client.registered(world.stack.apis[0].url)
    for path in ("benchmark-datasets/" + dataset["id"], "benchmarks/" + measured["id"], f"benchmarks/{measured['id']}/results", f"benchmarks/{measured['id']}/run",
                 f"benchmarks/{measured['id']}/qrels", f"benchmarks/compare?ids={measured['id']},{measured['id']}"):
        assert stranger.ask("GET", "/api/v2/" + path).status == 404, path
    for path in ("benchmark-datasets/" + dataset["id"], "benchmarks/" + measured["id"]):
        assert stranger.ask("DELETE", "/api/v2/" + path).status == 404, path
    assert stranger.must("GET", "/api/v2/benchmarks")["total"] == 0
    own = stranger.must("POST", "/api/v2/benchmark-datasets", AS_JSON, status=201)
    ask = {"name": "b", "dataset_id": own["id"], "collection_id": world.collection, "configurations": {"k": [3]}}
    assert stranger.ask("POST", "/api/v2/benchmarks", ask).status == 403
    assert world.me.ask("POST", "/api/v2/benchmarks", {**ask, "collection_id": world.me.collection()["id"], "dataset_id": dataset["id"]}).status == 400


def large_dataset(world, count):
    return world.dataset({"name": "large", "queries": [{"id": f"q{i}", "text": f"question {i} about bees", "relevant": [{"document": "bees.txt"}]} for i in range(count)]})


def start(world, dataset, **more):
    made = world.me.must("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": dataset["id"], "collection_id": world.collection,
                                                        "configurations": {"k": [1, 2, 3, 4, 5, 6]}, "repeats": 3, **more}, status=202)
    assert made["operation"]["type"] == "benchmark" and made["operation"]["id"] == made["operation_id"]
    return made


def test_a_cancelled_benchmark_says_so_and_can_be_deleted(world):
    large = large_dataset(world, 300)
    made = start(world, large)
    one = "/api/v2/benchmarks/" + made["id"]
    wait_for("it to run", lambda: world.me.operation(made["operation_id"])["status"] == "processing")
    assert world.me.ask("DELETE", one).status == 409
    world.me.must("DELETE", "/api/v2/operations/" + made["operation_id"])
    shown = world.me.must("GET", one)
    assert shown["status"] == "cancelled" and shown["configurations_completed"] < 6
    world.me.must("DELETE", one, status=204)
    world.me.must("DELETE", "/api/v2/benchmark-datasets/" + large["id"], status=204)


def test_a_killed_worker_is_followed_by_one_that_goes_on(world):
    large = large_dataset(world, 80)
    made = start(world, large)
    one = "/api/v2/benchmarks/" + made["id"]
    first = wait_for("a configuration to be measured", lambda: next((c for c in world.me.must("GET", one)["configurations"] if c["completed_at"]), None))
    world.stack.workers[0].kill()
    world.stack.workers[0].start()
    world.me.wait_over(made["operation_id"])
    shown = world.me.must("GET", one)
    assert shown["status"] == "completed" and shown["configurations_completed"] == 6
    assert shown["configurations"][first["configuration"]]["completed_at"] == first["completed_at"], "what was measured is not measured again"
    assert world.stack.sql("SELECT DISTINCT count(*) FROM benchmark_results r JOIN benchmark_configurations c ON c.id = r.configuration_id JOIN benchmarks b "
                           "ON b.id = c.benchmark_id WHERE b.uuid = :'v1' GROUP BY c.id", made["id"]) == [["80"]]


def test_other_chunkings_are_measured_beside_the_live_vectors_and_leave_nothing(world, dataset):
    live = world.stack.sql("SELECT id FROM generations WHERE state = 'active'"), world.stack.sql("SELECT count(*) FROM chunks")
    made = world.me.must("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": dataset["id"], "collection_id": world.collection, "configurations": {
        "k": [3, 5], "chunking": [None, {"strategy": "character", "chunk_size": 100, "chunk_overlap": 0}]}}, status=202)
    world.me.wait_over(made["operation_id"])
    shown = world.me.must("GET", "/api/v2/benchmarks/" + made["id"])
    before, _, after, other_k = shown["configurations"]
    assert after["chunking"]["chunk_size"] == 100 and after["details"]["generation"] == other_k["details"]["generation"] != before["details"]["generation"]
    assert after["details"]["vectors"] > before["details"]["vectors"] and after["details"]["documents"] == before["details"]["documents"]
    assert after["metrics"]["queries"] == 4 and after["metrics"]["mrr"] == 1
    run = lines_of(world, f"/api/v2/benchmarks/{made['id']}/run?configuration=2")
    assert after["metrics"]["ndcg"] == pytest.approx(evaluate(run, lines_of(world, f"/api/v2/benchmarks/{made['id']}/qrels"), 3)["ndcg"], abs=1e-12)
    assert (world.stack.sql("SELECT id FROM generations WHERE state = 'active'"), world.stack.sql("SELECT count(*) FROM chunks")) == live
    assert world.stack.sql("SELECT count(*) FROM generations WHERE state = 'building'") == [["0"]]
    stranger = Client.registered(world.stack.apis[0].url)
    world.stack.sql("UPDATE collections SET is_public = true WHERE uuid = :'v1'", world.collection)
    own = stranger.must("POST", "/api/v2/benchmark-datasets", AS_JSON, status=201)
    ask = {"name": "b", "dataset_id": own["id"], "collection_id": world.collection, "configurations": {"k": [1], "chunking": [{"chunk_size": 100}]}}
    assert stranger.ask("POST", "/api/v2/benchmarks", ask).status == 403
    made = stranger.must("POST", "/api/v2/benchmarks", {**ask, "configurations": {"k": [1]}}, status=202)
    stranger.wait_over(made["operation_id"])
    world.stack.sql("UPDATE collections SET is_public = false WHERE uuid = :'v1'", world.collection)


def test_events_tell_how_far_it_is(world, dataset):
    with_events = world.me.watch("/ws/operations")
    made = world.me.must("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": dataset["id"], "collection_id": world.collection, "configurations": {"k": [3]}}, status=202)
    with_events.wait_type("operation_completed", operation=made["operation_id"])
    kinds = [e["type"] for e in with_events.events(made["operation_id"])]
    assert kinds[0] == "operation_started" and "processing_progress" in kinds and kinds[-2:] == ["benchmark_completed", "operation_completed"]


def test_a_deleted_collection_leaves_its_figures(world, dataset):
    me = world.me
    collection = me.collection()["id"]
    me.index(collection, world.folder)
    made = me.must("POST", "/api/v2/benchmarks", {"name": "b", "dataset_id": dataset["id"], "collection_id": collection, "configurations": {"k": [3]}}, status=202)
    me.wait_over(made["operation_id"])
    me.must("DELETE", "/api/v2/collections/" + collection, status=(200, 202, 204))
    wait_for("the collection to be gone", lambda: world.stack.sql_value("SELECT count(*) FROM collections WHERE uuid = :'v1'", collection) == "0")
    shown = me.must("GET", "/api/v2/benchmarks/" + made["id"])
    assert shown["collection_id"] == collection and shown["configurations"][0]["metrics"]["queries"] == 4
    assert me.must("GET", f"/api/v2/benchmarks/{made['id']}/results")["results"][0]["documents"][0]["file_name"] is None


@pytest.mark.parametrize("point", ["benchmark_results_written", "benchmark_configuration_done"])
def test_whoever_dies_at_a_configuration_is_followed_by_one_that_goes_on(make_stack, tmp_path, point):
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT=f"{point}:kill*1", FAULT_DIR=tmp_path)
    world = World(stack)
    made = world.benchmark(world.dataset(AS_JSON), (1, 3), configurations={"k": [1, 3], "chunking": [None, {"strategy": "character", "chunk_size": 100}]})
    assert made["configurations_completed"] == 4 and all(c["metrics"]["queries"] == 4 for c in made["configurations"])
    assert world.me.operation(made["operation_id"])["status"] == "completed"
    assert world.stack.sql_value("SELECT attempt FROM operations WHERE type = 'benchmark'") == "2"
    assert world.stack.sql_value("SELECT count(*) FROM benchmark_results") == "20"
    wait_for("what was staged to be removed", lambda: world.stack.sql_value("SELECT count(*) FROM generations WHERE state = 'building'") == "0")
