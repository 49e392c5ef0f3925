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
