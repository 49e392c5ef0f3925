"""A request that starts work is done once however often it is sent: Idempotency-Key on every POST that starts an operation, over two instances."""
import concurrent.futures
import json
import os
import secrets
import socket
import subprocess

import pytest
from support import documents as docs
from support.client import Client
from support.stack import wait_for

MANY = 16


@pytest.fixture(scope="module")
def user(stack):
    docs.write_many(os.path.join(stack.roots, "few"), 3)
    return Client.registered(stack.apis[0].url)


def body_of(stack, kind):
    folder = os.path.join(stack.roots, "few")
    if kind == "source":
        return {"source_type": "directory", "source_config": {"path": folder}, "source_path": folder}
    return {"name": "c-" + secrets.token_hex(6), **({"source_type": "directory", "source_path": folder} if kind == "collection with a source" else {})}


def path_of(user, kind):
    return f"/api/v2/collections/{user.collection()['id']}/sources" if kind == "source" else "/api/v2/collections"


def new_key():
    return {"Idempotency-Key": secrets.token_hex(12)}


def operation_of(answer):
    return answer.json.get("initial_operation_id") or answer.json["id"]


@pytest.mark.parametrize("kind", ["collection", "collection with a source", "source"])
def test_simultaneous_requests_with_one_key_start_one_operation_on_two_instances(stack, user, kind):
    path, body, key = path_of(user, kind), body_of(stack, kind), new_key()
    before = int(stack.sql_value("SELECT count(*) FROM operations"))
    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(lambda i: user.at(stack.apis[i % 2]).ask("POST", path, body, headers=key), range(MANY)))
    assert {a.status for a in answers} == {202 if kind == "source" else 201}, answers
    assert len({a.raw for a in answers}) == 1, "everybody gets the first one's answer"
    assert sum(a.headers["Idempotency-Replayed"] == "true" for a in answers) == MANY - 1
    assert int(stack.sql_value("SELECT count(*) FROM operations")) == before + 1
    user.wait_over(operation_of(answers[0]))
    again = user.ask("POST", path, body, headers=key)
    assert again.raw == answers[0].raw, "also after it is done"


@pytest.mark.parametrize("kind", ["collection", "source"])
def test_a_key_belongs_to_one_request_and_one_user(stack, user, kind):
    path, body, key = path_of(user, kind), body_of(stack, kind), new_key()
    first = user.ask("POST", path, body, headers=key)
    refused = user.at(stack.apis[1]).ask("POST", path, {**body_of(stack, kind), "description": "another"}, headers=key)
    assert refused.status == 422 and "another request" in refused.raw.decode()
    other = Client.registered(stack.apis[1].url)
    theirs = other.ask("POST", path_of(other, kind), body_of(stack, kind), headers=key)
    assert theirs.status == first.status and operation_of(theirs) != operation_of(first)


def test_of_simultaneous_requests_with_one_key_and_two_bodies_one_is_done_and_the_other_refused(stack, user):
    path, key = path_of(user, "collection"), new_key()
    bodies = [body_of(stack, "collection") for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        answers = list(pool.map(lambda i: user.at(stack.apis[i % 2]).ask("POST", path, bodies[i % 2], headers=key), range(MANY)))
    assert sorted(a.status for a in answers) == [201] * (MANY // 2) + [422] * (MANY // 2), answers


def test_of_fifty_simultaneous_sources_on_two_instances_one_is_accepted(stack, user):
    path, body = path_of(user, "source"), body_of(stack, "source")
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda i: user.at(stack.apis[i % 2]).ask("POST", path, body, headers=new_key()), range(50)))
    accepted = [a for a in answers if a.status == 202]
    # The first may be done before the last came, which is then accepted too: never two at a time.
    assert accepted and {a.status for a in answers} <= {202, 409}
    collection = path.split("/")[4]
    overlapping = stack.sql_value("SELECT count(*) FROM operations a JOIN operations b ON a.collection_uuid = b.collection_uuid AND a.id < b.id AND a.type = 'append' "
                                  "AND b.type = 'append' AND b.created_at < coalesce(a.completed_at, 'infinity') WHERE a.collection_uuid = :'v1'", collection)
    assert overlapping == "0"


def test_after_a_lost_answer_the_key_gives_it_from_another_instance(make_stack):
    stack = make_stack(apis=2, workers=0)
    user = Client.registered(stack.apis[1].url)
    body, key = {"name": "c-" + secrets.token_hex(6)}, new_key()
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", stack.apis[0].port)) as s:
        s.sendall((f"POST /api/v2/collections HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {user.token}\r\nContent-Type: application/json\r\n"
                   f"Idempotency-Key: {key['Idempotency-Key']}\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data)
        wait_for("the commit", lambda: stack.sql_value("SELECT uuid FROM operations"))
        stack.apis[0].kill()  # nobody reads what it may have answered
    uuid = stack.sql_value("SELECT uuid FROM operations")
    again = user.ask("POST", "/api/v2/collections", body, headers=key)
    assert again.status == 201 and again.json["initial_operation_id"] == uuid and again.headers["Idempotency-Replayed"] == "true"
    assert stack.sql_value("SELECT count(*) FROM operations") == "1"
    stack.add("worker")
    user.wait_over(uuid)


@pytest.mark.parametrize("kind", ["collection", "source"])
def test_while_the_first_request_hangs_the_others_are_told_that_it_is_in_progress(stack, user, kind):
    path, body, key = path_of(user, kind), body_of(stack, kind), new_key()
    with subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", stack.direct_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hanging:
        hanging.stdin.write(f"BEGIN; INSERT INTO idempotency_keys (user_id, key, request_hash, status, body) SELECT id, '{key['Idempotency-Key']}', '', 0, '' "
                            f"FROM users WHERE username = '{user.username}'; SELECT 'there';\n")
        hanging.stdin.flush()
        assert hanging.stdout.readline().strip() == "there"
        refused = user.ask("POST", path, body, headers=key)
        assert refused.status == 409 and "in progress" in refused.json["detail"] and int(refused.headers["Retry-After"]) > 0, refused
        hanging.stdin.write("ROLLBACK;\n")
        hanging.stdin.close()
        hanging.wait()
    assert user.ask("POST", path, body, headers=key).status in (201, 202), "the key was not used up"


def test_keys_are_forgotten_when_their_time_is_over(make_stack):
    stack = make_stack(apis=1, workers=0, IDEMPOTENCY_KEY_HOURS=2)
    user = Client.registered(stack.apis[0].url)
    old, new = new_key(), new_key()
    bodies = [body_of(stack, "collection") for _ in range(2)]
    for key, body in zip((old, new), bodies):
        assert user.ask("POST", "/api/v2/collections", body, headers=key).status == 201
    stack.sql("UPDATE idempotency_keys SET created_at = now() - interval '119 minutes'")
    stack.sql("UPDATE idempotency_keys SET created_at = now() - interval '121 minutes' WHERE key = :'v1'", old["Idempotency-Key"])
    stack.apis[0].restart()  # it looks when it starts, and each minute
    wait_for("the old key to go", lambda: stack.sql("SELECT key FROM idempotency_keys") == [[new["Idempotency-Key"]]])
    assert user.ask("POST", "/api/v2/collections", bodies[1], headers=new).headers["Idempotency-Replayed"] == "true"
