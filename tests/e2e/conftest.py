"""Fixtures of the end-to-end tests. Run them with: make test, or scripts/with-services.sh python3 -m pytest tests/e2e"""
import os
import sys
import uuid

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from support.client import Client  # noqa: E402
from support.stack import Stack  # noqa: E402


def pytest_collection_modifyitems(items):
    if items and not (os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL")):
        raise pytest.UsageError("no DATABASE_URL and REDIS_URL: run it by scripts/with-services.sh")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The end of every program's log belongs to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and report.when in ("setup", "call"):
        for stack in Stack.running:
            for name, tail in stack.logs():
                report.sections.append((f"log of {name}", tail))


@pytest.fixture
def make_stack():
    """Starts a stack of its own for one test: make_stack(apis=2, workers=1, SETTING=value)."""
    made = []

    def make(**options):
        made.append(Stack(**options))
        return made[-1]

    yield make
    for stack in made:
        stack.close()


@pytest.fixture(scope="module")
def stack():
    """Two API instances and one worker, shared by the tests of a module."""
    made = Stack(apis=2, workers=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def user(stack):
    return Client.registered(stack.apis[0].url)


@pytest.fixture
def folder(stack):
    """An empty one below the stack's roots."""
    path = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(path)
    return path
