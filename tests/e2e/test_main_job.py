"""The main job, from a folder of documents to answers, as a user's program sees it: two API instances and a worker."""
import os

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import wait_for


@pytest.fixture(scope="module")
def stack():
    from support.stack import Stack
    made = Stack(apis=2, workers=1, MAX_FILE_BYTES=docs.MAX_FILE_BYTES)
    yield made
    made.close()


@pytest.fixture(scope="module")
def indexed(stack, user):
    """A collection filled from the mixed folder, watched on both instances; made once for the module."""
    class Indexed:
        pass
    it = Indexed()
    it.folder = os.path.join(stack.roots, "mixed")
    os.mkdir(it.folder)
    docs.write_mixed(it.folder)
    it.collection = user.collection()
    it.watches = [user.at(api).watch("/ws/operations") for api in stack.apis]
    it.operation = user.add_source(it.collection["id"], it.folder)
    for watch in it.watches:
        watch.wait_type(*LAST, operation=it.operation["id"])
    it.events = [watch.events(it.operation["id"]) for watch in it.watches]
    it.over = user.operation(it.operation["id"])
    it.collection = user.show(it.collection["id"])
    it.documents = user.documents(it.collection["id"])
    return it


def shown(name):
    """A file name as the API shows it when it is no UTF-8: whatever way, the readable letters are in it."""
    return name.decode("utf-8", "replace").replace("\ufffd", "")


def test_a_folder_is_indexed_and_the_operation_completes(indexed):
    assert indexed.over["status"] == "completed"
    assert indexed.over["progress"] == 100
    assert indexed.over["started_at"] and indexed.over["completed_at"]
    assert indexed.collection["status"] == "ready"


def test_both_instances_show_the_same_events_and_one_last_one(indexed):
    first, second = indexed.events
    assert [e["id"] for e in first] == [e["id"] for e in second]
    assert first == second
    kinds = [e["type"] for e in first]
    assert kinds[0] == "operation_started"
    assert "scanning_completed" in kinds and "document_processed" in kinds
    assert [k for k in kinds if k in LAST] == ["operation_completed"] and kinds[-1] == "operation_completed"


def test_events_have_the_shape_that_the_front_end_reads(indexed):
    for event in indexed.events[0]:
        assert isinstance(event["timestamp"], str) and isinstance(event["data"], dict)
        assert event["data"]["operation_id"] == indexed.operation["id"]
        assert event["data"]["collection_id"] == indexed.collection["id"]
        assert not isinstance(event.get("message"), str), "a string named message hides the frame from the front end"
    scanning, scanned = (next(e["data"] for e in indexed.events[0] if e["type"] == kind) for kind in ("scanning_documents", "scanning_completed"))
    assert scanning["status"] == "scanning" and scanned["status"] == "processing"
    processed = [e["data"] for e in indexed.events[0] if e["type"] == "document_processed"]
    for data in processed:
        assert data["failed"] <= data["processed"] <= data["total"]
        assert isinstance(data["stats"]["vector_count"], int) and isinstance(data["stats"]["document_count"], int)
    assert [d["processed"] for d in processed] == sorted(d["processed"] for d in processed)


def test_counts_tell_what_was_read_and_what_was_not(indexed, stack):
    good = len(docs.GOOD) + 1
    assert indexed.collection["document_count"] >= good
    assert indexed.collection["error_count"] == len([d for d in indexed.documents.values() if d["status"] == "failed"])
    completed = [d for d in indexed.documents.values() if d["status"] == "completed"]
    assert len(completed) == good
    chunks = sum(d["chunk_count"] for d in completed)
    assert indexed.collection["vector_count"] == chunks >= good
    generation = stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", indexed.collection["id"])
    assert int(stack.sql_value(f"SELECT count(*) FROM vec.g{generation}")) == chunks


def test_documents_are_listed_with_their_reasons(indexed):
    for name in docs.GOOD:
        document = indexed.documents[name.decode()]
        assert document["status"] == "completed", document
        assert document["chunk_count"] >= 1 and document["error_message"] is None
    for name in docs.BAD:
        document = indexed.documents[name.decode()]
        assert document["status"] == "failed", document
        assert document["error_message"] and document["error_category"] in ("permanent", "transient", "unknown")
    assert "permanent" == indexed.documents["broken.pdf"]["error_category"]
    assert not any("hidden" in name or "link" in name for name, d in indexed.documents.items() if d["status"] == "completed")


def test_a_file_whose_name_is_no_utf8_is_read_and_shown_escaped(indexed):
    names = [n for n in indexed.documents if n.startswith("caf")]
    assert len(names) == 1
    assert indexed.documents[names[0]]["status"] == "completed"


@pytest.mark.parametrize("question, name", [
    ("How do ships find their way at night?", b"lighthouse.txt"),
    ("When is the bread made?", b"bakery.md"),
    ("What causes an eruption?", b"volcano.html"),
    ("What should the king do late in the game?", b"chess.json"),
    ("How do insects tell each other where flowers are?", b"bees.csv"),
    ("Which wood is used for musical instruments?", b"violin.docx"),
    ("How does ice transport rocks?", b"glacier.pdf"),
])
def test_search_finds_the_right_passage(indexed, user, question, name):
    answer = user.search(indexed.collection["id"], question)
    best = answer["results"][0]
    assert best["file_name"] == name.decode(), [(r["file_name"], r["score"]) for r in answer["results"]]
    assert best["collection_id"] == indexed.collection["id"] and best["text"] and 0 < best["score"] <= 1
    scores = [r["score"] for r in answer["results"]]
    assert scores == sorted(scores, reverse=True)


def test_search_answers_alike_on_both_instances(indexed, user, stack):
    answers = [user.at(api).search(indexed.collection["id"], "music", k=10)["results"] for api in stack.apis]
    assert [r["chunk_id"] for r in answers[0]] == [r["chunk_id"] for r in answers[1]]


def test_a_documents_content_comes_back_as_it_is(indexed, user):
    document = indexed.documents["bakery.md"]
    answer = user.ask("GET", f"/api/v2/collections/{indexed.collection['id']}/documents/{document['id']}/content")
    assert answer.status == 200 and answer.raw.decode().startswith("# The bakery")
    assert "bakery.md" in answer.headers["Content-Disposition"]


def test_appending_again_reads_only_what_changed(user, stack, folder):
    docs.write_many(folder, 5)
    collection = user.collection()
    user.index(collection["id"], folder)
    before = user.documents(collection["id"])
    docs.write(folder, "part00/note00003.txt", "Now this note tells of a walrus that plays the trumpet under the northern lights.\n")
    docs.write(folder, "part00/new.txt", "A new note about a caravan of camels crossing the desert by night.\n")
    watch = user.watch("/ws/operations")
    operation = user.add_source(collection["id"], folder)
    done = watch.wait_type(*LAST, operation=operation["id"])
    assert done["type"] == "operation_completed", done
    scanned = next(e["data"] for e in watch.events(operation["id"]) if e["type"] == "scanning_completed")
    assert (scanned["total_files_found"], scanned["new_documents_registered"], scanned["documents_updated"], scanned["unchanged_documents_skipped"]) == (6, 1, 1, 4)
    after = user.documents(collection["id"])
    assert len(after) == 6
    for name, document in before.items():
        is_changed = name == "note00003.txt"
        assert (after[name]["content_hash"] != document["content_hash"]) == is_changed
    assert user.search(collection["id"], "an animal playing music")["results"][0]["file_name"] == "note00003.txt"
    assert "mark00003x" not in " ".join(r["text"] for r in user.search(collection["id"], "mark00003x", k=20)["results"]), "the old version is still found"
    assert int(stack.sql_value("SELECT count(*) FROM sources s JOIN collections c ON c.id = s.collection_id WHERE c.uuid = :'v1'", collection["id"])) == 1
    watch.close()


def test_a_second_operation_on_a_busy_collection_is_refused(user, stack, folder):
    docs.write_many(folder, 300)
    collection = user.collection()
    watch = user.watch("/ws/operations?last_id=0")
    operation = user.add_source(collection["id"], folder)
    answer = user.ask("POST", f"/api/v2/collections/{collection['id']}/sources", {"source_type": "directory", "source_path": folder, "source_config": {"path": folder}})
    assert answer.status == 409, answer
    assert operation["id"] in answer.raw.decode()
    assert user.ask("DELETE", "/api/v2/operations/" + operation["id"]).status == 200
    watch.wait_type("operation_cancelled", operation=operation["id"])
    watch.close()


def test_a_running_operation_is_cancelled_and_the_collection_stays_usable(user, stack, folder):
    docs.write_many(folder, 200)
    collection = user.collection()
    watch = user.at(stack.apis[1]).watch("/ws/operations")
    operation = user.add_source(collection["id"], folder)
    watch.wait("a document", lambda f: f.get("type") == "document_processed" and f["data"]["operation_id"] == operation["id"] and f["data"]["processed"] >= 1)
    answer = user.at(stack.apis[1]).ask("DELETE", "/api/v2/operations/" + operation["id"])
    assert answer.status == 200 and answer.json["status"] == "cancelled" and answer.json["completed_at"]
    last = watch.wait_type(*LAST, operation=operation["id"])
    assert last["type"] == "operation_cancelled" and last["data"]["status"] == "cancelled"
    assert user.ask("DELETE", "/api/v2/operations/" + operation["id"]).status == 400
    usable = user.wait_ready(collection["id"])
    assert user.operation(operation["id"])["status"] == "cancelled"
    wait_for("the cancelled attempt to be gone", lambda: not int(stack.sql_value(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = (SELECT task_id::text FROM operations WHERE uuid = :'v1')", operation["id"])))
    assert usable["vector_count"] < 200
    found = user.search(collection["id"], "How do ships find their way at night?")
    assert found["total_results"] >= 0 and not found["partial_failure"]
    events = watch.events(operation["id"])
    assert [e["type"] for e in events if e["type"] in LAST] == ["operation_cancelled"] and events[-1]["type"] == "operation_cancelled"
    # The next run takes up what was left, and nothing is there twice.
    user.index(collection["id"], folder)
    assert_nothing_doubled(stack, collection["id"], 200)
    watch.close()


def test_a_pending_operation_is_cancelled_before_it_ran(user, stack, folder):
    docs.write_many(folder, 3)
    collection = user.collection()
    worker = stack.workers[0]
    worker.stop()
    try:
        operation = user.add_source(collection["id"], folder)
        answer = user.ask("DELETE", "/api/v2/operations/" + operation["id"])
        assert answer.status == 200 and answer.json["status"] == "cancelled"
    finally:
        worker.start()
    user.index(collection["id"], folder)
    assert user.operation(operation["id"])["started_at"] is None


def test_progress_is_throttled_but_never_the_first_and_the_last(make_stack):
    stack = make_stack(apis=1, workers=1, PROGRESS_THROTTLE_MS=3_600_000)
    user = Client.registered(stack.apis[0].url)
    folder = os.path.join(stack.roots, "some")
    docs.write_many(folder, 40)
    docs.write(folder, "broken.pdf", b"%PDF-1.7 nothing\n")
    collection = user.collection()
    operation = user.add_source(collection["id"], folder)
    user.wait_over(operation["id"])
    watch = user.watch(f"/ws/operations/{operation['id']}")
    watch.wait_type(*LAST)
    kinds = [e["type"] for e in watch.events(operation["id"])]
    assert kinds[0] == "operation_started" and kinds[-1] == "operation_completed"
    assert kinds.count("document_processed") < 20, kinds
    assert any(e["data"].get("error") for e in watch.events(operation["id"]) if e["type"] == "document_processed"), "a failed document always passes"


def test_a_deleted_collection_is_gone_at_once_and_its_rows_soon(user, stack, folder):
    docs.write_many(folder, 20)
    collection = user.collection(name="to be deleted")
    user.index(collection["id"], folder)
    row, generation = stack.sql("SELECT id, active_generation FROM collections WHERE uuid = :'v1'", collection["id"])[0]
    answer = user.ask("DELETE", "/api/v2/collections/" + collection["id"])
    assert answer.status == 204 and not answer.raw
    for api in stack.apis:
        assert user.at(api).ask("GET", "/api/v2/collections/" + collection["id"]).status == 404
        assert user.at(api).ask("POST", "/api/v2/search", {"query": "ships", "collection_uuids": [collection["id"]], "use_reranker": False}).status == 404
    user.must("POST", "/api/v2/collections", {"name": "to be deleted"}, status=201)
    wait_for("chunks and documents to be removed", lambda: stack.sql_value(
        f"SELECT (SELECT count(*) FROM chunks WHERE collection_id = {row}) + (SELECT count(*) FROM documents WHERE collection_id = {row})") == "0")
    wait_for("the vectors' table to be dropped", lambda: stack.sql_value(f"SELECT to_regclass('vec.g{generation}') IS NULL") == "t")


def assert_nothing_doubled(stack, collection_uuid, count):
    """Each document of write_many once, one version of it, and one vector a chunk."""
    row, generation = stack.sql("SELECT id, active_generation FROM collections WHERE uuid = :'v1'", collection_uuid)[0]
    completed = stack.sql_value(f"SELECT count(*) FROM documents WHERE collection_id = {row} AND status = 'completed'")
    assert int(completed) == count
    live = f"FROM chunks c JOIN documents d ON d.id = c.document_id AND d.live_version = c.version WHERE c.collection_id = {row}"
    assert stack.sql_value(f"SELECT count(*) FROM (SELECT c.document_id, c.ordinal {live} GROUP BY 1, 2 HAVING count(*) > 1) x") == "0"
    chunks = int(stack.sql_value(f"SELECT count(*) {live}"))
    assert chunks == int(stack.sql_value(f"SELECT sum(chunk_count) FROM documents WHERE collection_id = {row}"))
    vectors = int(stack.sql_value(f"SELECT count(*) FROM vec.g{generation} v JOIN documents d ON d.id = v.document_id AND d.live_version = v.version"))
    assert vectors == chunks == int(stack.sql_value(f"SELECT vector_count FROM collections WHERE id = {row}"))
    assert int(stack.sql_value(f"SELECT document_count FROM collections WHERE id = {row}")) == count
