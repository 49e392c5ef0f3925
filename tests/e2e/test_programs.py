"""What a person sees of the programs themselves: help, version, the pages made from the tables, wrong settings."""
import json
import os
import subprocess

import pytest
from support.stack import ROOT, Stack


def run(kind, *arguments, **settings):
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **settings}
    return subprocess.run([Stack.program(kind), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_page_of_settings_is_up_to_date():
    with open(os.path.join(ROOT, "docs", "settings.md")) as file:
        assert run("api", "--settings-markdown").stdout == file.read(), "build/bin/opstream-api --settings-markdown >docs/settings.md"


@pytest.mark.parametrize("kind, name", [("api", "API_PORT"), ("worker", "WORKER_CONCURRENCY")])
def test_help_names_the_settings_and_needs_none(kind, name):
    out = run(kind, "--help")
    assert out.returncode == 0 and f"\n  {name}" in out.stdout and out.stderr == ""


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_ordinary_builds_have_no_fault_points(kind):
    with open(Stack.program(kind), "rb") as file:
        assert b"after_final_before_announce" not in file.read()


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_both_programs_tell_the_same_version(kind):
    assert run(kind, "--version").stdout.split()[1:] == run("api", "--version").stdout.split()[1:]


def test_the_openapi_document_is_json_and_names_the_main_paths():
    document = json.loads(run("api", "--openapi").stdout)
    for path in ("/api/v2/collections", "/api/v2/operations/{id}", "/api/v2/search"):
        assert any(p.replace("{operation_id}", "{id}") == path for p in document["paths"]), path


@pytest.mark.parametrize("kind, settings, words", [
    ("api", {}, ["JWT_SECRET_KEY"]),
    ("api", {"JWT_SECRET_KEY": "short"}, ["JWT_SECRET_KEY", "32"]),
    ("api", {"JWT_SECRET_KEY": "x" * 40, "API_PORT": "eighty", "LOG_LEVEL": "loud"}, ["API_PORT", "eighty", "LOG_LEVEL", "loud"]),
    ("worker", {"WORKER_CONCURRENCY": "0"}, ["WORKER_CONCURRENCY"]),
])
def test_wrong_settings_are_all_named_and_nothing_starts(kind, settings, words):
    out = run(kind, **settings)
    assert out.returncode not in (0, -11)
    for word in words:
        assert word in out.stderr
    assert "x" * 40 not in out.stderr, "a secret is never repeated"


def test_an_unknown_option_is_refused():
    for kind in ("api", "worker"):
        assert run(kind, "--dance", JWT_SECRET_KEY="x" * 40).returncode not in (0, -11)


def test_every_test_named_in_the_documentation_exists():
    import re
    with open(os.path.join(ROOT, "docs", "tests.md")) as file:
        rows = [line.split("|")[2] for line in file if line.startswith("| ") and not line.startswith(("| original", "| what"))]
    named = 0
    for row in rows:
        for part in re.findall(r"`(test_\w+\.(?:py|c))`: ((?:`\w+`(?:, )?)+)", row):
            folder = next(f for f in ("unit", "store", "e2e") if os.path.exists(os.path.join(ROOT, "tests", f, part[0])))
            with open(os.path.join(ROOT, "tests", folder, part[0])) as file:
                text = file.read()
            for name in re.findall(r"`(\w+)`", part[1]):
                named += 1
                assert re.search(rf"\b{name}\b", text), f"{part[0]} has no {name}"
    assert named >= len(rows)
