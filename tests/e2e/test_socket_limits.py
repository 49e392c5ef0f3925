"""Limits of WebSockets: how many, how often, how fast, over all instances; who watches an operation; what is counted."""
import concurrent.futures
import ctypes
import json
import random
import re
import socket
import threading
import time
import urllib.request

import pytest
from support.client import Client
from support.stack import PATIENCE, Gate, Stack, wait_for
from support.ws import PING, PONG, Closed, Cut, WebSocket, frame
from test_websockets import Operation, Publisher, User, is_open, is_open_or_none, numbers, probe, refused

SO_ATTACH_FILTER = 26


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=3, workers=0, TRUSTED_PROXIES="127.0.0.1")
    yield made
    made.close()


@pytest.fixture(scope="module")
def apis(stack):
    return stack.apis


@pytest.fixture
def user(stack):
    return User(stack)


def metrics(stack, api):
    port = next(line["metrics_port"] for name, line in stack.log_lines() if name == api.name and line.get("event") == "api_ready")
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    return {name: float(value) for name, value in re.findall(r"^(websocket_[^ ]+) (\S+)$", text, re.M)}


def lose_network(ws):
    """Every packet that comes for this socket is dropped before TCP sees it, so nothing is acknowledged any more: as if the cable was pulled."""
    program = ctypes.create_string_buffer(b"\x06\x00\x00\x00\x00\x00\x00\x00")  # BPF: return 0
    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    ws.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(Program(1, ctypes.addressof(program))))


# --- how many

def test_of_twenty_simultaneous_connects_over_three_instances_exactly_ten_stay(apis, user):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        opened = list(pool.map(lambda i: user.open(apis[i % 3]), range(20)))
        stayed = [ws for ws, alive in zip(opened, pool.map(lambda ws: alive_or_end(ws), opened)) if alive is True]
    assert len(stayed) == 10
    assert all(is_open(ws) for ws in stayed)
    for ws in stayed:
        ws.close()


def alive_or_end(ws):
    try:
        return is_open(ws)
    except Closed as closed:
        assert (closed.code, closed.reason) == (1008, "too many connections of this user")
        return closed


def test_whoever_lost_the_network_comes_back_at_once_though_the_dead_connections_count_still(stack, apis, user):
    dead = [user.open(apis[i % 3]) for i in range(10)]
    for ws in dead:
        probe(ws)
    for ws in dead:
        lose_network(ws)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        back = list(pool.map(lambda i: user.open(apis[i % 3]), range(10)))
        assert list(pool.map(alive_or_end, back)) == [True] * 10
    assert sum(metrics(stack, api).get('websocket_connections_total{operation_type="operations",status="silent"}', 0) for api in apis) == 10
    for ws in back:
        ws.close()


def test_behind_a_proxy_that_acknowledges_everything_those_who_stopped_answering_give_way(make_stack):
    stack = make_stack(apis=1, workers=0, WS_MAX_CONNECTIONS_PER_USER=2, WS_HEARTBEAT_INTERVAL=2)
    user, api = User(stack), stack.apis[0]
    proxy = Gate("127.0.0.1", api.port)
    dead = [WebSocket(f"http://127.0.0.1:{proxy.port}", "/ws/operations", user.token) for _ in range(2)]
    for ws in dead:
        while ws.pings == 0: # it answers a ping, so it is known to answer them
            ws.next(keep_pings=True)
        probe(ws)
    proxy.hold()
    started = time.monotonic()
    back = user.open(api)
    assert is_open(back), f"after {time.monotonic() - started:.1f} s"
    back.close()
    proxy.release()
    proxy.shut()


def test_the_eleventh_is_refused_while_ten_live_even_if_they_answer_no_ping(apis, user):
    held = [user.open(apis[i % 3]) for i in range(10)]
    for ws in held:
        probe(ws)
    assert refused(apis[0], "/ws/operations", token=user.token) == (1008, "too many connections of this user")
    assert all(is_open(ws) for ws in held)
    held.pop().close()
    assert is_open(user.open(apis[1])), "a place that becomes free meanwhile is taken"
    for ws in held:
        ws.close()


# --- how often

def test_a_user_opens_so_many_a_minute(make_stack):
    stack = make_stack(apis=1, workers=0, RATE_LIMITS="on", WS_CONNECTS_PER_MINUTE_PER_USER=5)
    user, other, api = User(stack), User(stack), stack.apis[0]
    for _ in range(5):
        ws = user.open(api)
        assert is_open(ws)
        ws.close()
    code, reason = refused(api, "/ws/operations", token=user.token)
    assert code == 1008 and re.fullmatch(r"too many new connections of this user; try again in \d+ s", reason)
    assert is_open(other.open(api))
    assert metrics(stack, api)['websocket_refusals_total{reason="user_rate"}'] == 1


def test_an_address_behind_a_trusted_proxy_opens_so_many_a_minute(make_stack):
    stack = make_stack(apis=1, workers=0, RATE_LIMITS="on", WS_CONNECTS_PER_MINUTE_PER_ADDRESS=3, TRUSTED_PROXIES="127.0.0.1")
    users, api = [User(stack) for _ in range(4)], stack.apis[0]

    def come(user, address, **more):
        return user.open(api, headers=["X-Forwarded-For: " + address], **more)

    for n in range(3):
        assert is_open(come(users[n], f"2001:db8::{n}"))
    for n in range(3):
        code, reason = come(users[3], f"2001:db8::f{n}").end()
        assert code == 1008 and "this address" in reason
    turned_away = come(users[3], "2001:db8::1", expect=429)
    assert 1 <= int(turned_away.headers["retry-after"]) <= 61
    body = json.loads(turned_away.buffer)
    assert body["error"] == "rate_limit_exceeded" and body["retry_after"] == int(turned_away.headers["retry-after"]) and body["reference"]
    assert "this address" in body["limit"] and turned_away.headers["x-ratelimit-limit"] == "3" and turned_away.headers["x-ratelimit-remaining"] == "0"
    assert abs(int(turned_away.headers["x-ratelimit-reset"]) - time.time() - body["retry_after"]) < 60
    assert is_open(come(users[3], "2001:db8:0:1::1")), "its neighbour's network is another"
    assert is_open(come(users[3], "203.0.113.1"))
    for made_up in ("6.6.6.6", "7.7.7.7"):
        assert is_open(come(users[0], (made_up + ", ") * 600 + "203.0.113.1"))
    assert "this address" in come(users[0], "8.8.8.8, " * 600 + "203.0.113.1").end()[1], "what a client makes up is nobody's address"
    for n in range(4):
        assert is_open(come(users[1], f"::ffff:203.0.113.{n + 2}")), "these are four addresses"
    seen = metrics(stack, api)
    assert seen['websocket_refusals_total{reason="address_rate"}'] == 5


def test_whoever_floods_is_closed_and_whoever_talks_is_not(make_stack):
    stack = make_stack(apis=1, workers=0, RATE_LIMITS="on", WS_MESSAGES_PER_SECOND=5)
    user, api = User(stack), stack.apis[0]
    operation = Operation(stack, user)
    honest = user.open(api, operation.path)
    assert honest.next()["type"] == "current_state"
    junk = {"junk": lambda ws: ws.send("x"), "pings": lambda ws: ws.say({"type": "ping"}), "pongs": lambda ws: ws.send(b".", PONG),
            "resumes": lambda ws: ws.say({"type": "resume", "last_id": "0"})}
    for kind, say in junk.items():
        ws = user.open(api, operation.path)
        try:
            for _ in range(1000):
                say(ws)
        except OSError:
            pass
        code, reason = end_of_flood(ws)
        assert code in (1008, None) and reason in ("too many messages", "reset"), kind
    for _ in range(20):
        assert is_open(honest)
    seen = metrics(stack, api)
    assert seen['websocket_connections_total{operation_type="append",status="flooding"}'] == len(junk)
    honest.close()


def test_a_flood_of_protocol_pings_ends_and_others_are_served_meanwhile(make_stack):
    stack = make_stack(apis=1, workers=0, RATE_LIMITS="on")
    user, api, publish = User(stack), stack.apis[0], Publisher(stack)
    operation = Operation(stack, user)
    honest = user.open(api, operation.path)
    assert honest.next()["type"] == "current_state"
    pings = frame(PING, b".") * 5000

    def flood(_):
        ws = user.open(api)
        deadline, at = time.monotonic() + PATIENCE, 0
        ws.sock.setblocking(False)
        while time.monotonic() < deadline:
            try:
                at = (at + ws.sock.send(pings[at:])) % len(pings)
            except BlockingIOError:
                pass
            except OSError:
                return True
            try:
                if ws.sock.recv(1 << 20) == b"":
                    return True
            except BlockingIOError:
                pass
            except OSError:
                return True
        return False

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        floods = pool.map(flood, range(3))
        for n in range(20):
            publish(operation, data={"n": n})
            assert numbers([honest.next()]) == [n]
        assert list(floods) == [True] * 3
    assert metrics(stack, api)['websocket_connections_total{operation_type="operations",status="flooding"}'] == 3
    assert is_open(honest)
    honest.close()
    publish.close()


def end_of_flood(ws):
    try:
        return ws.end()
    except OSError:
        return None, "reset"


# --- how fast

def test_handshakes_beyond_the_accept_rate_wait_and_further_ones_are_told_when_to_come_again(make_stack):
    stack = make_stack(apis=1, workers=0, WS_ACCEPT_RATE=20)
    users, api = [User(stack) for _ in range(8)], stack.apis[0]

    def come(i):
        try:
            return is_open(users[i % 8].open(api))
        except AssertionError as error:
            head = error.args[0]
            assert b" 503 " in head and re.search(rb"Retry-After: [1-5]$", head)
            return False

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        came = list(pool.map(come, range(64)))
    assert came.count(True) >= 20 and came.count(False) >= 1
    assert api.readiness()[0] == 200
    assert metrics(stack, api)['websocket_refusals_total{reason="accept_rate"}'] == came.count(False)
    wait_for("the door to be open again", lambda: come(0) and come(1))


class Follower(threading.Thread):
    """A client as it should be: it comes back with the id that it saw last, at once at first, then with back-off and jitter, to whichever instance."""

    def __init__(self, user, operation, apis, total, seed):
        super().__init__(daemon=True)
        self.user, self.operation, self.apis, self.total = user, operation, apis, total
        self.choice = random.Random(seed)
        self.seen, self.last_id, self.troubles, self.connects, self.is_open = [], "", [], 0, False

    def run(self):
        delay = 0
        while not self.seen or self.seen[-1] != self.total - 1:
            try:
                ws = self.user.open(self.choice.choice(self.apis), self.operation.path + "?last_id=" + self.last_id)
            except OSError: # it is being started again
                delay = min(2 * delay + 0.2, 2)
            except Cut:
                delay = min(2 * delay + 0.2, 2)
            except AssertionError as error: # not 101
                if b" 503 " not in error.args[0]: # it is about to end
                    self.troubles.append(error.args[0])
                delay = min(2 * delay + 0.2, 2)
            else:
                self.connects += 1
                delay = 0
                self.follow(ws)
                ws.sock.close()
            time.sleep(self.choice.random() * (delay + 0.2))

    def follow(self, ws):
        try:
            while not self.seen or self.seen[-1] != self.total - 1:
                event = ws.next()
                self.is_open = True
                self.last_id = event.get("id", self.last_id)
                self.seen += numbers([event])
        except Closed as closed:
            if closed.code != 1012:
                self.troubles.append((closed.code, closed.reason))
        except (Cut, OSError):
            pass


def test_a_rolling_restart_loses_nothing_and_the_reconnects_stay_below_the_rate(make_stack):
    clients, total = 150, 60
    stack = make_stack(apis=2, workers=0, WS_ACCEPT_RATE=500)
    users = [User(stack) for _ in range(clients // 5)]
    operations = [Operation(stack, users[n], is_public=True) for n in range(3)]
    followers = [Follower(users[i % len(users)], operations[i % 3], stack.apis, total, i) for i in range(clients)]
    publish = Publisher(stack)
    for follower in followers:
        follower.start()
    wait_for("all to be there", lambda: all(f.is_open for f in followers))
    stop = threading.Event()

    def restart():
        for api in stack.apis:
            assert api.stop() == 0
            api.start()
        stop.set()

    restarting = threading.Thread(target=restart)
    restarting.start()
    published = 0
    while published < total - 1 or not stop.is_set():
        if published < total - 1:
            for operation in operations:
                publish(operation, data={"n": published})
            published += 1
        time.sleep(0.05)
    restarting.join()
    for operation in operations:
        publish(operation, "operation_completed", status="completed", data={"n": total - 1})
    for follower in followers:
        follower.join(120)
    assert [f.troubles for f in followers if f.troubles] == []
    assert all(f.seen == list(range(total)) for f in followers)
    assert sum(f.connects for f in followers) >= clients * 3 // 2, "they were cut and came back"
    refusals = {line["detail"] for _, line in stack.log_lines() if line.get("event") == "connection_refused"}
    assert refusals <= {"shutting down"}, "nobody was turned away for coming too fast"
    publish.close()


# --- who watches

def test_watchers_are_told_to_the_owner_and_counted_for_public_readers(stack, apis):
    owner, ann, ben, root = User(stack), User(stack), User(stack), User(stack, is_superuser=True)
    public, private = Operation(stack, owner, is_public=True), Operation(stack, owner)
    path = f"/api/v2/operations/{public.id}/watchers"

    def ask(user, path=path, api=apis[0]):
        return Client(api.url, user.token).must("GET", path)

    assert ask(owner) == {"watchers": [], "total_connections": 0}
    sockets = [ann.open(apis[0], public.path), ann.open(apis[2], public.path), ben.open(apis[1], public.path)]
    for ws in sockets:
        assert ws.next()["type"] == "current_state"
    for user in (owner, root):
        told = ask(user, api=apis[1])
        assert told["total_connections"] == 3
        assert {(w["user_id"], w["username"], w["connections"]) for w in told["watchers"]} == {(ann.id, ann.name, 2), (ben.id, ben.name, 1)}
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", w["since"]) for w in told["watchers"])
    told = ask(ben)
    assert told == ask(ben, path=f"/api/v2/operations/{str(public.id).upper()}/watchers")
    assert told["total_connections"] == 3 and [w["username"] for w in told["watchers"]] == [ben.name]
    assert ask(User(stack)) == {"watchers": [], "total_connections": 3}
    for user, where, status in ((ann, private.id, 403), (root, private.id, 200), (ann, "00000000-0000-4000-8000-000000000000", 404)):
        assert Client(apis[0].url, user.token).ask("GET", f"/api/v2/operations/{where}/watchers").status == status
    sockets[0].close()
    wait_for("it to be gone", lambda: ask(owner)["total_connections"] == 2)
    for ws in sockets[1:]:
        ws.close()


# --- what is counted

def test_connections_and_frames_are_counted_by_type_of_operation_and_with_bounded_labels(stack, apis, user):
    api = apis[0]
    before = metrics(stack, api)
    operation, publish = Operation(stack, user), Publisher(stack)
    ws = user.open(api, operation.path)
    ws.next()
    last = publish(operation, data={"n": 1})
    publish(operation, 'made"up\n', data={"n": 2})
    assert numbers([ws.next(), ws.next()]) == [1, 2]
    again = user.open(api, f"{operation.path}?last_id={last}")
    assert numbers([again.next(), again.next()]) == [2]
    assert refused(api, "/ws/operations", token="abc")[0] == 1008
    assert refused(api, operation.path, token=User(stack).token)[0] == 1008
    seen = wait_for("the counts of the last second", lambda: (lambda m: m["websocket_replayed_events_total"] > before["websocket_replayed_events_total"] and m["websocket_watched_operations"] >= 1 and m)(metrics(stack, api)))

    def grew(name):
        return seen.get(name, 0) - before.get(name, 0)

    assert grew('websocket_active_connections{operation_type="append"}') == 2
    assert grew('websocket_connections_total{operation_type="append",status="connected"}') == 2
    assert grew('websocket_reconnects_total{operation_type="append"}') == 1
    assert grew('websocket_messages_sent_total{message_type="processing_progress"}') == 1
    assert grew('websocket_messages_sent_total{message_type="other"}') == 1
    assert grew('websocket_message_size_bytes_count{message_type="processing_progress"}') == 1
    assert grew('websocket_message_duration_seconds_count{message_type="processing_progress"}') == 1
    assert grew('websocket_authentication_failures_total{reason="bad_key"}') == 1
    assert grew('websocket_authentication_failures_total{reason="no_access"}') == 1
    assert grew('websocket_refusals_total{reason="no_access"}') == 1
    assert seen["websocket_watched_operations"] >= 1 and seen["websocket_redis_subscribed"] == 1
    assert grew("websocket_sent_bytes_total") > 500
    assert grew('websocket_send_seconds_count{wait="loop"}') >= 3
    assert not any("made" in name for name in seen)
    for ws in (ws, again):
        ws.close()
    wait_for("both to be gone", lambda: metrics(stack, api)['websocket_active_connections{operation_type="append"}'] == seen['websocket_active_connections{operation_type="append"}'] - 2)
    assert metrics(stack, api)['websocket_connection_duration_seconds_count{operation_type="append"}'] >= 2
    publish.close()
