"""How the page's files are served: out of the program, or below WEB_ROOT."""
import gzip
import os
import re
import socket
import time

import pytest
from support.client import Client
from support.stack import ROOT, Stack

PAGES = ["/", "/login", "/settings", "/verification", "/collections", "/collections/8a4f02b7-7c1d-4f3a-9e58-1d2c3b4a5f60", "/operations", "/search", "/pipeline/7"]


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def stranger(stack):
    return Client(stack.apis[0].url)


def source(*names):
    with open(os.path.join(ROOT, "api", *names), "rb") as file:
        return file.read()


def raw(url, target, *fields):
    """The answer to exactly these bytes; clients tidy paths up before they send them."""
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall("\r\n".join([f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", *fields, "Connection: close", "", ""]).encode())
        data = b""
        while more := s.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode("latin-1"), body


@pytest.mark.parametrize("path", PAGES)
def test_every_address_of_the_page_gets_its_html(stranger, path):
    answer = stranger.ask("GET", path)
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.raw == source("web", "index.html")


def test_the_page_may_run_its_own_scripts_and_open_its_own_sockets_and_nothing_else(stranger, stack):
    headers = stranger.ask("GET", "/").headers
    rules = dict(rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";"))
    host = f"127.0.0.1:{stack.apis[0].port}"
    assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" and rules["style-src"] == "'self'"
    assert rules["connect-src"].split() == ["'self'", f"ws://{host}", f"wss://{host}"]
    assert rules["frame-ancestors"] == "'none'" and rules["base-uri"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"


def test_a_host_that_is_none_does_not_get_into_the_policy(stack):
    for host in ("a;script-src *", "a b", "a,b"):
        with socket.create_connection(("127.0.0.1", stack.apis[0].port), timeout=20) as s:
            s.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = s.recv(65536).split(b"\r\n\r\n")[0]
        assert b"connect-src 'self'\r\n" in head or head.startswith(b"HTTP/1.1 400"), head


def test_answers_of_the_api_keep_their_strict_policy(stranger):
    for path in ("/api/v2/system/info", "/web/app.js"):
        assert stranger.ask("GET", path).headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize("name, kind", [
    ("web/main.js", "text/javascript; charset=utf-8"), ("web/style.css", "text/css; charset=utf-8"), ("web/icon.svg", "image/svg+xml"),
    ("clients/opstream.js", "text/javascript; charset=utf-8"),
])
def test_files_come_with_their_type_and_their_bytes(stranger, name, kind):
    answer = stranger.ask("GET", "/" + name)
    assert answer.status == 200 and answer.headers["Content-Type"] == kind
    assert answer.raw == source(*name.split("/"))
    packed = stranger.ask("GET", "/" + name, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip" and "Accept-Encoding" in packed.headers["Vary"]
    assert gzip.decompress(packed.raw) == answer.raw and packed.headers["ETag"] != answer.headers["ETag"]


def test_who_has_a_file_is_told_so_and_nothing_is_sent(stranger):
    for path in ("/", "/web/style.css"):
        first = stranger.ask("GET", path)
        tag = first.headers["ETag"]
        assert re.fullmatch(r'"[0-9a-f]{20}"', tag) and first.headers["Cache-Control"] == "no-cache"
        for known in (tag, "W/" + tag, f'"other", {tag}', "*"):
            again = stranger.ask("GET", path, headers={"If-None-Match": known})
            assert again.status == 304 and again.raw == b"" and again.headers["ETag"] == tag, known
        for other in ('"other"', tag[:-2] + '"', tag.strip('"')):
            assert stranger.ask("GET", path, headers={"If-None-Match": other}).status == 200, other


def test_head_tells_what_get_would_send(stranger):
    got, head = stranger.ask("GET", "/web/style.css"), stranger.ask("HEAD", "/web/style.css")
    assert head.status == 200 and head.raw == b"" and head.headers["Content-Length"] == str(len(got.raw)) and head.headers["ETag"] == got.headers["ETag"]


@pytest.mark.parametrize("target", [
    "/web/nothing.js", "/web/", "/web", "/assets/app.js", "/vite.svg", "/clients/nothing.js", "/unknown", "/favicon.ico", "/web/../web/style.css", "/web/%2e%2e/web/style.css",
    "/web/style.css%00", "/web//style.css", "/web/..%2f..%2fetc%2fpasswd", "/collections/x/y"])
def test_what_is_not_there_is_a_404_in_json(stack, target):
    status, head, body = raw(stack.apis[0].url, target)
    assert status == 404 and "Content-Type: application/json" in head and b'"detail":"Not Found"' in body


def test_the_page_cannot_be_posted_to(stranger):
    answer = stranger.ask("POST", "/", {})
    assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_page_needs_no_database(make_stack):
    alone = make_stack(apis=1, workers=0)
    alone.postgres.shut()
    alone.redis.shut()
    stranger = Client(alone.apis[0].url)
    started = time.monotonic()
    assert all(stranger.ask("GET", path).status == 200 for path in ("/", "/web/main.js", "/clients/opstream.js"))
    assert time.monotonic() - started < 60


def test_the_head_of_the_page_names_every_module_that_it_imports():
    page = source("web", "index.html").decode()
    named = set(re.findall(r'<link rel="modulepreload" href="([^"]+)">', page))
    needed, queue = set(), ["/web/main.js"]
    while queue:
        path = queue.pop()
        for found in re.findall(r'^(?:import|export)\b[^"]*?from "([^"]+)";', source(*path[1:].split("/")).decode(), re.M | re.S):
            target = os.path.normpath(os.path.join(os.path.dirname(path), found))
            if target not in needed:
                needed.add(target)
                queue.append(target)
    assert named == needed
    unused = {f"/web/{name}" for name in os.listdir(os.path.join(ROOT, "api/web")) if name.endswith(".js")} - needed - {"/web/main.js"}
    assert not unused


# ---- off, and another front end


def test_web_page_off_leaves_the_api_alone(stack):
    api = stack.add("api", WEB_PAGE="off")
    stranger = Client(api.url)
    assert [stranger.ask("GET", path).status for path in ("/", "/collections", "/web/main.js", "/clients/opstream.js")] == [404] * 4
    assert stranger.ask("GET", "/health").status == 200
    api.stop()


@pytest.fixture(scope="module")
def other(stack):
    """An instance that serves a folder with links, folders and a secret beside it."""
    top = os.path.join(stack.dir, "other")
    root = os.path.join(top, "dist")
    os.makedirs(os.path.join(root, "assets", "deep"))
    for path, text in (("dist/index.html", "<title>Other</title>"), ("dist/vite.svg", "<svg/>"), ("dist/assets/app.js", "other()"), ("dist/assets/deep/er.css", "a{}"),
                       ("dist/assets/a b.txt", "blank"), ("secret.txt", "secret"), ("dist/hidden.txt", "hidden")):
        with open(os.path.join(top, path), "w", encoding="utf-8") as file:
            file.write(text)
    with open(os.path.join(root, "assets", "app.js.gz"), "wb") as file:
        file.write(gzip.compress(b"other()"))
    os.symlink(os.path.join(top, "secret.txt"), os.path.join(root, "assets", "link.txt"))
    os.symlink("app.js", os.path.join(root, "assets", "inside.js"))
    os.symlink("..", os.path.join(root, "assets", "up"))
    os.mkfifo(os.path.join(root, "assets", "pipe.js"))
    api = stack.add("api", WEB_ROOT=root)
    yield api, root
    api.stop()


def test_another_front_end_is_served_at_the_pages_addresses(other):
    api, _ = other
    stranger = Client(api.url)
    for path in PAGES:
        answer = stranger.ask("GET", path)
        assert answer.raw == b"<title>Other</title>" and answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "style-src 'self' 'unsafe-inline'" in answer.headers["Content-Security-Policy"]
    for path, text, kind in (("/assets/app.js", b"other()", "text/javascript; charset=utf-8"), ("/assets/deep/er.css", b"a{}", "text/css; charset=utf-8"),
                             ("/vite.svg", b"<svg/>", "image/svg+xml"), ("/assets/a%20b.txt", b"blank", "text/plain; charset=utf-8")):
        answer = stranger.ask("GET", path)
        assert (answer.raw, answer.headers["Content-Type"]) == (text, kind)
    packed = stranger.ask("GET", "/assets/app.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip" and gzip.decompress(packed.raw) == b"other()"
    assert stranger.ask("GET", "/web/main.js").status == 404, "files of the page that is not served"
    assert stranger.ask("GET", "/clients/opstream.js").status == 200


def test_a_built_file_that_changes_gets_another_tag(other):
    api, root = other
    stranger = Client(api.url)
    path = os.path.join(root, "assets", "new.js")
    tags = []
    for text in ("one()", "two()"):
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".tmp", path)
        answer = stranger.ask("GET", "/assets/new.js")
        assert answer.raw == text.encode()
        tags.append(answer.headers["ETag"])
        assert stranger.ask("GET", "/assets/new.js", headers={"If-None-Match": tags[-1]}).status == 304
    assert tags[0] != tags[1]
    assert stranger.ask("HEAD", "/assets/new.js").headers["Content-Length"] == "5"


@pytest.mark.parametrize("target", [
    "/assets/../../secret.txt", "/assets/%2e%2e/%2e%2e/secret.txt", "/assets/..%2f..%2fsecret.txt", "/assets/%2fetc%2fpasswd", "/assets//etc/passwd", "/assets/link.txt",
    "/assets/inside.js", "/assets/up/index.html", "/assets/up/assets/app.js", "/assets/deep", "/assets/deep/", "/assets/", "/assets/pipe.js", "/assets/app.js/", "/assets/nothing.js",
    "/hidden.txt", "/assets/%2e%2e/hidden.txt", "/assets/deep/%2e%2e/../../hidden.txt", "/assets/deep%2f..%2f..%2fhidden.txt", "/assets/app.js%00.css", "/assets/%ff"])
def test_nothing_but_plain_files_below_the_folder_is_served(other, target):
    status, head, body = raw(other[0].url, target)
    assert b"secret" not in body and b"hidden" not in body and b"root:" not in body
    if target == "/assets/app.js/":
        assert status in (200, 404)
    elif target in ("/assets/../../secret.txt",):
        assert status in (400, 404)
    else:
        assert status == 404 and "application/json" in head, head


def test_a_folder_that_cannot_be_served_is_told_at_the_start(stack):
    import subprocess
    for folder, word in ((os.path.join(stack.dir, "nowhere"), "No such file"), (stack.roots, "index.html")):
        out = subprocess.run([Stack.program("api")], env={**stack.env, "API_PORT": "0", "WEB_ROOT": folder}, capture_output=True, text=True, timeout=60, check=False)
        assert out.returncode == 1 and "WEB_ROOT" in out.stderr + out.stdout and word in out.stderr + out.stdout
