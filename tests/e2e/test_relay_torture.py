"""The relay's promise under everything that may go wrong: what a client gets has no hole that it is not told of, nothing twice, all in order."""
import json
import time

import pytest
from support.servers import Redis
from support.stack import Stack, wait_for
from test_websockets import Operation, Publisher, User, numbers, probe

KIND = "index_stage"  # changes a state: never coalesced


class Subscriptions:
    """Holds back or cuts what an instance subscribes to, and nothing else of what it asks Redis."""

    def __init__(self, gate):
        self.gate, self.pairs, self.is_cut, self.held = gate, set(), False, None
        gate._may_pass = self._may_pass

    def _may_pass(self, data, source, pair):
        if b"SUBSCRIBE" not in data:
            return True
        self.pairs.add(pair)
        if self.held and self.held in data:
            wait_for("the subscription to be let through", lambda: not self.held, seconds=60)
        return not self.is_cut

    def cut(self):
        self.is_cut = True
        for client, server in self.pairs:
            for one in (client, server):
                try:
                    one.shutdown(2)
                except OSError:
                    pass
        self.pairs = set()


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=0, WS_MAX_CONNECTIONS_PER_USER=1000)
    yield made
    made.close()


@pytest.fixture
def api(stack):
    return stack.apis[0]


@pytest.fixture(scope="module")
def publish(stack):
    made = Publisher(stack)
    yield made
    made.close()


@pytest.fixture
def user(stack):
    return User(stack)


@pytest.fixture
def operation(stack, user):
    return Operation(stack, user)


def is_degraded(api):
    return json.loads(api.readiness()[1])["degraded"]


def wait_subscribed(api):
    wait_for("the subscription to be back", lambda: not is_degraded(api), seconds=60)


# --- the subscription is not there yet

def test_what_is_published_before_the_subscription_reaches_a_client_that_opened_without_it(make_stack):
    stack = make_stack(apis=1, workers=0)
    api, user, publish, subscriptions = stack.apis[0], User(stack), Publisher(stack), Subscriptions(stack.redis)
    operation = Operation(stack, user)
    stack.redis.shut()
    stack.redis.open()
    wait_subscribed(api)
    subscriptions.cut()
    wait_for("the API to notice", lambda: is_degraded(api), seconds=60)
    publish(operation, KIND, data={"n": 0})
    ws = user.open(api, operation.path)
    assert ws.next()["type"] == "current_state" and numbers([ws.next()]) == [0], "the history is there without a subscription"
    for n in range(1, 4):
        publish(operation, KIND, data={"n": n})
    subscriptions.is_cut = False
    wait_subscribed(api)
    late = user.open(api, operation.path)  # its channel is subscribed after that of the first
    late.until(KIND)
    for n in range(4, 7):
        publish(operation, KIND, data={"n": n})
    assert numbers([ws.next() for _ in range(6)]) == [1, 2, 3, 4, 5, 6]
    publish.close()


def test_a_client_is_live_only_when_its_own_channel_is_subscribed(make_stack):
    stack = make_stack(apis=1, workers=0)
    api, user, publish, subscriptions = stack.apis[0], User(stack), Publisher(stack), Subscriptions(stack.redis)
    operation = Operation(stack, user)
    ids = [publish(operation, KIND, data={"n": n}) for n in range(2)]
    everyone, one = user.open(api), user.open(api, operation.path)
    probe(everyone)
    assert numbers([one.next() for _ in range(3)][1:]) == [0, 1]
    subscriptions.held = b"operation:" + operation.id.encode()
    stack.redis.shut()
    wait_for("the API to notice", lambda: is_degraded(api), seconds=60)
    stack.redis.open()
    wait_subscribed(api)
    one.say({"type": "resume", "last_id": ids[1]})  # asks for a page at once
    probe(one)
    time.sleep(0.5)  # the page, if it is asked for, is read by now
    for n in range(2, 5):
        publish(operation, KIND, data={"n": n})
    subscriptions.held = None
    assert numbers([everyone.next() for _ in range(3)]) == [2, 3, 4]
    publish(operation, KIND, data={"n": 5})
    assert numbers([one.next() for _ in range(4)]) == [2, 3, 4, 5]
    publish.close()
