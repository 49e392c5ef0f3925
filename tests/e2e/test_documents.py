"""Documents over REST, the API alone: lists, one, its file."""
import os

import pytest

from support import rows
from support.client import Client
from support.stack import Stack

FIELDS = {"id", "collection_id", "file_name", "file_path", "file_size", "mime_type", "content_hash", "status", "error_message", "chunk_count", "retry_count",
          "last_retry_at", "error_category", "metadata", "created_at", "updated_at"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def api():
    made = Stack(apis=1, workers=0)
    yield made
    made.close()


@pytest.fixture
def me(api):
    return Client.registered(api.apis[0].url)


def write(api, name, content):
    path = os.path.join(api.roots, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def test_documents_are_listed_in_pages_and_filtered(api, me):
    made = rows.ready_collection(api, me)
    ids = [rows.add_document(api, made["id"], f"/x/{i}.txt") for i in range(3)]
    failed = rows.add_document(api, made["id"], "/x/f.txt", "failed", "transient")
    rows.add_document(api, made["id"], "/x/d.txt", "deleted")
    path = f"/api/v2/collections/{made['id']}/documents"
    listed = me.must("GET", path + "?page=1&limit=50")
    assert set(listed) == {"documents", "total", "page", "per_page"} and listed["total"] == 4
    assert [d["id"] for d in listed["documents"]] == ids + [failed] and set(listed["documents"][0]) == FIELDS
    assert [d["id"] for d in me.must("GET", path + "?per_page=2&page=2")["documents"]] == [ids[2], failed]
    assert [d["id"] for d in me.must("GET", path + "?status=failed")["documents"]] == [failed]
    assert me.must("GET", path + "?status=failed,deleted")["total"] == 2
    answer = me.ask("GET", path + "?status=lost")
    assert answer.status == 400 and "completed" in answer.json["detail"]
    assert me.ask("GET", path + "?page=x").status == 422


def test_one_document_belongs_to_one_collection(api, me):
    made, another = rows.ready_collection(api, me), rows.ready_collection(api, me)
    document = rows.add_document(api, made["id"], "/x/a.txt")
    shown = me.must("GET", f"/api/v2/collections/{made['id']}/documents/{document}")
    assert set(shown) == FIELDS and shown["id"] == document and shown["collection_id"] == made["id"] and shown["file_name"] == "a.txt"
    for rest in ("", "/content"):
        assert me.ask("GET", f"/api/v2/collections/{another['id']}/documents/{document}{rest}").status == 403
        assert me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{NOBODY}{rest}").status == 404
        assert me.ask("GET", f"/api/v2/collections/{made['id']}/documents/7{rest}").status == 404


def test_a_documents_file_comes_as_it_is(api, me):
    made = rows.ready_collection(api, me)
    content = bytes(range(256)) * 1000
    document = rows.add_document(api, made["id"], write(api, "naïve \"name\".bin", content), mime="")
    answer = me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{document}/content")
    assert answer.status == 200 and answer.raw == content
    assert answer.headers["Content-Type"] == "application/octet-stream" and answer.headers["Cache-Control"] == "private, max-age=3600"
    assert answer.headers["Content-Disposition"] == "inline; filename*=UTF-8''na%C3%AFve%20%22name%22.bin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    document = rows.add_document(api, made["id"], write(api, "a.md", b"# a"), mime="text/markdown")
    answer = me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{document}/content")
    assert answer.headers["Content-Type"].startswith("text/markdown") and answer.raw == b"# a"
    empty = rows.add_document(api, made["id"], write(api, "empty", b""))
    answer = me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{empty}/content")
    assert answer.status == 200 and answer.raw == b""
    injected = rows.add_document(api, made["id"], write(api, "b.md", b"b"), mime="text/html\r\nX-Evil: 1")
    answer = me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{injected}/content")
    assert answer.headers["Content-Type"] == "application/octet-stream" and "X-Evil" not in answer.headers


def test_files_that_may_not_or_cannot_be_read_say_why(api, me):
    made = rows.ready_collection(api, me)
    os.mkfifo(os.path.join(api.roots, "fifo"))
    os.makedirs(os.path.join(api.roots, "folder"), exist_ok=True)
    os.symlink("/etc/passwd", os.path.join(api.roots, "link"))
    for path, status in (("/etc/passwd", 403), (api.roots + "/link", 403), (api.roots + "/gone", 404), (api.roots + "/fifo", 400), (api.roots + "/folder", 400),
                         (api.roots + "/../../etc/passwd", 403)):
        document = rows.add_document(api, made["id"], path)
        answer = me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{document}/content")
        assert answer.status == status, (path, answer)
        assert "passwd" not in answer.json["detail"]


def test_public_documents_are_for_everyone_and_private_ones_are_not(api, me):
    stranger = Client.registered(api.apis[0].url)
    for is_public, status in ((True, 200), (False, 403)):
        made = rows.ready_collection(api, me, is_public=is_public)
        document = rows.add_document(api, made["id"], write(api, "p.txt", b"p"))
        for rest in ("", f"/{document}", f"/{document}/content"):
            assert stranger.ask("GET", f"/api/v2/collections/{made['id']}/documents{rest}").status == status
        assert stranger.ask("POST", f"/api/v2/collections/{made['id']}/documents/{document}/retry").status == 403
        assert Client(me.url).ask("GET", f"/api/v2/collections/{made['id']}/documents/{document}/content").status == 401


def test_failed_documents_are_counted_by_what_a_retry_may_do(api, me):
    made = rows.ready_collection(api, me)
    for i, category in enumerate(["transient", "permanent", "permanent", "unknown", ""]):
        rows.add_document(api, made["id"], f"/x/{i}", "failed", category)
    rows.add_document(api, made["id"], "/x/good")
    path = f"/api/v2/collections/{made['id']}/documents/failed/count"
    assert me.must("GET", path) == {"transient": 1, "permanent": 2, "unknown": 2, "total": 5}
    assert me.must("GET", path + "?retryable_only=true") == {"transient": 1, "permanent": 0, "unknown": 2, "total": 3}


def test_only_failed_documents_can_be_retried(api, me):
    made = rows.ready_collection(api, me)
    good, bad = rows.add_document(api, made["id"], "/x/good"), rows.add_document(api, made["id"], "/x/bad", "failed", "transient")
    answer = me.ask("POST", f"/api/v2/collections/{made['id']}/documents/{good}/retry")
    assert answer.status == 400 and answer.json["detail"] == "Only failed documents can be retried"
    again = me.ask("POST", f"/api/v2/collections/{made['id']}/documents/{bad}/retry")
    assert again.status == 200 and again.json["id"] == bad and again.json["status"] == "pending"
    busy = me.ask("POST", f"/api/v2/collections/{made['id']}/documents/retry-failed")
    assert busy.status == 409 and again.headers["X-Operation-ID"] in busy.json["detail"]
