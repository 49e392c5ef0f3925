"""Scans of directories: the sockets that run one, the previews over HTTP and the sockets that are told of those. Real directories, two instances."""
import json
import os
import socket
import threading
import uuid

import pytest
from support.client import Client
from support.stack import Stack, wait_for
from support.ws import Closed, Cut
from test_websockets import User, is_open, refused


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=2, workers=0, WS_MAX_CONNECTIONS_PER_USER=50, MAX_FILE_BYTES=1000)
    yield made
    made.close()


@pytest.fixture(scope="module")
def api(stack):
    return stack.apis[0]


@pytest.fixture
def user(stack):
    return User(stack)


@pytest.fixture
def folder(stack):
    path = os.path.join(stack.roots, uuid.uuid4().hex)
    os.mkdir(path)
    return path


@pytest.fixture(scope="module")
def large(stack):
    """Enough files that a scan of them cannot be over before somebody has read what it finds: 15,000 names for 15 files."""
    path = os.path.join(stack.roots, "large")
    for d in range(15):
        os.makedirs(os.path.join(path, f"{d:02}"))
        first = os.path.join(path, f"{d:02}", "f" * 100 + "-0000.txt")
        write(first, b"x")
        for i in range(1, 1000):
            os.link(first, f"{first[:-8]}{i:04}.txt")
    return path


def write(path, data=b"hello"):
    with open(path, "wb") as file:
        file.write(data)


def scan_socket(api, user, scan_id=None, **more):
    return user.open(api, "/ws/scan/" + (scan_id or str(uuid.uuid4())), **more)


def start(ws, path, **more):
    ws.say({"action": "scan", "path": path, **more})


def result(ws, path, **more):
    start(ws, path, **more)
    frames = ws.until("completed", "error", "cancelled")
    return frames[-1], [f for frame in frames if frame["type"] == "files" for f in frame["files"]]


def claims(stack, user):
    return [m for m in stack.redis_cli("ZRANGE", f"{stack.env['REDIS_PREFIX']}scans:{user.id}", "0", "-1").split("\n") if m]


# --- what is found

def test_what_cannot_be_indexed_is_told_as_warnings(api, user, folder):
    write(folder + "/good.txt")
    write(folder + "/large.bin", b"x" * 1001)
    write(folder + "/.hidden")
    os.mkdir(folder + "/.git")
    write(folder + "/.git/config")
    os.mkfifo(folder + "/pipe")
    write(os.fsencode(folder) + b"/caf\xe9.t\xe9xt")
    os.symlink("/etc/passwd", folder + "/out")
    os.symlink("/etc", folder + "/away")
    os.symlink("nothing", folder + "/broken")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.path.join(folder, "s"))
    ws = scan_socket(api, user)
    done, _ = result(ws, folder)
    assert done["type"] == "completed" and done["count"] == 3 and done["total_size"] == 1011 and done["streamed"] == 0
    assert [f["path"] for f in done["files"]] == [folder + "/caf\\xE9.t\\xE9xt", folder + "/good.txt", folder + "/large.bin"]
    told = "\n".join(done["warnings"])
    for part in ("it is larger than MAX_FILE_BYTES and would be recorded as failed: " + folder + "/large.bin", "it is a named pipe, not a file", "it is a socket",
                 "a symbolic link that leads nowhere", "2 hidden entries"):
        assert part in told, (part, told)
    assert told.count("leads out of the source root") == 2 and len(done["warnings"]) == 7
    ws.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(api, user, folder):
    os.mkdir(folder + "/locked", 0)
    write(folder + "/secret")
    os.chmod(folder + "/secret", 0)
    ws = scan_socket(api, user)
    done, _ = result(ws, folder)
    assert done["count"] == 0 and sum("permission" in w for w in done["warnings"]) == 2
    ws.close()


def test_warnings_are_bounded_and_the_rest_is_counted(api, user, folder):
    for i in range(250):
        os.symlink("nowhere", f"{folder}/{i:03}")
    done, _ = result(scan_socket(api, user), folder)
    assert done["count"] == 0 and len(done["warnings"]) == 101 and done["warnings"][-1] == "150 more warnings"


def test_a_large_tree_is_streamed_each_file_once_and_a_quiet_client_gets_the_first(stack, api, user, large):
    ws = scan_socket(api, user)
    done, streamed = result(ws, large)
    assert done["type"] == "completed" and done["count"] == 15000 and done["total_size"] == 15000
    assert 0 < len(done["files"]) <= 1000 and done["streamed"] == len(streamed) == 15000 - len(done["files"])
    paths = [f["path"] for f in done["files"] + streamed]
    assert paths == sorted(set(paths)) and len(paths) == 15000
    assert any("listed in frames of the type files" in w for w in done["warnings"])
    batches = [f for f in ws.frames if f["type"] == "files"]
    assert all(len(json.dumps(f)) < 64 << 10 for f in batches) and len(json.dumps(done)) < 256 << 10
    expected = len(done["files"])
    for batch in batches:
        assert batch["from"] == expected
        expected += len(batch["files"])
    done, streamed = result(ws, large, stream=False)
    assert done["count"] == 15000 and not streamed and f"{15000 - len(done['files'])} more files are not listed" in done["warnings"]
    ws.close()


# --- who may look where

def test_roots_hold_against_every_way_out(stack, api, user, folder):
    os.symlink("/etc", folder + "/link")
    os.symlink("..", folder + "/up")
    outside = stack.dir + "/outside"
    os.makedirs(outside, exist_ok=True)
    ws = scan_socket(api, user)
    for path in ("/etc", "/", stack.dir, stack.roots + "x", stack.roots + "/..", folder + "/../../outside", folder + "/link", folder + "/link/ssh", outside,
                 "relative", folder + "/missing", folder + "/./../../..", "/proc/self/root" + folder, "//etc", "x" * 5000, "/" + "x" * 60000):
        told, _ = result(ws, path)
        assert told["type"] == "error" and told["message"].startswith("Failed to scan directory: "), path
    there, not_there = result(ws, "/etc/passwd")[0], result(ws, "/etc/no-such-file")[0]
    assert there == not_there, "of what lies outside not even the existence is told"
    assert is_open(ws)
    ws.close()


def test_a_directory_swapped_for_a_link_during_scans_never_leads_out(stack, api, user, folder):
    outside = os.path.join(stack.dir, "outside-" + uuid.uuid4().hex)
    os.mkdir(outside)
    write(outside + "/secret.txt")
    os.mkdir(folder + "/d")
    write(folder + "/d/mine.txt")
    os.symlink(outside, folder + "/l")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(folder + "/d", folder + "/x")
            os.rename(folder + "/l", folder + "/d")
            os.rename(folder + "/d", folder + "/l")
            os.rename(folder + "/x", folder + "/d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        ws = scan_socket(api, user)
        for _ in range(60):
            for path in (folder, folder + "/d"):
                told, _ = result(ws, path)
                assert "secret" not in json.dumps(told)
        ws.close()
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def granted():
    made = Stack(apis=1, workers=0, SOURCE_ROOTS_FOR="granted")
    yield made
    made.close()


def test_grants_bound_what_a_user_sees(granted):
    api, user, boss = granted.apis[0], User(granted), User(granted, is_superuser=True)
    for name in ("mine", "other"):
        os.mkdir(os.path.join(granted.roots, name))
        write(os.path.join(granted.roots, name, name + ".txt"))
    mine, other = granted.roots + "/mine", granted.roots + "/other"
    os.symlink("../other", mine + "/link")
    os.symlink("../other/other.txt", mine + "/file")
    ws = scan_socket(api, user)
    assert "ask an administrator" in result(ws, mine)[0]["message"]
    granted.sql("INSERT INTO source_grants (user_id, root) VALUES (:'v1', convert_to(:'v2', 'UTF8'))", user.id, mine)
    done = result(ws, mine)[0]
    assert [f["path"] for f in done["files"]] == [mine + "/mine.txt"] and len(done["warnings"]) == 2
    for path in (other, granted.roots, mine + "/link", mine + "/../other"):
        assert result(ws, path)[0]["type"] == "error", path
    preview = Client(api.url, user.token)
    shown = preview.must("POST", "/api/v2/directory-scan/preview", {"path": mine})
    assert shown["total_files"] == 1
    assert preview.ask("POST", "/api/v2/directory-scan/preview", {"path": mine + "/link"}).status in (400, 403)
    granted.sql("UPDATE source_grants SET root = '/' WHERE user_id = :'v1'", user.id)
    assert result(ws, other)[0]["count"] == 1
    assert result(ws, "/etc")[0]["type"] == "error", "a grant does not reach beyond the source roots"
    assert result(scan_socket(api, boss), granted.roots)[0]["count"] == 3
    ws.close()


# --- what clients say

def test_what_a_client_says_wrongly_is_answered(api, user, folder):
    ws = scan_socket(api, user)
    for message, part in (({"action": "scan"}, "path is missing"), ({"action": "scan", "path": 7}, "path is missing"), ({"action": "scan", "path": ""}, "path"),
                          ({"action": "scan", "path": folder, "recursive": "yes"}, "recursive must be"), ({"action": "scna", "path": folder}, "unknown action")):
        ws.say(message)
        told = ws.next()
        assert told["type"] == "error" and part in told["message"], message
    for message in ("", "{", "[]", "null", "7", '"scan"', "{}", '{"action":7}', '{"action":"scan","path":"/a\\u0000b"}'):
        ws.send(message)
    assert is_open(ws)
    assert result(ws, folder)[0]["count"] == 0
    ws.close()


# --- one at a time

def test_cancel_is_confirmed_at_once_and_the_socket_scans_again(stack, api, user, large, folder):
    ws = scan_socket(api, user)
    ws.say({"action": "cancel"})
    assert ws.next() == {"type": "cancelled", "message": "No scan is running"}
    for _ in range(10):
        start(ws, large)
        assert ws.next()["type"] in ("progress", "files")
        ws.say({"action": "cancel"})
        assert ws.until("cancelled", "completed", "error")[-1] == {"type": "cancelled", "message": "Scan cancelled"}
        assert result(ws, folder)[0]["type"] == "completed"
    assert is_open(ws)
    ws.close()
    wait_for("the claims to be given back", lambda: not claims(stack, user))


def stopped(api, user, path, scan_id=None):
    """A scan that waits for its client to read."""
    ws = scan_socket(api, user, scan_id, receive_buffer=4096)
    start(ws, path)
    return ws


def test_a_second_scan_under_a_running_id_is_refused_on_every_instance(stack, user, large, folder):
    scan = str(uuid.uuid4())
    first = stopped(stack.apis[0], user, large, scan)
    wait_for("its claim", lambda: claims(stack, user))
    for api in stack.apis:
        second = scan_socket(api, user, scan)
        assert "a scan with this id is running already" in result(second, folder)[0]["message"]
        second.close()
    stranger = scan_socket(stack.apis[1], User(stack), scan)
    assert result(stranger, folder)[0]["type"] == "completed", "another user's id is neither taken nor seen"
    stranger.close()
    start(first, folder)
    assert first.until("completed", "error")[-1] == {"type": "error", "message": "a scan is running already"}
    first.abort()
    again = scan_socket(stack.apis[1], user, scan)
    wait_for("the id to be free", lambda: result(again, folder)[0]["type"] == "completed")
    again.close()


def test_a_user_has_two_scans_at_once_over_all_instances(stack, user, large, folder):
    running = [stopped(api, user, large) for api in stack.apis]
    wait_for("both claims", lambda: len(claims(stack, user)) == 2)
    third = scan_socket(stack.apis[0], user)
    assert "you have 2 scans running" in result(third, folder)[0]["message"]
    other = scan_socket(stack.apis[0], User(stack))
    assert result(other, folder)[0]["type"] == "completed"
    for ws in running:
        ws.abort()
    wait_for("the end of both", lambda: result(third, folder)[0]["type"] == "completed")
    third.close()
    other.close()


def test_a_claim_of_a_dead_instance_ends(stack, api, user, folder):
    scan, key = str(uuid.uuid4()), f"{stack.env['REDIS_PREFIX']}scans:{user.id}"
    now = int(stack.redis_cli("TIME").split()[0])
    stack.redis_cli("ZADD", key, str(now + 3), f"{scan} dead:1 1")
    ws = scan_socket(api, user, scan)
    assert result(ws, folder)[0]["type"] == "error"
    wait_for("the claim's end", lambda: result(ws, folder)[0]["type"] == "completed")
    ws.close()


# --- who goes takes its scan along

@pytest.mark.parametrize("how", ["gone", "deactivated", "expired"])
def test_the_scan_of_a_socket_that_ends_ends_too(stack, api, user, large, how):
    if how == "expired":
        user.token = user.signed(seconds=4)
    ws = stopped(api, user, large)
    wait_for("its claim", lambda: claims(stack, user))
    if how == "gone":
        ws.abort()
    if how == "deactivated":
        stack.sql("UPDATE users SET is_active = false WHERE id = :'v1'", user.id)
        stack.redis_cli("PUBLISH", stack.env["REDIS_PREFIX"] + "relay:access", json.dumps({"user_id": user.id}))
    wait_for("its end", lambda: not claims(stack, user))
    if how != "gone":
        assert ws.end()[0] == 1008
        assert not any(f["type"] in ("completed", "error") for f in ws.frames)


def test_a_client_that_stops_reading_loses_its_scan_and_learns_why(stack, api, user, large):
    ws = stopped(api, user, large)
    wait_for("its claim", lambda: claims(stack, user))
    others = scan_socket(api, User(stack))
    assert result(others, large)[0]["count"] == 15000, "nobody else waits"
    others.close()
    wait_for("its end", lambda: not claims(stack, user))
    frames = ws.until("completed", "error")
    assert frames[-1]["type"] == "error" and "not being read" in frames[-1]["message"]
    assert is_open(ws)
    ws.close()


def test_a_drain_ends_scans_with_a_word(stack, user, large):
    api = stack.add("api")
    reading, ended = scan_socket(api, user), []
    start(reading, large)
    assert reading.next()["type"] in ("progress", "files")
    stopper = threading.Thread(target=lambda: ended.append(api.stop()))
    stopper.start()
    try:
        while True:
            if reading.next()["type"] == "completed":
                start(reading, large)
    except (Closed, Cut):
        pass
    stopper.join()
    assert ended == [0]
    assert reading.frames[-1]["type"] == "error" and "restarts" in reading.frames[-1]["message"]


# --- previews

def preview(api, user, path, **more):
    return Client(api.url, user.token).ask("POST", "/api/v2/directory-scan/preview", {"path": path, **more})


def test_a_preview_is_told_to_all_its_listeners_also_late_ones(stack, user, folder):
    write(folder + "/a.txt")
    scan = str(uuid.uuid4())
    assert refused(stack.apis[0], "/ws/directory-scan/" + scan, token=user.token)[0] == 1008, "there is no such scan yet"
    assert preview(stack.apis[0], user, folder, scan_id=scan).status == 200
    listeners = [user.open(api, "/ws/directory-scan/" + scan) for api in stack.apis]
    assert all(ws.next()["data"] == {"total_files": 1, "total_size": 5, "percentage": 100} for ws in listeners)
    write(folder + "/b.txt")
    assert preview(stack.apis[1], user, folder, scan_id=scan).status == 200
    assert all(ws.next()["data"]["total_files"] == 2 for ws in listeners)
    os.rename(folder, folder + "-moved")
    assert preview(stack.apis[1], user, folder, scan_id=scan).status == 400
    assert all(ws.is_silent() for ws in listeners), "what was refused never began"
    for ws in listeners:
        ws.close()


def test_another_users_scan_id_stays_his_and_unseen(stack, user, folder):
    write(folder + "/a.txt")
    scan, other = str(uuid.uuid4()), User(stack)
    assert preview(stack.apis[0], user, folder, scan_id=scan).status == 200
    mine = user.open(stack.apis[0], "/ws/directory-scan/" + scan)
    assert mine.next()["type"] == "completed"
    shown = preview(stack.apis[1], other, folder, scan_id=scan)
    assert shown.status == 200 and shown.json["total_files"] == 1
    assert mine.is_silent()
    assert refused(stack.apis[1], "/ws/directory-scan/" + scan, token=other.token)[0] == 1008
    mine.close()


def test_one_preview_at_a_time_under_an_id(stack, user, folder):
    scan, prefix = str(uuid.uuid4()), stack.env["REDIS_PREFIX"]
    stack.redis_cli("SET", f"{prefix}directory-scan:{scan}:running", "1", "EX", "30")
    answer = preview(stack.apis[0], user, folder, scan_id=scan)
    assert answer.status == 409 and "running" in answer.json["detail"]
    stack.redis_cli("DEL", f"{prefix}directory-scan:{scan}:running")
    assert preview(stack.apis[0], user, folder, scan_id=scan).status == 200
    assert preview(stack.apis[1], user, folder, scan_id=scan).status == 200


def test_a_preview_of_a_large_tree_is_bounded_and_says_so(stack, user, large):
    shown = preview(stack.apis[0], user, large).json
    assert len(shown["files"]) == 1000 and 1000 < shown["total_files"] <= 15000
    assert f"{shown['total_files'] - 1000} more files are not listed" in shown["warnings"]


@pytest.mark.parametrize("body, status", [({}, 422), ({"path": ""}, 422), ({"path": 7}, 422), ({"path": "relative"}, 400), ({"path": "/etc"}, 400),
                                          ({"path": "/", "scan_id": "x"}, 422), ({"path": "/x", "include_patterns": [7]}, 422),
                                          ({"path": "/x", "exclude_patterns": "*.md"}, 422), ({"path": "/x", "exclude_patterns": ["*a" * 513]}, 422), ({"path": "/x", "recursive": "no"}, 422)])
def test_bad_previews_are_refused(stack, user, body, status):
    answer = Client(stack.apis[0].url, user.token).ask("POST", "/api/v2/directory-scan/preview", body)
    assert answer.status == status, answer
