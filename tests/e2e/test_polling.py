"""Events without WebSockets: long polls and Server-Sent Events over the same history and the same live events."""
import http.server
import json
import random
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import pytest
from support.events import Ended, EventStream, Poll
from support.stack import Stack, wait_for
from test_websockets import LAST, Operation, Publisher, User, forget_events, numbers, probe

ALL = "/api/v2/operations/events"


def path_of(operation):
    return f"/api/v2/operations/{operation.id}/events"


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=2, workers=0, WS_SEND_BUFFER_BYTES=262144, WS_HEARTBEAT_INTERVAL=2)
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


def poll(api, user, path, **more):
    return Poll(api, path, more.pop("token", user.token), **more)


def stream(api, user, path, **more):
    return EventStream(api, path, more.pop("token", user.token), **more)


def in_background(function):
    """Its result once it is there: [value]."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()), daemon=True)
    thread.start()
    return thread, result


def metric(stack, api, name):
    port = next(line["metrics_port"] for who, line in stack.log_lines() if who == api.name and line.get("event") == "api_ready" and line["pid"] == api.pid)
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def waiting(stack, api, transport):
    return metric(stack, api, f'event_streams_open{{transport="{transport}"}}')


# --- long polls

def test_a_first_poll_gets_the_state_and_all_that_is_kept(api, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    answer = poll(api, user, path_of(operation))
    assert [e["type"] for e in answer.events] == ["current_state"] + ["processing_progress"] * 3
    assert answer.events[0]["status"] == "processing" and numbers(answer.events) == [0, 1, 2]
    assert answer.json["last_id"] == ids[-1] and answer.json["has_ended"] is False
    assert answer.headers["content-type"] == "application/json" and answer.headers["cache-control"] == "no-store"
    again = poll(api, user, path_of(operation), after=ids[0])
    assert [e["id"] for e in again.events] == ids[1:], "who goes on is not told the state again"
    nothing = poll(api, user, path_of(operation), after=ids[-1])
    assert nothing.json == {"events": [], "last_id": ids[-1], "has_ended": False}


def test_a_poll_waits_for_what_comes_and_ends_with_nothing_when_its_time_is_over(stack, api, user, operation, publish):
    last_id = poll(api, user, path_of(operation)).last_id
    thread, result = in_background(lambda: poll(api, user, path_of(operation), after=last_id, wait=60))
    wait_for("the poll to wait", lambda: waiting(stack, api, "poll") == 1)
    first = publish(operation, data={"n": 1})
    thread.join(30)
    assert numbers(result[0].events) == [1] and result[0].last_id == first
    started = time.monotonic()
    nothing = poll(api, user, path_of(operation), after=first, wait=1)
    assert nothing.json == {"events": [], "last_id": first, "has_ended": False}
    assert time.monotonic() - started >= 1


def test_a_users_poll_begins_now_and_misses_nothing_between_polls(apis, user, operation, publish):
    publish(operation, data={"n": 0})
    begin = poll(apis[0], user, ALL)
    assert begin.events == []
    publish(operation, data={"n": 1})
    other = Operation(user.stack, user)
    publish(other, data={"n": 2})
    answer = poll(apis[1], user, ALL, after=begin.last_id, wait=10)
    assert numbers(answer.events) == [1, 2]
    assert numbers(poll(apis[0], user, ALL, after="0").events) == [0, 1, 2]


def test_a_poll_of_a_user_of_whom_nothing_is_kept_yet_misses_nothing(api, user, operation, publish):
    begin = poll(api, user, ALL)
    assert begin.events == [] and begin.last_id
    publish(operation, data={"n": 0})
    assert numbers(poll(api, user, ALL, after=begin.last_id).events) == [0]


def test_the_end_of_an_operation_is_told(stack, api, user, operation, publish):
    publish(operation, data={"n": 0})
    publish(operation, "operation_completed", status="completed", data={"n": 1})
    answer = poll(api, user, path_of(operation), wait=30)
    assert numbers(answer.events) == [0, 1] and answer.json["has_ended"] is True
    stack.sql("UPDATE operations SET status = 'completed', announced_at = now() WHERE uuid = :'v1'", operation.id)
    started = time.monotonic()
    again = poll(api, user, path_of(operation), after=answer.last_id, wait=60)
    assert again.events == [] and again.json["has_ended"] is True, "nothing can come any more: nobody waits for it"
    stack.redis_cli("DEL", f"{stack.env['REDIS_PREFIX']}operation-progress:{operation.id}")
    forgotten = poll(api, user, path_of(operation), wait=60)
    assert [e["type"] for e in forgotten.events] == ["current_state"] and forgotten.json["has_ended"] is True
    assert time.monotonic() - started < 50


def test_a_large_history_comes_in_bounded_answers(api, user, operation, publish):
    for n in range(300):
        publish(operation, data={"n": n, "filler": "x" * 3000})
    seen, sizes, after = [], [], None
    while len(seen) < 300:
        answer = poll(api, user, path_of(operation), after=after)
        seen += numbers(answer.events)
        sizes.append(len(answer.body))
        after = answer.last_id
    assert seen == list(range(300))
    assert len(sizes) > 1 and max(sizes) < 600000


def test_a_trimmed_history_and_an_unknown_id_are_told_with_the_state(stack, api, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(10)]
    stack.redis_cli("XTRIM", f"{stack.env['REDIS_PREFIX']}operation-progress:{operation.id}", "MAXLEN", "3")
    for after in (ids[2], "garbage", "0123456789abcdef-1-0"):
        events = poll(api, user, path_of(operation), after=after).events
        assert [e["type"] for e in events[:2]] == ["history_truncated", "current_state"], after
        assert numbers(events) == [7, 8, 9]
    assert numbers(poll(api, user, path_of(operation), after=ids[7]).events) == [8, 9]


def test_who_may_not_see_an_operation_gets_no_events(stack, api, user, operation):
    stranger, inactive = User(stack), User(stack)
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", inactive.id)
    for accept in ("application/json", "text/event-stream"):
        def status(path, token, accept=accept):
            return Poll(api, path, token, headers={"Accept": accept}).status
        assert status(path_of(operation), stranger.token) == 403
        assert status(path_of(operation), inactive.token) == 403
        assert status(path_of(operation), "nonsense") == 401
        assert status(ALL, user.signed(seconds=-5)) == 401
        assert status(f"/api/v2/operations/{uuid.uuid4()}/events", user.token) == 404
        assert status("/api/v2/operations/nonsense/events", user.token) == 404
        assert status(ALL + "?wait=61", user.token) == 422
    answer = Poll(api, path_of(operation), stranger.token)
    assert set(answer.json) == {"detail", "reference"} and "access" in answer.json["detail"]


def test_a_token_in_the_query_opens_event_streams_alone_and_is_not_logged(api, user, operation):
    opened = EventStream(api, path_of(operation) + "?token=" + user.token)
    assert opened.message()["type"] == "current_state"
    opened.close()
    refused = EventStream(api, path_of(operation) + "?token=x" + user.token, expect=401)
    refused.close()
    url = f"{api.url}{path_of(operation)}?token={user.token}"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url, timeout=30)
    assert error.value.code == 401
    with open(api.log, encoding="utf-8") as log:
        assert user.token not in log.read()


def test_head_tells_what_get_would_answer(api, user, operation):
    for accept, kind in (("*/*", "application/json"), ("text/event-stream", "text/event-stream")):
        answer = Poll(api, path_of(operation), user.token, method="HEAD", headers={"Accept": accept})
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, b"")


# --- Server-Sent Events

def test_a_stream_begins_with_the_state_then_history_then_live_events(api, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    events = stream(api, user, path_of(operation))
    assert events.headers["content-type"] == "text/event-stream" and events.headers["x-accel-buffering"] == "no"
    assert events.headers["cache-control"] == "no-store" and "content-encoding" not in events.headers
    assert events.message()["type"] == "current_state" and events.retry == 3000 and events.last_event_id is None
    assert numbers([events.message() for _ in range(3)]) == [0, 1, 2] and events.last_event_id == ids[2]
    publish(operation, data={"n": 3})
    last = publish(operation, "operation_completed", status="completed", data={"n": 4})
    assert numbers(events.until("operation_completed")) == [3, 4] and events.last_event_id == last
    wait_for("a heartbeat", lambda: events.block() == ": ping")
    events.close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_resumes_by_header_and_by_query(api, user, operation, publish, version):
    ids = [publish(operation, data={"n": n}) for n in range(5)]
    by_header = stream(api, user, path_of(operation) + "?last_event_id=" + ids[0], version=version, headers=["Last-Event-ID: " + ids[2]])
    by_query = stream(api, user, path_of(operation) + "?last_event_id=" + ids[3], version=version)
    garbage = stream(api, user, ALL + "?last_event_id=garbage", version=version)
    assert by_header.is_chunked is (version == "1.1")
    assert numbers([by_header.message() for _ in range(3)]) == [3, 4]
    assert numbers([by_query.message() for _ in range(2)]) == [4]
    assert garbage.message()["type"] == "history_truncated"
    assert numbers([garbage.message() for _ in range(5)]) == [0, 1, 2, 3, 4]
    for events in (by_header, by_query, garbage):
        events.close()


def test_a_stream_that_breaks_before_its_first_event_is_resumed_without_a_hole(api, user, operation, publish):
    publish(operation, data={"n": 0})
    first = stream(api, user, ALL).opened()
    first.abort()
    publish(operation, data={"n": 1})
    again = stream(api, user, ALL, headers=["Last-Event-ID: " + first.last_event_id])
    assert numbers([again.message()]) == [1]
    again.close()


def test_curl_reads_the_stream(api, user, operation, publish):
    publish(operation, data={"n": 0})
    publish(operation, "operation_completed", status="completed", data={"n": 1})
    with subprocess.Popen(["curl", "-sN", "-H", "Accept: text/event-stream", "-H", "Authorization: Bearer " + user.token, api.url + path_of(operation)],
                          stdout=subprocess.PIPE, text=True) as curl:
        seen = []
        for line in curl.stdout:
            seen += [json.loads(line[6:])] if line.startswith("data: ") else []
            if seen and seen[-1]["type"] in LAST:
                break
        curl.terminate()
    assert numbers(seen) == [0, 1]


# --- no hole, no duplicate

def next_by_poll(choice, apis, user, path, last_id):
    answer = poll(choice.choice(apis), user, path, after=last_id, wait=choice.choice([0, 1, 20]))
    return answer.events, answer.last_id


def next_by_stream(choice, apis, user, path, last_id):
    events = stream(choice.choice(apis), user, path, headers=["Last-Event-ID: " + last_id] if last_id else [])
    seen = [events.message() for _ in range(choice.randint(1, 8))]
    choice.choice([events.close, events.abort])()
    return seen, events.last_event_id or last_id


def next_by_socket(choice, apis, user, path, last_id):
    ws = user.open(choice.choice(apis), path.replace("/api/v2", "/ws").removesuffix("/events") + "?last_id=" + last_id)
    seen = [ws.next() for _ in range(choice.randint(1, 8))]
    choice.choice([ws.close, ws.abort])()
    return seen, next((f["id"] for f in reversed(seen) if f.get("id")), last_id)


def test_there_is_no_hole_and_no_duplicate_whatever_a_client_switches_between(stack, apis, publish):
    user = User(stack)
    operation = Operation(stack, user)
    total, errors, steps = 500, [], [0] * 5
    results = [[] for _ in steps]
    ways = [[next_by_poll], [next_by_stream], [next_by_poll, next_by_stream, next_by_socket], [next_by_poll], [next_by_poll, next_by_socket]]

    def follow(i):
        choice = random.Random(i)
        path, last_id = (path_of(operation) if i < 3 else ALL), "0"
        try:
            while not results[i] or results[i][-1] != total - 1:
                # What is over sends nothing more to a reader that wants several frames: the rest is polled.
                way = next_by_poll if results[i] and results[i][-1] > total - 30 else choice.choice(ways[i])
                events, last_id = way(choice, apis, user, path, last_id)
                assert all(e["type"] != "history_truncated" for e in events)
                results[i] += numbers(events)
                steps[i] += 1
        except BaseException as error:  # noqa: B902 - told by the main thread
            errors.append((i, repr(error)))

    threads = [threading.Thread(target=follow, args=(i,)) for i in range(len(steps))]
    for thread in threads:
        thread.start()
    for n in range(total):
        publish(operation, data={"n": n})
    for thread in threads:
        thread.join(120)
    assert not errors
    assert sum(steps) > 100
    for seen in results:
        assert seen == list(range(total))


def is_cut(api, user, last_id, path=ALL):
    try:
        poll(api, user, path, after=last_id, wait=60)
        return False
    except OSError:
        return True


def test_a_killed_instance_costs_no_event(make_stack):
    stack = make_stack(apis=2, workers=0)
    publish, user = Publisher(stack), User(stack)
    operation = Operation(stack, user)
    last_id = poll(stack.apis[0], user, ALL).last_id
    events = stream(stack.apis[0], user, ALL).opened()
    thread, result = in_background(lambda: is_cut(stack.apis[0], user, last_id))
    wait_for("the poll to wait", lambda: waiting(stack, stack.apis[0], "poll") == 1)
    stack.apis[0].kill()
    publish(operation, data={"n": 0})
    thread.join(30)
    assert result == [True] and events.end() == (None, False)
    assert numbers(poll(stack.apis[1], user, ALL, after=last_id).events) == [0]
    again = stream(stack.apis[1], user, ALL, headers=["Last-Event-ID: " + events.last_event_id])
    assert numbers([again.message()]) == [0]
    publish.close()


def test_a_lost_data_set_is_told(stack, api, publish):
    user = User(stack)
    operation = Operation(stack, user)
    own = Publisher(stack)
    last_id = publish(operation, data={"n": 0})
    events = stream(api, user, path_of(operation))
    assert events.message()["type"] == "current_state" and numbers([events.message()]) == [0]
    forget_events(stack)
    own(operation, data={"n": 1})
    assert [events.message()["type"] for _ in range(2)] == ["history_truncated", "current_state"]
    assert numbers([events.message()]) == [1]
    told = poll(api, user, path_of(operation), after=last_id).events
    assert [e["type"] for e in told[:2]] == ["history_truncated", "current_state"] and numbers(told) == [1]
    events.close()
    own.close()


def test_an_outage_of_redis_hides_no_event(make_stack):
    stack = make_stack(apis=1, workers=0)
    publish, user, api = Publisher(stack), User(stack), stack.apis[0]
    operation = Operation(stack, user)
    last_id = publish(operation, data={"n": 0})
    events = stream(api, user, path_of(operation))
    assert events.message()["type"] == "current_state" and numbers([events.message()]) == [0]
    thread, result = in_background(lambda: poll(api, user, path_of(operation), after=last_id, wait=60))
    wait_for("the poll to wait", lambda: waiting(stack, api, "poll") == 1)
    stack.redis.shut()
    wait_for("the API to notice", lambda: "degraded" in api.readiness()[1])
    refused = [poll(api, user, path, after=last_id, wait=1) for path in (path_of(operation), ALL)]
    assert [(r.status, r.headers["retry-after"]) for r in refused] == [(503, "2")] * 2
    opened_meanwhile = stream(api, user, path_of(operation))
    assert opened_meanwhile.message()["type"] == "current_state"
    publish(operation, data={"n": 1})
    stack.redis.open()
    assert numbers([events.message()]) == [1]
    assert numbers([opened_meanwhile.message() for _ in range(2)]) == [0, 1]
    thread.join(60)
    assert result[0].status == 503 or numbers(result[0].events) == [1]
    wait_for("polls to be answered", lambda: poll(api, user, path_of(operation), after=last_id).status == 200)
    assert numbers(poll(api, user, path_of(operation), after=last_id).events) == [1]
    publish.close()


# --- limits, time

def test_streams_count_like_sockets_over_all_instances(make_stack):
    stack = make_stack(apis=2, workers=0, WS_MAX_CONNECTIONS_PER_USER=3)
    user = User(stack)
    held = [stream(stack.apis[0], user, ALL).opened(), stream(stack.apis[1], user, ALL).opened(), user.open(stack.apis[0])]
    probe(held[2])
    for api in stack.apis:
        refused = EventStream(api, ALL, user.token, expect=429)
        assert int(refused.headers["retry-after"]) > 0 and refused.headers["x-ratelimit-limit"] == "3"
    with pytest.raises(Exception):
        probe(user.open(stack.apis[0]))
    held[0].close()
    wait_for("the place to be free", lambda: Poll(stack.apis[1], ALL, user.token).status == 200)
    wait_for("a stream to be let in", lambda: is_let_in(stack.apis[1], user))


def is_let_in(api, user):
    try:
        return stream(api, user, ALL).opened()
    except AssertionError:
        return None


def assert_beyond_a_limit(answer, whose, most):
    body, headers = answer.json, answer.headers
    assert answer.status == 429 and set(body) == {"detail", "error", "retry_after", "limit", "reference"}
    assert (body["detail"], body["error"]) == ("Rate limit exceeded", "rate_limit_exceeded") and whose in body["limit"]
    assert body["retry_after"] == int(headers["retry-after"]) > 0
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (str(most), "0")
    assert abs(int(headers["x-ratelimit-reset"]) - time.time() - body["retry_after"]) < 60


def test_polls_that_wait_are_bounded_for_a_user_an_operation_and_an_instance(make_stack):
    stack = make_stack(apis=1, workers=0, WS_MAX_CONNECTIONS_PER_USER=2, WS_MAX_CONNECTIONS_PER_OPERATION=3, WS_MAX_TOTAL_CONNECTIONS=4)
    api, users = stack.apis[0], [User(stack) for _ in range(4)]
    operation = Operation(stack, users[0], is_public=True)
    last_id = poll(api, users[0], path_of(operation)).last_id

    def hold(user, path):
        before = metric(stack, api, "event_streams_open")
        in_background(lambda: is_cut(api, user, last_id, path))
        wait_for("the poll to count", lambda: metric(stack, api, "event_streams_open") == before + 1)

    hold(users[0], path_of(operation))
    hold(users[0], path_of(operation))
    refused = poll(api, users[0], ALL)
    assert_beyond_a_limit(refused, "this user", 2)
    hold(users[1], path_of(operation))
    assert_beyond_a_limit(poll(api, users[2], path_of(operation)), "this operation", 3)
    hold(users[2], ALL)
    assert_beyond_a_limit(poll(api, users[3], ALL), "this server", 4)


@pytest.mark.parametrize("transport", ["poll", "sse"])
def test_who_goes_away_leaves_nothing_behind(stack, api, user, operation, transport):
    accept = "text/event-stream" if transport == "sse" else "*/*"
    head = f"GET {path_of(operation)}?wait=60&after=0 HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\nAuthorization: Bearer {user.token}\r\n\r\n".encode()
    socks = []
    for _ in range(8):
        socks.append(socket.create_connection(("127.0.0.1", api.port)))
        socks[-1].sendall(head)
    wait_for("all to be here", lambda: waiting(stack, api, transport) == 8)
    started = time.monotonic()
    for sock in socks:
        sock.close()
    wait_for("all to be gone", lambda: waiting(stack, api, transport) == 0)
    assert time.monotonic() - started < 50, "long before their time is over"
    assert metric(stack, api, "event_streams_open") == 0
    prefix = stack.env["REDIS_PREFIX"]
    wait_for("the registry to forget them", lambda: stack.redis_cli("ZCARD", prefix + f"websocket:connections:user:{user.id}") == "0")


def test_an_expired_token_ends_streams_and_polls(api, user, operation):
    token = user.signed(seconds=4)
    events = stream(api, user, path_of(operation), token=token)
    answer = poll(api, user, path_of(operation), token=token, after="0", wait=30)
    assert answer.status == 401
    assert events.end() == ({"code": 1008, "reason": "token expired"}, True)


def test_lost_access_ends_a_stream(stack, api, user):
    operation, stranger = Operation(stack, user, is_public=True), User(stack)
    events = stream(api, stranger, path_of(operation))
    thread, result = in_background(lambda: poll(api, stranger, path_of(operation), after="0", wait=60))
    assert events.message()["type"] == "current_state"
    wait_for("the poll to wait", lambda: waiting(stack, api, "poll") == 1)
    stack.sql("UPDATE collections SET is_public = false WHERE uuid = :'v1'", operation.collection)
    said, is_whole = events.end()
    assert is_whole and said["code"] == 1008 and "access" in said["reason"]
    thread.join(60)
    assert result[0].status == 403


def test_a_slow_reader_is_cut_while_the_others_are_served_and_resumes_whole(stack, api, publish):
    user = User(stack)
    operation = Operation(stack, user)
    slow = stream(api, user, ALL, receive_buffer=4096).opened()
    fast = stream(api, user, ALL).opened()
    total = 500
    for n in range(total):
        publish(operation, "index_stage", data={"n": n, "filler": "x" * 4000})
        assert numbers([fast.message()]) == [n]
    wait_for("the slow one to be cut", lambda: waiting(stack, api, "sse") == 1, seconds=60)
    seen = []
    with pytest.raises(Ended) as ended:
        while True:
            seen += numbers([slow.message()])
    assert not ended.value.is_whole and seen == list(range(len(seen))) and len(seen) < total
    again = stream(api, user, ALL, headers=["Last-Event-ID: " + slow.last_event_id])
    assert numbers([again.message() for _ in range(total - len(seen))]) == list(range(len(seen), total))
    fast.close()
    again.close()


def test_a_drain_answers_polls_and_ends_streams(make_stack):
    stack = make_stack(apis=2, workers=0)
    publish, api = Publisher(stack), stack.apis[0]
    users = [User(stack) for _ in range(4)]
    streams = [stream(api, u, ALL).opened() for u in users for _ in range(4)]
    polls = [in_background(lambda u=u: poll(api, u, ALL, wait=60)) for u in users]
    wait_for("all polls to wait", lambda: waiting(stack, api, "poll") == 4)
    started = time.monotonic()
    assert api.stop() == 0
    assert time.monotonic() - started < 25
    for events in streams:
        said, is_whole = events.end()
        assert is_whole and said["code"] == 1012 and 1000 <= events.retry < 5000
    for thread, result in polls:
        thread.join(30)
        assert result[0].status == 503 and int(result[0].headers["retry-after"]) > 0
    again = [stream(stack.apis[1], u, ALL).opened() for u in users for _ in range(6)]
    assert len(again) == 24, "what the instance left counts no more"
    publish.close()


def test_requests_are_answered_while_many_wait(make_stack):
    stack = make_stack(apis=1, workers=0, WS_MAX_CONNECTIONS_PER_USER=1000, API_THREADS=2)
    publish, api, user = Publisher(stack), stack.apis[0], User(stack)
    operation = Operation(stack, user)
    last_id = publish(operation, data={"n": 0})
    head = f"HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {user.token}\r\n"
    socks = []
    for i in range(300):
        sock = socket.create_connection(("127.0.0.1", api.port))
        accept = "text/event-stream" if i % 2 else "*/*"
        sock.sendall(f"GET {ALL}?wait=60&after={last_id} {head}Accept: {accept}\r\n\r\n".encode())
        socks.append(sock)
    wait_for("all to wait", lambda: waiting(stack, api, "poll") == 150 and waiting(stack, api, "sse") == 150)
    assert Poll(api, "/api/v2/operations", user.token).status == 200, "no handler thread is held"
    publish(operation, data={"n": 1})
    for sock in socks:
        sock.settimeout(60)
        data = b""
        while b'"n":1' not in data:
            more = sock.recv(65536)
            assert more, data
            data += more
        sock.close()
    wait_for("all to be gone", lambda: waiting(stack, api, "poll") + waiting(stack, api, "sse") == 0)
    publish.close()


# --- a browser

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>events</title>")

    def log_message(self, *_):
        pass


def test_a_browsers_event_source_gets_everything_once_over_a_kill_and_a_drain(make_stack):
    browser_of = pytest.importorskip("support.browser")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_port}"
        stack = make_stack(apis=1, workers=0, CORS_ORIGINS=origin)
        publish, user, api = Publisher(stack), User(stack), stack.apis[0]
        operation = Operation(stack, user)
        publish(operation, data={"n": 0})
        with browser_of.Browser() as browser:
            page = browser.page(origin)
            url = f"{api.url}{path_of(operation)}?token={user.token}"
            page.evaluate(f"""(() => {{ window.seen = []; window.closes = [];
                window.source = new EventSource({json.dumps(url)});
                source.onmessage = e => seen.push(JSON.parse(e.data));
                source.addEventListener("close", e => closes.push(JSON.parse(e.data).code)); }})()""")
            page.wait_for("seen.some(e => e.data.n === 0)")
            api.kill()
            publish(operation, data={"n": 1})
            api.start()
            page.wait_for("seen.some(e => e.data.n === 1)")
            publish(operation, data={"n": 2})
            page.wait_for("seen.some(e => e.data.n === 2)")
            api.stop()
            publish(operation, data={"n": 3})
            api.start()
            page.wait_for("seen.some(e => e.data.n === 3)")
            assert page.evaluate("seen.filter(e => e.id).map(e => e.data.n).join()") == "0,1,2,3"
            assert page.evaluate("closes.join()") == "1012"
        server.shutdown()
        publish.close()
