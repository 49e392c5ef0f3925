"""HTTP as strangers speak it: the door, the server, its errors, its limits, its end."""
import gzip
import json
import signal
import socket
import subprocess
import threading
import time
import uuid

import pytest
from support.api import PASSWORD, Api, program, read_all, read_answer
from support.stack import free_port, wait_for

HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def api():
    made = Api(CORS_ORIGINS="https://app.example.org, http://localhost:5173", WS_PORT="0", MAX_BODY_BYTES="65536").wait_ready()
    yield made
    made.close()


@pytest.fixture
def make_api():
    made = []

    def make(**settings):
        made.append(Api(**settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def lives(api):
    assert api.request("GET", "/health").json == {"status": "healthy", "service": "webui"}


def post(path, body, *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: a", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


# --- what every answer carries

@pytest.mark.parametrize("method, path, status", [("GET", "/health", 200), ("GET", "/nope", 404), ("DELETE", "/health", 405), ("GET", "/api/auth/me", 401),
                                                  ("POST", "/api/auth/login", 422), ("OPTIONS", "/health", 204), ("GET", "/ws/operations", 426)])
def test_every_answer_carries_the_headers(api, method, path, status):
    answer = api.request(method, path)
    assert answer.status == status
    assert uuid.UUID(answer.headers["X-Correlation-ID"])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"]
    assert "default-src" in answer.headers["Content-Security-Policy"]


def test_a_correlation_id_is_echoed_if_it_is_a_uuid(api):
    mine = str(uuid.uuid4())
    answer = api.request("GET", "/nope", headers={"X-Correlation-ID": mine})
    assert answer.headers["X-Correlation-ID"] == mine
    assert answer.json == {"detail": "Not Found", "reference": "ERR-" + mine}
    assert api.request("GET", "/nope", headers={"X-Correlation-ID": "mine"}).headers["X-Correlation-ID"] != "mine"


def test_another_method_is_refused_with_the_allowed_ones(api):
    answer = api.request("DELETE", "/api/auth/me")
    assert answer.status == 405 and answer.json["detail"] == "Method Not Allowed"
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_head_is_get_without_the_body(api):
    got, head = api.request("GET", "/openapi.json"), api.request("HEAD", "/openapi.json")
    assert head.status == 200 and head.body == b""
    assert head.headers["Content-Length"] == got.headers["Content-Length"]


def test_large_json_is_packed_for_those_who_take_it(api):
    plain = api.request("GET", "/openapi.json")
    packed = api.request("GET", "/openapi.json", headers={"Accept-Encoding": "br, gzip;q=0.8"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip" and len(packed.body) < len(plain.body) / 2
    assert json.loads(gzip.decompress(packed.body)) == plain.json
    assert "Accept-Encoding" in packed.headers["Vary"]
    for refusing in ("gzip;q=0", "identity", "xgzip"):
        assert "Content-Encoding" not in api.request("GET", "/openapi.json", headers={"Accept-Encoding": refusing}).headers
    assert "Content-Encoding" not in api.request("GET", "/health", headers={"Accept-Encoding": "gzip"}).headers


# --- CORS

def test_a_listed_origin_may_call_with_credentials(api):
    answer = api.request("GET", "/health", headers={"Origin": "http://localhost:5173"})
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    preflight = api.request("OPTIONS", "/api/auth/login", headers={"Origin": "https://app.example.org", "Access-Control-Request-Method": "POST"})
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE, OPTIONS, PATCH"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("origin", ["https://evil.example.org", "https://app.example.org.evil.org", "null", "http://localhost:5173/"])
def test_another_origin_is_not_let_in(api, origin):
    answer = api.request("OPTIONS", "/api/auth/login", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Access-Control-Allow-Methods" not in answer.headers


# --- connections

def test_requests_share_a_connection(api):
    with api.connect() as s, s.makefile("rb") as file:
        for _ in range(5):
            s.sendall(HEALTH)
            assert read_answer(file).status == 200


def test_pipelined_requests_are_answered_in_order(api):
    bad = post("/api/auth/login", b"{}", "Content-Length: 2")
    with api.connect() as s, s.makefile("rb") as file:
        s.sendall(HEALTH + bad + b"GET /nope HTTP/1.1\r\nHost: a\r\n\r\n" + HEALTH)
        assert [read_answer(file).status for _ in range(4)] == [200, 422, 404, 200]


def test_a_request_may_come_byte_by_byte(api):
    body = json.dumps({"username": "nobody", "password": "nothing"}).encode()
    request = post("/api/auth/login", body, f"Content-Length: {len(body)}", "Connection: close")
    with api.connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(request)):
            s.sendall(request[i:i + 1])
        assert read_all(s).startswith(b"HTTP/1.1 401")


def test_a_chunked_body_is_read(api):
    body = b"9\r\n{\"usernam\r\n1d\r\ne\":\"nobody\",\"password\":\"none\"\r\n1\r\n}\r\n0\r\n\r\n"
    assert api.raw(post("/api/auth/login", body, "Transfer-Encoding: chunked", "Connection: close")).startswith(b"HTTP/1.1 401")


def test_a_client_that_waits_is_told_to_go_on(api):
    with api.connect() as s, s.makefile("rb") as file:
        s.sendall(post("/api/auth/login", b"", "Content-Length: 2", "Expect: 100-continue"))
        assert read_answer(file).status == 100
        s.sendall(b"{}")
        assert read_answer(file).status == 422


def test_json_under_another_name_is_still_json(api):
    answer = api.request("POST", "/api/auth/login", raw=b'{"username":"nobody","password":"x"}', headers={"Content-Type": "text/plain"})
    assert answer.status == 401


def test_a_websocket_on_a_used_connection_is_told_to_make_its_own(api):
    with api.connect() as s, s.makefile("rb") as file:
        s.sendall(HEALTH)
        assert read_answer(file).status == 200
        s.sendall(b"GET /ws/operations HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_answer(file).status == 426
        assert file.read() == b""


def test_silent_connections_hold_nobody(api):
    silent = [api.connect() for _ in range(200)]
    half = [api.connect() for _ in range(50)]
    for s in half:
        s.sendall(b"GET /health HT")
    for _ in range(5):
        lives(api)
    for s in half:
        s.sendall(b"TP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(s).startswith(b"HTTP/1.1 200")
    for s in silent + half:
        s.close()
    lives(api)


def test_a_head_that_never_ends_is_sent_away(api):
    with api.connect() as silent, api.connect() as half:
        half.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n")
        assert read_all(half).startswith(b"HTTP/1.1 408")
        assert read_all(silent) == b""


def test_clients_that_go_away_leave_nothing_behind(api):
    for part in (b"", b"GET", HEALTH[:-2], post("/api/auth/login", b"{", "Content-Length: 2"), post("/api/auth/login", b"{}", "Content-Length: 2")):
        for _ in range(10):
            with api.connect() as s:
                s.sendall(part)
    lives(api)


def test_the_websocket_port_serves_nothing_else(api):
    assert api.ws_port not in (0, api.port)
    assert api.raw(HEALTH, port=api.ws_port).startswith(b"HTTP/1.1 404")


# --- requests that are none

@pytest.mark.parametrize("data", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nbroken line\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00" * 100,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"x" * 100])
def test_what_is_no_request_gets_400(api, data):
    answer = api.raw(data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer
    assert b"X-Content-Type-Options: nosniff" in head
    assert json.loads(body)["detail"]
    lives(api)


@pytest.mark.parametrize("data", [
    HEALTH + b"rubbish\r\n\r\n", HEALTH + b"\x00\x01\x02\r\n\r\n", HEALTH + b"GET / HTTP/1.1\r\n\r\n",
    post("/api/auth/login", b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    post("/api/auth/login", b"ffffffffffffffffff\r\n{}", "Transfer-Encoding: chunked"),
    post("/api/auth/login", b"{}", "Transfer-Encoding: gzip")])
def test_rubbish_behind_a_request_harms_nobody(api, data):
    with api.connect() as s, s.makefile("rb") as file:
        s.sendall(data)
        assert read_answer(file).status in (200, 400, 413, 501)
    lives(api)


def test_a_head_that_is_too_large_gets_431(api):
    assert api.raw(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431")
    assert api.raw(b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 431")
    assert api.request("GET", "/health?" + "a" * 8000, headers={"X-Large": "b" * 6000}).status == 200
    lives(api)


def test_a_later_head_that_is_too_large_ends_the_connection(api):
    with api.connect() as s, s.makefile("rb") as file:
        s.sendall(HEALTH)
        assert read_answer(file).status == 200
        try:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100000 + b"\r\n\r\n")
            rest = read_all(s)
        except OSError:
            rest = b""
        assert rest == b"" or rest.startswith((b"HTTP/1.1 431", b"HTTP/1.1 413"))
    lives(api)


@pytest.mark.parametrize("size", [65537, 200000, 1000000])
def test_a_body_that_is_too_large_gets_413(api, size):
    answer = api.request("POST", "/api/auth/login", raw=b"a" * size)
    assert answer.status == 413
    assert answer.json["detail"] == "the body is larger than 65536 bytes"


def test_a_body_that_would_be_too_large_is_refused_before_it_is_sent(api):
    answer = api.raw(post("/api/auth/login", b"", "Content-Length: 100000", "Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert api.raw(post("/api/auth/login", b"", "Content-Length: 100000000000")).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_that_grows_too_large_gets_413(api):
    body = b"".join(b"4000\r\n" + b"a" * 0x4000 + b"\r\n" for _ in range(8)) + b"0\r\n\r\n"
    assert api.raw(post("/api/auth/login", body, "Transfer-Encoding: chunked", "Connection: close")).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("body, kind", [(b"", "missing"), (b"{", "json_invalid"), (b"[]", "model_attributes_type"), (b"\xff", "json_invalid"),
                                        (b"nul", "json_invalid"), (b"{}" * 2, "json_invalid"), (b"[" * 10000, "json_invalid")])
def test_a_body_that_is_no_object_gets_422(api, body, kind):
    answer = api.request("POST", "/api/auth/login", raw=body)
    assert answer.status == 422
    assert answer.json["detail"][0]["type"] == kind
    assert answer.json["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("path", ["/%", "/%00", "/api/%2e%2e/health", "/../health", "//", "/health/../health", "/\xff".encode("latin-1").decode("latin-1"),
                                  "/api/auth/login%2f", "/api/auth/me;x", "*"])
def test_odd_paths_are_not_found(api, path):
    answer = api.raw(b"GET " + path.encode("latin-1") + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer
    lives(api)


def test_an_absolute_url_is_a_path(api):
    for url in (b"http://a:80/health", b"http:///"):
        assert api.raw(b"GET " + url + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


# --- logs and metrics

def test_the_log_tells_of_requests_without_their_queries(api):
    mine = str(uuid.uuid4())
    api.request("GET", "/api/auth/me?token=very-secret", headers={"X-Correlation-ID": mine, "Authorization": "Bearer also-secret"})
    line = wait_for("the line", lambda: next((e for e in api.events("request") if e.get("correlation_id") == mine), None))
    assert line["path"] == "/api/auth/me" and line["status"] == 401 and line["method"] == "GET" and line["client"] == "127.0.0.1"
    assert "very-secret" not in api.text_of_log() and "also-secret" not in api.text_of_log()


def test_requests_are_counted_by_route(api):
    api.request("GET", "/some/unknown/path")
    text = api.request("GET", "/metrics", port=api.metrics_port).body.decode()
    assert 'http_requests_total{route="unmatched",status="404"}' in text
    assert "unknown/path" not in text
    assert 'http_request_duration_seconds_count{route="/health"}' in text
    wait_for("queue depths", lambda: 'operations_outstanding{queue="default",status="pending"} 0' in
             api.request("GET", "/metrics", port=api.metrics_port).body.decode())
    assert api.request("GET", "/other", port=api.metrics_port).status == 404
    assert api.request("GET", "/api/metrics").json["metrics"]


def test_only_trusted_proxies_name_the_client(make_api):
    trusting = make_api(TRUSTED_PROXIES="127.0.0.0/8")
    distrusting = make_api()
    for api, expected in ((trusting, "203.0.113.5"), (distrusting, "127.0.0.1")):
        api.raw(b"GET /nope HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.5\r\nConnection: close\r\n\r\n")
        line = wait_for("the line", lambda: next((e for e in api.events("request") if e["path"] == "/nope"), None))
        assert line["client"] == expected


def test_whatever_a_client_makes_up_the_proxys_word_stands(make_api):
    api = make_api(TRUSTED_PROXIES="127.0.0.0/8")
    for path, made_up in (("/long", "6.6.6.6, " * 600), ("/mapped", "6.6.6.6, ::ffff:")):
        api.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {made_up}203.0.113.5\r\nConnection: close\r\n\r\n".encode())
        line = wait_for("the line", lambda path=path: next((e for e in api.events("request") if e["path"] == path), None))
        assert line["client"] == "203.0.113.5"


# --- services that are away, load, the end

def test_without_its_database_it_says_503_and_never_401(make_api):
    api = make_api().wait_ready()
    user, tokens = api.new_user()
    api.postgres.shut()
    answer = api.request("GET", "/api/auth/me", token=tokens["access_token"])
    assert answer.status == 503 and answer.headers["Retry-After"]
    assert "127.0.0.1" not in answer.body.decode() and "connection" not in answer.body.decode().lower()
    assert api.request("POST", "/api/auth/login", {"username": user["username"], "password": PASSWORD}).status == 503
    wait_for("not ready", lambda: api.request("GET", "/readyz").status == 503)
    lives(api)
    api.postgres.open()
    api.wait_ready()
    assert api.must("GET", "/api/auth/me", token=tokens["access_token"])["id"] == user["id"]


def test_without_redis_it_works_and_says_degraded(make_api):
    api = make_api(RATE_LIMITS="on").wait_ready()
    user, _ = api.new_user()
    api.redis.shut()
    def redis_is_missed():
        answer = api.request("GET", "/api/health/readyz")
        return answer if answer.json["services"]["redis"]["status"] == "unhealthy" else None
    answer = wait_for("degraded", redis_is_missed)
    assert answer.status == 200 and answer.json["degraded"] and answer.json["services"]["database"]["status"] == "healthy"
    api.login(user["username"])
    api.redis.open()
    wait_for("well again", lambda: not api.request("GET", "/readyz").json["degraded"])


def test_it_starts_while_everything_is_away(make_api):
    api = make_api(start=False)
    api.postgres.shut()
    api.redis.shut()
    api.start()
    lives(api)
    assert api.request("GET", "/readyz").status == 503
    api.postgres.open()
    api.wait_ready()


def test_an_older_schema_is_not_ready(make_api):
    api = make_api(start=False)
    api.sql("DROP TABLE schema_migrations")
    api.start()
    answer = wait_for("the reason", lambda: (lambda a: a if b"--migrate" in a.body else None)(api.request("GET", "/readyz")))
    assert answer.status == 503
    lives(api)


def at_once(count, what):
    got = []
    threads = [threading.Thread(target=lambda: got.append(what())) for _ in range(count)]
    for t in threads:
        t.start()
    return threads, got


def test_a_full_queue_is_told_and_probes_are_answered(make_api):
    api = make_api(API_THREADS="1", API_QUEUE="2").wait_ready()
    with api.locked("users"):
        threads, got = at_once(12, lambda: api.request("POST", "/api/auth/login", {"username": "nobody", "password": "x"}))
        wait_for("refusals", lambda: len(got) >= 8)
        lives(api)
    for t in threads:
        t.join()
    busy = [a for a in got if a.status == 503]
    assert busy and all(a.headers["Retry-After"] and a.json["detail"] for a in busy)
    assert sorted({a.status for a in got}) == [401, 503]


def test_descriptors_that_run_out_come_back(make_api):
    api = make_api(limit_files=64)
    held = []
    for _ in range(150):
        s = socket.socket()
        s.settimeout(5)
        s.connect(("127.0.0.1", api.port))
        held.append(s)
    wait_for("the complaint", lambda: api.events("accept_paused"))
    for s in held:
        s.close()
    wait_for("answers", lambda: api.request("GET", "/health").status == 200)


def test_a_drain_finishes_what_was_begun_and_is_told(make_api):
    api = make_api().wait_ready()
    user, _ = api.new_user()
    with api.locked("users"):
        threads, got = at_once(1, lambda: api.request("POST", "/api/auth/login", {"username": user["username"], "password": PASSWORD}))
        wait_for("the request", lambda: api.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1")
        api.signal()
        answer = wait_for("not ready", lambda: (lambda a: a if a.status == 503 else None)(api.request("GET", "/readyz")))
        assert answer.json["draining"] and answer.headers["Connection"] == "close"
    threads[0].join()
    assert got[0].status == 200 and got[0].json["access_token"]
    assert api.ended() == 0
    assert api.events("api_stopped")


def test_a_second_signal_does_not_wait(make_api):
    api = make_api().wait_ready()
    with api.locked("users"):
        threads, _ = at_once(1, lambda: api.raw(post("/api/auth/login", b'{"username":"a","password":"b"}', "Content-Length: 31")))
        wait_for("the request", lambda: api.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == "1")
        api.signal()
        wait_for("the drain", lambda: api.events("api_draining"))
        started = time.monotonic()
        api.signal(signal.SIGINT)
        assert api.ended() == 0
        assert time.monotonic() - started < 20
    threads[0].join()
    assert not api.events("api_stopped")


def test_an_idle_server_ends_with_0(make_api):
    assert make_api().stop() == 0


# --- the command line

def run_program(*arguments, **env):
    return subprocess.run([program(), *arguments], env={"PATH": "/usr/bin", **env}, capture_output=True, text=True, timeout=60, check=False)


def test_all_faults_of_the_settings_are_named_at_once():
    out = run_program(API_PORT="none", LOG_LEVEL="loud")
    assert out.returncode == 2
    for name in ("JWT_SECRET_KEY", "API_PORT", "LOG_LEVEL"):
        assert name in out.stderr
    short = run_program(JWT_SECRET_KEY="short")
    assert short.returncode == 2 and "JWT_SECRET_KEY" in short.stderr and "32" in short.stderr and "short`" not in short.stderr
    star = run_program(JWT_SECRET_KEY="x" * 32, CORS_ORIGINS="*")
    assert star.returncode == 2 and "CORS_ORIGINS" in star.stderr


def test_a_proxy_that_is_none_is_named():
    out = run_program(JWT_SECRET_KEY="x" * 32, TRUSTED_PROXIES="10.0.0.0/99", API_PORT="0", REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert out.returncode == 1 and "10.0.0.0/99" in out.stderr


def test_a_taken_port_is_told():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        out = run_program(JWT_SECRET_KEY="x" * 32, API_PORT=str(s.getsockname()[1]), REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    assert out.returncode == 1 and "cannot listen" in out.stderr


def test_the_program_explains_itself():
    assert "JWT_SECRET_KEY" in run_program("--help").stdout
    assert run_program("--version").stdout.startswith("opstream-api ")
    assert json.loads(run_program("--openapi").stdout)["openapi"] == "3.0.3"
    assert "DATABASE_URL" in run_program("--settings-markdown").stdout
    assert run_program("--nonsense").returncode == 2


def test_migrating_twice_changes_nothing(make_api):
    api = make_api(start=False)
    again = subprocess.run([program(), "--migrate"], env={**api.env, "JWT_SECRET_KEY": ""}, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0 and again.stdout == ""
