"""How long a WebSocket may live: until its token expires, or its user, API key, right or collection is gone. Two instances; what changes rights is told
to both of them."""
import hashlib
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.client import Client
from support.stack import Stack, wait_for
from test_websockets import Operation, Publisher, User, is_open, probe, refused

# Every 30 s all rights are looked at anyway, each channel in a second of its own. Many sockets that are all closed in this time were closed because of
# what was announced.
SOON = 8
MANY = 6


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=2, workers=0, WS_MAX_CONNECTIONS_PER_USER=100)
    yield made
    made.close()


@pytest.fixture(scope="module")
def publish(stack):
    made = Publisher(stack)
    yield made
    made.close()


@pytest.fixture
def user(stack):
    return User(stack)


@pytest.fixture(scope="module", autouse=True)
def unannounced(stack):
    """Sockets of a user who was deactivated without a word to anybody; how they end is asked at the end of this file, so that nobody waits for it."""
    user, scan = User(stack), str(uuid.uuid4())
    stack.redis_cli("SET", f"{stack.env['REDIS_PREFIX']}directory-scan:{scan}:user", str(user.id), "EX", "60")
    sockets = [user.open(api, path) for api in stack.apis for path in ("/ws/operations", "/ws/scan/" + scan, "/ws/directory-scan/" + scan)]
    for ws in sockets:
        probe(ws)
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
    with ThreadPoolExecutor(len(sockets)) as pool:
        yield [pool.submit(ws.end) for ws in sockets]


def announce(stack, **change):
    """As an operator does after a change by SQL (docs/operating.md)."""
    return stack.redis_cli("PUBLISH", stack.env["REDIS_PREFIX"] + "relay:access", json.dumps(change))


def ends(sockets, seconds=SOON):
    deadline = time.monotonic() + seconds
    return [ws.end(max(deadline - time.monotonic(), 0.05)) for ws in sockets]


def api_key(stack, user):
    key = "smtk_" + uuid.uuid4().hex[:8] + "_" + uuid.uuid4().hex
    stack.sql("INSERT INTO api_keys (user_id, name, prefix, secret_hash) VALUES (:'v1', 'k', :'v2', :'v3')", user.id, key.split("_")[1],
              hashlib.sha256(key.encode()).hexdigest())
    return key, int(stack.sql_value("SELECT id FROM api_keys WHERE prefix = :'v1'", key.split("_")[1]))


def watched(stack, user, count=MANY, is_public=False, by=None):
    """Sockets on operations of one collection, on all instances in turn."""
    first = Operation(stack, user, is_public=is_public)
    operations = [first.id] + [stack.sql_value(
        "INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, status, started_at) SELECT id, uuid, :'v2', 'append', "
        "false, 'default', '{\"a\":1}', 'completed', now() FROM collections WHERE uuid = :'v1' RETURNING uuid", first.collection, user.id)
        for _ in range(count - 1)]
    sockets = [(by or user).open(stack.apis[i % 2], "/ws/operations/" + operation) for i, operation in enumerate(operations)]
    for ws in sockets:
        assert ws.next()["type"] == "current_state"
    return first, sockets


def test_a_collection_made_private_closes_its_strangers_sockets_and_no_others(stack, user):
    stranger = User(stack)
    operation, strangers = watched(stack, user, is_public=True, by=stranger)
    mine = user.open(stack.apis[0], operation.path)
    elsewhere = stranger.open(stack.apis[1])
    probe(mine)
    probe(elsewhere)
    owner = Client(stack.apis[0].url, user.token)
    owner.must("PUT", "/api/v2/collections/" + operation.collection, {"is_public": False})
    assert ends(strangers) == [(1008, "You don't have access to this operation")] * MANY
    assert is_open(mine) and is_open(elsewhere)
    owner.must("PUT", "/api/v2/collections/" + operation.collection, {"is_public": True})
    again = stranger.open(stack.apis[1], operation.path)
    assert again.next()["type"] == "current_state"
    for ws in (mine, elsewhere, again):
        ws.close()


def test_a_deleted_collection_closes_all_but_the_sockets_of_its_deletion(stack, user, publish):
    operation, sockets = watched(stack, user)
    stack.sql("UPDATE operations SET status = 'completed', completed_at = now() WHERE uuid = :'v1'", operation.id)
    last = publish(operation, "operation_completed", status="completed")
    everything = user.open(stack.apis[1])
    probe(everything)
    answer = Client(stack.apis[0].url, user.token).ask("DELETE", "/api/v2/collections/" + operation.collection)
    assert answer.status == 204
    assert ends(sockets) == [(1008, "the collection of this operation was deleted")] * MANY
    assert last in [f.get("id") for f in sockets[0].frames], "what happened before it is told first"
    deletion = user.open(stack.apis[1], "/ws/operations/" + answer.headers["X-Operation-ID"])
    assert deletion.next()["type"] == "current_state"
    announce(stack, collection_id=operation.collection)
    stack.sql("DELETE FROM collections WHERE uuid = :'v1'", operation.collection)
    announce(stack, collection_id=operation.collection)
    announce(stack, user_id=user.id)
    code, reason = refused(stack.apis[1], operation.path, token=user.token)
    assert code == 1008 and "deleted" in reason, "nor can it be opened again"
    assert is_open(deletion) and is_open(everything)
    deletion.close()
    everything.close()


def test_a_deactivated_user_loses_every_socket_on_every_instance(stack, user):
    other = User(stack)
    _, sockets = watched(stack, user)
    scan = str(uuid.uuid4())
    stack.redis_cli("SET", f"{stack.env['REDIS_PREFIX']}directory-scan:{scan}:user", str(user.id), "EX", "60")
    sockets += [user.open(api, path) for api in stack.apis for path in ("/ws/operations", "/ws/scan/" + scan, "/ws/directory-scan/" + scan)]
    bystander = other.open(stack.apis[0])
    for ws in sockets + [bystander]:
        probe(ws)
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
    announce(stack, user_id=user.id)
    assert ends(sockets) == [(1008, "you don't have access any more: this account is not active")] * len(sockets)
    assert is_open(bystander)
    bystander.close()


def test_a_revoked_api_key_takes_its_own_sockets_along(stack, user):
    key, number = api_key(stack, user)
    with_key = [user.open(stack.apis[i % 2], path, token=key) for i in range(MANY) for path in ("/ws/operations", "/ws/scan/a")]
    with_token = user.open(stack.apis[0])
    for ws in with_key + [with_token]:
        probe(ws)
    stack.sql("UPDATE api_keys SET revoked_at = now() WHERE id = :'v1'", number)
    announce(stack, api_key_id=number)
    assert ends(with_key) == [(1008, "you don't have access any more: the API key is not valid")] * len(with_key)
    assert is_open(with_token)
    with_token.close()


def test_a_flood_of_announcements_and_nonsense_harms_nobody(stack, user):
    operation, sockets = watched(stack, user)
    prefix = stack.env["REDIS_PREFIX"]
    flood = [json.dumps({"user_id": user.id}), json.dumps({"collection_id": operation.collection}), json.dumps({"api_key_id": 1}), "", "{}", "[]", "null",
             '{"user_id":-1}', '{"user_id":"1"}', '{"collection_id":"x"}', '{"user_id":1e300}', "\x00", "{" * 3000, '{"collection_id":' + '"' + "a" * 5000 + '"}']
    stack.redis_cli("EVAL", "for i = 1, 3000 do redis.call('PUBLISH', KEYS[1], ARGV[i % #ARGV + 1]) end", "1", prefix + "relay:access",
                    *[text for text in flood if "\x00" not in text])
    assert all(is_open(ws) for ws in sockets)
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
    announce(stack, user_id=user.id)
    assert all(code == 1008 for code, _ in ends(sockets))


def test_what_was_announced_while_the_subscription_was_away_is_looked_at_when_it_is_back(stack, user):
    _, sockets = watched(stack, user)
    stack.redis.shut()
    try:
        wait_for("the loss to be noticed", lambda: {name for name, line in stack.log_lines() if line.get("event") == "relay_subscription_lost"} >= {"api-1", "api-2"})
        stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
    finally:
        stack.redis.open()
    assert [code for code, _ in ends(sockets, 2 * SOON)] == [1008] * MANY


def test_the_look_waits_for_a_database_that_is_away(stack, user):
    _, sockets = watched(stack, user)
    stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
    stack.postgres.shut()
    try:
        announce(stack, user_id=user.id)
        wait_for("the attempt", lambda: any(line.get("event") == "relay_access_unknown" for _, line in stack.log_lines()))
        assert all(is_open(ws) for ws in sockets), "nobody is closed because nothing is known"
    finally:
        stack.postgres.open()
    assert [code for code, _ in ends(sockets, 2 * SOON)] == [1008] * MANY


# --- a newer token

def test_a_newer_token_of_the_same_user_lengthens_the_life_of_a_socket(stack, user):
    stays, ends_soon = user.open(stack.apis[0], token=user.signed(seconds=4)), user.open(stack.apis[0], token=user.signed(seconds=4))
    stays.say({"type": "refresh", "token": user.signed(seconds=3600)})
    told = stays.next()
    assert told["type"] == "refreshed" and told["data"]["expires_at"].endswith("Z") and "message" not in told
    assert ends_soon.end() == (1008, "token expired")
    assert is_open(stays)
    stays.close()


def test_an_older_token_does_not_shorten_it(stack, user):
    ws = user.open(stack.apis[0], token=user.signed(seconds=3600))
    ws.say({"type": "refresh", "token": user.signed(seconds=2)})
    until = ws.next()["data"]["expires_at"]
    assert until > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3000))
    ws.close()


def test_another_users_token_closes(stack, user):
    ws = user.open(stack.apis[0])
    ws.say({"type": "refresh", "token": User(stack).token})
    assert ws.end() == (1008, "this token is another user's")


@pytest.mark.parametrize("token", ["nonsense", "expired", "refresh", "", None, 7])
def test_a_token_that_is_not_valid_is_refused_and_changes_nothing(stack, user, token):
    ws = user.open(stack.apis[0])
    token = {"expired": user.signed(seconds=-5), "refresh": user.signed(type="refresh")}.get(token, token)
    ws.say({"type": "refresh", "token": token})
    told = ws.next()
    assert told["type"] == "refresh_failed" and told["data"]["reason"] in ("this token is not valid", "token is missing")
    assert is_open(ws)
    ws.close()


def test_api_keys_and_haste_are_refused(stack, user):
    key, _ = api_key(stack, user)
    by_key, by_token = user.open(stack.apis[0], token=key), user.open(stack.apis[0])
    by_key.say({"type": "refresh", "token": user.token})
    assert "lives as long as the key" in by_key.next()["data"]["reason"]
    for _ in range(20):
        by_token.say({"type": "refresh", "token": user.token})
    by_token.say({"type": "ping"})
    told = [f for f in by_token.until("pong") if f["type"] == "refresh_failed"]
    assert 15 <= len(told) <= 20 and told[0]["data"]["reason"] == "once a second at most"
    other = user.open(stack.apis[0])
    other.say({"type": "refresh", "token": key})
    assert "not an API key" in other.next()["data"]["reason"]
    for ws in (by_key, by_token, other):
        ws.close()


def test_what_nobody_announced_is_seen_by_the_look_every_thirty_seconds(unannounced):
    ends_of_all = [end.result() for end in unannounced]
    assert [code for code, _ in ends_of_all] == [1008] * 6 and all("access" in reason for _, reason in ends_of_all)
