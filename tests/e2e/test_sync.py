"""Following sources: what was added, modified and deleted is found, and nothing else is touched."""
import os
import shutil
import uuid

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.stack import Stack, wait_for

RUN = {"id", "collection_id", "operation_id", "triggered_by", "started_at", "completed_at", "status", "expected_sources", "completed_sources", "failed_sources",
       "partial_sources", "documents_added", "documents_modified", "documents_deleted", "documents_unchanged", "documents_failed", "error_summary"}


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1, WORKER_LEASE_SECONDS=1, SYNC_DISPATCH_CRON="", DEFAULT_MAX_RETRIES=1)
    yield made
    made.close()


def followed(user, *folders, **config):
    """A continuous collection that was filled from folders."""
    made = user.collection(sync_mode="continuous", sync_interval_minutes=60)
    for path in folders:
        user.index(made["id"], path, **config)
    return made["id"]


def sync(user, collection, status="completed"):
    """Runs one now; the run's row at its end."""
    run = user.must("POST", f"/api/v2/collections/{collection}/sync/run", status=202)
    assert set(run) == RUN and run["status"] == "running" and run["triggered_by"] == "user" and run["completed_at"] is None
    user.wait_over(run["operation_id"], status)
    listed = user.must("GET", f"/api/v2/collections/{collection}/sync/runs")
    assert listed["items"][0]["id"] == run["id"] and set(listed["items"][0]) == RUN
    return listed["items"][0]


def counts(run):
    return {name: run["documents_" + name] for name in ("added", "modified", "deleted", "unchanged", "failed")}


def names(user, collection):
    return sorted(user.documents(collection))


def rows_match(stack, collection):
    """The counters are those of the rows, and no chunk or vector belongs to nothing."""
    stack_sql = stack.sql_value
    cid = stack_sql(f"SELECT id FROM collections WHERE uuid = '{collection}'")
    generation = stack_sql(f"SELECT active_generation FROM collections WHERE id = {cid}")
    assert stack_sql(f"SELECT count(*) FROM chunks c WHERE collection_id = {cid} AND NOT EXISTS (SELECT 1 FROM documents d "
                     "WHERE d.id = c.document_id AND d.live_version = c.version)") == "0"
    assert stack_sql(f"SELECT count(*) FROM vec.g{generation} v WHERE NOT EXISTS (SELECT 1 FROM chunks c WHERE c.id = v.chunk_id "
                     f"AND c.collection_id = {cid})") == "0"
    assert stack_sql(f"SELECT c.vector_count = (SELECT count(*) FROM vec.g{generation}) AND c.document_count = (SELECT count(*) FROM documents d "
                     f"WHERE d.collection_id = c.id AND d.live_version > 0) FROM collections c WHERE id = {cid}") == "t"


def test_added_modified_and_deleted_are_found_and_the_rest_is_left(stack, user, folder):
    docs.write_many(folder, 6)
    collection = followed(user, folder)
    before = user.documents(collection)
    os.remove(os.path.join(folder, "part00/note00000.txt"))
    docs.write(folder, "part00/note00001.txt", "Something about zeppelins, new to this archive.\n")
    docs.write(folder, "new/one.txt", "Quite another thing: hovercraft and eels.\n")
    os.utime(os.path.join(folder, "part00/note00002.txt"))  # touched, with the same content
    watch = user.watch("/ws/operations")
    run = sync(user, collection)
    watch.wait_type(*LAST, operation=run["operation_id"])
    events = watch.events(run["operation_id"])
    assert run["status"] == "success" and run["error_summary"] is None
    assert counts(run) == {"added": 1, "modified": 1, "deleted": 1, "unchanged": 4, "failed": 0}
    assert (run["expected_sources"], run["completed_sources"], run["failed_sources"], run["partial_sources"]) == (1, 1, 0, 0)
    after = user.documents(collection)
    assert sorted(after) == sorted(set(before) - {"note00000.txt"} | {"one.txt"})
    for name in set(before) & set(after):
        assert after[name]["id"] == before[name]["id"]
        assert (after[name]["content_hash"] != before[name]["content_hash"]) == (name == "note00001.txt")
    kinds = [e["type"] for e in events]
    order = ["operation_started", "scanning_documents", "scanning_completed", "sync_completed", "operation_completed"]
    assert [kinds.index(k) for k in order] == sorted(kinds.index(k) for k in order) and "document_processed" in kinds
    told = next(e for e in events if e["type"] == "scanning_completed")["data"]
    assert (told["added"], told["modified"], told["deleted"], told["unchanged"], told["documents_to_process"]) == (1, 1, 1, 4, 2)
    assert user.search(collection, "zeppelins")["results"][0]["file_name"] == "note00001.txt"
    assert "note00000.txt" not in [r["file_name"] for r in user.search(collection, "mark00000x", k=10)["results"]]
    shown = user.show(collection)
    assert shown["status"] == "ready" and shown["sync_last_run_status"] == "success" and shown["sync_last_error"] is None
    assert shown["sync_last_run_completed_at"] >= shown["sync_last_run_started_at"] and shown["sync_next_run_at"] > shown["sync_last_run_completed_at"]
    rows_match(stack, collection)
    # And once more: nothing.
    written = stack.sql_value(f"SELECT sum(xmin::text::bigint) FROM documents WHERE collection_id = (SELECT id FROM collections WHERE uuid = '{collection}')")
    assert counts(sync(user, collection)) == {"added": 0, "modified": 0, "deleted": 0, "unchanged": 6, "failed": 0}
    assert written == stack.sql_value("SELECT sum(xmin::text::bigint) FROM documents WHERE collection_id = "
                                      f"(SELECT id FROM collections WHERE uuid = '{collection}')")


def test_a_source_that_is_away_or_emptied_fails_and_loses_nothing(stack, user, folder):
    docs.write_many(folder, 3)
    collection = followed(user, folder)
    stack.sql(f"UPDATE collections SET sync_next_run_at = now() WHERE uuid = '{collection}'")
    os.rename(folder, folder + ".away")
    run = sync(user, collection, "failed")
    assert run["status"] == "failed" and "cannot be opened" in run["error_summary"] and run["failed_sources"] == 1
    operation = user.operation(run["operation_id"])
    assert operation["error_message"] == run["error_summary"] and len(operation["attempts"]) == 2  # as something transient
    os.mkdir(folder)
    run = sync(user, collection, "failed")
    assert run["status"] == "failed" and "the source is empty and held 3 documents" in run["error_summary"]
    shown = user.show(collection)
    assert shown["status"] == "ready" and shown["document_count"] == 3 and shown["sync_last_run_status"] == "failed"
    assert "is empty" in shown["sync_last_error"] and shown["sync_next_run_at"] > shown["sync_last_run_completed_at"]
    os.rmdir(folder)
    os.rename(folder + ".away", folder)
    assert counts(sync(user, collection)) == {"added": 0, "modified": 0, "deleted": 0, "unchanged": 3, "failed": 0}


def test_an_empty_source_is_believed_when_it_may_be_empty(stack, user, folder):
    docs.write_many(folder, 2)
    collection = followed(user, folder, allow_empty=True)
    shutil.rmtree(os.path.join(folder, "part00"))
    run = sync(user, collection)
    assert counts(run) == {"added": 0, "modified": 0, "deleted": 2, "unchanged": 0, "failed": 0} and user.show(collection)["document_count"] == 0


def test_one_source_away_leaves_the_others_followed(stack, user, folder):
    one, two = os.path.join(folder, "one"), os.path.join(folder, "two")
    docs.write(one, "a.txt", "Apples and pears.\n")
    docs.write(two, "b.txt", "Barges and locks.\n")
    docs.write(two, "c.txt", "Canals.\n")
    collection = followed(user, one, two)
    os.rename(one, one + ".away")
    os.remove(os.path.join(two, "c.txt"))
    docs.write(two, "d.txt", "Dredgers.\n")
    run = sync(user, collection)
    assert run["status"] == "partial" and "cannot be opened" in run["error_summary"]
    assert (run["expected_sources"], run["completed_sources"], run["failed_sources"]) == (2, 1, 1)
    assert counts(run) == {"added": 1, "modified": 0, "deleted": 1, "unchanged": 1, "failed": 0}
    assert names(user, collection) == ["a.txt", "b.txt", "d.txt"]
    sources = user.must("GET", f"/api/v2/collections/{collection}/sources")["items"]
    assert [s["last_run_status"] for s in sources] == ["failed", "success"] and "cannot be opened" in sources[0]["last_error"]
    assert user.show(collection)["sync_last_run_status"] == "partial"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be refused")
def test_what_lies_below_an_unreadable_directory_is_kept(user, stack, folder):
    """Root reads everything, so the directory is swapped for a link that is not followed, which hides it as well."""
    docs.write(folder, "open/a.txt", "Apples.\n")
    docs.write(folder, "shut/b.txt", "Barges.\n")
    collection = followed(user, folder)
    os.rename(os.path.join(folder, "shut"), os.path.join(stack.roots, "elsewhere"))
    os.symlink(os.path.join(stack.roots, "elsewhere"), os.path.join(folder, "shut"))
    os.remove(os.path.join(folder, "open/a.txt"))
    run = sync(user, collection)
    assert counts(run)["deleted"] == 1 and run["status"] == "partial" and counts(run)["failed"] == 1
    assert "b.txt" in names(user, collection) and "a.txt" not in names(user, collection)


def test_the_copy_of_a_deleted_file_takes_its_place(user, stack, folder):
    docs.write(folder, "a.txt", "The same words about lighthouses.\n")
    collection = followed(user, folder)
    docs.write(folder, "b.txt", "The same words about lighthouses.\n")
    assert counts(sync(user, collection))["added"] == 1
    os.remove(os.path.join(folder, "a.txt"))
    run = sync(user, collection)
    assert counts(run) == {"added": 0, "modified": 0, "deleted": 1, "unchanged": 1, "failed": 0}
    assert [r["file_name"] for r in user.search(collection, "lighthouses")["results"]] == ["b.txt"]
    rows_match(stack, collection)


def test_what_failed_for_good_is_read_again_only_when_it_changed(user, folder):
    docs.write(folder, "a.txt", "Apples.\n")
    docs.write(folder, "broken.pdf", b"%PDF-1.7\nthis is no pdf at all\n")
    collection = followed(user, folder)
    first = user.documents(collection)["broken.pdf"]
    assert first["status"] == "failed"
    run = sync(user, collection)
    assert run["status"] == "success" and counts(run) == {"added": 0, "modified": 0, "deleted": 0, "unchanged": 2, "failed": 0}
    docs.write(folder, "broken.pdf", b"%PDF-1.7\nneither is this\n")
    run = sync(user, collection)
    assert run["status"] == "partial" and counts(run)["failed"] == 1 and run["partial_sources"] == 1
    docs.write(folder, "broken.pdf", docs.pdf("A whole one about submarines."))
    run = sync(user, collection)
    assert run["status"] == "success" and counts(run)["modified"] == 1 and user.show(collection)["error_count"] == 0


def test_a_sync_that_is_cancelled_ends_its_run(stack, user, folder):
    docs.write_many(folder, 2)
    collection = followed(user, folder)
    stack.workers[0].stop()
    try:
        run = user.must("POST", f"/api/v2/collections/{collection}/sync/run", status=202)
        answer = user.ask("POST", f"/api/v2/collections/{collection}/sync/run")
        assert answer.status == 409 and run["operation_id"] in answer.json["detail"]
        assert user.show(collection)["sync_last_run_status"] == "running"
        user.must("DELETE", "/api/v2/operations/" + run["operation_id"])
        listed = user.must("GET", f"/api/v2/collections/{collection}/sync/runs")
        assert listed["total"] == 1 and listed["items"][0]["status"] == "failed" and listed["items"][0]["error_summary"] == "it was cancelled"
        assert user.show(collection)["sync_last_run_status"] == "failed" and user.show(collection)["status"] == "ready"
    finally:
        stack.workers[0].start()


def test_requests_that_make_no_sense_are_refused_with_what_to_do(stack, user, folder):
    stranger = Client.registered(stack.apis[0].url)
    once = user.collection()
    for what in ("run", "pause", "resume"):
        answer = user.ask("POST", f"/api/v2/collections/{once['id']}/sync/{what}")
        assert answer.status == 400 and "continuous" in answer.json["detail"]
    empty = user.collection(sync_mode="continuous", sync_interval_minutes=15)
    answer = user.ask("POST", f"/api/v2/collections/{empty['id']}/sync/run")
    assert answer.status == 409 and "no sources" in answer.json["detail"]
    for path in ("sync/run", "sync/pause", "sync/resume"):
        assert stranger.ask("POST", f"/api/v2/collections/{empty['id']}/{path}").status == 403
        assert user.ask("POST", f"/api/v2/collections/{uuid.uuid4()}/{path}").status == 404
    assert stranger.ask("GET", f"/api/v2/collections/{empty['id']}/sync/runs").status == 403
    for query in ("limit=0", "limit=101", "offset=-1", "offset=x"):
        assert user.ask("GET", f"/api/v2/collections/{empty['id']}/sync/runs?{query}").status == 422
    for body in ({"sync_interval_minutes": 14}, {"sync_mode": "hourly"}, {"sync_interval_minutes": "soon"}):
        assert user.ask("PUT", "/api/v2/collections/" + empty["id"], body).status == 422
    assert user.ask("PUT", "/api/v2/collections/" + once["id"], {"sync_mode": "continuous"}).status == 422
    assert user.ask("POST", "/api/v2/collections", {"name": "x" + uuid.uuid4().hex, "sync_mode": "continuous"}).status == 422
    assert user.show(once["id"])["sync_mode"] == "one_time" and user.must("GET", f"/api/v2/collections/{empty['id']}/sync/runs")["total"] == 0


def test_when_the_next_run_comes_follows_the_interval_pause_and_resume(stack, user):
    made = user.collection()
    assert made["sync_next_run_at"] is None
    path = "/api/v2/collections/" + made["id"]

    def minutes():
        return float(stack.sql_value(f"SELECT extract(epoch FROM sync_next_run_at - now()) / 60 FROM collections WHERE uuid = '{made['id']}'"))

    user.must("PUT", path, {"sync_mode": "continuous", "sync_interval_minutes": 30})
    assert 29 < minutes() <= 30
    user.must("PUT", path, {"sync_interval_minutes": 120})
    assert 119 < minutes() <= 120
    paused = user.must("POST", path + "/sync/pause")
    assert paused["sync_paused_at"] and paused["id"] == made["id"]
    assert user.must("POST", path + "/sync/pause")["sync_paused_at"] == paused["sync_paused_at"]
    resumed = user.must("POST", path + "/sync/resume")
    assert resumed["sync_paused_at"] is None and minutes() <= 0
    stopped = user.must("PUT", path, {"sync_mode": "one_time"})
    assert stopped["sync_next_run_at"] is None and stopped["sync_paused_at"] is None


@pytest.mark.parametrize("point", ["before_unseen_removed", "after_unseen_removed", "before_scan_commit", "after_scan_commit", "before_sync_noted",
                                   "before_document_commit", "end_written"])
def test_a_sync_that_is_killed_goes_on_and_counts_nothing_twice(killed, point):
    stack, user = killed
    folder = os.path.join(stack.roots, uuid.uuid4().hex)
    docs.write_many(folder, 5)
    collection = followed(user, folder)
    for i in (0, 1):
        os.remove(os.path.join(folder, f"part00/note0000{i}.txt"))
    docs.write(folder, "part00/note00002.txt", "Something about zeppelins.\n")
    docs.write(folder, "one.txt", "Hovercraft and eels.\n")
    with open(os.path.join(stack.dir, "faults", "faults"), "w", encoding="utf-8") as file:
        file.write(f"{point}:kill*1")
    run = user.must("POST", f"/api/v2/collections/{collection}/sync/run", status=202)
    assert len(user.wait_over(run["operation_id"])["attempts"]) == 2
    os.remove(os.path.join(stack.dir, "faults", "faults"))
    run = user.must("GET", f"/api/v2/collections/{collection}/sync/runs")["items"][0]
    assert run["status"] == "success" and counts(run) == {"added": 1, "modified": 1, "deleted": 2, "unchanged": 2, "failed": 0}
    assert names(user, collection) == ["note00002.txt", "note00003.txt", "note00004.txt", "one.txt"]
    rows_match(stack, collection)


@pytest.fixture(scope="module")
def killed():
    import tempfile
    faults = tempfile.mkdtemp(prefix="opstream-faults-")
    stack = Stack(apis=1, workers=0, has_faults=True, WORKER_LEASE_SECONDS=1, SYNC_DISPATCH_CRON="", FAULT_DIR=faults)
    os.symlink(faults, os.path.join(stack.dir, "faults"))
    stack.workers = [stack.add("worker")]
    yield stack, Client.registered(stack.apis[0].url)
    stack.close()
    shutil.rmtree(faults)


def test_due_collections_are_dispatched_and_busy_or_paused_ones_are_not(stack, user, folder):
    docs.write_many(folder, 1)
    due, paused, later = (followed(user, folder) for _ in range(3))
    stack.sql(f"UPDATE collections SET sync_next_run_at = now() - interval '1 hour' WHERE uuid IN ('{due}', '{paused}')")
    user.must("POST", f"/api/v2/collections/{paused}/sync/pause")
    out = run_scheduled(stack, "dispatch_syncs")
    assert out == (0, '{"dispatched":1,"busy":0,"limited":0,"failed":0}\n', "")
    run = user.must("GET", f"/api/v2/collections/{due}/sync/runs")["items"][0]
    assert run["triggered_by"] == "schedule"
    user.wait_over(run["operation_id"])
    assert run_scheduled(stack, "dispatch_syncs")[1] == '{"dispatched":0,"busy":0,"limited":0,"failed":0}\n'
    assert [user.must("GET", f"/api/v2/collections/{c}/sync/runs")["total"] for c in (paused, later)] == [0, 0]
    user.must("POST", f"/api/v2/collections/{paused}/sync/resume")
    assert run_scheduled(stack, "dispatch_syncs")[1] == '{"dispatched":1,"busy":0,"limited":0,"failed":0}\n'
    wait_for("the resumed one", lambda: user.must("GET", f"/api/v2/collections/{paused}/sync/runs")["items"][0]["status"] == "success")


def test_a_user_who_runs_as_much_as_he_may_is_not_synchronised_meanwhile(stack, user, folder):
    docs.write_many(folder, 1)
    due = followed(user, folder)
    stack.sql("INSERT INTO resource_limits (user_id, max_operations) VALUES (:v1, 0)", user.must("GET", "/api/auth/me")["id"])
    try:
        stack.sql("UPDATE collections SET sync_next_run_at = now() - interval '1 hour' WHERE uuid = :'v1'", due)
        assert run_scheduled(stack, "dispatch_syncs")[1] == '{"dispatched":0,"busy":0,"limited":1,"failed":0}\n'
        assert user.must("GET", f"/api/v2/collections/{due}/sync/runs")["total"] == 0 and user.must("GET", f"/api/v2/collections/{due}")["status"] == "ready"
    finally:
        stack.sql("DELETE FROM resource_limits")
    assert run_scheduled(stack, "dispatch_syncs")[1] == '{"dispatched":0,"busy":0,"limited":0,"failed":0}\n', "it makes room for others for a minute"
    stack.sql("UPDATE collections SET sync_next_run_at = now() - interval '1 hour' WHERE uuid = :'v1'", due)
    assert run_scheduled(stack, "dispatch_syncs")[1] == '{"dispatched":1,"busy":0,"limited":0,"failed":0}\n'


def run_scheduled(stack, name):
    import subprocess
    done = subprocess.run([Stack.program("worker", stack.bin), "--run-scheduled", name], env={**stack.env, "LOG_LEVEL": "error"}, capture_output=True, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr
