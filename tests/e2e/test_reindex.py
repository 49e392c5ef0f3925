"""Re-indexing a collection as its owner sees it: searches answer throughout, from the old vectors and then from the new ones; what does not get that far
leaves everything as it was."""
import json
import os
import shutil
import threading
import time
import uuid

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import Stack, wait_for

OTHER = "other-model"  # the same weights, pooled in another way
STAGES = ["operation_started", "reindex_preflight", "staging_created", "reprocessing_progress", "validation_complete", "reindex_completed", "operation_completed"]
SUBJECTS = ["lighthouse keepers trim the lamp", "bakers knead the dough at night", "volcanoes throw ash into the sky", "bees dance to tell of flowers",
            "glaciers carry rocks over valleys", "violins are made of spruce and maple", "kings should be active in the endgame", "tides follow the moon"]


def make(**settings):
    """A stack whose workers have two models."""
    source = os.path.join(os.environ.get("OPSTREAM_MODEL_DIR", os.path.join(os.path.dirname(__file__), "../../build/models")), "all-MiniLM-L6-v2")
    models = os.path.join("/tmp", "opstream-models-" + uuid.uuid4().hex)
    for name in ("all-MiniLM-L6-v2", OTHER):
        shutil.copytree(source, os.path.join(models, name), copy_function=os.symlink)
    pooling = os.path.join(models, OTHER, "1_Pooling", "config.json")
    with open(pooling) as file:
        config = json.load(file)
    os.unlink(pooling)
    config.update(pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    with open(pooling, "w") as file:
        json.dump(config, file)
    made = Stack(OPSTREAM_MODEL_DIR=models, CLEANUP_DELAY_PER_10K_VECTORS=3600, **{"REINDEX_VALIDATION_QUERIES": 8, **settings})
    made.models = models
    return made


def end(stack):
    stack.close()
    shutil.rmtree(stack.models, ignore_errors=True)


@pytest.fixture(scope="module")
def stack():
    made = make(apis=1, workers=1)
    yield made
    end(made)


def fill(stack, user, count=8, paragraphs=3, **more):
    """A collection of documents that are cut into some chunks each, and its folder."""
    folder = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(folder)
    for n in range(count):
        subject = SUBJECTS[n % len(SUBJECTS)]
        text = "\n\n".join(f"Paragraph {p} of {n}: {subject}. " + " ".join(f"Sentence {s} says once more that {subject}." for s in range(8)) for p in range(paragraphs))
        docs.write(folder, f"doc-{n}.txt", text)
    made = user.collection(**{"chunk_size": 100, "chunk_overlap": 10, **more})
    user.index(made["id"], folder)
    return made["id"], folder


def reindex(user, collection, body=None, status="completed"):
    operation = user.must("POST", f"/api/v2/collections/{collection}/reindex", body, status=202)
    return user.wait_over(operation["id"], status)


def result(stack, operation):
    return json.loads(stack.sql_value("SELECT result FROM operations WHERE uuid = :'v1'", operation["id"]))


def generation(stack, collection):
    return stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection)


def settings_of(shown):
    return {key: shown[key] for key in ("embedding_model", "quantization", "chunk_size", "chunk_overlap", "chunking_strategy")}


def traces(stack, collection):
    """What is there beside the live data."""
    return stack.sql("""SELECT (SELECT count(*) FROM generations g WHERE g.collection_id = c.id AND g.state = 'building'),
        (SELECT count(*) FROM chunks k JOIN documents d ON d.id = k.document_id WHERE k.collection_id = c.id AND k.version <> d.live_version),
        (SELECT count(*) FROM pg_class p WHERE p.relnamespace = 'vec'::regnamespace AND p.relkind = 'r' AND p.relname NOT IN ('g0', 'g_to')
            AND NOT EXISTS (SELECT FROM generations g WHERE 'g' || g.id = p.relname))
        FROM collections c WHERE c.uuid = :'v1'""", collection)[0]


def is_consistent(stack, collection):
    active = generation(stack, collection)
    return stack.sql_value(f"""SELECT count(*) FROM documents d JOIN collections c ON c.id = d.collection_id
        LEFT JOIN LATERAL (SELECT count(*) AS n FROM vec.g{active} v WHERE v.document_id = d.id AND v.version = d.live_version) v ON true
        WHERE c.uuid = :'v1' AND d.live_version > 0 AND d.chunk_count <> v.n""", collection) == "0"


def test_the_same_settings_embed_nothing(stack, user):
    collection, _ = fill(stack, user)
    before = user.show(collection)
    old, found = generation(stack, collection), user.search(collection, "ash and fire", k=5)["results"]
    watch = user.watch("/ws/operations")
    operation = reindex(user, collection)
    watch.wait_type(*LAST, operation=operation["id"])
    events = watch.events(operation["id"])
    kinds = [e["type"] for e in events]
    assert list(dict.fromkeys(kinds)) == STAGES
    percents = {e["type"]: e["progress"] for e in events}
    assert [percents[k] for k in STAGES[1:3] + STAGES[4:6]] == [10, 20, 90, 100]
    assert events[1]["data"]["documents"] == 8 and events[1]["data"]["vectors"] == before["vector_count"] and events[1]["data"]["estimated_bytes"] > 0
    told = result(stack, operation)
    assert told["chunks_embedded"] == 0 and told["chunks_reused"] == before["vector_count"] and told["documents_unchanged"] == 8
    assert told["validation"]["self_retrieval"] == 1 and told["validation"]["overlap"] == 1
    after = user.show(collection)
    assert after["status"] == "ready" and settings_of(after) == settings_of(before) and after["vector_count"] == before["vector_count"]
    assert generation(stack, collection) != old
    assert [r["chunk_id"] for r in user.search(collection, "ash and fire", k=5)["results"]] == [r["chunk_id"] for r in found]
    assert operation["config"]["blue_green"] is True and operation["config"]["previous_config"] == operation["config"]["new_config"]


def test_other_chunks_keep_what_they_say_and_the_vectors_of_texts_that_stay(stack, user):
    collection, folder = fill(stack, user)
    before = user.show(collection)
    # The end of one file changes, another is away: neither of them is read.
    docs.write(folder, "doc-1.txt", "Nothing of this is in the collection.")
    os.unlink(os.path.join(folder, "doc-2.txt"))
    operation = reindex(user, collection, {"chunk_size": 200, "chunk_overlap": 0})
    told = result(stack, operation)
    assert told["documents_cut_from_files"] == 6 and told["documents_cut_from_stored_text"] == 2 and told["documents_lost"] == 0
    after = user.show(collection)
    assert after["chunk_size"] == 200 and after["chunk_overlap"] == 0 and 0 < after["vector_count"] < before["vector_count"]
    assert told["chunks_embedded"] + told["chunks_reused"] == after["vector_count"]
    assert after["document_count"] == 8 and is_consistent(stack, collection)
    texts = stack.sql("""SELECT string_agg(k.content, ' ' ORDER BY k.ordinal) FROM chunks k JOIN documents d ON d.id = k.document_id AND d.live_version = k.version
        JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1' AND d.file_name = 'doc-2.txt'""", collection)
    assert all(f"Paragraph {p} of 2" in texts[0][0] for p in range(3)) and texts[0][0].count("Sentence 7 says") == 3
    assert not user.search(collection, "Nothing of this is in the collection", k=1)["results"][0]["text"].startswith("Nothing")
    # Back again: the operation's own generation is the old one now.
    again = result(stack, reindex(user, collection, {"chunk_size": 100, "chunk_overlap": 10}))
    assert again["chunks_embedded"] > 0 and user.show(collection)["vector_count"] == before["vector_count"] and is_consistent(stack, collection)


def test_texts_that_stay_are_not_embedded_again(stack, user):
    folder = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(folder)
    for n, subject in enumerate(SUBJECTS):
        docs.write(folder, f"short-{n}.txt", f"It is well known that {subject}.")
    collection = user.collection(chunk_size=100, chunk_overlap=10)["id"]
    user.index(collection, folder)
    told = result(stack, reindex(user, collection, {"chunk_size": 150, "chunking_strategy": "character"}))
    assert told["chunks_embedded"] == 0 and told["documents_unchanged"] == len(SUBJECTS)


def test_another_model_embeds_all_and_searches_with_it(stack, user):
    collection, _ = fill(stack, user)
    count = user.show(collection)["vector_count"]
    told = result(stack, reindex(user, collection, {"embedding_model": OTHER}))
    assert told["chunks_embedded"] == count and told["chunks_reused"] == 0 and told["documents_unchanged"] == 8
    shown = user.show(collection)
    assert shown["embedding_model"] == OTHER
    best = user.search(collection, "Paragraph 2 of 3: bees dance to tell of flowers.", k=1)["results"][0]
    assert best["embedding_model"] == OTHER and best["file_name"] == "doc-3.txt"


def test_quantizations_are_copied_where_nothing_is_lost_by_that(stack, user):
    collection, _ = fill(stack, user, count=3, quantization="float32")
    count = user.show(collection)["vector_count"]
    for quantization, embedded in (("float16", 0), ("int8", 0), ("float16", 0), ("float32", count)):
        told = result(stack, reindex(user, collection, {"quantization": quantization}))
        assert told["chunks_embedded"] == embedded and told["vectors"] == count, quantization
        kind = stack.sql_value(f"SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'vec.g{generation(stack, collection)}'::regclass AND attname = 'embedding'")
        assert kind == ("vector" if quantization == "float32" else "halfvec") and user.show(collection)["quantization"] == quantization


def test_an_empty_collection_can_be_re_indexed_and_filled(stack, user):
    collection = user.collection()["id"]
    told = result(stack, reindex(user, collection, {"embedding_model": OTHER, "quantization": "float32"}))
    assert told["vectors"] == 0
    folder = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(folder)
    docs.write(folder, "one.txt", SUBJECTS[0])
    user.index(collection, folder)
    assert user.search(collection, "lamp", k=1)["results"][0]["file_name"] == "one.txt"


@pytest.mark.parametrize("body, status, words", [
    ({"embedding_model": "no-such-model"}, 400, "no-such-model"),
    ({"chunking_strategy": "by-feeling"}, 400, "Valid values"),
    ({"quantization": "float8"}, 422, "quantization"),
    ({"chunk_size": 100, "chunk_overlap": 100}, 400, "smaller"),
    ({"chunk_overlap": 500}, 400, "smaller"),
    ({"chunk_size": 0}, 422, "chunk_size"),
    ({"chunk_size": -5}, 422, "chunk_size"),
    ({"chunk_size": 10 ** 9}, 422, "chunk_size"),
    ({"chunk_size": "large"}, 422, "chunk_size"),
    ({"chunking_config": {"chunk_size": 3}}, 400, "chunking"),
])
def test_what_cannot_be_is_refused_and_changes_nothing(stack, user, body, status, words):
    made = user.collection(chunk_size=200, chunk_overlap=20)
    answer = user.ask("POST", f"/api/v2/collections/{made['id']}/reindex", body)
    assert answer.status == status and words in json.dumps(answer.json), answer
    assert user.show(made["id"])["status"] == "ready"
    assert stack.sql("SELECT 1 FROM operations WHERE collection_uuid = :'v1' AND type = 'reindex'", made["id"]) == []


def test_a_validation_that_fails_leaves_all_as_it_was():
    stack = make(apis=1, workers=1, REINDEX_MIN_OVERLAP="1")
    try:
        user = Client.registered(stack.apis[0].url)
        collection, _ = fill(stack, user)
        before, old = user.show(collection), generation(stack, collection)
        operation = reindex(user, collection, {"embedding_model": OTHER, "chunk_size": 200}, status="failed")
        assert "REINDEX_MIN_OVERLAP asks for 1" in operation["error_message"], operation
        after = user.show(collection)
        assert after["status"] == "ready" and "validation" in after["status_message"] and settings_of(after) == settings_of(before)
        assert generation(stack, collection) == old and after["vector_count"] == before["vector_count"]
        wait_for("staging to be gone", lambda: traces(stack, collection) == ["0", "0", "0"], seconds=60)
        assert user.search(collection, "ash", k=1)["results"]
    finally:
        end(stack)


# ---- while it runs

class Searching(threading.Thread):
    """Asks for the same all the time; each answer is wholly of one set of settings."""

    def __init__(self, user, collection):
        super().__init__(daemon=True)
        self.user, self.collection = user, collection
        self.answers, self.problems = [], []
        self.stop = threading.Event()
        self.start()

    def run(self):
        while not self.stop.is_set():
            try:
                answer = self.user.ask("POST", "/api/v2/search", {"query": "bees dance to tell of flowers", "collection_uuids": [self.collection], "k": 5})
            except OSError as error:
                self.problems.append(error)
                return
            if answer.status != 200 or len(answer.json["results"]) != 5:
                self.problems.append(answer)
                continue
            self.answers.append(frozenset(r["chunk_id"] for r in answer.json["results"]))

    def end(self):
        self.stop.set()
        self.join(30)
        return self.answers


def test_searches_answer_throughout_and_never_from_a_mix(stack, user):
    collection, _ = fill(stack, user)
    searching = Searching(user, collection)
    known = {frozenset(r["chunk_id"] for r in user.search(collection, "bees dance to tell of flowers", k=5)["results"])}
    for body in ({"chunk_size": 200}, {"embedding_model": OTHER}, {"chunk_size": 100, "quantization": "float32"}, None, {"embedding_model": "all-MiniLM-L6-v2"}):
        before = len(searching.answers)
        reindex(user, collection, body)
        assert len(searching.answers) > before, "no search was answered meanwhile"
        known.add(frozenset(r["chunk_id"] for r in user.search(collection, "bees dance to tell of flowers", k=5)["results"]))
    answers = searching.end()
    assert searching.problems == []
    assert set(answers) <= known


FAULTS_BEFORE = ["reindex_preflight", "before_staging_commit", "staging_made", "before_staged_part_commit", "before_staged_commit", "after_staged_commit", "graph_built",
                 "staging_validated", "before_switch_commit"]


@pytest.fixture(scope="module")
def breaking():
    """Programs with fault points, which are told in a file what is to go wrong next."""
    from support.stack import FAULTS_BIN
    if not os.path.exists(os.path.join(FAULTS_BIN, "opstream-worker")):
        pytest.skip("needs make FAULTS=1")
    folder = os.path.join("/tmp", "opstream-faults-" + uuid.uuid4().hex)
    os.mkdir(folder)
    made = make(apis=1, workers=1, has_faults=True, FAULT_DIR=folder, EMBEDDING_BATCH_SIZE=16, VECTOR_UPLOAD_BATCH_SIZE=2, EXACT_SCAN_ROWS=10)
    made.faults = folder
    yield made
    end(made)
    shutil.rmtree(folder, ignore_errors=True)


def set_fault(stack, text):
    for name in os.listdir(stack.faults):
        os.unlink(os.path.join(stack.faults, name))
    with open(os.path.join(stack.faults, "faults.new"), "w") as file:
        file.write(text)
    os.rename(os.path.join(stack.faults, "faults.new"), os.path.join(stack.faults, "faults"))


@pytest.fixture(scope="module")
def broken(breaking):
    user = Client.registered(breaking.apis[0].url)
    return user, fill(breaking, user, count=5)[0]


@pytest.mark.parametrize("point", FAULTS_BEFORE + ["after_switch_commit"])
def test_an_attempt_that_is_killed_is_finished_by_the_next(breaking, broken, point):
    user, collection = broken
    before = user.show(collection)
    size = 300 - before["chunk_size"] if before["chunk_size"] in (100, 200) else 100
    set_fault(breaking, f"{point}:kill*1")
    operation = reindex(user, collection, {"chunk_size": size})
    attempt = int(breaking.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation["id"]))
    assert attempt == (1 if point == "after_switch_commit" else 2)
    told = result(breaking, operation)
    assert told["documents_processed"] == 5 and told["vectors"] == told["chunks_reused"] + told["chunks_embedded"]
    after = user.show(collection)
    assert after["status"] == "ready" and after["chunk_size"] == size and after["vector_count"] == told["vectors"]
    assert is_consistent(breaking, collection) and len(user.search(collection, "ash", k=5)["results"]) == 5
    assert traces(breaking, collection)[0] == "0"


def test_a_cancel_before_the_switch_leaves_all_as_it_was(breaking, broken):
    user, collection = broken
    before, old, rows = user.show(collection), generation(breaking, collection), traces(breaking, collection)
    set_fault(breaking, "staging_validated:sleep=3000*1")
    operation = user.must("POST", f"/api/v2/collections/{collection}/reindex", {"chunk_size": 150}, status=202)
    busy = user.ask("POST", f"/api/v2/collections/{collection}/reindex")
    assert busy.status == 409 and operation["id"] in json.dumps(busy.json)
    wait_for("the validation", lambda: user.operation(operation["id"])["progress"] >= 90)
    user.must("DELETE", f"/api/v2/operations/{operation['id']}", status=(200, 204))
    shown = user.show(collection)
    assert shown["status"] == "ready" and "cancelled" in shown["status_message"] and settings_of(shown) == settings_of(before)
    assert generation(breaking, collection) == old
    wait_for("staging to be gone", lambda: traces(breaking, collection) == rows, seconds=60)


def test_a_cancel_after_the_switch_is_refused(breaking, broken):
    user, collection = broken
    set_fault(breaking, "after_switch_commit:sleep=3000*1")
    operation = user.must("POST", f"/api/v2/collections/{collection}/reindex", None, status=202)
    wait_for("the switch", lambda: user.operation(operation["id"])["status"] == "completed")
    answer = user.ask("DELETE", f"/api/v2/operations/{operation['id']}")
    assert answer.status == 400 and "completed" in json.dumps(answer.json)
    assert user.show(collection)["status"] == "ready"


def test_a_deleted_collection_takes_old_and_new_vectors_with_it(breaking, broken):
    user, _ = broken
    set_fault(breaking, "")
    collection, _ = fill(breaking, user, count=2)
    reindex(user, collection, {"chunk_size": 200})
    assert int(traces(breaking, collection)[1]) > 0  # the old chunks wait for their time
    row = breaking.sql_value("SELECT id FROM collections WHERE uuid = :'v1'", collection)
    user.must("DELETE", "/api/v2/collections/" + collection, status=204)
    wait_for("all of it to be gone", lambda: breaking.sql("""SELECT (SELECT count(*) FROM chunks WHERE collection_id = :v1) + (SELECT count(*) FROM generations
        WHERE collection_id = :v1) + (SELECT count(*) FROM staged_documents s WHERE NOT EXISTS (SELECT FROM generations g WHERE g.id = s.generation_id))""", row) == [["0"]])
