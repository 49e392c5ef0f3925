"""The JavaScript client (api/clients) in a real Chromium, against real API instances."""
import pytest
from support.browser import Browser
from support.js import ApiGate, Pages, Watching
from support.stack import Stack
from test_websockets import Operation, Publisher, User


@pytest.fixture(scope="module")
def pages():
    made = Pages()
    yield made
    made.close()


@pytest.fixture(scope="module")
def stack(pages):
    made = Stack(apis=2, workers=0, CORS_ORIGINS=pages.url, DRAIN_SECONDS=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser():
    with Browser() as made:
        yield made


@pytest.fixture(scope="module")
def publish(stack):
    made = Publisher(stack)
    yield made
    made.close()


@pytest.fixture
def page(browser, pages):
    made = browser.page(pages.url + "/")
    yield made
    made.close()


@pytest.fixture
def gate(stack):
    made = ApiGate(stack.apis[0])
    yield made
    made.shut()


@pytest.fixture
def user(stack):
    return User(stack)


@pytest.fixture
def operation(stack, user):
    return Operation(stack, user)


def test_state_history_and_live_events_arrive_in_order_until_the_last_one(page, gate, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    watching = Watching(page, gate.url, user.token, operation).until_count(3).until_state("live")
    ids += [publish(operation, "document_processed", data={"n": n}) for n in range(3, 6)]
    ids.append(publish(operation, "operation_completed", status="completed", data={"status": "completed"}))
    watching.until_state("closed")
    assert watching.ids == ids
    assert watching.events[0]["type"] == "current_state"
    assert watching.states == ["connecting", "live", "closed"]
    assert watching.get("got.ends.map((e) => e.id)") == ids[-1:]
    assert watching.errors == [] and page.errors == []
