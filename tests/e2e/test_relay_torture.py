"""The relay's promise under everything that may go wrong: what a client gets has no hole that it is not told of, nothing twice, all in order."""
import contextlib
import json
import os
import random
import subprocess
import tempfile
import threading
import time

import pytest
from support.stack import ROOT, Stack, wait_for
from support.ws import TEXT, frame
from test_websockets import PUBLISH, Operation, Publisher, User, numbers, probe

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


# --- gaps that are told

def key(stack, operation):
    return stack.env["REDIS_PREFIX"] + "operation-progress:" + operation.id


def expire(stack, operation):
    """As a day without events would."""
    stack.redis_cli("DEL", key(stack, operation), key(stack, operation) + ":meta", f"{stack.env['REDIS_PREFIX']}user-progress:{operation.user.id}")


def types(ws, count):
    return [ws.next()["type"] for _ in range(count)]


TOLD = ["history_truncated", "current_state"]


@pytest.mark.parametrize("how", ["expired", "trimmed"])
def test_a_stream_that_goes_between_two_pages_is_told(make_stack, tmp_path, how):
    stack = make_stack(apis=1, workers=0, has_faults=True, FAULT_DIR=str(tmp_path))
    api, user, publish = stack.apis[0], User(stack), Publisher(stack)
    operation = Operation(stack, user)
    for n in range(450):
        publish(operation, KIND, data={"n": n})
    (tmp_path / "faults").write_text("before_history:sleep=3000")
    ws = user.open(api, operation.path)
    frames = [ws.next()]  # the first page was read by the time its frames come; the second is asked for and waits
    frames += [ws.next() for _ in range(200)]
    if how == "expired":
        expire(stack, operation)
    else:
        stack.redis_cli("XTRIM", key(stack, operation), "MAXLEN", "50")
    (tmp_path / "faults").write_text("")
    assert numbers(frames) == list(range(200))
    assert types(ws, 2) == TOLD
    if how == "trimmed":
        assert numbers([ws.next() for _ in range(50)]) == list(range(400, 450))
    publish(operation, KIND, data={"n": 1000})
    assert numbers([ws.next()]) == [1000]
    publish.close()


@pytest.mark.parametrize("path", ["operation", "everything"])
def test_an_id_of_a_stream_that_expired_and_began_anew_is_told(stack, api, user, operation, publish, path):
    ids = [publish(operation, KIND, data={"n": n}) for n in range(5)]
    expire(stack, operation)
    publish(operation, KIND, data={"n": 5})
    ws = user.open(api, ("/ws/operations" if path == "everything" else operation.path) + "?last_id=" + ids[1])
    assert ws.next()["type"] == "history_truncated"
    if path == "operation":
        assert ws.next()["type"] == "current_state"
    assert numbers([ws.next()]) == [5]
    ws.close()


def test_lost_data_are_told_though_no_event_follows(make_stack):
    stack = make_stack(apis=1, workers=0)
    api, user, publish = stack.apis[0], User(stack), Publisher(stack)
    operation = Operation(stack, user)
    ws = user.open(api, operation.path)
    ws.next()
    ids = [publish(operation, KIND, data={"n": n}) for n in range(2)]
    assert numbers([ws.next(), ws.next()]) == [0, 1]
    stack.redis.shut()
    wait_for("the API to notice", lambda: is_degraded(api), seconds=60)
    publish(operation, "operation_completed", status="completed", data={"n": 2})
    keys = stack.redis_cli("--scan", "--pattern", stack.env["REDIS_PREFIX"] + "*").split()
    stack.redis_cli("DEL", *keys)
    stack.sql("UPDATE operations SET status = 'completed', completed_at = now() WHERE uuid = :'v1'", operation.id)
    stack.redis.open()
    told = ws.next()
    assert (told["type"], ws.next()["status"]) == ("history_truncated", "completed"), "nothing else would ever tell of the end"
    late = user.open(api, f"{operation.path}?last_id={ids[1]}")
    assert types(late, 2) == TOLD
    publish.close()


@pytest.mark.parametrize("last_id", ["garbage", "0123456789abcdef-1-0", "{epoch}-18446744073709551615-18446744073709551615", "{epoch}-18446744073709551615-0",
                                     "{epoch}-99999999999999999999-0", "{epoch}-1-1", "{epoch}--0", "-", "{epoch}-0x1-0", "{epoch}-1-00000000000000000000000001", "{other}"])
@pytest.mark.parametrize("by", ["query", "message"])
def test_whatever_is_no_place_in_the_stream_is_told_with_the_state_and_all_that_is_kept(stack, api, user, operation, publish, last_id, by):
    other = publish(Operation(stack, user), KIND)
    ids = [publish(operation, KIND, data={"n": n}) for n in range(3)]
    last_id = last_id.format(epoch=ids[0].split("-")[0], other=other)
    if by == "query":
        ws = user.open(api, f"{operation.path}?last_id={last_id}")
    else:
        ws = user.open(api, f"{operation.path}?last_id={ids[2]}")
        assert ws.next()["type"] == "current_state"
        ws.say({"type": "resume", "last_id": last_id})
    assert types(ws, 2) == TOLD
    assert numbers([ws.next() for _ in range(3)]) == [0, 1, 2]
    publish(operation, KIND, data={"n": 3})
    assert numbers([ws.next()]) == [3]
    ws.close()


def test_of_two_resumes_in_a_row_the_second_counts_and_the_first_is_not_spoken_of(api, user, operation, publish):
    ids = [publish(operation, KIND, data={"n": n}) for n in range(6)]
    for first in ("garbage", ids[0]):
        ws = user.open(api, f"{operation.path}?last_id={ids[5]}")
        assert ws.next()["type"] == "current_state"
        one, two = ({"type": "resume", "last_id": i} for i in (first, ids[3]))
        ws.sock.sendall(frame(TEXT, json.dumps(one)) + frame(TEXT, json.dumps(two)))
        assert numbers([ws.next(), ws.next()]) == [4, 5]
        ws.close()


def test_a_resume_in_the_middle_of_a_replay_begins_where_it_says(api, user, operation, publish):
    ids = [publish(operation, KIND, data={"n": n, "filler": "x" * 2000}) for n in range(500)]
    ws = user.open(api, operation.path, receive_buffer=4096)
    assert ws.next()["type"] == "current_state" and numbers([ws.next()]) == [0]
    ws.say({"type": "resume", "last_id": ids[300]})
    seen = [0]
    while seen[-1] != 499:
        seen += numbers([ws.next()])
    begin = seen.index(301)
    assert seen[:begin] == list(range(begin)), "what was on its way"
    assert seen[begin:] == list(range(301, 500))
    ws.close()


# --- many at once

WATCH = os.environ.get("OPSTREAM_WATCH", os.path.join(ROOT, "build/plain/tests/tools/watch"))
LONGER = int(os.environ.get("TORTURE", "1"))  # times as many events; the clients stay as many


class Watchers:
    """tests/tools/watch: thousands of clients, each of which checks every frame and number."""

    def __init__(self, apis, groups, seed=1):
        self.plan = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump({"ports": [a.port for a in apis], "seed": seed, "groups": groups}, self.plan)
        self.plan.flush()
        self.child = subprocess.Popen([WATCH, self.plan.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def report(self):
        self.say("report")
        report = json.loads(self.child.stdout.readline())
        for group in report:
            assert not group["wrong"], group["wrong"]
        return report

    def total(self, name):
        return sum(group[name] for group in self.report())

    def wait(self, name, count, seconds=120):
        try:
            wait_for(f"{count} clients: {name}", lambda: self.total(name) >= count, seconds=seconds, every=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from error

    def finish(self, lasts, seconds=120, settle=0.3):
        """Everyone has everything, and nothing comes after it."""
        for group, last in enumerate(lasts):
            self.say(f"last {group} {last}")
        self.wait("finished", self.total("count"), seconds)
        before = self.total("events")
        time.sleep(settle)
        report = self.report()
        assert sum(g["events"] for g in report) == before
        self.close()
        return report

    def close(self):
        if self.child.poll() is None:
            self.say("quit")
            self.child.wait(20)
        self.child.stdout.close()
        self.plan.close()


class Load:
    """Numbers the events of each operation (n) and of each user (u), and publishes them without waiting for each answer."""

    def __init__(self, stack, url=None):
        self.stack, self.failed, self.refused, self.sent, self.answered = stack, 0, 0, 0, 0
        self.next, self.attempts = {}, {}
        self.child = subprocess.Popen([PUBLISH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      env={**os.environ, "REDIS_URL": url or os.environ["REDIS_URL"], "REDIS_PREFIX": stack.env["REDIS_PREFIX"]})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.answered += 1
            self.failed += line.startswith(("failed", "not"))
            self.refused += line.startswith("refused")

    def number(self, of):
        n = self.next.get(of, 0)
        self.next[of] = n + 1
        return n

    def write(self, operation, kind, data, **more):
        line = {"operation_id": operation.id, "user_id": operation.user.id, "collection_id": operation.collection, "type": kind, "data": data,
                "attempt": self.attempts.setdefault(operation.id, 1), **more}
        self.child.stdin.write(json.dumps(line) + "\n")
        self.sent += 1

    def __call__(self, operation, kind=KIND, filler=100, **more):
        data = {"n": self.number(operation.id), "u": self.number(operation.user.id), "filler": "é" * (filler // 2)}
        self.write(operation, kind, {**data, **more.pop("data", {})}, **more)

    def stale(self, operation):
        """Of an attempt that lost its operation: refused, so nobody may ever see it."""
        self.write(operation, KIND, {"n": 10 ** 9, "u": 10 ** 9}, attempt=self.attempts[operation.id] - 1)

    def flush(self):
        self.child.stdin.flush()

    def wait(self):
        self.flush()
        wait_for("all events to be published", lambda: self.answered >= self.sent, seconds=120)

    def last(self, of):
        return self.next[of] - 1

    def close(self):
        self.child.stdin.close()
        self.child.wait(20)


@pytest.fixture
def closing():
    """Closes what it is given at the test's end, whatever happened."""
    things = []
    yield lambda thing: things.append(thing) or thing
    for thing in reversed(things):
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            thing.close()
        if isinstance(getattr(thing, "child", None), subprocess.Popen):
            thing.child.kill()


def many(make_stack, apis=2, **more):
    settings = {"WS_MAX_CONNECTIONS_PER_USER": 100000, "WS_MAX_CONNECTIONS_PER_OPERATION": 100000, **more}
    return make_stack(apis=apis, workers=0, **settings)


def paced(rate, total, act):
    """act(i) so many times a second, in handfuls."""
    started = time.monotonic()
    for i in range(total):
        act(i)
        ahead = i / rate - (time.monotonic() - started)
        if ahead > 0.02:
            yield i
            time.sleep(ahead)
    yield total


RESTLESS = {"life_ms": [20, 1500], "pause_ms": [0, 150], "endings": ["close", "rst", "half"], "band_percent": 30}


def test_hundreds_of_clients_that_reconnect_thousands_of_times_get_every_event_once_and_in_order(make_stack, closing):
    stack = many(make_stack, apis=3)
    choice = random.Random(6)
    users = [User(stack) for _ in range(5)]
    operations = [Operation(stack, users[i % 5]) for i in range(20)]
    groups = [{"count": 12, "path": o.path, "token": o.user.token, "key": "n", **RESTLESS} for o in operations]
    groups += [{"count": 16, "path": "/ws/operations", "token": u.token, "key": "u", **RESTLESS} for u in users]
    watchers, load = closing(Watchers(stack.apis, groups)), closing(Load(stack))

    def act(i):
        operation = choice.choice(operations)
        if i > 100 and i % 97 == 0 and operation.id in load.attempts:
            load.attempts[operation.id] += 1
        load(operation, filler=choice.choice([20, 100, 1500]))
        if i % 50 == 0:
            load.stale(operation)

    for _ in paced(700, 8000 * LONGER, act):
        load.flush()
    for operation in operations:
        load(operation, "operation_completed", status="completed", is_last=True)
    load.wait()
    assert load.failed == 0 and load.refused >= 160 * LONGER
    report = watchers.finish([load.last(o.id) for o in operations] + [load.last(u.id) for u in users])
    assert sum(g["ends"] for g in report) > 2000
    assert sum(g["truncated"] for g in report) == 0


def test_two_instances_restarted_one_after_the_other_under_load_lose_nothing_and_make_no_storm(make_stack, closing):
    stack = many(make_stack, DRAIN_SECONDS=5)
    clients = 1000 if LONGER == 1 else 2000
    users = [User(stack) for _ in range(10)]
    operations = [Operation(stack, u) for u in users]
    calm = {"pause_ms": [0, 1000]}
    groups = [{"count": clients // 20, "path": o.path, "token": o.user.token, "key": "n", **calm} for o in operations]
    groups += [{"count": clients // 20, "path": "/ws/operations", "token": u.token, "key": "u", **calm} for u in users]
    watchers, load = closing(Watchers(stack.apis, groups)), closing(Load(stack))
    watchers.wait("connected", clients)
    watchers.say("peak")
    restarts = threading.Thread(target=lambda: [a.restart() for a in stack.apis])
    restarts.start()
    for _ in paced(100, 100000, lambda i: load(operations[i % 10])):
        load.flush()
        if not restarts.is_alive():
            break
    load.wait()
    report = watchers.finish([load.last(o.id) for o in operations] + [load.last(u.id) for u in users])
    assert sum(g["truncated"] for g in report) == 0
    told = sum(g["closed"].get("1012", 0) for g in report)
    assert told + sum(g["cuts"] for g in report) >= clients
    assert report[0]["most_connects_a_second"] < clients * 0.9, "the drain lets them go one after the other"
