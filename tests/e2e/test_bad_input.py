"""Bad input, a catalogue: each is answered in the contract's shape, and the programs live on."""
import json
import os
import socket
import uuid

import pytest
from support.client import Client

NOWHERE = str(uuid.UUID(int=7))


@pytest.fixture(scope="module")
def collection(user):
    return user.collection()


@pytest.fixture(scope="module")
def stranger(stack, user):
    return Client.registered(stack.apis[1].url)


def refused(answer, status):
    assert answer.status == status, answer
    body = answer.json
    assert body["detail"], body
    if status == 422 and isinstance(body["detail"], list):
        for entry in body["detail"]:
            assert entry["type"] and entry["msg"] and entry["loc"][0] in ("body", "query", "path"), entry
    assert answer.headers["X-Correlation-ID"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return body


@pytest.mark.parametrize("path", ["/api/v2/collections", "/api/v2/operations", f"/api/v2/operations/{NOWHERE}", "/api/auth/me", "/api/v2/preferences"])
@pytest.mark.parametrize("token", [None, "nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwidXNlcl9pZCI6MSwidHlwZSI6ImFjY2VzcyJ9."])
def test_nobody_gets_in_without_a_good_token(stack, path, token):
    answer = Client(stack.apis[0].url, token).ask("GET", path)
    refused(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_refresh_token_is_no_access_token(stack, user):
    name = "user_" + uuid.uuid4().hex[:8]
    user.must("POST", "/api/auth/register", {"username": name, "email": name + "@example.org", "password": "long enough 1"})
    tokens = Client(stack.apis[0].url).must("POST", "/api/auth/login", {"username": name, "password": "long enough 1"})
    refused(Client(stack.apis[0].url, tokens["refresh_token"]).ask("GET", "/api/auth/me"), 401)
    fresh = Client(stack.apis[0].url).must("POST", "/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    assert fresh["access_token"]
    refused(Client(stack.apis[0].url).ask("POST", "/api/auth/refresh", {"refresh_token": tokens["refresh_token"]}), 401)


@pytest.mark.parametrize("body", [
    {}, {"username": "ab", "email": "a@example.org", "password": "long enough"}, {"username": "bad name!", "email": "a@example.org", "password": "long enough"},
    {"username": "fine_name", "email": "no address", "password": "long enough"}, {"username": "fine_name", "email": "a@example.org", "password": "short"},
    {"username": 7, "email": "a@example.org", "password": "long enough"}, {"username": None, "email": None, "password": None}, [], "text", 7, None,
])
def test_bad_registrations_are_refused(stack, body):
    refused(Client(stack.apis[0].url).ask("POST", "/api/auth/register", raw=json.dumps(body).encode()), 422)


def test_a_taken_name_is_a_conflict(stack, user):
    refused(Client(stack.apis[0].url).ask("POST", "/api/auth/register", {"username": user.username.upper(), "email": "x@example.org", "password": "long enough"}), 409)


def test_a_wrong_password_and_an_unknown_user_read_alike(stack, user):
    client = Client(stack.apis[0].url)
    wrong = refused(client.ask("POST", "/api/auth/login", {"username": user.username, "password": "not it at all"}), 401)
    unknown = refused(client.ask("POST", "/api/auth/login", {"username": "nobody_here", "password": "not it at all"}), 401)
    assert wrong["detail"] == unknown["detail"] == "Incorrect username or password"


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff\xfe", b'{"name": "a"', b'{"name": "a"} trailing', b"[" * 5000 + b"]" * 5000, b'{"name": "\\ud800"}', b"nan"])
def test_broken_json_is_refused(user, raw):
    answer = user.ask("POST", "/api/v2/collections", raw=raw)
    assert answer.status in (400, 422), answer
    refused(answer, answer.status)


@pytest.mark.parametrize("body", [
    {"name": ""}, {"name": "   "}, {"name": "a/b"}, {"name": "a:b"}, {"name": "x" * 256}, {"name": 3}, {"name": None},
    {"name": "n", "chunk_size": 99}, {"name": "n", "chunk_size": 10001}, {"name": "n", "chunk_size": "big"}, {"name": "n", "chunk_overlap": -1},
    {"name": "n", "is_public": "maybe"}, {"name": "n", "quantization": "float3"}, {"name": "n", "sync_mode": "continuous"}, {"name": "n", "metadata": [1]},
])
def test_bad_collections_are_refused(user, body):
    answer = user.ask("POST", "/api/v2/collections", body)
    assert answer.status in (400, 422), answer
    refused(answer, answer.status)


def test_a_taken_collection_name_is_a_conflict(user, stranger, collection):
    refused(user.ask("POST", "/api/v2/collections", {"name": collection["name"]}), 409)
    refused(stranger.ask("POST", "/api/v2/collections", {"name": collection["name"]}), 409)


def test_names_in_any_script_come_back_unchanged(user):
    for name in ("Überblick ∑ 日本語 🐝", "O'Brien; DROP TABLE users --", "a\tb", "%s%n{}", "\u202eright to left"):
        answer = user.ask("POST", "/api/v2/collections", {"name": name + uuid.uuid4().hex[:6]})
        if answer.status == 201:
            assert user.show(answer.json["id"])["name"].startswith(name)
        else:
            refused(answer, 422)
    assert user.ask("POST", "/api/v2/collections", {"name": "nul \0 inside"}).status == 422


@pytest.mark.parametrize("path", [
    "/etc", "/", "../..", "relative/path", "", None, "/nul\0byte", "{root}/../../etc", "{root}/missing", "{root}2", "{root}/\ud800", 7, ["{root}"],
])
def test_sources_outside_the_roots_are_refused(stack, user, collection, path):
    if isinstance(path, str):
        path = path.replace("{root}", stack.roots)
    answer = user.ask("POST", f"/api/v2/collections/{collection['id']}/sources", {"source_type": "directory", "source_config": {"path": path}, "source_path": path})
    assert answer.status in (400, 403, 404, 422), answer
    refused(answer, answer.status)
    assert user.show(collection["id"])["status"] == "ready"


def test_a_link_out_of_the_root_leads_nowhere(stack, user, collection):
    path = os.path.join(stack.roots, "escape")
    os.symlink("/etc", path)
    answer = user.ask("POST", f"/api/v2/collections/{collection['id']}/sources", {"source_type": "directory", "source_config": {"path": path}, "source_path": path})
    if answer.status == 202:
        over = user.wait_over(answer.json["id"], status="failed")
        assert over["error_message"]
    else:
        refused(answer, answer.status)
    assert user.documents(collection["id"]) == {}


def test_an_unknown_kind_of_source_is_refused(stack, user, collection):
    refused(user.ask("POST", f"/api/v2/collections/{collection['id']}/sources", {"source_type": "carrier-pigeon", "source_config": {"path": stack.roots}}), 400)


@pytest.mark.parametrize("method, path", [
    ("GET", "/api/v2/collections/{}"), ("DELETE", "/api/v2/collections/{}"), ("GET", "/api/v2/operations/{}"), ("DELETE", "/api/v2/operations/{}"),
    ("GET", "/api/v2/collections/{}/documents"), ("POST", "/api/v2/collections/{}/sources"),
])
@pytest.mark.parametrize("what", [NOWHERE, "not-a-uuid", "%00", "..%2f..%2fetc", "1' OR '1'='1", "é"])
def test_what_is_not_there_is_404(user, method, path, what):
    from urllib.parse import quote
    body = {"source_type": "directory", "source_path": "/x", "source_config": {"path": "/x"}} if method == "POST" else None
    answer = user.ask(method, path.format(quote(what, safe="%")), body)
    assert answer.status in (404, 422, 400), answer
    refused(answer, answer.status)


def test_another_users_things_are_closed(user, stranger, collection):
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/documents"), ("GET", "/operations"), ("POST", "/reindex")]:
        answer = stranger.ask(method, f"/api/v2/collections/{collection['id']}{path}", {} if method == "POST" else None)
        assert answer.status in (403, 404), (method, path, answer)
    operation = user.must("GET", f"/api/v2/collections/{collection['id']}/operations")[0]
    for method in ("GET", "DELETE"):
        assert stranger.ask(method, "/api/v2/operations/" + operation["id"]).status in (403, 404)
    assert stranger.ask("POST", "/api/v2/search", {"query": "x", "collection_uuids": [collection["id"]], "use_reranker": False}).status in (403, 404)
    assert collection["id"] not in [c["id"] for c in stranger.must("GET", "/api/v2/collections")["collections"]]


def test_public_collections_are_read_by_all_and_changed_by_their_owner(user, stranger):
    public = user.collection(is_public=True)
    assert stranger.show(public["id"])["name"] == public["name"]
    refused(stranger.ask("DELETE", "/api/v2/collections/" + public["id"]), 403)
    operation = stranger.must("GET", f"/api/v2/collections/{public['id']}/operations")[0]
    assert stranger.operation(operation["id"])["id"] == operation["id"]
    refused(stranger.ask("DELETE", "/api/v2/operations/" + operation["id"]), 403)


@pytest.mark.parametrize("query", ["page=0", "page=-1", "per_page=0", "per_page=101", "page=x", "page=99999999999999999999", "per_page=1e3"])
def test_pages_out_of_range_are_refused(user, query):
    refused(user.ask("GET", "/api/v2/collections?" + query), 422)


def test_unknown_parameters_are_ignored(user):
    assert user.ask("GET", "/api/v2/collections?limit=50&whatever=%ff&page=1").status == 200


@pytest.mark.parametrize("query", ["status=sleeping", "operation_type=dance", "type=dance", "status=pending,sleeping"])
def test_unknown_filters_name_the_valid_values(user, query):
    body = refused(user.ask("GET", "/api/v2/operations?" + query), 400)
    assert ("pending" in body["detail"]) or ("append" in body["detail"])


@pytest.mark.parametrize("change", [
    {"query": ""}, {"query": "x" * 1001}, {"query": 5}, {"query": None}, {"collection_uuids": []}, {"collection_uuids": ["nope"]}, {"collection_uuids": [NOWHERE] * 11},
    {"k": 0}, {"k": 101}, {"k": "many"}, {"k": 1.5}, {"score_threshold": 2}, {"score_threshold": -1}, {"search_type": "divination"},
])
def test_bad_searches_are_refused(user, collection, change):
    refused(user.ask("POST", "/api/v2/search", {"query": "ships", "collection_uuids": [collection["id"]], "use_reranker": False, **change}), 422)


def test_a_search_of_an_empty_collection_finds_nothing(user, collection):
    answer = user.search(collection["id"], "ships")
    assert answer["results"] == [] and answer["total_results"] == 0


def test_unknown_paths_and_methods(user):
    assert refused(user.ask("GET", "/api/v2/nowhere"), 404)["detail"] == "Not Found"
    refused(user.ask("PATCH", "/api/v2/operations"), 405)
    refused(user.ask("BREW", "/api/v2/collections"), 405)


def test_an_oversized_body_is_refused(user):
    answer = user.ask("POST", "/api/v2/collections", {"name": "n", "description": "x" * 2_000_000})
    assert answer.status in (400, 413, 422), answer


@pytest.mark.parametrize("raw", [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n", b"POST /api/v2/collections HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /api/v2/collections HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET /ws/operations HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /ws/operations HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n", b"", b"GET /api/hea",
])
def test_broken_http_does_no_harm(stack, user, raw):
    for api in stack.apis[:1]:
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as s:
            try: # it may be cut while we are still sending
                s.sendall(raw)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError as e:
                assert not isinstance(e, TimeoutError), "nobody sent this client away"
    assert user.ask("GET", "/api/v2/collections").status == 200


@pytest.mark.parametrize("path, token", [
    ("/ws/operations", "nonsense"), ("/ws/operations", ""), (f"/ws/operations/{NOWHERE}", None), ("/ws/operations/not-a-uuid", None),
])
def test_a_refused_socket_is_accepted_and_closed_with_a_reason(stack, user, path, token):
    watch = Client(stack.apis[0].url, user.token if token is None else token).watch(path)
    code, reason = watch.wait_closed()
    assert code == 1008 and reason
    assert watch.frames == []


def test_another_users_operation_is_not_shown_on_a_socket(stack, user, stranger, collection):
    operation = user.must("GET", f"/api/v2/collections/{collection['id']}/operations")[0]
    assert stranger.watch("/ws/operations/" + operation["id"]).wait_closed()[0] == 1008


def test_garbage_from_a_client_leaves_its_socket_open(user):
    watch = user.watch("/ws/operations")
    watch.send("{broken")
    watch.send(b"\x00\x01\x02", opcode=2)
    watch.send("x" * 3000)
    watch.send('{"type": "ping"}')
    watch.wait_type("pong")
    watch.send("ping")
    watch.wait("a second pong", lambda f, seen=[]: f.get("type") == "pong" and (seen.append(1) or len(seen) == 2))
    watch.close()


def test_what_failed_before_left_no_error_behind(stack, user):
    """Nothing of this page was an internal error, and every line that the programs wrote is JSON."""
    lines = list(stack.log_lines())
    assert not [line for _, line in lines if line.get("event") == "not_json"]
    assert not [line for _, line in lines if line.get("status") == 500], "a request was answered 500"
    for process in stack.processes:
        assert process.child.poll() is None, process.name + " has ended"
