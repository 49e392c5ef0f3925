"""Clients of events over plain HTTP: a long poll, and a reader of Server-Sent Events that sees every byte. Standard library only."""
import http.client
import json
import socket
import struct
import time
import urllib.parse

from .stack import PATIENCE as LONG

PATIENCE = LONG // 3


class Poll:
    """One answer: status, headers (names in lower case), json."""

    def __init__(self, api, path, token, seconds=PATIENCE, method="GET", headers=None, **query):
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=seconds)
        try:
            path += "?" + urllib.parse.urlencode({k: v for k, v in query.items() if v is not None})
            connection.request(method, path, headers={"Authorization": "Bearer " + token, **(headers or {})})
            answer = connection.getresponse()
            self.status = answer.status
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            self.body = answer.read()
        finally:
            connection.close()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        assert self.status == 200, self.body
        return self.json["events"]

    @property
    def last_id(self):
        return self.json["last_id"]


class Ended(Exception):
    """The stream is over; `is_whole`: by its last chunk."""

    def __init__(self, is_whole):
        super().__init__("whole" if is_whole else "cut")
        self.is_whole = is_whole


class EventStream:
    """`fields` of a block are kept in `last_event_id`, `retry` and `comments` as the standard has it."""

    def __init__(self, api, path, token=None, version="1.1", headers=(), receive_buffer=None, expect=200, seconds=PATIENCE):
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(seconds)
        self.sock.connect(("127.0.0.1", api.port))
        lines = [f"GET {path} HTTP/{version}", "Host: h", "Accept: text/event-stream", *headers]
        if token:
            lines.append("Authorization: Bearer " + token)
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.raw, self.text = b"", b""
        self.is_over = False
        self.last_event_id, self.retry, self.comments = None, None, 0
        while b"\r\n\r\n" not in self.raw:
            self._more()
        head, self.raw = self.raw.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        self.is_chunked = self.headers.get("transfer-encoding") == "chunked"
        assert self.status == expect, (head, self.raw)

    def _more(self):
        try:
            more = self.sock.recv(65536)
        except ConnectionResetError as error:
            raise Ended(False) from error
        if not more:
            raise Ended(not self.is_chunked if hasattr(self, "is_chunked") else False)
        self.raw += more

    def _unchunk(self):
        """Moves what is complete from raw to text."""
        if not self.is_chunked:
            self.text, self.raw = self.text + self.raw, b""
            return
        while b"\r\n" in self.raw:
            size, rest = self.raw.split(b"\r\n", 1)
            count = int(size, 16)
            if len(rest) < count + 2:
                return
            assert rest[count:count + 2] == b"\r\n"
            self.text, self.raw = self.text + rest[:count], rest[count + 2:]
            if count == 0:
                self.is_over = True
                return

    def block(self, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while b"\n\n" not in self.text:
            self._unchunk()
            if b"\n\n" in self.text:
                break
            if self.is_over:
                raise Ended(True)
            self.sock.settimeout(max(deadline - time.monotonic(), 0.01))
            self._more()
        block, self.text = self.text.split(b"\n\n", 1)
        return block.decode()

    def next(self, seconds=PATIENCE):
        """(kind, data) of the next event: kind is "message" unless the server says another."""
        deadline = time.monotonic() + seconds
        while True:
            kind, data = "message", []
            for line in self.block(deadline - time.monotonic()).split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "":
                    self.comments += line != ""
                elif name == "data":
                    data.append(value)
                elif name == "event":
                    kind = value
                elif name == "id":
                    self.last_event_id = value
                elif name == "retry":
                    self.retry = int(value)
            if data:
                return kind, json.loads("\n".join(data))

    def message(self, seconds=PATIENCE):
        kind, data = self.next(seconds)
        assert kind == "message", (kind, data)
        if "id" in data:
            assert data["id"] == self.last_event_id
        return data

    def until(self, *types, seconds=PATIENCE):
        deadline, seen = time.monotonic() + seconds, []
        while not seen or seen[-1]["type"] not in types:
            seen.append(self.message(deadline - time.monotonic()))
        return seen

    def end(self, seconds=PATIENCE):
        """What the close event said (None: nothing), and whether the stream ended as it should."""
        deadline, said = time.monotonic() + seconds, None
        try:
            while True:
                kind, data = self.next(deadline - time.monotonic())
                said = data if kind == "close" else said
        except Ended as ended:
            return said, ended.is_whole

    def opened(self):
        """Waits for what every stream begins with."""
        while self.retry is None:
            for line in self.block().split("\n"):
                if line.startswith("retry: "):
                    self.retry = int(line[7:])
                elif line.startswith("id: "):
                    self.last_event_id = line[4:]
        return self

    def close(self):
        self.sock.close()

    def abort(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
