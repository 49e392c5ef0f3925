"""The JavaScript client (api/clients) in a real Chromium, against real API instances."""
import json
import random
import subprocess
import threading
import time

import pytest
from support.browser import Browser
from support.js import CLIENTS, ApiGate, Pages, Polls, Watching
from support.stack import Stack, wait_for
from test_websockets import Operation, Publisher, User

FAST = "firstDelayMs: [20, 60], maxDelayMs: 300,"
NO_POLLS = FAST + "socketAttempts: 1000000,"


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
def polls_gate(stack, pages):
    """One that answers polls, too."""
    made = ApiGate(stack.apis[0], Polls(stack, pages.url))
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


# --- whatever happens in between, nothing is lost and nothing comes twice


class Stream:
    """Publishes without a pause, from a thread, until stop(); ids is what was published."""

    def __init__(self, publish, operation, pause=0.004):
        self.publish, self.operation, self.pause = publish, operation, pause
        self.ids, self.is_stopped = [], False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.is_stopped:
            self.ids.append(self.publish(self.operation, "document_processed", data={"n": len(self.ids)}))
            time.sleep(self.pause)

    def until(self, more):
        goal = len(self.ids) + more
        wait_for("events to be published", lambda: len(self.ids) >= goal, every=0.01)

    def stop(self):
        self.is_stopped = True
        self.thread.join()
        self.ids.append(self.publish(self.operation, "operation_completed", status="completed", data={"status": "completed"}))
        return self.ids


def test_an_instance_is_killed_and_comes_back_in_mid_stream(stack, page, user, operation, publish):
    api = stack.apis[0]
    watching = Watching(page, api.url, user.token, operation, settings=NO_POLLS)
    everything = Watching(page, api.url, user.token, settings=NO_POLLS).until_state("live")
    stream = Stream(publish, operation)
    for _ in range(2):
        stream.until(30)
        watching.until_state("live")
        api.kill()
        stream.until(30)
        assert watching.get("got.watch.connection") != "live"
        api.start()
    ids = stream.stop()
    assert watching.until_state("closed").ids == ids
    assert everything.until_count(len(ids)).ids == ids, "the global socket resumes too"
    everything.close()
    assert page.errors == []


def test_sockets_are_cut_again_and_again(page, gate, user, operation, publish):
    watches = [Watching(page, gate.url, user.token, operation, settings=FAST) for _ in range(4)]
    stream = Stream(publish, operation, pause=0.002)
    for _ in range(15):
        stream.until(random.randrange(1, 25))
        gate.cut()
    ids = stream.stop()
    for watching in watches:
        assert watching.until_state("closed").ids == ids
    assert gate.upgrades >= 15


def test_a_watch_of_all_operations_resumes_though_it_saw_no_event_before_it_was_cut(page, polls_gate, user, operation, publish):
    publish(operation, data={"n": 0})
    watching = Watching(page, polls_gate.url, user.token, settings="firstDelayMs: [60000, 60000],").until_state("live")
    polls_gate.cut()
    watching.until_state("waiting")
    missed = publish(operation, data={"n": 1})
    watching.get("got.watch.reconnect()")
    watching.until_state("live")
    later = publish(operation, data={"n": 2})
    assert watching.until_count(2).ids == [missed, later]
    watching.close()


@pytest.mark.parametrize("refusal", [429, 401, 500, 503])
def test_a_watch_of_all_operations_does_not_go_live_before_it_knows_where_it_is(page, polls_gate, user, operation, publish, refusal):
    polls_gate.polls.refusals = [(refusal, "")]
    watching = Watching(page, polls_gate.url, user.token, settings="firstDelayMs: [60000, 60000],").until("['waiting', 'live'].includes(got.watch.connection)")
    watching.get("got.watch.reconnect()")
    watching.until_state("live")
    polls_gate.cut()
    watching.until_state("waiting")
    missed = publish(operation, data={"n": 1})
    watching.get("got.watch.reconnect()")
    watching.until_state("live")
    later = publish(operation, data={"n": 2})
    assert watching.until_count(2).ids == [missed, later]
    assert [e["code"] for e in watching.errors] == ([429] if refusal == 429 else []), "an outage is told by the state alone"
    watching.close()


@pytest.mark.parametrize("refusal", [403, 404, 405])
def test_a_server_that_does_not_tell_where_events_end_is_watched_all_the_same(page, polls_gate, user, operation, publish, refusal):
    polls_gate.polls.refusals = [(refusal, "")]
    watching = Watching(page, polls_gate.url, user.token, settings=FAST).until_state("live")
    assert watching.errors == [] and polls_gate.polled == 1
    published = publish(operation, data={"n": 0})
    assert watching.until_count(1).ids == [published]
    watching.close()


def test_the_position_is_asked_for_again_when_the_server_says_so(page, polls_gate, user):
    polls_gate.polls.refusals = [(429, "Retry-After: 7\r\n")]
    watching = Watching(page, polls_gate.url, user.token, settings=FAST).until_state("waiting")
    assert watching.get("got.watch.retryAt - Date.now()") > 5000
    assert polls_gate.upgrades == 0
    watching.close()


@pytest.mark.parametrize("what", ["redis", "postgres"])
def test_redis_or_postgresql_goes_away_and_comes_back(stack, page, gate, user, operation, publish, what):
    server = getattr(stack, what)
    watching = Watching(page, gate.url, user.token, operation, settings=FAST).until_state("live")
    stream = Stream(publish, operation)
    stream.until(10)
    server.shut()
    gate.cut()
    stream.until(50)
    server.open()
    stream.until(10)
    ids = stream.stop()
    assert watching.until_state("closed").ids == ids
    assert not any(e["isFinal"] for e in watching.errors)


def test_a_drain_sends_watches_to_another_instance_at_once(stack, page, pages, gate, user, operation, publish):
    third = stack.add("api")
    gate.aim(third)
    watching = Watching(page, gate.url, user.token, operation).until_state("live")
    stream = Stream(publish, operation)
    stream.until(10)
    gate.aim(stack.apis[1])
    third.child.terminate()
    watching.until("got.states.length >= 4")
    stream.until(10)
    ids = stream.stop()
    assert watching.until_state("closed").ids == ids
    assert watching.states == ["connecting", "live", "waiting", "connecting", "live", "closed"]
    third.stop()


# --- tokens and refusals

def test_a_token_that_expires_is_asked_for_again_and_nothing_is_lost(page, gate, user, operation, publish):
    short, long = user.signed(seconds=2), user.token
    watching = Watching(page, gate.url, f"({{ isRefused }}) => isRefused ? '{long}' : '{short}'", operation).until_state("live")
    stream = Stream(publish, operation, pause=0.02)
    watching.until("got.tokens === 2").until_state("live")
    ids = stream.stop()
    assert watching.until_state("closed").ids == ids
    assert watching.errors == [] and watching.get("got.tokens") == 2
    assert watching.states == ["connecting", "live", "connecting", "live", "closed"], "it does not wait before the new token is tried"


def test_a_token_that_is_refused_twice_ends_the_watch(page, gate, user):
    watching = Watching(page, gate.url, user.signed(seconds=-10)).until_state("closed")
    assert watching.errors == [{"message": "Invalid authentication credentials", "code": 1008, "isFinal": True, "cause": "undefined"}]
    assert watching.get("got.tokens") == 2
    assert watching.states == ["connecting", "closed"], "it never was live"


def test_what_may_not_be_watched_ends_with_the_reason(stack, page, gate, operation):
    stranger = User(stack)
    watching = Watching(page, gate.url, stranger.token, operation).until_state("closed")
    [error] = watching.errors
    assert error["isFinal"] and "access" in error["message"]
    assert gate.upgrades == 1 and watching.get("got.ends") == []


def test_a_token_that_cannot_be_had_is_asked_for_again_later(page, gate, user):
    source = f"() => {{ window.asked = (window.asked ?? 0) + 1; if (window.asked < 3) throw new Error('offline'); return '{user.token}'; }}"
    watching = Watching(page, gate.url, source, settings=FAST).until_state("live")
    assert [(e["message"], e["code"], e["isFinal"], e["cause"]) for e in watching.errors] == [("getToken failed", "token", False, "Error: offline")], \
        "the second time is no news"
    assert watching.get("got.tokens") == 3
    watching.close()


def test_more_watches_than_a_user_may_have_sockets_wait_for_a_place(page, polls_gate, operation, user, publish):
    watches = [Watching(page, polls_gate.url, user.token, operation).until_state("live") for _ in range(10)]
    one_more = Watching(page, polls_gate.url, user.token, operation, settings="socketRetrySeconds: 0.5, pollSeconds: 1,").until("got.errors.length > 0")
    assert (one_more.errors[0]["code"], one_more.errors[0]["isFinal"]) == (1008, False) and "too many" in one_more.errors[0]["message"]
    one_more.until("['waiting', 'polling'].includes(got.watch.connection)")
    first = publish(operation, data={"n": 0})
    watches[0].close()
    one_more.until("got.watch.reconnect() ?? got.watch.connection === 'live'")
    last = publish(operation, "operation_completed", status="completed")
    assert one_more.until_state("closed").ids == [first, last]


# --- where WebSockets do not get through

@pytest.fixture
def blocked(polls_gate):
    polls_gate.blocks_upgrades = True
    return polls_gate


POLLING = FAST + "socketRetrySeconds: 0.5, pollSeconds: 1,"


def test_blocked_upgrades_lead_to_polls_and_back_to_a_socket_once_they_pass(page, blocked, user, operation, publish):
    first = publish(operation, data={"n": 0})
    watching = Watching(page, blocked.url, user.token, operation, settings=POLLING).until_state("polling")
    everything = Watching(page, blocked.url, user.token, settings=POLLING).until_state("polling")
    assert watching.states == ["connecting", "waiting", "connecting", "waiting", "connecting", "polling"], "three sockets are tried first"
    stream = Stream(publish, operation)
    stream.until(50)
    watching.until_count(40)
    assert watching.get("got.watch.connection") == "polling"
    blocked.blocks_upgrades = False
    watching.until_state("live")
    everything.until_state("live")
    polled = blocked.polled
    stream.until(20)
    ids = [first] + stream.stop()
    assert watching.until_state("closed").ids == ids
    assert everything.until_count(len(ids) - 1).ids == ids[1:]
    assert blocked.polled == polled, "no poll goes on beside a socket"
    assert not any(e["type"] == "history_truncated" for w in (watching, everything) for e in w.events)
    everything.close()


def test_a_watch_that_polls_ends_with_its_operation(page, blocked, user, operation, publish):
    watching = Watching(page, blocked.url, user.token, operation, settings=POLLING).until_state("polling")
    last = publish(operation, "operation_failed", status="failed")
    watching.until_state("closed")
    assert watching.ids == [last] and watching.get("got.ends[0].type") == "operation_failed"
    polled, upgrades = blocked.polled, blocked.upgrades
    time.sleep(0.7)
    assert (blocked.polled, blocked.upgrades) == (polled, upgrades)


def test_polls_wait_as_long_as_the_server_asks_and_end_when_they_are_denied_twice(page, blocked, user, operation):
    blocked.polls.refusals = [(429, "Retry-After: 2\r\n")]
    watching = Watching(page, blocked.url, user.token, operation, settings=POLLING).until("got.errors.length === 1")
    assert watching.errors[0]["code"] == 429 and not watching.errors[0]["isFinal"]
    assert watching.get("got.watch.retryAt - Date.now()") > 1000
    blocked.polls.refusals = [(403, ""), (403, "")]
    watching.until_state("closed")
    assert [(e["code"], e["isFinal"]) for e in watching.errors] == [(429, False), (403, False), (403, True)]


def test_without_websockets_it_polls_from_the_beginning(page, blocked, user, operation, publish):
    watching = Watching(page, blocked.url, user.token, operation, settings=POLLING + "WebSocket: null,").until_state("polling")
    published = publish(operation, data={"n": 0})
    assert watching.until_count(1).ids == [published]
    assert blocked.upgrades == 0 and watching.states == ["connecting", "polling"]
    watching.close()


# --- connections that die silently, and pages that sleep

def test_a_connection_on_which_nothing_is_heard_is_given_up(page, gate, user, operation, publish):
    watching = Watching(page, gate.url, user.token, operation, settings=NO_POLLS + "heartbeatSeconds: 0.4, handshakeSeconds: 0.5,").until_state("live")
    gate.hold()
    watching.until("got.states.filter((s) => s === 'waiting').length >= 2")
    published = publish(operation, data={"n": 0})
    gate.release()
    assert watching.until_count(1).ids == [published]
    watching.close()


def test_a_page_that_comes_back_online_does_not_wait(page, gate, user):
    watching = Watching(page, gate.url, user.token, settings="firstDelayMs: [600000, 600000], maxDelayMs: 600000, handshakeSeconds: 0.5,").until_state("live")
    gate.cut()
    watching.until_state("waiting")
    page.go_offline()
    page.go_offline(False)
    watching.until_state("live")
    # A socket that died while the page was not looked at is found out at once.
    gate.hold()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    watching.until_state("waiting")
    gate.release()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    watching.until_state("live")
    watching.close()


# --- the end

COUNTED = """(() => {
    window.timers = new Set(); window.listeners = 0;
    const { setTimeout, clearTimeout, addEventListener, removeEventListener } = window;
    window.setTimeout = (f, ms) => { const t = setTimeout(() => { timers.delete(t); f(); }, ms); timers.add(t); return t; };
    window.clearTimeout = (t) => { timers.delete(t); clearTimeout(t); };
    for (const target of [window, document]) {
        target.addEventListener = (...a) => { listeners++; EventTarget.prototype.addEventListener.apply(target, a); };
        target.removeEventListener = (...a) => { listeners--; EventTarget.prototype.removeEventListener.apply(target, a); };
    }
})()"""


def test_close_leaves_no_socket_no_timer_and_no_listener(page, blocked, gate, user, operation):
    page.evaluate(COUNTED)
    watches = [Watching(page, gate.url, user.token, operation).until_state("live"), Watching(page, gate.url, user.token).until_state("live"),
               Watching(page, blocked.url, user.token, operation, settings=POLLING).until_state("polling"),
               Watching(page, "http://127.0.0.1:1", user.token, operation).until_state("waiting"),
               Watching(page, gate.url, "() => new Promise(() => {})", operation), Watching(page, gate.url, user.token)]
    assert page.evaluate("[timers.size > 0, listeners]") == [True, 12]
    for watching in watches:
        watching.close()
        watching.close()
        assert watching.states[-1] == "closed" and watching.states.count("closed") == 1
    assert page.evaluate("[timers.size, listeners]") == [0, 0]
    wait_for("the sockets to be closed", lambda: not page.sockets)


def test_a_finished_operation_without_a_history_ends_with_its_state(stack, page, gate, user):
    operation = Operation(stack, user, status="completed")
    watching = Watching(page, gate.url, user.token, operation, settings="settleSeconds: 0.2,").until_state("closed")
    assert watching.get("got.ends.map((e) => [e.type, e.status])") == [["current_state", "completed"]]


def test_what_callbacks_throw_is_reported_and_disturbs_nothing(page, gate, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    told = Watching(page, gate.url, user.token, operation, options="onEvent: (e) => { got.events.push(e); throw new Error('mine'); },").until_count(3)
    untold = Watching(page, gate.url, user.token, operation,
                      options="onEvent: (e) => { got.events.push(e); throw new Error('mine'); }, onError: () => { throw new Error('worse'); },").until_count(3)
    assert told.ids == untold.ids == ids
    assert {e["message"] for e in told.errors} == {"onEvent failed"} and told.errors[0]["cause"] == "Error: mine"
    assert len(page.errors) == 4 and all("opstream:" in e and "worse" in e for e in page.errors)
    told.close()
    untold.close()


def test_a_callback_may_close_the_watch_in_the_middle_of_a_history(page, gate, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(5)]
    watching = Watching(page, gate.url, user.token, operation, options="onEvent: (e) => { got.events.push(e); if (e.data.n === 1) got.watch.close(); },")
    assert watching.until_state("closed").ids == ids[:2]
    assert watching.get("got.watch.lastId") == ids[1]
    again = Watching(page, gate.url, user.token, operation, last_id=ids[1]).until_count(3)
    assert again.ids == ids[2:]
    again.close()


def test_two_tabs_and_many_watches_see_the_same(browser, page, pages, gate, user, operation, publish):
    other = browser.page(pages.url + "/")
    watches = [Watching(tab, gate.url, user.token, operation) for tab in (page, other, page, other)]
    stream = Stream(publish, operation)
    stream.until(30)
    other.reload()
    stream.until(30)
    ids = stream.stop()
    for watching in watches[::2]:
        assert watching.until_state("closed").ids == ids
    other.close()


# --- without a page

@pytest.mark.parametrize("flags", [[], ["--experimental-websocket"]], ids=["as it is", "with WebSockets"])
def test_node_watches_too_and_ends_by_itself_after_the_last_event(polls_gate, user, operation, publish, flags):
    asked = subprocess.run(["node", *flags, "-p", "typeof WebSocket"], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip("this Node.js has no such flag")
    way = "live" if asked.stdout.strip() == "function" else "polling"
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    script = f"""import {{ OpstreamClient }} from {json.dumps(CLIENTS + "/opstream.js")};
        const client = new OpstreamClient({{ baseUrl: {json.dumps(polls_gate.url)}, getToken: () => {json.dumps(user.token)}, pollSeconds: 1 }});
        client.watchOperation({json.dumps(operation.id)}, {{ onEvent: (e) => console.log(e.id ?? e.type), onEnd: () => console.log("end"), onConnection: (s) => console.log(s) }});"""
    with subprocess.Popen(["node", *flags, "--input-type=module", "-e", script], stdout=subprocess.PIPE, text=True) as node:
        lines = []
        while len(lines) < 6:
            lines.append(node.stdout.readline().strip())
        last = publish(operation, "operation_completed", status="completed")
        lines += node.stdout.read().split()
        assert node.wait(60) == 0
    states = [line for line in lines if line in ("connecting", "live", "polling", "waiting", "closed")]
    assert states == ["connecting", way, "closed"]
    assert [line for line in lines if line not in states] == ["current_state", *ids, last, "end"]


# --- what a server cannot be made to do in a test: a WebSocket of the test's own

FAKE = """
    window.fakes = [];
    window.Fake = class {
        constructor(url, protocols) { this.url = url; this.protocols = protocols; this.sent = []; fakes.push(this); }
        send(text) { this.sent.push(text); }
        close() { this.isClosed = true; }
        say(...frames) { for (const f of frames) this.onmessage?.({ data: typeof f === "string" ? f : JSON.stringify(f) }); }
        end(code, reason = "") { this.onclose?.({ code, reason }); }
    };
    window.frame = (id, type = "processing_progress") => ({ id, type, timestamp: "2026-01-01T00:00:00Z", data: {} });
    window.opened = async (n) => { while (fakes.length < n) await new Promise((r) => setTimeout(r, 5)); return fakes[n - 1]; };
"""


class Stub:
    id = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def fake(page):
    page.evaluate(FAKE)

    def watch(last_id=None, settings=""):
        return Watching(page, "http://127.0.0.1:1", "t", Stub, last_id=last_id, settings=f"WebSocket: Fake, firstDelayMs: [1, 2], {settings}")

    return watch


def test_frames_that_come_twice_or_out_of_order_are_dropped(page, fake):
    watching = fake()
    page.run("""const s = await opened(1);
        s.say({ type: "current_state", status: "processing", data: {} }, frame("e-5-0"), frame("e-5-1"), frame("e-5-0"), frame("e-4-9"), frame("e-10-0"), frame("e-9-0"),
              "no JSON", '"text"', "null", "[]", '{"a": 1}', { type: "ping" }, { type: "pong" }, { type: "a_new_type", data: {} });
        s.end(1006);
        (await opened(2)).say(frame("e-10-0"), frame("e-11-0"));""")
    assert watching.ids == ["e-5-0", "e-5-1", "e-10-0", "e-11-0"]
    assert [e["type"] for e in watching.events if "id" not in e] == ["current_state", "a_new_type"]
    assert page.evaluate("fakes.map((s) => s.url.split('?')[1])") == ["last_id=", "last_id=e-10-0"]
    assert page.evaluate("fakes[0].protocols") == ["access_token.t"]
    watching.close()


def test_a_truncated_history_starts_over_without_repeating_what_was_told(page, fake):
    watching = fake(last_id="e-7-0")
    page.run("""const s = await opened(1);
        s.say(frame("e-8-0"), frame("e-9-0"), { type: "history_truncated", data: {} }, { type: "current_state", status: "processing", data: {} },
              frame("e-6-0"), frame("e-9-0"), frame("e-10-0"), { type: "history_truncated", data: {} }, frame("f-1-0"), frame("f-1-0"), frame("f-1-1"));""")
    assert watching.ids == ["e-8-0", "e-9-0", "e-6-0", "e-10-0", "f-1-0", "f-1-1"]
    assert watching.get("got.watch.lastId") == "f-1-1"
    watching.close()


def test_every_attempt_waits_longer_by_chance_and_a_stable_connection_starts_over(page, fake):
    page.evaluate("Math.random = () => 0.999999")
    watching = fake(settings="firstDelayMs: [250, 1000], socketAttempts: 100, stableSeconds: 0,")
    page.run("""window.delays = [];
        const attempt = async (n, isLive) => {
            const s = await opened(n);
            if (isLive) s.say({ type: "pong" });
            s.end(1006);
            delays.push(Math.round((got().watch.retryAt - Date.now()) / 100) / 10);
            got().watch.reconnect();
        };
        const got = () => window.""" + watching.name + """;
        for (let n = 1; n <= 8; n++) await attempt(n, n === 8);""")
    assert page.evaluate("delays") == [1, 2, 4, 8, 16, 30, 30, 1]
    watching.close()


def test_an_origin_that_the_server_does_not_list_polls_and_tries_sockets_now_and_then(page, fake, polls_gate, user, operation, publish):
    first = publish(operation, data={"n": 0})
    watching = Watching(page, polls_gate.url, user.token, operation, settings="WebSocket: Fake, socketRetrySeconds: 0.1, pollSeconds: 1,")
    page.run("(await opened(1)).end(1008, 'this origin is not allowed');")
    watching.until_state("polling").until_count(1)
    assert watching.errors == [{"message": "this origin is not allowed", "code": 1008, "isFinal": False, "cause": "undefined"}]
    page.run("(await opened(2)).end(1008, 'this origin is not allowed'); (await opened(3)).say({ type: 'pong' });")
    last = publish(operation, data={"n": 1})
    page.run(f"fakes[2].say(frame('{last}'));")
    assert watching.until_state("live").ids == [first, last]
    watching.close()


@pytest.mark.parametrize("end", ["", "1008, 'too many connections'", "1008, 'token expired'", "1008, 'no'", "1006"])
@pytest.mark.parametrize("when", ["connecting", "live", "waiting", "error"])
def test_callbacks_may_close_the_watch_at_any_time(page, fake, when, end):
    page.evaluate(COUNTED)
    close = "got.states.push(s); if (s === '%s') { got.count = got.events.length; got.watch.close(); }" % when
    watching = Watching(page, "http://127.0.0.1:1", "t", Stub, settings="WebSocket: Fake, firstDelayMs: [1, 2],",
                        options="onConnection: (s) => {" + close + "}, onError: () => { if ('" + when + "' === 'error') got.watch.close(); },")
    page.run("await new Promise((r) => setTimeout(r, 10)); const s = fakes[0]; if (s) { s.say(frame('e-1-0'), frame('e-2-0')); "
             + (f"s.end({end});" if end else "") + " }")
    page.run("await new Promise((r) => setTimeout(r, 20));")
    if watching.get("got.states.includes('closed')"):
        assert page.evaluate("[timers.size, listeners]") == [0, 0]
        assert watching.get("got.count ?? got.events.length") == watching.get("got.events.length"), "nothing is told after it"
        count = page.evaluate("fakes.length")
        page.run("await new Promise((r) => setTimeout(r, 20));")
        assert page.evaluate("fakes.length") == count
    else:
        watching.close()
    assert page.evaluate("[timers.size, listeners]") == [0, 0]
