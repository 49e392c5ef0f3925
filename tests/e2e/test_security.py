"""What strangers, former users, documents and a Redis full of garbage may not do."""
import http.client
import json
import os
import secrets
import socket
import time

import pytest
from support import rows
from support.client import Client
from support.stack import Stack, fetch, wait_for
from test_websockets import Operation, Publisher, User, is_open, numbers, probe


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def api(stack):
    return stack.apis[0]


@pytest.fixture
def user(stack):
    return User(stack)


@pytest.fixture(scope="module")
def publish(stack):
    made = Publisher(stack)
    yield made
    made.close()


def api_key(stack, user, ends="NULL"):
    key = f"smtk_{secrets.token_hex(6)}_{secrets.token_hex(16)}"
    stack.sql("INSERT INTO api_keys (user_id, name, prefix, secret_hash, expires_at) "
              f"VALUES (:'v1', 'k', :'v2', encode(sha256(:'v3'), 'hex'), {ends})", user.id, key.split("_")[1], key)
    return key


# --- sockets of those who may not be here any more

@pytest.mark.parametrize("statement", ["UPDATE users SET is_active = false WHERE id = :'v1'", "DELETE FROM users WHERE id = :'v1'",
                                       "UPDATE api_keys SET revoked_at = now() WHERE user_id = :'v1'"])
def test_a_global_socket_ends_with_its_users_right_to_be_there(stack, api, user, statement):
    other = User(stack)
    sockets = [user.open(api, token=api_key(stack, user))] + ([] if "api_keys" in statement else [user.open(api)])
    stays = other.open(api)
    for ws in [*sockets, stays]:
        assert is_open(ws)
    stack.sql(statement, user.id)
    for ws in sockets:
        code, reason = ws.end()
        assert code == 1008 and "access" in reason
    assert is_open(stays)
    if "api_keys" in statement:
        ws = user.open(api)
        assert is_open(ws)
        ws.close()
    stays.close()


def test_a_socket_ends_with_its_api_key(stack, api, user):
    ws = user.open(api, token=api_key(stack, user, "now() + interval '3 seconds'"))
    assert is_open(ws)
    assert ws.end() == (1008, "token expired")


def test_a_former_user_scans_no_more(stack, api, user):
    ws = user.open(api, "/ws/scan/s1")
    ws.say({"action": "scan", "path": stack.roots})
    assert ws.until("completed", "error")[-1]["type"] == "completed"
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
    ws.say({"action": "scan", "path": stack.roots})
    last = ws.until("completed", "error")[-1]
    assert last["type"] == "error" and "access" in last["message"]
    ws.abort()


# --- floods

def scripts_run(stack):
    for line in stack.redis_cli("INFO", "commandstats").splitlines():
        if line.startswith("cmdstat_evalsha:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


def test_one_client_that_resumes_without_end_asks_for_one_page_at_a_time(stack, api, user, publish):
    operation = Operation(stack, user)
    for n in range(3):
        publish(operation, data={"n": n})
    ws = user.open(api, operation.path)
    ws.next()
    before = scripts_run(stack)
    from support.ws import frame
    ws.sock.sendall(frame(1, json.dumps({"type": "resume", "last_id": "0"})) * 5000)
    probe(ws)
    ws.say({"type": "resume", "last_id": "0"})
    publish(operation, "operation_completed", status="completed", data={"n": 9})
    assert ws.until("operation_completed")
    assert scripts_run(stack) - before < 1500
    ws.close()


# --- memory

def peak_mb(process):
    with open(f"/proc/{process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


@pytest.mark.parametrize("body", [b"[" + b",".join([b"0"] * 500000) + b"]", b'{"username":' + b"[[" * 20 + b"[],".join([b""] * 250000) + b"0" + b"]]" * 20 + b"}"],
                         ids=["numbers", "lists"])
def test_a_stranger_cannot_make_a_megabyte_take_forty(stack, api, body):
    assert len(body) < 1048576
    answer = Client(api.url).ask("POST", "/api/auth/login", raw=body)  # what a request takes anyway
    assert answer.status == 422 and "values" in answer.json["detail"][0]["msg"]
    if "ASAN_OPTIONS" not in os.environ:
        assert peak_mb(api) < 100


def test_a_body_full_of_faults_is_not_answered_with_all_of_them(stack, api):
    me = Client.registered(api.url)
    faults = "{" + ",".join(f'"{i}":0' for i in range(40000)) + "}"
    answer = me.ask("PUT", "/api/v2/preferences", raw=faults.encode())
    assert answer.status == 422 and len(answer.raw) < 100000
    faults = '{"query":"a","collection_uuids":["x"],' + faults[1:]
    answer = me.ask("POST", "/api/v2/search", raw=faults.encode())
    assert answer.status == 422 and len(answer.raw) < 100000


# --- documents

@pytest.mark.parametrize("mime", ["text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "application/pdf"])
def test_a_document_never_acts_in_the_apis_name(stack, api, mime):
    me = Client.registered(api.url)
    made = rows.ready_collection(stack, me)
    path = os.path.join(stack.roots, secrets.token_hex(4))
    with open(path, "w") as file:
        file.write("<script>alert(1)</script>")
    document = rows.add_document(stack, made["id"], path, mime=mime)
    answer = me.ask("GET", f"/api/v2/collections/{made['id']}/documents/{document}/content")
    policy = [part.strip() for part in answer.headers["Content-Security-Policy"].split(";")]
    assert answer.headers["Content-Type"] == mime and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert {"default-src 'none'", "sandbox", "form-action 'none'", "base-uri 'none'"} <= set(policy)
    assert not any("script" in part for part in policy)
    assert answer.headers["Content-Disposition"].startswith("inline")


# --- grants

def test_without_a_grant_not_even_the_existence_of_a_path_is_told(make_stack):
    stack = make_stack(apis=1, workers=0, SOURCE_ROOTS_FOR="granted")
    Client.registered(stack.apis[0].url)  # the superuser
    me = Client.registered(stack.apis[0].url)
    made = rows.ready_collection(stack, me)
    os.mkdir(os.path.join(stack.roots, "secret"))
    answers = {name: me.ask("POST", f"/api/v2/collections/{made['id']}/sources", {"source_type": "directory", "source_config": {"path": f"{stack.roots}/{name}"}})
               for name in ("secret", "gone")}
    assert [a.status for a in answers.values()] == [403, 403]
    assert answers["secret"].json["detail"] == answers["gone"].json["detail"]
    from support.ws import WebSocket
    ws = WebSocket(stack.apis[0].url, "/ws/scan/s", me.token)
    said = []
    for name in ("secret", "gone"):
        ws.say({"action": "scan", "path": f"{stack.roots}/{name}"})
        said.append(ws.until("error", "completed")[-1])
    assert said[0] == said[1] and said[0]["type"] == "error"
    ws.close()


# --- the workers' own port

def test_a_workers_port_keeps_nothing_of_what_comes_without_its_key(make_stack):
    stack = make_stack(apis=0, workers=1)
    for key in ("", "X-Internal-Api-Key: wrong\r\n"):
        with socket.create_connection(("127.0.0.1", stack.workers[0].port), 30) as s:
            s.sendall(f"POST /internal/embed HTTP/1.1\r\nHost: w\r\n{key}Content-Length: 16000000\r\n\r\n".encode())  # and no body
            s.settimeout(30)
            assert s.recv(100).startswith(b"HTTP/1.1 401 ")


def test_without_an_internal_key_a_workers_port_is_closed(make_stack):
    stack = make_stack(apis=0, workers=1, INTERNAL_API_KEY="")
    for key in ({}, {"X-Internal-Api-Key": ""}):
        answer = Client(stack.workers[0].url).ask("POST", "/internal/embed", {"texts": ["a"]}, headers=key)
        assert answer.status == 401


# --- settings

@pytest.mark.parametrize("kind, url", [(kind, f"postgresql://user:{secret}@127.0.0.1:1/db") for kind, secrets in (("api", ("hun/ter", "hun@ter", "hun?ter", "hun%ter", "hun:ter", "hun#ter")),
                                                                                                                ("worker", ("hun/ter", "hun@ter"))) for secret in secrets])
def test_a_malformed_database_url_does_not_put_its_password_into_the_log(kind, url):
    import subprocess
    command = [Stack.program(kind)] + (["--migrate"] if kind == "api" else ["--task", "00000000-0000-4000-8000-000000000000"])
    out = subprocess.run(command, env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1", "JWT_SECRET_KEY": "x" * 40},
                         capture_output=True, text=True, timeout=120, check=False)
    assert out.returncode != 0
    for word in ("hun", "ter@"):
        assert word not in out.stdout + out.stderr


# --- a Redis full of garbage

def test_garbage_in_redis_neither_crashes_nor_misleads(stack, api, user, publish):
    operation = Operation(stack, user)
    publish(operation, data={"n": 0})
    prefix = stack.env["REDIS_PREFIX"]
    epoch = sorted(stack.redis_cli("--raw", "KEYS", prefix + "*epoch*").splitlines())
    assert [name.removeprefix(prefix) for name in epoch] == ["events:epoch", "events:epoch:server"]
    stack.redis_cli("SET", epoch[1], '"},\xff{"')
    stream = f"{prefix}operation-progress:{operation.id}"
    garbage = ["", "null", "[]", "{}", '{"type":1}', '{"type":"x"', "\xff\xfe", '{"type":"a","message":"top"', "[" * 100000, '{"type":"big","data":"' + "x" * 3000000 + '"}']
    for text in garbage:
        stack.redis_cli("XADD", stream, "*", "message", text) if len(text) < 100000 else None
        stack.redis_cli("PUBLISH", f"{prefix}operation:{operation.id}", text) if len(text) < 100000 else None
    import subprocess
    for text in (garbage[-1], garbage[-2]):
        for command in (["PUBLISH", f"{prefix}operation:{operation.id}"], ["XADD", stream, "*", "message"]):
            subprocess.run(["redis-cli", "-u", os.environ["REDIS_URL"], "-x", *command], input=text.encode(), check=True, capture_output=True)
    stack.redis_cli("XADD", stream, "*", "no-message", "x")
    stack.redis_cli("SET", epoch[0], '"},\xff{"')
    ws = user.open(api, operation.path + "?last_id=0")
    assert ws.next()["type"] in ("current_state", "history_truncated")
    stack.redis_cli("PUBLISH", f"{prefix}operation:{operation.id}", "garbage")
    probe(ws)
    publish(operation, data={"n": 1})
    seen = ws.until("processing_progress")
    while 1 not in numbers(seen):
        seen += ws.until("processing_progress")
    assert not [f for f in ws.frames if f["type"] == "big"]
    assert all(c in "0123456789abcdef" for c in stack.redis_cli("GET", epoch[0]))
    assert fetch(api.url + "/readyz")[0] == 200
    ws.close()


def test_keys_of_another_type_in_redis_do_no_harm(stack, api, user):
    operation = Operation(stack, user)
    prefix = stack.env["REDIS_PREFIX"]
    names = [f"operation-progress:{operation.id}", f"operation-progress:{operation.id}:meta", f"user-progress:{user.id}", "websocket:connections:user:%d" % user.id,
             f"websocket:connections:operation:{operation.id}"]
    for name in names:
        stack.redis_cli("SET", prefix + name, "garbage")
    ws, everything = user.open(api, operation.path), user.open(api)
    assert ws.next()["type"] == "current_state"
    assert is_open(everything)
    for name in names:
        stack.redis_cli("DEL", prefix + name)
    ws.close()
    everything.close()


@pytest.mark.parametrize("value", ["garbage", "nan", "inf", "-inf", "99999999999999999999", "1e308"])
def test_garbage_in_a_limit_locks_nobody_out_for_long(make_stack, stack, api, value):
    me = Client.registered(api.url)
    prefix = stack.env["REDIS_PREFIX"]
    for key in (f"guess:account:{me.username}", "guess:address:127.0.0.1"):
        stack.redis_cli("SET", prefix + key, value)
    answer = Client(api.url).ask("POST", "/api/auth/login", {"username": me.username, "password": "correct horse battery"})
    assert answer.status in (200, 429)
    if answer.status == 429:
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    for key in (f"guess:account:{me.username}", "guess:address:127.0.0.1"):
        stack.redis_cli("DEL", prefix + key)
