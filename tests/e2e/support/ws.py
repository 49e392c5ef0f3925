"""A WebSocket client after RFC 6455, frame by frame, so that tests see (and can do) what a library would hide. Nothing but the standard library."""
import base64
import hashlib
import json
import os
import socket
import struct
import time
import urllib.parse

from .stack import PATIENCE as LONG

PATIENCE = LONG // 3

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Cut(Exception):
    """The connection ended without a close frame."""


class Closed(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


def frame(opcode, payload=b"", final=True, masked=True):
    payload = payload.encode() if isinstance(payload, str) else payload
    head = bytes([(0x80 if final else 0) | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    key = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


class WebSocket:
    def __init__(self, url, path, token=None, by="subprotocol", origin=None, headers=(), protocols=None, version="13", key=None, early=b"", receive_buffer=None,
                 expect=101, answer_pings=True):
        parts = urllib.parse.urlsplit(url)
        self.answer_pings = answer_pings
        self.pings = 0
        self.buffer = b""
        self.frames = []
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect((parts.hostname, parts.port))
        key = base64.b64encode(os.urandom(16)).decode() if key is None else key
        lines = [f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: keep-alive, Upgrade", *headers]
        if key:
            lines.append("Sec-WebSocket-Key: " + key)
        if version:
            lines.append("Sec-WebSocket-Version: " + version)
        if origin:
            lines.append("Origin: " + origin)
        if token and by == "query":
            path += ("&" if "?" in path else "?") + "token=" + urllib.parse.quote(token)
        elif token and by == "subprotocol" and protocols is None:
            protocols = ["access_token." + token]
        if protocols:
            lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
        self.sock.sendall((f"GET {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode() + early)
        while b"\r\n\r\n" not in self.buffer:
            more = self.sock.recv(65536)
            if not more:
                raise Cut("during the handshake: " + repr(self.buffer))
            self.buffer += more
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        assert self.status == expect, head
        if self.status == 101:
            accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
            assert self.headers["sec-websocket-accept"] == accept

    def _bytes(self, count):
        while len(self.buffer) < count:
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError as error:
                raise Cut("reset") from error
            if not more:
                raise Cut("end")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self, seconds=PATIENCE):
        """The next frame: (opcode, payload). TimeoutError when none comes."""
        self.sock.settimeout(seconds)
        first, second = self._bytes(2)
        assert not first & 0x70, "reserved bits"
        assert first & 0x80, "the server never sends fragments"
        assert not second & 0x80, "a server does not mask"
        size = second & 127
        if size == 126:
            size = struct.unpack(">H", self._bytes(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._bytes(8))[0]
        return first & 15, self._bytes(size)

    def next(self, seconds=PATIENCE, keep_pings=False):
        """The next JSON message. Raises Closed or Cut at the end."""
        deadline = time.monotonic() + seconds
        while True:
            opcode, payload = self.receive(max(deadline - time.monotonic(), 0.01))
            if opcode == PING:
                self.pings += 1
                if self.answer_pings:
                    self.send(payload, PONG)
            elif opcode == CLOSE:
                code, reason = (struct.unpack(">H", payload[:2])[0], payload[2:].decode()) if len(payload) >= 2 else (1005, "")
                try:
                    self.send(payload[:2], CLOSE)
                except OSError:
                    pass
                raise Closed(code, reason)
            elif opcode == TEXT:
                message = json.loads(payload.decode())
                if message.get("type") != "ping" or keep_pings:
                    self.frames.append(message)
                    return message

    def until(self, *types, seconds=PATIENCE):
        """All messages up to and with the first of one of these types."""
        deadline, seen = time.monotonic() + seconds, []
        while True:
            seen.append(self.next(deadline - time.monotonic()))
            if seen[-1].get("type") in types:
                return seen

    def end(self, seconds=PATIENCE):
        """How it ends: (code, reason), or (None, …) when it is cut; messages before that are kept in frames."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                self.next(deadline - time.monotonic())
        except Closed as closed:
            return closed.code, closed.reason
        except Cut as cut:
            return None, str(cut)

    def is_silent(self, seconds=0.5):
        try:
            self.next(seconds)
            return False
        except TimeoutError:
            return True

    def send(self, payload, opcode=TEXT, **more):
        self.sock.sendall(frame(opcode, payload, **more))

    def say(self, message):
        self.send(json.dumps(message))

    def close(self):
        try:
            self.send(struct.pack(">H", 1000), CLOSE)
        except OSError:
            pass
        self.sock.close()

    def abort(self):
        """As a client that lost its network: reset, without a word."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
