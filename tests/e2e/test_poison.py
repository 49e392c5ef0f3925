"""Documents and texts that kill those who work on them are found and set aside; everything else goes on."""
import contextlib
import json
import os
import secrets
import signal
import urllib.request

from support import documents as docs
from support.client import LAST, Client
from support.stack import wait_for
from test_failures import children_of
from test_main_job import assert_nothing_doubled

MANY = 60


def folder_of(stack, count=MANY, deadly=()):
    """Letters, none like another, and such as kill whoever reads them."""
    folder = os.path.join(stack.roots, secrets.token_hex(4))
    for i in range(count):
        docs.write(folder, f"letter-{i:03}.txt", f"Letter {i}, on paper {secrets.token_hex(8)}. " + list(docs.STORIES.values())[i % len(docs.STORIES)])
    for name in deadly:
        docs.write(folder, name, f"This one is deadly: {secrets.token_hex(8)}.")
    return folder


def rows_of(stack, collection, columns, where="true"):
    return stack.sql(f"SELECT {columns} FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1' AND {where} ORDER BY d.id", collection)


def ends_of(stack, operation):
    return [row[0] for row in stack.sql("SELECT a ->> 'ended' FROM operations, jsonb_array_elements(meta -> 'attempts') a WHERE uuid = :'v1'", operation)]


def test_a_document_that_kills_is_set_aside_and_the_rest_goes_on(make_stack):
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT="mid_document:kill@poison")
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    watch = user.watch("/ws/operations")
    folder = folder_of(stack, deadly=["poison.txt"])
    operation = user.add_source(collection, folder)["id"]
    last = watch.wait_type(*LAST, operation=operation)
    assert last["type"] == "operation_completed", last
    assert ends_of(stack, operation) == ["crash", "crash", "crash", "completed"], "with others, alone, alone, set aside"
    assert_nothing_doubled(stack, collection, MANY)
    (name, reason, category), = rows_of(stack, collection, "file_name, d.error_message, error_category", "d.status = 'failed'")
    assert name == "poison.txt" and "set aside" in reason and "signal 9" in reason and category == "permanent"
    assert (last["data"]["processed"], last["data"]["failed"], last["data"]["total"]) == (MANY + 1, 1, MANY + 1)
    shown = user.operation(operation)
    assert shown["error_message"] is None and shown["progress"] == 100
    told = [e for e in watch.events(operation) if e["type"] == "document_processed" and e["data"].get("error")]
    assert [e["data"]["current_document"] for e in told] == ["poison.txt"]
    assert user.show(collection)["status"] == "ready"
    # Read again, it is left alone as long as it is the same file, and tried when it is another.
    again = user.index(collection, folder)
    assert ends_of(stack, again["id"]) == ["completed"]
    docs.write(folder, "poison.txt", "It is harmless now, and the fault does not know it: it goes by the name.")
    third = user.index(collection, folder)
    assert ends_of(stack, third["id"]) == ["crash", "crash", "completed"], "alone from the first time on"
    assert not stack.sql("SELECT 1 FROM in_hand")


def test_several_documents_that_kill_are_all_found(make_stack):
    stack = make_stack(apis=1, workers=2, has_faults=True, FAULT="mid_document:kill@poison")
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, deadly=["a-poison.txt", "m-poison.txt", "z-poison.txt"]))["id"]
    user.wait_over(operation)
    assert_nothing_doubled(stack, collection, MANY)
    failed = rows_of(stack, collection, "file_name", "d.status = 'failed'")
    assert [name for name, in failed] == ["a-poison.txt", "m-poison.txt", "z-poison.txt"] or sorted(failed) == [["a-poison.txt"], ["m-poison.txt"], ["z-poison.txt"]]


def test_a_document_that_hangs_its_reader_is_set_aside(make_stack):
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT="mid_document:stop@poison", CHILD_SILENCE_SECONDS=2)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, 10, deadly=["poison.txt"]))["id"]
    user.wait_over(operation)
    assert ends_of(stack, operation) == ["silent", "silent", "silent", "completed"]
    (reason,), = rows_of(stack, collection, "d.error_message", "d.status = 'failed'")
    assert "no sign of life" in reason


def test_losing_whole_workers_sets_no_document_aside(make_stack):
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT="before_document_commit:sleep=1500")
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    operation = user.add_source(collection, folder_of(stack, 12))["id"]
    for _ in range(3):
        wait_for("documents in hand", lambda: stack.sql("SELECT 1 FROM in_hand h JOIN operations o ON o.task_id = h.task_id WHERE o.status = 'processing'"))
        stack.workers[-1].kill()
        stack.add("worker")
        wait_for("the next attempt", lambda: user.operation(operation)["status"] in ("pending", "processing"))
        wait_for("the sweep", lambda: "lease_lapsed" in (ends_of(stack, operation) or [""])[-2:])
        if int(stack.sql_value("SELECT failures FROM operations WHERE uuid = :'v1'", operation)) >= 2:
            break
    user.wait_over(operation)
    assert not rows_of(stack, collection, "file_name", "d.status = 'failed'")
    assert_nothing_doubled(stack, collection, 12)


def test_counts_are_the_operations_and_not_the_attempts(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    watch = user.watch("/ws/operations")
    folder = folder_of(stack, 150)
    docs.write(folder, "bad.txt", b"\x7fELF" + bytes(range(200)))
    operation = user.add_source(collection, folder)["id"]
    watch.wait("some documents", lambda f: f.get("type") == "document_processed" and f["data"]["processed"] >= 5)
    for pid in children_of(stack.workers[0].pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
            if b"--child" in command.read().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
    last = watch.wait_type(*LAST, operation=operation)
    assert last["type"] == "operation_completed" and ends_of(stack, operation) == ["crash", "completed"]
    assert (last["data"]["processed"], last["data"]["failed"], last["data"]["total"]) == (151, 1, 151)
    counts = [e["data"]["processed"] for e in watch.events(operation) if e["type"] == "document_processed"]
    assert counts == sorted(counts), "the count never goes back"
    assert_nothing_doubled(stack, collection, 150)


def ids_of(stack, word):
    """The model's token ids of a word, as the fault's subject has them."""
    answer = post(stack.workers[0].url + "/internal/tokenize", stack.env["INTERNAL_API_KEY"], {"texts": [word]})
    return "".join(f" {i} " for i in (answer.get("ids") or answer["tokens"])[0][1:-1])


def post(url, key, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", "X-Internal-Api-Key": key})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_text_that_kills_the_embedder_fails_its_document_alone(make_stack):
    plain = make_stack(apis=1, workers=1)
    ids = ids_of(plain, "zyzzyva")
    stack = make_stack(apis=1, workers=1, has_faults=True, FAULT=f"embed_batch:kill@{ids}")
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()["id"]
    folder = folder_of(stack)
    docs.write(folder, "deadly.txt", f"The zyzzyva is a tropical weevil. {secrets.token_hex(8)}")
    operation = user.add_source(collection, folder)["id"]
    user.wait_over(operation)
    assert ends_of(stack, operation) == ["completed"], "the embedder died, not the attempt"
    (name, reason), = rows_of(stack, collection, "file_name, d.error_message", "d.status = 'failed'")
    assert name == "deadly.txt" and "embedder died twice" in reason
    assert_nothing_doubled(stack, collection, MANY)
    # A question of that kind is refused, and others are answered.
    answer = wait_for("an answer to the deadly question", lambda: (a := user.ask("POST", "/api/v2/search", {"query": "zyzzyva", "collection_uuids": [collection]})).status != 503 and a)
    assert answer.status == 400 and "embedder died twice" in answer.json["detail"], answer
    assert user.search(collection, "How do ships find their way at night?")["results"]
