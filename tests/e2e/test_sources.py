"""Sources as users see them: read again, changed, removed; with a real worker."""
import json
import os
import secrets
import signal
import time

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import Stack, wait_for
from test_main_job import assert_nothing_doubled

BATCH = 10


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1, has_faults=True, DOCUMENT_REMOVAL_BATCH_SIZE=BATCH, FAULT_DIR="/nowhere")
    yield made
    made.close()


def folder_of(stack, count=3, topic=None):
    """Letters, none like another."""
    folder = os.path.join(stack.roots, secrets.token_hex(4))
    for i in range(count):
        docs.write(folder, f"letter-{i:03}.txt", f"Letter {i}, on paper {secrets.token_hex(8)}. " + (topic or list(docs.STORIES.values())[i % len(docs.STORIES)]))
    return folder


def sources(user, collection):
    return {s["source_path"]: s for s in user.must("GET", f"/api/v2/collections/{collection}/sources")["items"]}


def remove(user, collection, folder, status=202):
    return user.must("DELETE", f"/api/v2/collections/{collection}/sources?source_path={folder}", status=status)


def events(stack, operation):
    out = stack.redis_cli("--json", "XRANGE", f"{stack.name}:operation-progress:{operation}", "-", "+")
    return [json.loads(fields[fields.index("message") + 1]) for _, fields in json.loads(out or "[]")]


def ended(stack, operation):
    wait_for("the last event", lambda: any(e["type"] in LAST for e in events(stack, operation)))
    return events(stack, operation)


def assert_counters_are_true(stack, collection):
    shown, = stack.sql("""SELECT c.document_count, c.vector_count, c.total_size_bytes, c.error_count FROM collections c WHERE c.uuid = :'v1'""", collection)
    true, = stack.sql("""SELECT count(*) FILTER (WHERE live_version > 0), coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0),
        coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0), count(*) FILTER (WHERE d.status = 'failed')
        FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1'""", collection)
    assert shown == true


# ---- reading again


def test_an_append_reads_only_what_changed(stack, user):
    collection, folder = user.collection()["id"], folder_of(stack, 12)
    user.index(collection, folder)
    before = user.documents(collection)
    docs.write(folder, "letter-001.txt", "Another text altogether, about " + docs.STORIES["bees"])
    docs.write(folder, "new.txt", "A new one: " + docs.STORIES["violin"])
    os.utime(os.path.join(folder, "letter-002.txt"), (1, 1))  # touched, with the same content
    operation = user.index(collection, folder)
    kinds = {e["type"]: e["data"] for e in ended(stack, operation["id"])}
    scanned = kinds["scanning_completed"]
    assert (scanned["total_files_found"], scanned["new_documents_registered"], scanned["documents_updated"], scanned["unchanged_documents_skipped"],
            scanned["documents_to_process"]) == (13, 1, 1, 11, 2)
    after = user.documents(collection)
    assert {n for n in before if before[n]["content_hash"] != after[n]["content_hash"]} == {"letter-001.txt"}
    assert kinds["append_completed"]["documents_processed"] == 2
    versions = dict(stack.sql("SELECT file_name, live_version FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1'", collection))
    assert versions.pop("letter-001.txt") == "2" and set(versions.values()) == {"1"}
    nothing = user.index(collection, folder)
    scanned = {e["type"]: e["data"] for e in ended(stack, nothing["id"])}
    assert scanned["scanning_completed"]["documents_to_process"] == 0 and scanned["append_completed"]["tokens_embedded"] == 0
    assert_nothing_doubled(stack, collection, 13)


# ---- removing


def test_removing_a_source_removes_its_documents_and_nothing_else(stack, user):
    collection, one, other = user.collection()["id"], folder_of(stack, 35, docs.STORIES["chess"]), folder_of(stack, 5, docs.STORIES["bees"])
    docs.write(one, "broken.pdf", b"%PDF-1.7\nno pdf\n")
    user.index(collection, one)
    user.index(collection, other)
    assert user.show(collection)["error_count"] == 1
    accepted = remove(user, collection, one)
    assert accepted["type"] == "remove_source" and accepted["status"] == "pending" and accepted["config"]["source_path"] == one
    over = user.wait_over(accepted["id"])
    assert over["progress"] == 100
    assert set(sources(user, collection)) == {other}
    shown = user.wait_ready(collection)
    assert (shown["document_count"], shown["error_count"]) == (5, 0)
    assert_counters_are_true(stack, collection)
    assert_nothing_doubled(stack, collection, 5)
    assert all("hive" in r["text"] for r in user.search(collection, "the king in the endgame of chess")["results"])
    told = ended(stack, accepted["id"])
    kinds = [e["type"] for e in told]
    assert kinds[0] == "operation_started" and kinds[-2:] == ["remove_source_completed", "operation_completed"]
    removing = [e["data"] for e in told if e["type"] == "removing_documents"]
    assert removing[0]["removed"] == 0 and removing[-1]["removed"] == 36 and {e["total"] for e in removing} == {36}
    assert [e["progress_percent"] for e in removing] == sorted(e["progress_percent"] for e in removing)
    assert told[-2]["data"]["documents_removed"] == 36 and told[-2]["data"]["vectors_removed"] >= 35
    for table in ("vec.g" + stack.sql_value("SELECT active_generation FROM collections WHERE uuid = :'v1'", collection),):
        assert stack.sql_value(f"SELECT count(*) FROM {table}") == str(shown["vector_count"])


def test_a_source_is_removed_by_its_number_or_by_a_path_in_the_body(stack, user):
    collection, one, other = user.collection()["id"], folder_of(stack), folder_of(stack)
    user.index(collection, one)
    user.index(collection, other)
    number = sources(user, collection)[one]["id"]
    user.wait_over(user.must("DELETE", f"/api/v2/collections/{collection}/sources/{number}", status=202)["id"])
    user.wait_over(user.must("DELETE", f"/api/v2/collections/{collection}/sources", {"source_path": other}, status=202)["id"])
    assert sources(user, collection) == {} and user.show(collection)["document_count"] == 0
    assert user.ask("DELETE", f"/api/v2/collections/{collection}/sources/{number}").status == 404
    assert user.search(collection, "bees")["results"] == []


def test_who_may_not_or_cannot_is_refused_and_nothing_changes(stack, user):
    collection, folder = user.collection(is_public=True)["id"], folder_of(stack)
    user.index(collection, folder)
    path = f"/api/v2/collections/{collection}/sources"
    other = Client.registered(stack.apis[0].url)
    number = sources(user, collection)[folder]["id"]
    assert other.ask("DELETE", f"{path}?source_path={folder}").status == 403
    assert other.ask("PATCH", f"{path}/{number}", {"source_config": {}}).status == 403
    unknown = user.ask("DELETE", f"{path}?source_path=/not/there")
    assert unknown.status == 404 and "/not/there" in unknown.json["detail"]
    assert user.ask("DELETE", path).status == 422
    stack.sql("UPDATE collections SET status = 'error' WHERE uuid = :'v1'", collection)
    assert user.ask("DELETE", f"{path}?source_path={folder}").status == 409
    stack.sql("UPDATE collections SET status = 'ready' WHERE uuid = :'v1'", collection)
    stack.sql("""INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, not_before)
        SELECT id, uuid, owner_id, 'append', true, 'default', '{"source_id": 1}', 'infinity' FROM collections WHERE uuid = :'v1'""", collection)
    holder = stack.sql_value("SELECT uuid FROM operations WHERE collection_uuid = :'v1' AND status = 'pending'", collection)
    busy = user.ask("DELETE", f"{path}?source_path={folder}")
    assert busy.status == 409 and holder in busy.json["detail"]
    stack.sql("DELETE FROM operations WHERE uuid = :'v1'", holder)
    assert user.show(collection)["document_count"] == 3 and set(sources(user, collection)) == {folder}


def test_a_duplicate_elsewhere_takes_the_place_of_what_was_removed(stack, user):
    collection, one, other = user.collection()["id"], folder_of(stack, 0), folder_of(stack, 0)
    text = "The only text about penguins, which waddle over the ice of the south. " + secrets.token_hex(8)
    docs.write(one, "a.txt", text)
    docs.write(one, "b.txt", text)
    docs.write(one, "only-here.txt", docs.STORIES["chess"])
    for name in ("c.txt", "d.txt"):
        docs.write(other, name, text)
    user.index(collection, one)
    user.index(collection, other)
    assert user.show(collection)["document_count"] == 2
    operation = remove(user, collection, one)["id"]
    user.wait_over(operation)
    hits = user.search(collection, "penguins on the ice", k=10)["results"]
    assert [h["file_name"] for h in hits] == ["c.txt"]
    assert user.show(collection)["document_count"] == 1 and set(user.documents(collection)) == {"c.txt", "d.txt"}
    done = next(e["data"] for e in ended(stack, operation) if e["type"] == "remove_source_completed")
    assert (done["documents_removed"], done["documents_read_again"]) == (3, 1)
    assert_counters_are_true(stack, collection)


def with_faults(stack, faults):
    """Programs of the module's stack, started anew with other faults."""
    folder = os.path.join(stack.dir, secrets.token_hex(4))
    os.mkdir(folder)
    for process in stack.processes:
        process.env.update(FAULT=faults, FAULT_DIR=folder)
        process.restart()
    return lambda point: os.path.exists(os.path.join(folder, point + ".0"))


@pytest.mark.parametrize("point", ["source_documents_removed", "after_source_documents_removed", "source_row_removed", "after_source_removed"])
def test_a_removal_that_is_killed_is_finished_by_the_next_attempt(stack, user, point):
    collection, one, other = user.collection()["id"], folder_of(stack, 25), folder_of(stack, 2)
    user.index(collection, one)
    user.index(collection, other)
    has_fired = with_faults(stack, f"{point}:kill*1")
    operation = remove(user, collection, one)["id"]
    user.wait_over(operation)
    assert has_fired(point)
    assert set(sources(user, collection)) == {other}
    assert_counters_are_true(stack, collection)
    assert_nothing_doubled(stack, collection, 2)
    assert stack.sql_value("SELECT attempt FROM operations WHERE uuid = :'v1'", operation) == "2"
    with_faults(stack, "")


def test_a_removal_that_is_cancelled_half_way_leaves_what_is_whole(stack, user):
    collection, one = user.collection()["id"], folder_of(stack, 35)
    for i in range(5):
        docs.write(one, f"again-{i}.txt", open(os.path.join(one, f"letter-{i:03}.txt"), "rb").read())
    user.index(collection, one)
    has_fired = with_faults(stack, "after_source_documents_removed:sleep=60000*1")
    operation = remove(user, collection, one)["id"]
    wait_for("the first batch", lambda: has_fired("after_source_documents_removed"))
    user.must("DELETE", "/api/v2/operations/" + operation)
    user.wait_over(operation, "cancelled")
    wait_for("the collection", lambda: user.show(collection)["status"] == "ready")
    with_faults(stack, "")
    left = user.documents(collection)
    assert 0 < len(left) < 40 and set(sources(user, collection)) == {one}
    assert_counters_are_true(stack, collection)
    assert stack.sql_value("""SELECT count(*) FROM documents d WHERE duplicate_of IS NOT NULL AND NOT EXISTS (
        SELECT FROM documents o WHERE o.id = d.duplicate_of) AND collection_id = (SELECT id FROM collections WHERE uuid = :'v1')""", collection) == "0"
    user.wait_over(remove(user, collection, one)["id"])
    assert user.documents(collection) == {} and sources(user, collection) == {}


# ---- changing


def test_a_changed_source_is_read_by_its_new_patterns(stack, user):
    collection, folder = user.collection()["id"], folder_of(stack, 2)
    docs.write(folder, "notes.md", docs.STORIES["glacier"])
    docs.write(folder, "deep/below.txt", docs.STORIES["violin"])
    user.index(collection, folder, include_patterns=["*.md"])
    number = sources(user, collection)[folder]["id"]
    path = f"/api/v2/collections/{collection}/sources/{number}"
    changed = user.must("PATCH", path, {"source_config": {"include_patterns": ["*.txt"], "recursive": False}}, status=200)
    assert changed["source_config"] == {"path": folder, "include_patterns": ["*.txt"], "recursive": False}
    assert user.must("GET", path) == changed
    for body, word in (({}, "Nothing to change"), ({"source_config": {"path": "/elsewhere"}}, "cannot be changed"),
                       ({"source_config": {"recursive": "yes"}}, "true or false"), ({"source_config": {"exclude_patterns": [1]}}, "patterns")):
        answer = user.ask("PATCH", path, body)
        assert answer.status == 400 and word in answer.json["detail"], answer
    assert user.ask("PATCH", path, {"source_config": 3}).status == 422
    assert user.must("GET", path) == changed
    assert user.ask("PATCH", path + "00", {"source_config": {}}).status == 404


# ---- side by side


def extractors(stack):
    """Processes that read documents: helpers, and what they start for each file."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    is_one = b"--extractor" in file.read().split(b"\0")
                if is_one and os.path.dirname(os.readlink(f"/proc/{entry}/exe")) == os.path.abspath(stack.bin):
                    found.append(int(entry))
            except OSError:
                continue
    return found


def received(stack):
    """Files that were handed to helpers at a fault point, by the log."""
    return {line["subject"] for _, line in stack.log_lines() if line.get("event") == "fault" and line.get("point") == "file_received"}


def test_files_of_one_operation_are_read_side_by_side_and_a_cancel_ends_that_at_once(stack, user):
    collection, folder = user.collection()["id"], folder_of(stack, 30)
    with_faults(stack, "file_received:sleep=60000")
    operation = user.add_source(collection, folder)["id"]
    # INGEST_PROCESSES is 2; with one core it is 1.
    wait_for("files to be read side by side", lambda: len(received(stack)) == min(2, os.cpu_count()))
    assert extractors(stack)
    time_before = time.monotonic()
    user.must("DELETE", "/api/v2/operations/" + operation)
    user.wait_over(operation, "cancelled")
    wait_for("the extractors to be gone", lambda: not extractors(stack))
    assert time.monotonic() - time_before < 20
    with_faults(stack, "")
    user.index(collection, folder)
    assert_nothing_doubled(stack, collection, 30)


def test_a_helper_that_is_killed_costs_nothing_but_its_file_again(stack, user):
    collection, folder = user.collection()["id"], folder_of(stack, 40)
    has_fired = with_faults(stack, "file_parsed:sleep=50")
    operation = user.add_source(collection, folder)["id"]
    for helper in wait_for("extractors", lambda: extractors(stack)):
        try:
            os.kill(helper, signal.SIGKILL)
        except ProcessLookupError:
            pass
    user.wait_over(operation)
    with_faults(stack, "")
    assert not has_fired("nothing")
    failed = [d for d in user.documents(collection).values() if d["status"] != "completed"]
    assert len(failed) <= 2 and all(d["error_category"] in ("transient", "permanent") for d in failed), failed
