"""The types of the JavaScript client, by the TypeScript compiler of Debian's package."""
import os
import re
import shutil
import subprocess

import pytest
from support.stack import ROOT

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
