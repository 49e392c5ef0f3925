#!/usr/bin/env python3
"""The demonstration: demo.py default|own FOLDER RUN_DIR. Only Python's standard library; talks to the API at OPSTREAM_URL as any client would.

Registers a user, makes a collection from the folder, follows its operation over the WebSocket, and asks the collection three questions.
"""
import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import struct
import sys
import textwrap
import time
import urllib.error
import urllib.parse
import urllib.request

QUESTIONS = [
    "What happens to a package that has a release-critical bug nobody fixes?",
    "How does someone become an official Debian developer?",
    "Why should a computer that needs new software keep running the stable release?",
]
OWN_QUESTIONS = ["What is this collection about?", "What are the main results or conclusions?"]


class Trouble(Exception):
    """Something to tell the user in one sentence."""


class Api:
    def __init__(self, url):
        self.url = url.rstrip("/")
        self.token = None

    def call(self, method, path, body=None, expect=(200, 201, 202, 204)):
        """The answer's JSON, or (status, JSON) when `expect` is None."""
        request = urllib.request.Request(self.url + path, method=method)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        except OSError as error:
            raise Trouble(f"the API at {self.url} does not answer ({getattr(error, 'reason', error)}): make up starts it")
        try:
            value = json.loads(raw) if raw else None
        except ValueError:
            value = None
        if expect is None:
            return status, value
        if status not in expect:
            raise Trouble(f"{method} {path} was answered {status}: {detail(value)}")
        return value


def detail(value):
    what = value.get("detail") if isinstance(value, dict) else None
    if isinstance(what, list):
        return "; ".join(str(entry.get("msg")) for entry in what)
    return what if isinstance(what, str) else json.dumps(value)


class Socket:
    """A small WebSocket client: text frames in, pongs out."""

    def __init__(self, url, token):
        parts = urllib.parse.urlsplit(url)
        self.sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=10)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.sock.sendall((f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                           f"Sec-WebSocket-Protocol: access_token.{token}\r\n\r\n").encode())
        self.buffer = b""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        if " 101 " not in head.split("\r\n")[0] or accept not in head:
            raise OSError(head.split("\r\n")[0])

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise OSError("closed")
        self.buffer += data

    def _until(self, mark):
        while mark not in self.buffer:
            self._more()
        taken, self.buffer = self.buffer.split(mark, 1)
        return taken

    def _frame(self):
        """(opcode, payload) of the first frame in the buffer, or None."""
        data = self.buffer
        if len(data) < 2:
            return None
        size, at = data[1] & 127, 2
        if size == 126:
            size, at = (struct.unpack(">H", data[2:4])[0], 4) if len(data) >= 4 else (None, 0)
        elif size == 127:
            size, at = (struct.unpack(">Q", data[2:10])[0], 10) if len(data) >= 10 else (None, 0)
        if size is None or len(data) < at + size:
            return None
        self.buffer = data[at + size:]
        return data[0] & 15, data[at:at + size]

    def _send(self, opcode, payload):
        mask = secrets.token_bytes(4)
        self.sock.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def receive(self, seconds):
        """The next text frame as JSON; None when none came in time."""
        deadline = time.monotonic() + seconds
        while True:
            frame = self._frame()
            if frame is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self.sock.settimeout(left)
                try:
                    self._more()
                except TimeoutError:
                    return None
            elif frame[0] == 1:
                return json.loads(frame[1])
            elif frame[0] == 8:
                raise OSError("closed by the server: " + frame[1][2:].decode("utf-8", "replace"))
            elif frame[0] == 9:
                self._send(10, frame[1][:125])

    def close(self):
        self.sock.close()


class Bar:
    """One line that is drawn over and over on a terminal; elsewhere a plain line now and then."""

    def __init__(self):
        self.is_live = sys.stdout.isatty()
        self.last = 0.0
        self.line = None
        self.drawn = False

    def show(self, percent, text, always=False):
        now = time.monotonic()
        if not self.is_live:
            line = f"  {percent:3.0f} %  {text}"
            if line != self.line and (always or now - self.last >= 2):
                print(line, flush=True)
                self.last, self.line = now, line
            return
        width = max(shutil.get_terminal_size().columns, 40)
        cells = min(30, width - 30)
        full = int(cells * min(percent, 100) / 100)
        line = f"  {'█' * full}{'░' * (cells - full)} {percent:3.0f} %  {text}"
        sys.stdout.write("\r\x1b[2K" + line[:width - 1])
        sys.stdout.flush()
        self.drawn = True

    def end(self):
        if self.drawn:
            print()


def sign_in(api, run):
    """Logs in with the credentials of the last run, or registers."""
    path = os.path.join(run, "demo-user.json")
    try:
        with open(path) as file:
            user = json.load(file)
    except (OSError, ValueError):
        user = None
    if user:
        status, answer = api.call("POST", "/api/auth/login", user, None)
        if status == 200:
            api.token = answer["access_token"]
            return user["username"]
    for name in ("demo", "demo_" + secrets.token_hex(3)):
        user = {"username": name, "email": name + "@example.org", "password": secrets.token_urlsafe(18)}
        status, answer = api.call("POST", "/api/auth/register", user, None)
        if status in (200, 201):
            break
        if status != 409:
            raise Trouble(f"a user could not be registered ({status}): {detail(answer)}")
    else:
        raise Trouble("a user could not be registered: the names are taken")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({k: user[k] for k in ("username", "password")}, file)
    api.token = api.call("POST", "/api/auth/login", {k: user[k] for k in ("username", "password")})["access_token"]
    return user["username"]


def collection_for(api, name):
    """The user's collection of that name, ready for a source; made when there is none."""
    listed = api.call("GET", "/api/v2/collections?per_page=100&include_public=false")["collections"]
    found = next((c for c in listed if c["name"] == name), None)
    is_new = found is None
    if is_new:
        found = api.call("POST", "/api/v2/collections", {"name": name, "description": "made by make demo"})
    deadline = time.monotonic() + 60
    while found["status"] != "ready":
        if found["status"] == "error":
            raise Trouble(f"the collection “{name}” is in error: {found.get('status_message')}")
        if time.monotonic() > deadline:
            raise Trouble(f"the collection “{name}” is still {found['status']} after a minute: is a worker running? (make up)")
        time.sleep(0.1)
        found = api.call("GET", "/api/v2/collections/" + found["id"])
    return found, is_new


def open_socket(api):
    try:
        return Socket(api.url.replace("http", "ws", 1) + "/ws/operations", api.token)
    except (OSError, ValueError) as error:
        print(f"  (no live connection: {error}; asking every second instead)")
        return None


def follow(api, sock, operation):
    """Draws the operation's progress until it is over; its last state."""
    bar, percent, text, deadline_quiet, begun = Bar(), 0.0, "waiting for a worker", time.monotonic() + 1, time.monotonic()
    bar.show(0, text, True)
    while True:
        event = None
        try:
            event = sock.receive(1.0) if sock else time.sleep(1.0)
        except OSError:
            sock = open_socket(api)
        if event is None and bar.is_live:
            bar.show(percent, f"{text}  {time.monotonic() - begun:.0f} s")
        if event is not None:
            data = event.get("data") or {}
            if (event.get("operation_id") or data.get("operation_id")) != operation["id"]:
                continue
            kind = event.get("type")
            shown = data.get("progress_percent", event.get("progress"))
            percent = max(percent, float(shown or 0))
            if kind == "scanning_documents":
                text = "looking for documents"
            elif kind == "scanning_completed":
                text = f"{data.get('total_files_found')} files found, {data.get('documents_to_process')} to read"
            elif kind == "document_processed":
                stats = data.get("stats") or {}
                text = f"{data.get('processed', 0)}/{data.get('total', '?')} documents, {stats.get('vector_count', 0)} vectors  {data.get('current_document') or ''}"
            bar.show(percent, text)
            deadline_quiet = time.monotonic() + 3
            if kind not in ("operation_completed", "operation_failed", "operation_cancelled"):
                continue
        elif sock and time.monotonic() < deadline_quiet:
            continue
        state = api.call("GET", "/api/v2/operations/" + operation["id"])
        deadline_quiet = time.monotonic() + 3
        if not sock:
            percent = max(percent, float(state.get("progress") or 0))
            text = state["status"]
            bar.show(percent, text)
        if state["status"] in ("completed", "failed", "cancelled"):
            bar.show(100 if state["status"] == "completed" else percent, state["status"], True)
            bar.end()
            return state


def documents_of(api, collection):
    return api.call("GET", f"/api/v2/collections/{collection['id']}/documents?per_page=100")


def own_questions(api, collection):
    """Of the user's own documents nothing is known but their names and titles: ask about those; a terminal's user is asked first."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        print("\nAsk your documents (an empty line ends it):")
        while True:
            try:
                line = input("? ").strip()
            except EOFError:
                return
            if not line:
                return
            yield line
    listed = documents_of(api, collection)["documents"]
    titles = []
    for document in sorted(listed, key=lambda d: -d["chunk_count"]):
        title = ((document.get("metadata") or {}).get("title") or "").strip()
        if not title:
            title = re.sub(r"[-_.]+", " ", os.path.splitext(document["file_name"])[0])
        if document["status"] == "completed" and title not in titles:
            titles.append(title)
    yield from [f"What is “{title[:80]}” about?" for title in titles[:2]] + OWN_QUESTIONS[:3 - len(titles[:2])]


def show_answers(api, collection, question, width):
    started = time.monotonic()
    answer = api.call("POST", "/api/v2/search", {"query": question, "collection_uuids": [collection["id"]], "k": 3, "use_reranker": False})
    took = (time.monotonic() - started) * 1000
    bold, dim, plain = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")
    print(f"\n{bold}{question}{plain}  {dim}({took:.0f} ms){plain}")
    if not answer["results"]:
        print("  nothing found")
    for rank, hit in enumerate(answer["results"]):
        print(f"  {hit['score']:.2f}  {hit['file_name']}")
        if rank < 2:
            words = " ".join(hit["text"].split())
            print(textwrap.fill(textwrap.shorten(words, 420 if rank == 0 else 200, placeholder=" …"), width - 2, initial_indent="        ",
                                subsequent_indent="        "))


def size(count):
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def main():
    kind, folder, run = sys.argv[1:4]
    api = Api(os.environ["OPSTREAM_URL"])
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    user = sign_in(api, run)
    base = os.path.basename(folder) or "documents"
    name = "Debian manuals" if kind == "default" else re.sub(r'[/\\*?<>|:"]', " ", f"{base} {hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]}")[:100].strip()
    collection, is_new = collection_for(api, name)
    print(f"\nCollection “{name}” of user {user}, from {folder}" + ("" if is_new else "  (again: only what changed is read)"))
    sock = open_socket(api)
    started = time.monotonic()
    operation = api.call("POST", f"/api/v2/collections/{collection['id']}/sources",
                         {"source_type": "directory", "source_config": {"path": folder}, "source_path": folder})
    state = follow(api, sock, operation)
    took = time.monotonic() - started
    if sock:
        sock.close()
    if state["status"] != "completed":
        raise Trouble(f"the operation ended as {state['status']}: {state.get('error_message')}")
    before, collection = collection["vector_count"], api.call("GET", "/api/v2/collections/" + collection["id"])
    made = collection["vector_count"] - before
    rate = f", {made / took:.0f} texts/s" if made > 0 else ""
    print(f"  {collection['document_count']} documents, {collection['vector_count']} passages, {size(collection['total_size_bytes'])}"
          f" in {took:.1f} s{rate}")
    if collection["error_count"]:
        failed = api.call("GET", f"/api/v2/collections/{collection['id']}/documents?status=failed&per_page=3")["documents"]
        print(f"  {collection['error_count']} files could not be read, for instance:")
        for document in failed:
            print("    " + textwrap.shorten(f"{document['file_name']}: {document['error_message']}", width - 4, placeholder=" …"))
    if not collection["vector_count"]:
        raise Trouble("nothing to search: no document of the folder holds text")
    for question in QUESTIONS if kind == "default" else own_questions(api, collection):
        show_answers(api, collection, question, width)
    env = os.path.relpath(os.path.join(run, "env"))
    print(f"""
It goes on running (make down stops it). See it in a browser: {api.url}/  (user and password: {os.path.relpath(run)}/demo-user.json)
Ask more:

  token=$(curl -s {api.url}/api/auth/login -H 'Content-Type: application/json' -d "$(cat {os.path.relpath(run)}/demo-user.json)" | jq -r .access_token)
  curl -s {api.url}/api/v2/search -H "Authorization: Bearer $token" -H 'Content-Type: application/json' \\
    -d '{{"collection_uuids": ["{collection['id']}"], "query": "…", "k": 3}}' | jq -r '.results[] | .file_name, .text'

A second worker:  . {env}; build/bin/opstream-worker        Your own documents:  make demo DOCS=~/papers""")


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(f"demo: {trouble}")
    except KeyboardInterrupt:
        sys.exit("\ndemo: interrupted; the operation goes on. make demo shows it again, make down stops everything.")
