"""docs/adding-an-operation.md, followed word by word in a copy of the sources."""
import json
import os
import re
import shutil
import subprocess

import pytest
from support import stack as programs
from support.client import LAST, Client
from support.stack import ROOT, Stack

PAGE = os.path.join(ROOT, "docs/adding-an-operation.md")
COPIED = ("Makefile", "mk", "api", "common", "sql", "worker", "scripts", "tests", "build/plain", "build/bin", "build/queries.h", "build/migrations.h")


def blocks():
    """(what to do, the file, the text) of each block that changes a file; and the JSON blocks."""
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    changes = re.findall(r"^(Append to|Create) `([^`]+)`:\n\n```c\n(.*?)^```$", page, re.M | re.S)
    answers = re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)
    assert len(changes) == page.count("```c\n") and len(answers) == 2
    return changes, [json.loads(a) for a in answers]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy with what was built already, so that only what the page changes is built."""
    copy = str(tmp_path_factory.mktemp("copy"))
    for name in COPIED:
        source, target = os.path.join(ROOT, name), os.path.join(copy, name)
        if not os.path.exists(source):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        subprocess.run(["cp", "-a", source, target], check=True)
    for what, path, text in blocks()[0]:
        target = os.path.join(copy, path)
        assert os.path.exists(target) == (what == "Append to"), path
        with open(target, "a" if what == "Append to" else "w", encoding="utf-8") as file:
            file.write(text)
    # Without optimisation: what is tried is that it builds and runs.
    out = subprocess.run(["make", "-s", "-j2", "all", "HARDEN=-O0"], cwd=copy, capture_output=True, text=True, timeout=600, check=False)
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    yield copy
    shutil.rmtree(copy, ignore_errors=True)


@pytest.fixture(scope="module")
def stack(built):
    patch = pytest.MonkeyPatch()
    patch.setattr(programs, "BIN", os.path.join(built, "build/bin"))
    made = Stack(apis=1, workers=1)
    patch.undo()
    yield made
    made.close()


@pytest.fixture(scope="module")
def me(stack):
    return Client.registered(stack.apis[0].url)


def test_the_pages_operation_is_accepted_watched_and_completed(stack, me):
    request, result = blocks()[1]
    collection = me.collection()
    watch = me.watch("/ws/operations")
    operation = me.must("POST", f"/api/v2/collections/{collection['id']}/operations", request, status=202)
    assert operation["type"] == request["type"] and operation["status"] == "pending" and operation["config"] == request["config"]
    last = watch.wait_type(*LAST, operation=operation["id"])
    assert last["type"] == "operation_completed" and last["data"]["result"] == result, last
    kinds = [e["type"] for e in watch.events(operation["id"])]
    assert kinds[0] == "operation_started" and "counting" in kinds
    shown = me.operation(operation["id"])
    assert shown["status"] == "completed" and shown["progress"] == 100
    listed = me.must("GET", f"/api/v2/operations?operation_type={request['type']}")["operations"]
    assert [o["id"] for o in listed] == [operation["id"]]
    assert me.show(collection["id"])["status"] == "ready"


def test_it_is_cancelled_tried_again_and_refused_as_all_types_are(stack, me):
    kind = blocks()[1][0]["type"]
    collection = me.collection()
    path = f"/api/v2/collections/{collection['id']}/operations"
    watch = me.watch("/ws/operations")
    running = me.must("POST", path, {"type": kind, "config": {"from": 1000, "step_ms": 100}}, status=202)
    watch.wait_type("counting", operation=running["id"])
    assert me.ask("DELETE", "/api/v2/operations/" + running["id"]).status == 200
    assert watch.wait_type(*LAST, operation=running["id"])["type"] == "operation_cancelled"
    bad = me.must("POST", path, {"type": kind, "config": {"from": 0}}, status=202)
    assert "from must be a number" in me.wait_over(bad["id"], "failed")["error_message"]
    stranger = Client.registered(me.url)
    for client, body, status in ((stranger, {"type": kind}, 403), (me, {"type": "append"}, 400), (me, {"type": "delete"}, 400), (me, {"type": "sideways"}, 400), (me, {}, 422),
                                 (me, {"type": kind, "config": "x"}, 422)):
        answer = client.ask("POST", path, body)
        assert answer.status == status, answer
        if status == 400:
            assert kind in answer.json["detail"], "the sentence names what can be started"
    assert me.wait_over(me.must("POST", path, {"type": kind}, status=202)["id"])["status"] == "completed"
