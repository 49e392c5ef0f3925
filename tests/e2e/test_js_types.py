"""The types of the JavaScript client, by the TypeScript compiler of Debian's package."""
import json
import os
import re
import shutil
import subprocess

import pytest
from support import documents as docs
from support.client import Client
from support.stack import ROOT, Stack

FOLDER = os.path.join(ROOT, "tests/types")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """As a user has it: the package below node_modules, found by its exports."""
    made = tmp_path_factory.mktemp("types")
    shutil.copytree(os.path.join(ROOT, "api/clients"), made / "node_modules/@opstream/client")
    (made / "package.json").write_text('{"type": "module"}')
    return made


def compiled(project, *files):
    for name in files:
        if os.path.exists(os.path.join(FOLDER, name)):
            shutil.copy(os.path.join(FOLDER, name), project)
    out = subprocess.run(["tsc", "--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable", "--module", "node16", "--moduleResolution", "node16",
                          *files], cwd=project, capture_output=True, text=True, check=False)
    return sorted({int(line) for line in re.findall(r"^\w+\.ts\((\d+),", out.stdout, re.M)}), out.stdout


def test_what_the_examples_do_compiles(project):
    assert compiled(project, "valid.ts") == ([], "")


def test_mistakes_do_not_compile(project):
    with open(os.path.join(FOLDER, "invalid.ts"), encoding="utf-8") as file:
        wrong = [number for number, line in enumerate(file, 1) if "// wrong" in line]
    lines, out = compiled(project, "invalid.ts")
    assert lines == wrong, out


def test_every_type_of_event_that_is_sent_has_a_type():
    """What the code publishes, against the names of opstream.d.ts."""
    sent = set()
    for folder in ("worker", "worker/tasks"):
        for name in os.listdir(os.path.join(ROOT, folder)):
            if name.endswith(".c"):
                with open(os.path.join(ROOT, folder, name), encoding="utf-8") as file:
                    text = file.read()
                for call in (r'task_event\([^";{]*"([a-z_]+)"', r'event_of\(task, "([a-z_]+)"', r'last_stage = "([a-z_]+)"', r'ingest_run\([^";{]*"([a-z_]+)"'):
                    sent |= set(re.findall(call, text))
    with open(os.path.join(ROOT, "api/clients/opstream.d.ts"), encoding="utf-8") as file:
        known = set(re.findall(r"^    ([a-z_]+): \w+Data;", file.read(), re.M))
    assert len(sent) > 15 and {"operation_started", "append_completed", "reindex_completed"} <= sent
    assert sent <= known, sent - known


def test_events_of_real_operations_have_the_types(project):
    """As literals, in which a member too many is an error as well as one that lacks."""
    stack = Stack(apis=1, workers=1)
    try:
        user = Client.registered(stack.apis[0].url)
        watch = user.watch("/ws/operations?last_id=")
        folder = os.path.join(stack.roots, "mixed")
        os.mkdir(folder)
        docs.write(folder, "bees.txt", docs.STORIES["bees"])
        docs.write(folder, "chess.txt", docs.STORIES["chess"])
        docs.write(folder, "broken.pdf", b"%PDF-1.7\nthis is no pdf at all\n")
        collection = user.collection()["id"]
        path = "/api/v2/collections/" + collection
        done = user.index(collection, folder)
        user.wait_over(user.must("POST", path + "/reindex", {"chunk_size": 120, "chunk_overlap": 0}, status=202)["id"])
        user.wait_over(user.must("POST", path + "/projections", {"method": "pca"}, status=202)["operation_id"])
        user.wait_over(user.must("DELETE", f"{path}/sources?source_path={folder}", status=202)["id"])
        failed = user.add_source(collection, folder)
        user.must("DELETE", "/api/v2/operations/" + failed["id"])
        user.wait_over(failed["id"], "cancelled")
        state = user.watch(f"/ws/operations/{done['id']}?last_id=")
        state.wait_type("operation_completed")
        removed = user.ask("DELETE", path).headers["X-Operation-ID"]
        watch.wait_type("operation_completed", operation=removed)
        told = [f for f in watch.frames + state.frames if f["type"] != "ping"]
        watch.close()
        state.close()
    finally:
        stack.close()
    kinds = {f["type"] for f in told}
    assert {"current_state", "document_processed", "validation_complete", "removing_documents", "operation_cancelled", "projection_build_completed"} <= kinds, kinds
    unique = {json.dumps([f["type"], sorted(f["data"])]): f for f in told}
    with open(project / "real.ts", "w", encoding="utf-8") as file:
        file.write('import type { OperationEvent } from "@opstream/client";\n')
        for number, frame in enumerate(unique.values()):
            file.write(f"export const event{number}: OperationEvent = {json.dumps(frame)};\n")
    assert compiled(project, "real.ts") == ([], "")
