"""A user of the API: REST by urllib, WebSockets by hand. Nothing of the program's own code."""
import base64
import hashlib
import json
import os
import secrets
import socket
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from .stack import PATIENCE, wait_for

LAST = ("operation_completed", "operation_failed", "operation_cancelled")


class Answer:
    def __init__(self, status, headers, raw):
        self.status, self.headers, self.raw = status, headers, raw

    @property
    def json(self):
        return json.loads(self.raw)

    def __repr__(self):
        return f"{self.status} {self.raw[:500]!r}"


class Client:
    """One user; `url` may be changed to speak to another instance."""

    def __init__(self, url, token=None, username=None):
        self.url, self.token, self.username = url, token, username

    @classmethod
    def registered(cls, url, password="correct horse battery"):
        name = "user_" + secrets.token_hex(4)
        me = cls(url, username=name)
        me.must("POST", "/api/auth/register", {"username": name, "email": name + "@example.org", "password": password})
        me.token = me.must("POST", "/api/auth/login", {"username": name, "password": password})["access_token"]
        return me

    def at(self, process):
        return Client(process.url, self.token, self.username)

    def ask(self, method, path, body=None, headers=None, raw=None, timeout=30):
        request = urllib.request.Request(self.url + path, method=method)
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, data, timeout=timeout) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    def must(self, method, path, body=None, status=(200, 201, 202), **more):
        answer = self.ask(method, path, body, **more)
        assert answer.status in (status if isinstance(status, tuple) else (status,)), f"{method} {path}: {answer}"
        return answer.json if answer.raw else None

    # --- what the tests do again and again

    def collection(self, **more):
        """A new collection, ready."""
        made = self.must("POST", "/api/v2/collections", {"name": "c-" + secrets.token_hex(6), **more}, status=201)
        return self.wait_ready(made["id"])

    def show(self, collection_id):
        return self.must("GET", "/api/v2/collections/" + collection_id)

    def wait_ready(self, collection_id):
        def is_ready():
            shown = self.show(collection_id)
            assert shown["status"] != "error", shown
            return shown if shown["status"] == "ready" else None
        return wait_for(f"collection {collection_id} to be ready", is_ready)

    def add_source(self, collection_id, path, **config):
        return self.must("POST", f"/api/v2/collections/{collection_id}/sources",
                         {"source_type": "directory", "source_config": {"path": path, **config}, "source_path": path}, status=202)

    def operation(self, operation_id):
        return self.must("GET", "/api/v2/operations/" + operation_id)

    def wait_over(self, operation_id, status="completed"):
        def is_over():
            shown = self.operation(operation_id)
            return shown if shown["status"] in ("completed", "failed", "cancelled") else None
        shown = wait_for(f"operation {operation_id} to be over", is_over)
        assert shown["status"] == status, shown
        return shown

    def index(self, collection_id, path, **config):
        operation = self.add_source(collection_id, path, **config)
        return self.wait_over(operation["id"])

    def documents(self, collection_id):
        """Every document, by file name as shown."""
        found, page = {}, 1
        while True:
            answer = self.must("GET", f"/api/v2/collections/{collection_id}/documents?per_page=100&page={page}")
            for document in answer["documents"]:
                found[document["file_name"]] = document
            if page * 100 >= answer["total"]:
                assert len(found) == answer["total"]
                return found
            page += 1

    def search(self, collection_ids, query, k=3, **more):
        ids = collection_ids if isinstance(collection_ids, list) else [collection_ids]
        return self.must("POST", "/api/v2/search", {"query": query, "collection_uuids": ids, "k": k, "use_reranker": False, **more})

    def watch(self, path, **more):
        return Watch(self.url, path, self.token, **more)


class Watch:
    """A WebSocket whose frames are collected by a thread."""

    def __init__(self, url, path, token, by="subprotocol", headers=()):
        parts = urllib.parse.urlsplit(url)
        self.frames, self.times = [], []
        self.closed = None  # (code, reason); (None, why) when the connection was cut
        self.changed = threading.Condition()
        self.sock = socket.create_connection((parts.hostname, parts.port), timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers]
        if by == "query":
            path += ("&" if "?" in path else "?") + "token=" + urllib.parse.quote(token)
        elif by == "subprotocol" and token:
            lines.append("Sec-WebSocket-Protocol: access_token." + token)
        self.sock.sendall((f"GET {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.sock.recv(4096)
            assert more, f"cut during the handshake: {head!r}"
            head += more
        head, self.buffer = head.split(b"\r\n\r\n", 1)
        self.head = head.decode("latin-1")
        self.status = int(self.head.split()[1])
        assert self.status == 101, self.head
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        assert accept in self.head, self.head
        if by == "subprotocol" and token:
            assert ("access_token." + token) in self.head, "the subprotocol is not echoed: " + self.head
        self.sock.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()

    def _bytes(self, count):
        while len(self.buffer) < count:
            more = self.sock.recv(65536)
            if not more:
                raise OSError("cut")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _read(self):
        try:
            while True:
                first, second = self._bytes(2)
                assert not second & 0x80, "a server must not mask"
                size = second & 127
                if size == 126:
                    size = struct.unpack(">H", self._bytes(2))[0]
                elif size == 127:
                    size = struct.unpack(">Q", self._bytes(8))[0]
                payload = self._bytes(size)
                opcode = first & 15
                if opcode == 9:
                    self.send(payload, opcode=10)
                elif opcode == 8:
                    code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else 1005
                    self._end((code, payload[2:].decode()))
                    return
                elif opcode == 1:
                    with self.changed:
                        self.frames.append(json.loads(payload.decode()))
                        self.times.append(time.time())
                        self.changed.notify_all()
        except (OSError, ValueError) as error:
            self._end((None, str(error)))

    def _end(self, how):
        with self.changed:
            self.closed = self.closed or how
            self.changed.notify_all()

    def send(self, payload, opcode=1):
        if isinstance(payload, str):
            payload = payload.encode()
        mask = os.urandom(4)
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(payload))
        self.sock.sendall(bytes([0x80 | opcode]) + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def wait(self, what, condition, seconds=PATIENCE):
        """The first frame for which the condition holds."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self.changed:
            while True:
                for frame in self.frames[seen:]:
                    seen += 1
                    if condition(frame):
                        return frame
                left = deadline - time.monotonic()
                assert left > 0 and not self.closed, f"no frame with {what}; closed: {self.closed}; seen: {[f.get('type') for f in self.frames]}"
                self.changed.wait(left)

    def wait_type(self, *kinds, operation=None, seconds=PATIENCE):
        return self.wait(" or ".join(kinds), lambda f: f.get("type") in kinds and (operation is None or f["data"].get("operation_id") == operation), seconds)

    def wait_closed(self, seconds=PATIENCE):
        with self.changed:
            self.changed.wait_for(lambda: self.closed, seconds)
            assert self.closed, "still open"
            return self.closed

    def events(self, operation):
        """This operation's events; without the state of the moment, which is no event of its history."""
        return [f for f in self.frames if f.get("type") not in ("ping", "pong", "current_state") and (f.get("data") or {}).get("operation_id") == operation]

    def close(self):
        try:
            self.send(struct.pack(">H", 1000), opcode=8)
        except OSError:
            pass
        self.sock.close()
