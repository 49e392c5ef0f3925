"""Redis and PostgreSQL lost, emptied, frozen, full, read-only, replaced: work waits or goes on, nothing is lost, doubled or stuck, nobody has to help."""
import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from support import documents as docs
from support.client import LAST, Client
from support.servers import Postgres, Redis, Sentinels
from support.stack import Gate, fetch, free_port, run, wait_for
from test_main_job import assert_nothing_doubled

MANY = 60


@pytest.fixture
def servers(monkeypatch):
    """servers(Redis, …): one of the test's own, which the stacks of this test use."""
    made = []

    def make(kind, *arguments, **settings):
        made.append(kind(*arguments, **settings))
        if kind in (Redis, Postgres):
            monkeypatch.setenv("REDIS_URL" if kind is Redis else "DATABASE_URL", made[-1].url)
        return made[-1]

    yield make
    for server in reversed(made):
        server.close()


def folder_of(stack, name, count):
    folder = os.path.join(stack.roots, name)
    docs.write_many(folder, count)
    return folder


def at_work(stack, user, count=MANY):
    """(collection, operation, its own socket) of a folder that is being indexed."""
    collection = user.collection()
    operation = user.add_source(collection["id"], folder_of(stack, "many", count))
    watch = user.watch(f"/ws/operations/{operation['id']}")
    watch.wait("a document", lambda f: f.get("type") == "document_processed")
    return collection, operation, watch


def is_known_to_be_over(watch):
    """By the last event, or by the state that follows the word that the history is gone."""
    return any(f["type"] in LAST or (f["type"] == "current_state" and f["data"]["status"] == "completed") for f in list(watch.frames))


def announced(stack, operation):
    return stack.sql_value("SELECT announced_at IS NOT NULL FROM operations WHERE uuid = :'v1'", operation["id"]) == "t"


def assert_gapless(user, operation, watch):
    """What this socket showed is what a new one is shown, once each, in order."""
    whole = user.watch(f"/ws/operations/{operation['id']}?last_id=0")
    whole.wait_type(*LAST)
    ids = [e["id"] for e in watch.events(operation["id"])]
    history = [e["id"] for e in whole.events(operation["id"])]
    assert len(set(ids)) == len(ids)
    assert ids == history[-len(ids):] or set(history) <= set(ids)


class Outage:
    """How Redis is taken away, and how it comes back."""

    def __init__(self, redis):
        self.redis = redis

    def begin(self, kind):
        if kind == "emptied":
            self.redis.cli("flushall")
        elif kind in ("restarted empty", "restarted with its log", "away"):
            self.redis.kill()
            if kind != "away":
                self.redis.start()
        elif kind == "restarted from a snapshot":
            self.redis.cli("save")
            time.sleep(0.5)
            self.redis.kill()
            self.redis.start()
        elif kind == "frozen":
            self.redis.signal(signal.SIGSTOP)
        elif kind == "full":
            self.redis.cli("config", "set", "maxmemory", "1")
        elif kind == "read-only":
            self.redis.cli("replicaof", "127.0.0.1", "1")
            self.redis.cli("config", "set", "replica-serve-stale-data", "yes")

    def end(self, kind):
        if kind == "away":
            self.redis.start()
        elif kind == "frozen":
            self.redis.signal(signal.SIGCONT)
        elif kind == "full":
            self.redis.cli("config", "set", "maxmemory", "0")
        elif kind == "read-only":
            self.redis.cli("replicaof", "no", "one")


LASTING = ("away", "frozen", "full", "read-only")


def most_ends_in_a_history(watch, operation):
    """After `history_truncated` all that is kept is shown from its beginning, so what was shown live before it may come once more."""
    counts = [0]
    for frame in watch.frames:
        if frame["type"] == "history_truncated":
            counts.append(0)
        counts[-1] += frame["type"] in LAST and frame.get("operation_id") == operation["id"]
    return max(counts)


@pytest.mark.parametrize("kind", ["emptied", "restarted empty", "restarted with its log", "restarted from a snapshot", *LASTING])
def test_whatever_happens_to_redis_work_is_accepted_done_and_told(make_stack, servers, kind):
    redis = servers(Redis, appendonly="yes" if kind == "restarted with its log" else "no")
    stack = make_stack(apis=1, workers=1)
    api, outage = stack.apis[0], Outage(redis)
    user = Client.registered(api.url)
    other = user.collection()
    user.wait_ready(other["id"])
    collection, operation, watch = at_work(stack, user)
    outage.begin(kind)
    try:
        if kind in LASTING:
            wait_for("readiness to say degraded", lambda: '"degraded":true' in api.readiness()[1] and api.readiness()[0] == 200)
        during = user.add_source(other["id"], folder_of(stack, "during", 3))
        user.wait_over(during["id"])
        user.wait_over(operation["id"])
        assert user.search(other["id"], "How do ships find their way at night?")["results"]
    finally:
        outage.end(kind)
    wait_for("the last events to be published", lambda: announced(stack, operation) and announced(stack, during))
    wait_for("the socket to tell the end", lambda: is_known_to_be_over(watch))
    wait_for("readiness", lambda: '"degraded":false' in api.readiness()[1])
    assert stack.sql_value("SELECT max(attempt) || '/' || max(failures) FROM operations") == "1/0"
    assert_nothing_doubled(stack, collection["id"], MANY)
    assert most_ends_in_a_history(watch, operation) <= 1
    if kind in ("restarted empty", "restarted from a snapshot"):
        assert any(f["type"] == "history_truncated" for f in watch.frames)
    if kind in ("restarted with its log", "full", "frozen"):
        assert_gapless(user, operation, watch)
    user.index(other["id"], folder_of(stack, "after", 2))


@pytest.mark.parametrize("kind", ["full", "frozen", "read-only"])
def test_a_push_that_was_refused_while_no_worker_was_up_strands_nothing(make_stack, servers, kind):
    redis = servers(Redis)
    stack = make_stack(apis=1, workers=1)
    outage = Outage(redis)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()
    user.wait_ready(collection["id"])
    stack.workers[0].stop()
    outage.begin(kind)
    try:
        operation = user.add_source(collection["id"], folder_of(stack, "some", 3))
        stack.workers[0].start()
        user.wait_over(operation["id"])
    finally:
        outage.end(kind)
    wait_for("the last event to be published", lambda: announced(stack, operation))
    assert_nothing_doubled(stack, collection["id"], 3)


def test_a_promoted_replica_without_the_last_writes_is_told_as_a_lost_history(make_stack, servers):
    primary = servers(Redis)
    stack = make_stack(apis=1, workers=1)
    replica = servers(Redis)
    replica.cli("replicaof", "127.0.0.1", str(primary.port))
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()
    user.wait_ready(collection["id"])
    first = user.add_source(collection["id"], folder_of(stack, "first", 3))
    user.wait_over(first["id"])
    wait_for("the last event to be published", lambda: announced(stack, first))
    wait_for("the replica to have it all", lambda: "state=online" in primary.cli("info", "replication")
             and replica.cli("dbsize") == primary.cli("dbsize") and replica.cli("wait", "0", "1") is not None)
    time.sleep(1)
    replica.cli("replicaof", "no", "one")  # what is written from here on is lost
    everything = user.watch("/ws/operations?last_id=0")
    second = user.add_source(collection["id"], folder_of(stack, "second", 3))
    user.wait_over(second["id"])
    last = everything.wait_type(*LAST, operation=second["id"])
    stack.redis.shut()
    primary.kill()
    stack.redis.target = ("127.0.0.1", replica.port)
    stack.redis.open()
    wait_for("Redis to be back", lambda: '"degraded":false' in stack.apis[0].readiness()[1])
    everything.wait_type("history_truncated")
    back = user.watch(f"/ws/operations?last_id={last['id']}")
    back.wait_type("history_truncated")
    third = user.add_source(collection["id"], folder_of(stack, "third", 3))
    for watch in (everything, back):
        ended = watch.wait_type(*LAST, operation=third["id"])
        assert ended["id"].split("-")[0] != last["id"].split("-")[0], "another life of the data"
    one = user.watch(f"/ws/operations/{second['id']}?last_id={last['id']}")
    one.wait_type("history_truncated")
    assert one.wait_type("current_state")["data"]["status"] == "completed"


def test_sentinels_are_asked_for_the_primary_and_a_fail_over_needs_nobodys_help(make_stack, servers):
    primary = servers(Redis)
    replica = servers(Redis, replicaof=f"127.0.0.1 {primary.port}")
    sentinels = servers(Sentinels, primary)
    stack = make_stack(apis=1, workers=1, REDIS_URL=sentinels.url)
    user = Client.registered(stack.apis[0].url)
    collection, operation, watch = at_work(stack, user)
    assert "worker:" in primary.cli("keys", "*worker:*")
    primary.kill()
    other = user.collection()
    user.wait_over(operation["id"])
    user.wait_ready(other["id"])
    wait_for("the replica to be promoted", lambda: sentinels.primary_port() == replica.port)
    wait_for("the last events to be published", lambda: announced(stack, operation))
    wait_for("the socket to tell the end", lambda: is_known_to_be_over(watch))
    wait_for("Redis to be back", lambda: '"degraded":false' in stack.apis[0].readiness()[1])
    live = user.watch("/ws/operations")
    after = user.add_source(other["id"], folder_of(stack, "after", 3))
    live.wait_type(*LAST, operation=after["id"])
    primary.start()  # the sentinels make it a replica of the new one
    wait_for("the old primary to follow", lambda: "role:slave" in primary.cli("info", "replication"))
    user.index(other["id"], folder_of(stack, "later", 2))
    assert_nothing_doubled(stack, collection["id"], MANY)


# ---- PostgreSQL ----

def paths_of(api):
    """Every (method, path) that the API tells of."""
    described = json.loads(fetch(api.url + "/openapi.json")[1])
    for path, methods in described["paths"].items():
        for method in methods:
            if method in ("get", "post", "put", "patch", "delete"):
                yield method.upper(), path


WITHOUT_DATABASE = ("/health", "/openapi.json", "/docs", "/metrics", "/ws/", "/system/info")
FILES = {"/", "/login", "/settings", "/verification", "/collections", "/collections/{id}", "/operations", "/search", "/pipeline/{id}", "/web/{path}",
         "/assets/{path}", "/vite.svg", "/clients/{path}"}  # of the page


def ask_all(api, user):
    """What each route that needs PostgreSQL answers: {(method, path): answer}."""
    def one(route):
        method, path = route
        filled = re.sub(r"\{[^}]*\}", "11111111-1111-4111-8111-111111111111", path.replace("{source_id}", "1"))
        return route, user.ask(method, filled, {} if method in ("POST", "PUT", "PATCH") else None, timeout=60)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return dict(pool.map(one, [r for r in paths_of(api) if not any(word in r[1] for word in WITHOUT_DATABASE) and r[1] not in FILES]))


@pytest.mark.parametrize("kind", ["fast", "immediate", "killed", "away", "frozen"])
def test_an_outage_of_postgresql_only_delays_and_blames_nobody(make_stack, servers, kind):
    postgres = servers(Postgres)
    stack = make_stack(apis=1, workers=1)
    api = stack.apis[0]
    user = Client.registered(api.url)
    collection, operation, watch = at_work(stack, user)
    if kind == "killed":
        postgres.kill_all()
    elif kind == "frozen":
        postgres.signal_all(signal.SIGSTOP)
    else:
        postgres.stop("fast" if kind == "away" else kind)
    try:
        if kind in ("away", "frozen"):
            wait_for("readiness to fail", lambda: api.readiness()[0] == 503)
            begun = time.monotonic()
            answers = ask_all(api, user)
            assert not {r: a for r, a in answers.items() if a.status not in (503, 400, 422)}, "an empty body may be refused before PostgreSQL is asked"
            assert sum(a.status == 503 for a in answers.values()) > len(answers) / 2
            assert all(int(a.headers["Retry-After"]) > 0 for a in answers.values() if a.status == 503)
            assert time.monotonic() - begun < 120, "a statement is given up"
            wait_for("the worker to say so", lambda: stack.workers[0].readiness()[0] == 503)
            time.sleep(5)
        assert api.child.poll() is None and stack.workers[0].child.poll() is None
    finally:
        if kind == "frozen":
            postgres.signal_all(signal.SIGCONT)
        else:
            postgres.start()
    wait_for("readiness", lambda: api.readiness()[0] == 200 and stack.workers[0].readiness()[0] == 200, seconds=60)
    user.wait_over(operation["id"])
    assert stack.sql_value("SELECT failures || '/' || failed FROM operations WHERE uuid = :'v1'", operation["id"]) == "0/0"
    assert_nothing_doubled(stack, collection["id"], MANY)
    watch.wait_type(*LAST)
    assert sum(f["type"] in LAST for f in watch.events(operation["id"])) == 1


def test_a_full_disk_is_waited_for(make_stack, servers):
    try:
        postgres = servers(Postgres, megabytes=160, min_wal_size="'32MB'", max_wal_size="'48MB'", wal_recycle="off")
    except OSError as error:
        if os.geteuid() == 0:
            raise
        pytest.skip(f"only root can mount a file system of a limited size: {error}")
    stack = make_stack(apis=1, workers=1)
    api = stack.apis[0]
    user = Client.registered(api.url)
    collection, operation, _ = at_work(stack, user)
    ballast = os.path.join(postgres.dir, "ballast")
    with open(ballast, "wb") as file:
        try:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        except OSError:
            pass

    def is_refused():
        answer = user.ask("POST", "/api/v2/collections", {"name": "c-" + os.urandom(6).hex(), "description": "x" * 900})
        assert answer.status in (201, 503), answer
        return answer.status == 503 and int(answer.headers["Retry-After"]) > 0
    try:
        wait_for("a collection to be refused", is_refused, seconds=60)
        time.sleep(3)
    finally:
        os.unlink(ballast)
        if subprocess.run(["psql", "-X", "-d", postgres.url, "-c", "SELECT 1"], capture_output=True, check=False).returncode:
            try:
                postgres.start()  # a full disk of the log ends it; its operator starts it again
            except AssertionError:
                time.sleep(1)
    wait_for("readiness", lambda: api.readiness()[0] == 200, seconds=60)
    user.wait_over(operation["id"])
    assert stack.sql_value("SELECT failures || '/' || failed FROM operations WHERE uuid = :'v1'", operation["id"]) == "0/0"
    assert_nothing_doubled(stack, collection["id"], MANY)


def test_no_connection_left_is_waited_for(make_stack, servers):
    postgres = servers(Postgres, max_connections=40, superuser_reserved_connections=0)
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, _ = at_work(stack, user)
    hogs = [subprocess.Popen(["psql", "-X", "-q", "-d", postgres.url, "-c", "SELECT pg_sleep(600)"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(45)]
    try:
        time.sleep(1)
        # Everyone has to connect again, and finds no room.
        stack.postgres.shut()
        while any(h.poll() is not None for h in hogs):
            hogs = [h for h in hogs if h.poll() is None]
        hogs += [subprocess.Popen(["psql", "-X", "-q", "-d", postgres.url, "-c", "SELECT pg_sleep(600)"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                 for _ in range(45)]
        time.sleep(2)
        stack.postgres.open()
        answer = wait_for("an answer of 503", lambda: next((a for a in [user.ask("GET", "/api/v2/collections")] if a.status == 503), None))
        assert int(answer.headers["Retry-After"]) > 0
        time.sleep(3)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    wait_for("readiness", lambda: stack.apis[0].readiness()[0] == 200, seconds=60)
    # The server notices within some seconds that the others are gone.
    wait_for("room for every thread", lambda: all(user.ask("GET", "/api/v2/collections").status == 200 for _ in range(20)), seconds=60)
    user.wait_over(operation["id"])
    assert stack.sql_value("SELECT failures || '/' || failed FROM operations WHERE uuid = :'v1'", operation["id"]) == "0/0"
    assert_nothing_doubled(stack, collection["id"], MANY)


def test_a_server_that_became_read_only_is_left_for_the_one_that_takes_writes(make_stack, servers):
    postgres = servers(Postgres)
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, _ = at_work(stack, user)
    postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    postgres.sql("SELECT pg_reload_conf()")
    try:
        def is_refused():
            answer = user.ask("POST", "/api/v2/collections", {"name": "c-" + os.urandom(6).hex()})
            assert answer.status in (201, 503), answer
            return answer.status == 503 and int(answer.headers["Retry-After"]) > 0
        wait_for("a collection to be refused", is_refused)
        assert user.ask("GET", "/api/v2/collections").status == 200, "reading goes on"
        time.sleep(4)
    finally:
        run(["psql", "-X", "-q", "-d", postgres.url, "-c", "SET default_transaction_read_only = off", "-c", "ALTER SYSTEM RESET default_transaction_read_only",
             "-c", "SELECT pg_reload_conf()"])
    user.wait_over(operation["id"])
    assert stack.sql_value("SELECT failures || '/' || failed FROM operations WHERE uuid = :'v1'", operation["id"]) == "0/0"
    assert_nothing_doubled(stack, collection["id"], MANY)


class CuttingGate(Gate):
    """Cuts a connection at the answer to a statement: arm(text) chooses the next one that holds the text. What the server did stays done."""

    def __init__(self, host, port):
        self.wanted, self.cuts, self.names = None, 0, {}
        super().__init__(host, port)

    def arm(self, text):
        self.cuts, self.wanted = 0, text.encode()

    def _may_pass(self, data, source, pair):
        if source is pair[0]:
            self._look(data, pair)
            return True
        if getattr(self, "doomed", None) is not pair:
            return True
        self.doomed = None
        self.cuts += 1
        return False

    def _look(self, data, pair):
        wanted = self.wanted
        for name in re.findall(rb"P....(k[0-9a-f]{16})\0", data, re.DOTALL):  # a statement that is prepared to be kept
            self.names[name] = data
        if not wanted:
            return
        kept = [name for name, text in self.names.items() if wanted in text]
        is_prepared_now = any(b"P" in data and name in data and b"B\0" not in data for name in kept)
        if (wanted in data and not is_prepared_now) or any(name + b"\0" in data and wanted not in data for name in kept):
            self.wanted, self.doomed = None, pair


@pytest.fixture
def cutting_stack(make_stack, monkeypatch):
    def make(**options):
        monkeypatch.setattr("support.stack.Gate", CuttingGate)
        return make_stack(**options)
    return make


def test_an_acceptance_whose_answer_was_lost_is_found_again_by_its_key(cutting_stack):
    stack = cutting_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()
    user.wait_ready(collection["id"])
    folder = folder_of(stack, "some", 3)
    path, body = f"/api/v2/collections/{collection['id']}/sources", {"source_path": folder, "source_type": "directory"}
    for headers in ({}, {"Idempotency-Key": "once"}):
        before = int(stack.sql_value("SELECT count(*) FROM operations"))
        stack.postgres.arm("COMMIT" if headers else "INSERT INTO operations")
        answer = user.ask("POST", path, body, headers=headers)
        assert stack.postgres.cuts == 1
        assert answer.status in (202, 503), answer
        made = stack.sql("SELECT uuid FROM operations ORDER BY id OFFSET :v1", before)
        assert len(made) == 1, "it was committed, whoever knows"
        again = user.ask("POST", path, body, headers=headers)
        assert again.status in ((202,) if headers else (202, 409)), again
        if headers:
            assert again.json["id"] == made[0][0]
        user.wait_over(made[0][0])
        assert int(stack.sql_value("SELECT count(*) FROM operations")) - before <= (1 if headers else 2)
        wait_for("no operation left", lambda: stack.sql_value("SELECT count(*) FROM operations WHERE status IN ('pending', 'processing')") == "0")
    assert_nothing_doubled(stack, collection["id"], 3)


@pytest.mark.parametrize("step,text", [("claim", "SELECT 1 FROM workers w WHERE w.id"), ("end", "WITH given AS ("), ("commit of the end", "COMMIT")])
def test_a_lost_answer_of_a_worker_ends_in_the_right_state(cutting_stack, step, text):
    stack = cutting_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection = user.collection()
    user.wait_ready(collection["id"])
    watch = user.watch("/ws/operations")
    if step == "claim":
        stack.postgres.arm(text)
    operation = user.add_source(collection["id"], folder_of(stack, "some", 3))
    if step != "claim":
        watch.wait_type("operation_started", operation=operation["id"])
        stack.postgres.arm(text)
    user.wait_over(operation["id"])
    assert stack.postgres.cuts == 1
    watch.wait_type("operation_completed", operation=operation["id"])
    assert stack.sql_value("SELECT failures || '/' || failed FROM operations WHERE uuid = :'v1'", operation["id"]) == "0/0"
    assert_nothing_doubled(stack, collection["id"], 3)
    assert sum(f["type"] in LAST for f in watch.events(operation["id"])) == 1


def test_a_cancel_whose_answer_was_lost_is_a_cancel_all_the_same(cutting_stack):
    stack = cutting_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    collection, operation, watch = at_work(stack, user, 200)
    stack.postgres.arm("SET status = 'cancelled'")
    answer = user.ask("DELETE", f"/api/v2/operations/{operation['id']}")
    assert answer.status in (200, 503), answer
    state = wait_for("an end", lambda: next((s for s in [user.operation(operation["id"])["status"]] if s in ("cancelled", "completed")), None))
    assert state in ("cancelled", "completed")
    wait_for("the collection to be usable", lambda: user.show(collection["id"])["status"] == "ready")
    wait_for("the last event", lambda: any(f["type"] == "operation_" + state for f in watch.events(operation["id"])))
    assert sum(f["type"] in LAST for f in watch.events(operation["id"])) == 1


# ---- graceful stop ----

def test_a_drain_while_postgresql_is_away_ends_in_time_and_is_no_failure(make_stack):
    stack = make_stack(apis=1, workers=1, DRAIN_SECONDS=2)
    user = Client.registered(stack.apis[0].url)
    collection, operation, _ = at_work(stack, user, 200)
    witness = stack.add("worker")
    stack.postgres.shut()
    begun = time.monotonic()
    holder = stack.sql_value("SELECT worker_id FROM operations WHERE uuid = :'v1'", operation["id"])
    pid = int(stack.sql_value("SELECT pid FROM workers WHERE id = :'v1'", holder))
    process = next(p for p in stack.workers + [witness] if p.pid == pid)
    assert process.stop(patience=60) == 0
    assert time.monotonic() - begun < 2 + 20, "DRAIN_SECONDS and a little, on a busy machine"
    stack.postgres.open()
    user.wait_over(operation["id"])
    assert stack.sql_value("SELECT failures FROM operations WHERE uuid = :'v1'", operation["id"]) == "0"
    assert_nothing_doubled(stack, collection["id"], 200)


@pytest.mark.parametrize("kind", ["api", "worker"])
@pytest.mark.parametrize("when", ["while it starts", "with PostgreSQL away", "with PostgreSQL silent"])
def test_sigterm_ends_a_program_that_is_not_ready(make_stack, kind, when):
    stack = make_stack(apis=0, workers=0)
    if when == "with PostgreSQL away":
        stack.postgres.shut()
    silent = socket.create_server(("127.0.0.1", 0))  # accepts and never answers
    env = {**stack.env, ("API_PORT" if kind == "api" else "WORKER_PORT"): str(free_port()), "DRAIN_SECONDS": "2"}
    if when == "with PostgreSQL silent":
        env["DATABASE_URL"] = f"postgresql://opstream@127.0.0.1:{silent.getsockname()[1]}/x"
    child = subprocess.Popen([stack.program(kind)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.15 if when == "while it starts" else 1.5)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) in (0, -signal.SIGTERM)
    finally:
        child.kill()
        child.wait()
        silent.close()


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_a_second_signal_ends_it_at_once(make_stack, kind):
    stack = make_stack(apis=1, workers=1, DRAIN_SECONDS=60)
    user = Client.registered(stack.apis[0].url)
    at_work(stack, user, 300)
    process = stack.apis[0] if kind == "api" else stack.workers[0]
    if kind == "api":
        slow = socket.create_connection(("127.0.0.1", process.port))  # a request in flight that never ends
        slow.sendall(b"POST /api/v2/collections HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + user.token.encode() +
                     b"\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    process.child.terminate()
    time.sleep(0.3)
    process.child.terminate()
    assert process.child.wait(20) == 0


def test_a_worker_that_listens_everywhere_registers_an_address_that_can_be_reached(make_stack):
    stack = make_stack(apis=1, workers=1, WORKER_HOST="0.0.0.0")
    url = stack.sql_value("SELECT url FROM workers")
    assert "0.0.0.0" not in url, url
    assert any(line.get("event") == "worker_address_guessed" for _, line in stack.log_lines())
    stop = stack.apis[0].stop()
    assert stop == 0
    assert not any(line.get("event") == "relay_subscription_lost" for _, line in stack.log_lines()), "an orderly stop loses nothing"
