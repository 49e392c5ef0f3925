"""The WebSocket relay: real API instances on one Redis, events published by the tests as a worker would, a client that sees every frame."""
import base64
import hashlib
import hmac
import json
import os
import random
import secrets
import subprocess
import threading
import time
import uuid

import pytest
from support.client import Client
from support.stack import ROOT, Stack, wait_for
from support.ws import BINARY, CLOSE, PING, PONG, TEXT, Closed, Cut, WebSocket, frame

PUBLISH = os.environ.get("OPSTREAM_PUBLISH", os.path.join(ROOT, "build/plain/tests/tools/publish"))
LAST = ("operation_completed", "operation_failed", "operation_cancelled")


def encoded(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


class Publisher:
    """Events as a worker publishes them."""

    def __init__(self, stack):
        url = os.environ["REDIS_URL"]
        self.child = subprocess.Popen([PUBLISH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      env={**os.environ, "REDIS_URL": url, "REDIS_PREFIX": stack.env["REDIS_PREFIX"]})
        self.lock = threading.Lock()

    def __call__(self, operation, kind="processing_progress", **more):
        data = more.pop("data", {})
        line = {"operation_id": operation.id, "user_id": operation.user.id, "collection_id": operation.collection, "type": kind, "data": data,
                "is_last": kind in LAST, **more}
        with self.lock:
            self.child.stdin.write(json.dumps(line) + "\n")
            self.child.stdin.flush()
            answer = self.child.stdout.readline().strip()
        assert answer and answer not in ("failed", "not JSON"), answer
        return answer

    def close(self):
        self.child.stdin.close()
        self.child.wait(10)
        self.child.stdout.close()


class User:
    def __init__(self, stack, is_superuser=False, padding=0):
        self.stack = stack
        self.name = "u" + secrets.token_hex(6)
        self.id = int(stack.sql_value("INSERT INTO users (username, email, password_hash, is_superuser) VALUES (:'v1', :'v1' || '@example.org', 'x', :'v2') RETURNING id",
                                      self.name, "true" if is_superuser else "false"))
        self.token = self.signed(padding=padding)

    def signed(self, seconds=3600, key=None, padding=0, **more):
        claims = {"sub": self.name, "user_id": self.id, "exp": int(time.time()) + seconds, "type": "access", **more}
        if padding:
            claims["padding"] = "p" * padding
        body = encoded({"alg": "HS256", "typ": "JWT"}) + "." + encoded(claims)
        key = key or self.stack.env["JWT_SECRET_KEY"]
        return body + "." + encoded(hmac.new(key.encode(), body.encode(), hashlib.sha256).digest())

    def open(self, api, path="/ws/operations", **more):
        return WebSocket(api.url, path, more.pop("token", self.token), **more)


class Operation:
    def __init__(self, stack, user, is_public=False, status="processing"):
        self.user, self.stack = user, stack
        self.collection = stack.sql_value(
            "INSERT INTO collections (name, owner_id, embedding_model, is_public) VALUES (:'v1', :'v2', 'm', :'v3') RETURNING uuid",
            "c" + secrets.token_hex(6), user.id, "true" if is_public else "false")
        self.id = stack.sql_value(
            "INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, status, started_at, percent) "
            "SELECT id, uuid, :'v2', 'append', false, 'default', '{\"a\":1}', :'v3', now(), 12.5 FROM collections WHERE uuid = :'v1' RETURNING uuid",
            self.collection, user.id, status)

    @property
    def path(self):
        return "/ws/operations/" + self.id


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=2, workers=0, CORS_ORIGINS="http://app.example:3000, https://other.example", WS_SEND_BUFFER_BYTES=262144)
    yield made
    made.close()


@pytest.fixture(scope="module")
def apis(stack):
    return stack.apis


@pytest.fixture(scope="module")
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


def numbers(frames):
    return [f["data"]["n"] for f in frames if "n" in f.get("data", {})]


def probe(ws):
    """After the answer everything that was asked before was taken in."""
    ws.say({"type": "ping"})
    return ws.until("pong")


def is_open(ws):
    return probe(ws)[-1] == {"type": "pong"}


# --- getting in

@pytest.mark.parametrize("by", ["subprotocol", "query"])
def test_a_token_is_taken_from_the_subprotocol_and_echoed_or_from_the_query(api, user, by):
    ws = user.open(api, by=by)
    assert ws.headers.get("sec-websocket-protocol") == ("access_token." + user.token if by == "subprotocol" else None)
    assert is_open(ws)
    ws.close()


def test_the_first_subprotocol_that_carries_a_token_is_the_one_that_is_echoed(api, user):
    ws = user.open(api, protocols=["chat", "access_token." + user.token, "access_token.other"])
    assert ws.headers["sec-websocket-protocol"] == "access_token." + user.token
    assert is_open(ws)
    ws.close()


@pytest.mark.parametrize("padding", [300, 2000])
def test_long_tokens_pass(stack, api, padding):
    user = User(stack, padding=padding)
    assert len(user.token) > 600
    ws = user.open(api)
    assert is_open(ws)
    ws.close()


def test_frames_sent_together_with_the_head_are_not_lost(api, user):
    ws = user.open(api, early=frame(TEXT, "ping") + frame(TEXT, '{"type":"ping"}'))
    assert [ws.next(), ws.next()] == [{"type": "pong"}] * 2
    ws.close()


def refused(api, path, **more):
    ws = WebSocket(api.url, path, **more)
    code, reason = ws.end()
    assert ws.frames == [], "a refused client is told nothing"
    return code, reason


def test_refusals_are_accepted_and_closed_with_1008_and_a_reason(stack, api, user, operation):
    stranger, inactive = User(stack), User(stack)
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", inactive.id)
    cases = [
        ("/ws/operations", None, "Not authenticated"),
        ("/ws/operations", "abc", "Invalid API key"),
        ("/ws/operations", "a.b.c", "Invalid authentication credentials"),
        ("/ws/operations", user.signed(seconds=-10), "Invalid authentication credentials"),
        ("/ws/operations", user.signed(key="x" * 40), "Invalid authentication credentials"),
        ("/ws/operations", user.signed(type="refresh"), "Invalid authentication credentials"),
        ("/ws/operations", inactive.token, "Inactive user"),
        (operation.path, stranger.token, "access"),
        ("/ws/operations/" + str(uuid.uuid4()), user.token, "not found"),
        ("/ws/operations/no-uuid", user.token, "not found"),
        ("/ws/elsewhere", user.token, "no such"),
        ("/ws/scan/", user.token, "no such"),
        ("/ws/directory-scan/" + str(uuid.uuid4()), user.token, "not found"),
    ]
    for path, token, part in cases:
        code, reason = refused(api, path, token=token)
        assert code == 1008 and part in reason, (path, code, reason)


def test_an_operation_is_seen_by_its_creator_its_collections_owner_and_everyone_if_public(stack, api, user):
    public, stranger = Operation(stack, user, is_public=True), User(stack)
    assert stranger.open(api, public.path).next()["type"] == "current_state"
    made_by_other = Operation(stack, user)
    stack.sql("UPDATE operations SET user_id = :'v1' WHERE uuid = :'v2'", stranger.id, made_by_other.id)
    assert user.open(api, made_by_other.path).next()["type"] == "current_state"
    assert stranger.open(api, made_by_other.path).next()["type"] == "current_state"
    stack.sql("UPDATE collections SET deleted_at = now() WHERE uuid = :'v1'", made_by_other.collection)
    assert refused(api, made_by_other.path, token=user.token)[0] == 1008
    assert stranger.open(api, made_by_other.path).next()["type"] == "current_state"


@pytest.mark.parametrize("origin,allowed", [
    ("http://app.example:3000", True), ("https://other.example", True), ("http://127.0.0.1:{port}", True), ("http://evil.example", False),
    ("http://app.example", False), ("http://127.0.0.1:1", False), ("null", False)])
def test_origins(api, user, origin, allowed):
    ws = user.open(api, origin=origin.format(port=api.port))
    if allowed:
        assert is_open(ws)
        ws.close()
    else:
        assert ws.end() == (1008, "this origin is not allowed")


@pytest.mark.parametrize("more,status", [({"version": "8"}, 400), ({"version": None}, 400), ({"key": ""}, 400), ({"key": "short"}, 400)])
def test_a_malformed_upgrade_is_answered_400(api, user, more, status):
    ws = user.open(api, expect=status, **more)
    assert ws.headers["sec-websocket-version"] == "13"


def test_the_database_being_away_closes_with_1011(make_stack):
    stack = make_stack(apis=1, workers=0)
    user = User(stack)
    stack.postgres.shut()
    code, _ = refused(stack.apis[0], "/ws/operations", token=user.token)
    assert code == 1011
    stack.postgres.open()
    wait_for("the database to be back", lambda: is_open_or_none(user, stack.apis[0]))


def is_open_or_none(user, api):
    ws = user.open(api)
    try:
        return is_open(ws)
    except (Closed, Cut):
        return None


# --- what a client gets

def test_current_state_comes_first_then_history_then_live_events(api, user, operation, publish):
    for n in range(3):
        publish(operation, data={"n": n})
    ws = user.open(api, operation.path)
    state = ws.next()
    assert state["type"] == "current_state" and state["operation_id"] == operation.id and state["collection_id"] == operation.collection
    assert state["status"] == "processing" and state["progress"] == 12.5
    data = state["data"]
    assert data["status"] == "processing" and data["operation_type"] == "append" and data["operation_id"] == operation.id
    assert data["created_at"] and data["started_at"] and data["completed_at"] is None and data["error_message"] is None
    assert "message" not in state
    assert numbers([ws.next() for _ in range(3)]) == [0, 1, 2]
    publish(operation, data={"n": 3})
    publish(operation, "operation_completed", status="completed", data={"n": 4})
    frames = ws.until("operation_completed")
    assert numbers(frames) == [3, 4]
    assert frames[-1]["id"] and frames[-1]["data"]["operation_id"] == operation.id
    ws.close()


def test_events_of_every_instance_reach_every_instance_once_and_only_where_they_belong(stack, apis, user, publish):
    stranger = User(stack)
    mine, other = Operation(stack, user), Operation(stack, user)
    everyone = [user.open(a) for a in apis]
    one = [user.open(a, mine.path) for a in apis]
    strange = stranger.open(apis[0])
    for ws in [*everyone, strange]:
        probe(ws)
    for ws in one:
        assert ws.next()["type"] == "current_state"
    for n in range(20):
        publish(mine if n % 2 else other, data={"n": n})
    publish(other, "operation_failed", status="failed", data={"error_message": "e"})
    publish(mine, "operation_completed", status="completed")
    for ws in everyone:
        assert numbers(ws.until("operation_completed")) == list(range(20))
    for ws in one:
        assert numbers(ws.until("operation_completed")) == list(range(1, 20, 2))
    assert strange.is_silent()
    for ws in [*everyone, *one, strange]:
        ws.close()


def test_the_global_socket_is_live_only_unless_last_id_is_given(apis, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(5)]
    live = user.open(apis[0])
    probe(live)
    publish(operation, data={"n": 5})
    assert numbers([live.next()]) == [5]
    for api in apis:
        again = user.open(api, "/ws/operations?last_id=" + ids[2])
        assert numbers([again.next() for _ in range(3)]) == [3, 4, 5]
        begin = user.open(api, "/ws/operations?last_id=0")
        assert numbers([begin.next() for _ in range(6)]) == [0, 1, 2, 3, 4, 5]
        again.close()
        begin.close()
    live.close()


def test_a_client_resumes_on_another_instance_with_the_last_id_that_it_saw(apis, user, operation, publish):
    first = user.open(apis[0], operation.path)
    first.next()
    ids = [publish(operation, data={"n": n}) for n in range(10)]
    seen = [first.next() for _ in range(4)]
    assert [f["id"] for f in seen] == ids[:4]
    first.abort()
    second = user.open(apis[1], f"{operation.path}?last_id={seen[-1]['id']}")
    assert second.next()["type"] == "current_state"
    assert numbers([second.next() for _ in range(6)]) == [4, 5, 6, 7, 8, 9]
    publish(operation, data={"n": 10})
    assert numbers([second.next()]) == [10]
    second.close()


def test_a_client_resumes_in_band(api, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(5)]
    ws = user.open(api)
    probe(ws)
    ws.say({"type": "resume", "last_id": ids[1]})
    assert numbers([ws.next() for _ in range(3)]) == [2, 3, 4]
    publish(operation, data={"n": 5})
    assert numbers([ws.next()]) == [5]
    ws.close()


def test_there_is_no_hole_and_no_duplicate_while_clients_reconnect_and_events_are_published(stack, apis, publish):
    user = User(stack)
    operation = Operation(stack, user)
    total, clients, done = 600, 6, threading.Event()
    results, errors = [[] for _ in range(clients)], []
    reconnects = [0] * clients

    def follow(i):
        choice = random.Random(i)
        last_id, path = None, operation.path if i % 2 else "/ws/operations"
        try:
            while not results[i] or results[i][-1] != total - 1:
                ws = user.open(choice.choice(apis), path + "?last_id=" + (last_id or "0"))
                reconnects[i] += 1
                for _ in range(choice.randint(1, 12)):
                    message = ws.next()
                    if "n" in message.get("data", {}):
                        results[i].append(message["data"]["n"])
                        last_id = message["id"]
                    assert message["type"] != "history_truncated"
                    if message["type"] == "operation_completed":
                        break
                choice.choice([ws.abort, ws.close])()
        except BaseException as error:  # noqa: B902 - told by the main thread
            errors.append((i, repr(error)))

    threads = [threading.Thread(target=follow, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for n in range(total):
        publish(operation, "operation_completed" if n == total - 1 else "processing_progress", data={"n": n}, status="completed" if n == total - 1 else "processing")
    for thread in threads:
        thread.join(120)
    done.set()
    assert not errors
    assert sum(reconnects) > 200
    for seen in results:
        assert seen == list(range(total))


def test_a_history_longer_than_a_page_arrives_whole(api, user, operation, publish):
    for n in range(900):
        publish(operation, data={"n": n, "filler": "x" * 500})
    ws = user.open(api, operation.path)
    publish(operation, "operation_completed", status="completed", data={"n": 900})
    assert numbers(ws.until("operation_completed")) == list(range(901))
    ws.close()


def test_a_trimmed_history_is_told_with_the_state(stack, api, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(20)]
    key = stack.env["REDIS_PREFIX"] + "operation-progress:" + operation.id
    stack.redis_cli("XTRIM", key, "MAXLEN", "5")
    ws = user.open(api, f"{operation.path}?last_id={ids[3]}")
    assert [ws.next()["type"], ws.next()["type"]] == ["history_truncated", "current_state"]
    assert numbers([ws.next() for _ in range(5)]) == [15, 16, 17, 18, 19]
    whole = user.open(api, f"{operation.path}?last_id={ids[15]}")
    assert whole.next()["type"] == "current_state"
    assert numbers([whole.next() for _ in range(4)]) == [16, 17, 18, 19]
    ws.close()
    whole.close()


def test_an_unknown_last_id_is_told_as_truncated(api, user, operation, publish):
    publish(operation, data={"n": 0})
    for last_id in ("garbage", "0123456789abcdef-1-0"):
        ws = user.open(api, f"{operation.path}?last_id={last_id}")
        assert [ws.next()["type"], ws.next()["type"]] == ["history_truncated", "current_state"]
        assert numbers([ws.next()]) == [0]
        ws.close()


def forget_events(stack):
    """What FLUSHALL does to this stack."""
    keys = stack.redis_cli("--scan", "--pattern", stack.env["REDIS_PREFIX"] + "*").split()
    if keys:
        stack.redis_cli("DEL", *keys)


def test_a_lost_stream_is_told_with_the_state_and_the_new_events_follow(make_stack):
    stack = make_stack(apis=1, workers=0)
    publish, user = Publisher(stack), User(stack)
    operation, api = Operation(stack, user), stack.apis[0]
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    one, everyone = user.open(api, operation.path), user.open(api)
    assert numbers([one.next() for _ in range(4)][1:]) == [0, 1, 2]
    probe(everyone)
    publish(operation, data={"n": 3})
    assert numbers([one.next(), everyone.next()]) == [3, 3]
    forget_events(stack)
    publish(operation, data={"n": 4})
    publish(operation, data={"n": 5})
    assert [one.next()["type"], one.next()["type"]] == ["history_truncated", "current_state"]
    assert everyone.next()["type"] == "history_truncated"
    for ws in (one, everyone):
        assert numbers([ws.next(), ws.next()]) == [4, 5]
        ws.close()
    late = user.open(api, f"{operation.path}?last_id={ids[1]}")
    assert [late.next()["type"], late.next()["type"]] == ["history_truncated", "current_state"]
    assert numbers([late.next(), late.next()]) == [4, 5]
    publish.close()


def test_an_outage_of_redis_leaves_no_hole(make_stack):
    stack = make_stack(apis=1, workers=0)
    publish, user, api = Publisher(stack), User(stack), stack.apis[0]
    operation = Operation(stack, user)
    one, everyone = user.open(api, operation.path), user.open(api)
    one.next()
    probe(everyone)
    publish(operation, data={"n": 0})
    assert numbers([one.next(), everyone.next()]) == [0, 0]
    stack.redis.shut()
    wait_for("the API to notice", lambda: "degraded" in api.readiness()[1])
    for n in range(1, 6):
        publish(operation, data={"n": n})
    opened_meanwhile = user.open(api, operation.path)
    assert opened_meanwhile.next()["type"] == "current_state", "without Redis the state is there"
    stack.redis.open()
    for n in range(6, 9):
        publish(operation, data={"n": n})
    for ws in (one, everyone):
        assert numbers([ws.next() for _ in range(8)]) == list(range(1, 9))
    assert numbers([opened_meanwhile.next() for _ in range(9)]) == list(range(9))
    publish(operation, "operation_completed", status="completed", data={"n": 9})
    for ws in (one, everyone, opened_meanwhile):
        assert numbers([ws.next()]) == [9]
    publish.close()


def test_flat_frames(api, user, operation, publish):
    publish(operation, "operation_started", data={"status": "processing", "type": "append"})
    publish(operation, "scanning_documents", data={"status": "scanning"})
    publish(operation, "scanning_completed", data={"total_files_found": 2})
    publish(operation, "document_processed", data={"processed": 1, "failed": 0, "total": 2, "current_file": "a.txt"})
    publish(operation, "operation_completed", status="completed", data={"status": "completed"})
    ws = user.open(api, operation.path + "?format=flat")
    frames = ws.until("operation_completed")
    assert [f["type"] for f in frames] == ["operation_started", "operation_started", "file_processing", "file_processing", "file_completed", "operation_completed"]
    assert frames[0]["operation_id"] == operation.id and frames[0]["operation_type"] == "append"
    assert frames[2]["total_files"] == 2 and frames[2]["processed_files"] == 0
    assert (frames[3]["current_file"], frames[3]["processed_files"], frames[3]["total_files"]) == ("a.txt", 1, 2)
    assert frames[5]["message"] == "Operation completed successfully"
    assert all("data" not in f for f in frames)
    ws.close()


def test_flat_counts_never_go_back(api, user, operation, publish):
    publish(operation, "scanning_completed", data={"total_files_found": 3})
    publish(operation, "document_processed", data={"processed": 3, "failed": 0, "total": 3, "current_file": "c.txt"})
    publish(operation, "append_completed", data={"documents_processed": 3, "total_files_found": 3})
    publish(operation, "operation_completed", status="completed", data={"status": "completed"})
    ws = user.open(api, operation.path + "?format=flat")
    counts = [f["processed_files"] for f in ws.until("operation_completed") if "processed_files" in f]
    assert counts[0] == 0 and counts == sorted(counts) and counts[-1] == 3
    ws.close()


# --- what a client says

def test_pings_of_both_kinds_are_answered(api, user):
    ws = user.open(api)
    ws.send("ping")
    assert ws.next() == {"type": "pong"}
    ws.say({"type": "ping"})
    assert ws.next() == {"type": "pong"}
    ws.send(b"payload", PING)
    assert ws.receive() == (PONG, b"payload")
    ws.close()


def test_whatever_else_a_client_says_is_ignored(api, user, operation, publish):
    ws = user.open(api, operation.path)
    ws.next()
    for payload in ["", "{", "[1,2]", "null", '{"type":5}', '{"type":"unknown"}', '{"type":"resume"}', '{"type":"resume","last_id":7}', "\x00", "x" * 60000,
                    json.dumps({"a": [[[[]]]] * 100})]:
        ws.send(payload)
    ws.send(os.urandom(1000), BINARY)
    ws.send('{"ty', final=False)
    ws.send(b"", PING)
    ws.send('pe":"pi', opcode=0, final=False)
    ws.send('ng"}', opcode=0)
    publish(operation, data={"n": 1})
    frames = [ws.next(), ws.next()]
    assert {"type": "pong"} in frames and numbers(frames) == [1]
    ws.close()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_oversized_messages_close_with_1009(api, user, opcode):
    ws = user.open(api)
    ws.send(b"x" * 70000, opcode)
    assert ws.end()[0] == 1009
    pieces = user.open(api)
    pieces.send(b"x" * 40000, opcode, final=False)
    pieces.send(b"x" * 40000, opcode=0)
    assert pieces.end()[0] == 1009


def test_garbage_frames_end_the_connection_and_nothing_else(api, user, operation, publish):
    other = user.open(api, operation.path)
    other.next()
    source = random.Random(7)
    for _ in range(30):
        ws = user.open(api)
        try:
            ws.sock.sendall(source.randbytes(source.randint(1, 3000)))
            ws.sock.sendall(frame(source.randint(0, 15), source.randbytes(source.randint(0, 200))))
        except OSError:
            pass
        ws.abort()
    publish(operation, data={"n": 1})
    assert numbers([other.next()]) == [1]
    other.close()


def test_a_close_of_the_client_is_answered(api, user):
    ws = user.open(api)
    ws.send(b"\x03\xe8bye", CLOSE)
    with pytest.raises(Closed) as closed:
        ws.next()
    assert closed.value.code == 1000


# --- limits, time

def test_a_user_holds_ten_sockets_over_all_instances(apis, user):
    held = [user.open(apis[i % 2]) for i in range(10)]
    for ws in held:
        assert is_open(ws)
        ws_ok = probe(ws)
        assert ws_ok
    for api in apis:
        assert refused(api, "/ws/operations", token=user.token) == (1008, "too many connections of this user")
    held.pop().close()
    wait_for("the place to be free", lambda: is_open_or_none(user, apis[0]))
    for ws in held:
        ws.close()


def test_connections_of_a_dead_instance_stop_counting(make_stack):
    stack = make_stack(apis=2, workers=0, WS_MAX_CONNECTIONS_PER_USER=2)
    user = User(stack)
    held = [user.open(stack.apis[0]) for _ in range(2)]
    for ws in held:
        probe(ws)
    wait_for("both to count", lambda: is_open_or_none(user, stack.apis[1]) is None)
    stack.apis[0].kill()
    started = time.monotonic()
    wait_for("the dead instance's connections to be forgotten", lambda: is_open_or_none(user, stack.apis[1]), every=1)
    assert time.monotonic() - started < 90


def test_an_operation_and_an_instance_have_limits_of_their_own(make_stack):
    stack = make_stack(apis=1, workers=0, WS_MAX_CONNECTIONS_PER_OPERATION=2, WS_MAX_TOTAL_CONNECTIONS=4)
    api, users = stack.apis[0], [User(stack) for _ in range(5)]
    operation = Operation(stack, users[0], is_public=True)
    held = [u.open(api, operation.path) for u in users[:2]]
    assert [ws.next()["type"] for ws in held] == ["current_state"] * 2
    assert refused(api, operation.path, token=users[2].token) == (1008, "too many connections to this operation")
    more = [u.open(api) for u in users[2:4]]
    assert all(is_open(ws) for ws in more)
    assert refused(api, "/ws/operations", token=users[4].token) == (1008, "too many connections to this server")
    for ws in held + more:
        ws.close()


def test_instance_limits_hold_while_redis_is_away(make_stack):
    stack = make_stack(apis=1, workers=0, WS_MAX_CONNECTIONS_PER_USER=3)
    user, api = User(stack), stack.apis[0]
    stack.redis.shut()
    held = [user.open(api) for _ in range(3)]
    assert all(is_open(ws) for ws in held)
    for ws in held:
        assert is_open(ws)
    assert refused(api, "/ws/operations", token=user.token) == (1008, "too many connections of this user")


def test_heartbeats_come_and_the_dead_are_cut(make_stack):
    stack = make_stack(apis=1, workers=0, WS_HEARTBEAT_INTERVAL=2)
    user, api = User(stack), stack.apis[0]
    alive, dead = user.open(api), user.open(api, answer_pings=False)
    ends = []
    waiting = threading.Thread(target=lambda: ends.append(dead.end()), daemon=True)
    waiting.start()
    while waiting.is_alive(): # the other one has to go on reading meanwhile, or it is as dead
        assert alive.next(keep_pings=True) == {"type": "ping"}
    assert ends[0][0] is None
    assert alive.pings >= 2
    assert is_open(alive)
    alive.close()


def test_an_expired_token_closes_with_1008(api, user):
    ws = user.open(api, token=user.signed(seconds=3))
    assert is_open(ws)
    assert ws.end() == (1008, "token expired")


def test_lost_access_closes_with_1008(stack, api, user):
    operation, stranger = Operation(stack, user, is_public=True), User(stack)
    ws = stranger.open(api, operation.path)
    assert ws.next()["type"] == "current_state"
    stack.sql("UPDATE collections SET is_public = false WHERE uuid = :'v1'", operation.collection)
    code, reason = ws.end()
    assert code == 1008 and "access" in reason


@pytest.mark.parametrize("speaks_resume", [False, True])
def test_a_slow_reader_is_let_go_while_the_others_are_served(stack, api, publish, speaks_resume):
    user = User(stack)
    operation = Operation(stack, user)
    slow = user.open(api, "/ws/operations" + ("?last_id=" if speaks_resume else ""), receive_buffer=4096)
    fast = user.open(api)
    probe(slow)
    probe(fast)
    total = 600
    for n in range(total):
        publish(operation, "index_stage", data={"n": n, "filler": "x" * 4000})
        assert numbers([fast.next()]) == [n]
    publish(operation, "operation_completed", status="completed")
    code, _ = slow.end()
    assert code in ((1012, None) if speaks_resume else (None,))
    seen = numbers(slow.frames)
    assert seen == list(range(len(seen))) and len(seen) < total
    fast.close()


def test_only_the_newest_progress_waits_for_a_slow_reader(stack, api, publish):
    user = User(stack)
    operation = Operation(stack, user)
    slow = user.open(api, receive_buffer=4096)
    probe(slow)
    for n in range(600):
        publish(operation, "processing_progress", data={"n": n, "filler": "x" * 4000})
    publish(operation, "operation_completed", status="completed", data={"n": 600})
    frames = slow.until("operation_completed")
    seen = numbers(frames)
    assert seen == sorted(set(seen)) and seen[-2:] == [599, 600]
    slow.close()


def test_a_drain_cuts_without_a_close_frame_but_tells_those_who_resume(make_stack):
    stack = make_stack(apis=2, workers=0)
    users = [User(stack) for _ in range(4)]
    plain = [u.open(stack.apis[0]) for u in users for _ in range(5)]
    resuming = [u.open(stack.apis[0], "/ws/operations?last_id=") for u in users]
    for ws in plain + resuming:
        probe(ws)
    assert stack.apis[0].stop() == 0
    assert all(ws.end()[0] is None for ws in plain)
    assert all(ws.end()[0] == 1012 for ws in resuming)
    again = [u.open(stack.apis[1]) for u in users for _ in range(6)]
    assert all(is_open(ws) for ws in again), "what the instance left counts no more"


# --- scans

def test_a_scan_lists_a_directory_below_the_roots(stack, api, user):
    folder = os.path.join(stack.roots, uuid.uuid4().hex)
    os.makedirs(os.path.join(folder, "sub"))
    for name, size in (("a.txt", 3), ("sub/b.pdf", 5)):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"x" * size)
    ws = user.open(api, "/ws/scan/" + str(uuid.uuid4()))
    ws.say({"action": "scan", "path": folder, "recursive": True})
    done = ws.until("completed")[-1]
    assert done["count"] == 2 and done["total_size"] == 8 and done["warnings"] == []
    assert [(f["path"], f["size"], f["extension"]) for f in done["files"]] == [(folder + "/a.txt", 3, ".txt"), (folder + "/sub/b.pdf", 5, ".pdf")]
    assert done["files"][0]["modified"].endswith("Z")
    ws.say({"type": "scan", "path": folder, "recursive": False})
    assert ws.until("completed")[-1]["count"] == 1
    for path in ("/etc", folder + "/../../..", "relative", ""):
        ws.say({"action": "scan", "path": path})
        assert ws.next()["type"] == "error"
    ws.say({"action": "cancel"})
    assert is_open(ws)
    ws.close()


def test_a_directory_scan_forwards_its_progress_to_its_user_alone(stack, api, user):
    scan, prefix = str(uuid.uuid4()), stack.env["REDIS_PREFIX"]
    stack.redis_cli("SET", f"{prefix}directory-scan:{scan}:user", str(user.id), "EX", "60")
    ws = user.open(api, "/ws/directory-scan/" + scan)
    assert is_open(ws)
    message = json.dumps({"type": "progress", "data": {"n": 1}})
    wait_for("the subscription", lambda: stack.redis_cli("PUBLISH", f"{prefix}directory-scan:{scan}", message) == "1")
    assert ws.next() == json.loads(message)
    ws.close()
    assert refused(api, "/ws/directory-scan/" + scan, token=User(stack).token)[0] == 1008


def test_a_preview_is_told_to_the_socket_of_its_scan(stack, user):
    folder, scan = os.path.join(stack.roots, uuid.uuid4().hex), str(uuid.uuid4())
    os.mkdir(folder)
    with open(os.path.join(folder, "a.txt"), "wb") as file:
        file.write(b"hello")
    made = Client(stack.apis[0].url, user.token).must("POST", "/api/v2/directory-scan/preview", {"path": folder, "scan_id": scan})
    assert made["total_files"] == 1
    other = stack.apis[-1]
    for by in ("query", "subprotocol"):
        ws = user.open(other, "/ws/directory-scan/" + scan, by=by)
        told = ws.next()
        assert told["type"] == "completed" and told["scan_id"] == scan
        assert told["data"] == {"total_files": 1, "total_size": 5, "percentage": 100}
        ws.close()
    assert refused(other, "/ws/directory-scan/" + scan, token=User(stack).token)[0] == 1008


# --- what operators see

def test_metrics_count_connections_and_frames(stack, api, user, operation, publish):
    ws = user.open(api, operation.path)
    ws.next()
    publish(operation, data={"n": 1})
    ws.next()
    port = next(line["metrics_port"] for name, line in stack.log_lines() if name == api.name and line.get("event") == "api_ready")
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    for name in ("websocket_connections_total", "websocket_active_connections", "websocket_messages_sent_total", "websocket_message_duration_seconds"):
        assert name in text
    ws.close()
