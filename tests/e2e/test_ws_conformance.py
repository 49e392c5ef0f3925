"""What RFC 6455 and RFC 7692 ask of a server, in the order of their sections: frames, fragments, control frames, UTF-8, closing, compression. One API instance
with compression on; most clients do not offer it."""
import json
import os
import random
import socket
import struct
import threading
import zlib

import pytest
from support.stack import Stack, wait_for
from support.ws import BINARY, CLOSE, PING, PONG, TEXT, Closed, Cut, WebSocket, frame
from test_websockets import Operation, Publisher, User, numbers

CONTINUATION = 0
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAIL = b"\x00\x00\xff\xff"
PONG_MESSAGE = {"type": "pong"}


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=0, WS_DEFLATE="on", WS_MAX_CONNECTIONS_PER_USER=200)
    yield made
    made.close()


@pytest.fixture(scope="module")
def api(stack):
    return stack.apis[0]


@pytest.fixture(scope="module")
def user(stack):
    return User(stack)


@pytest.fixture(scope="module")
def publish(stack):
    made = Publisher(stack)
    yield made
    made.close()


@pytest.fixture
def operation(stack, user):
    return Operation(stack, user)


@pytest.fixture
def ws(api, user):
    made = user.open(api)
    yield made
    made.close()


def packed(text, level=9, window=15):
    """A message compressed by itself."""
    maker = zlib.compressobj(level, zlib.DEFLATED, -window)
    data = maker.compress(text.encode() if isinstance(text, str) else text) + maker.flush(zlib.Z_SYNC_FLUSH)
    assert data.endswith(TAIL)
    return data[:-4]


def with_bits(raw, bits):
    return bytes([raw[0] | bits]) + raw[1:]


class Deflating(WebSocket):
    """A strict client of permessage-deflate without context takeover: each message must be whole by itself, and fit the window that was asked for."""

    def __init__(self, *args, offer=OFFER, window=15, **more):
        self.window, self.packed_frames, self.plain_frames, self.wire_bytes = window, 0, 0, 0
        super().__init__(*args, headers=[offer], **more)
        self.is_on = "sec-websocket-extensions" in self.headers

    def receive(self, seconds=60):
        self.sock.settimeout(seconds)
        first, second = self._bytes(2)
        assert not first & 0x30 and first & 0x80 and not second & 0x80
        size = second & 127
        if size == 126:
            size = struct.unpack(">H", self._bytes(2))[0]
        payload = self._bytes(size)
        if not first & 0x40:
            self.plain_frames += first & 15 == TEXT
            return first & 15, payload
        assert self.is_on and first & 15 == TEXT, "only messages are compressed, and only if it was agreed"
        self.packed_frames += 1
        self.wire_bytes += len(payload)
        unpacker = zlib.decompressobj(-self.window)
        text = unpacker.decompress(payload + TAIL)
        assert not unpacker.unused_data and not unpacker.eof
        return TEXT, text

    def say_packed(self, text):
        self.sock.sendall(with_bits(frame(TEXT, packed(text)), 0x40))


def end_of(ws):
    """(code, reason), or (None, …) if it is cut; never anything after the close frame."""
    code, reason = ws.end()
    if code is not None:
        ws.sock.settimeout(20)
        rest = ws.buffer
        try:
            ws.sock.shutdown(socket.SHUT_WR) # the server need not wait for more
            while more := ws.sock.recv(65536):
                rest += more
        except TimeoutError:
            raise
        except OSError:
            pass # it is gone already
        assert rest == b"", "something followed the close frame"
    return code, reason


def answers(ws):
    """It is alive, and what was said before was taken in."""
    ws.say({"type": "ping"})
    return ws.until("pong")[-1] == PONG_MESSAGE


# --- frames

@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
def test_reserved_bits_without_an_extension_close_with_1002(ws, bits, opcode):
    ws.sock.sendall(with_bits(frame(opcode, "x"), bits))
    assert end_of(ws)[0] == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_close_with_1002(ws, opcode):
    ws.send("x", opcode)
    assert end_of(ws)[0] == 1002


def test_a_frame_of_every_length_is_read_whole(ws):
    for size in (0, 1, 125, 126, 127, 1023, 1024, 1025, 4096, 65000):
        ws.say({"type": "ping", "pad": "x" * size})
        assert ws.next() == PONG_MESSAGE, size


def test_one_byte_at_a_time(api, user):
    ws = WebSocket.__new__(WebSocket)
    ws.__dict__.update(buffer=b"", frames=[], pings=0, answer_pings=True, sock=socket.create_connection(("127.0.0.1", api.port)))
    head = (f"GET /ws/operations HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: access_token.{user.token}\r\n\r\n").encode()
    whole = head + frame(TEXT, '{"type":', final=False) + frame(PING, "now") + frame(CONTINUATION, '"ping"}') + frame(CLOSE, struct.pack(">H", 1000) + b"bye")
    ws.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(len(whole)):
        ws.sock.sendall(whole[i:i + 1])
    while b"\r\n\r\n" not in ws.buffer:
        ws.buffer += ws.sock.recv(4096)
    head, ws.buffer = ws.buffer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 101")
    assert end_of(ws)[0] == 1000
    assert ws.frames == [PONG_MESSAGE]


def test_a_length_of_64_bits_with_its_first_bit_set_is_refused(ws):
    ws.sock.sendall(b"\x81\xff" + struct.pack(">Q", 1 << 63) + b"\0\0\0\0x")
    assert end_of(ws)[0] in (None, 1002)


@pytest.mark.parametrize("size", [65537, (1 << 63) - 1])
def test_a_length_beyond_the_largest_message_closes_with_1009_once_that_much_came(ws, size):
    ws.sock.sendall(b"\x81\xff" + struct.pack(">Q", size) + b"\0\0\0\0" + b"x" * 65537)
    assert ws.end()[0] == 1009
    ws.sock.settimeout(20) # its answer was taken for a part of the message: it is cut
    try:
        assert ws.buffer + ws.sock.recv(65536) == b""
    except ConnectionResetError:
        pass


# --- fragments

def test_a_fragment_that_goes_on_with_nothing_closes_with_1002(ws):
    ws.send("x", CONTINUATION)
    assert end_of(ws)[0] == 1002


def test_a_message_inside_a_message_closes_with_1002(ws):
    ws.send("x", final=False)
    ws.send("y")
    assert end_of(ws)[0] == 1002


def test_after_a_whole_message_nothing_goes_on(ws):
    ws.send("ping", final=False)
    ws.send("", CONTINUATION)
    assert ws.next() == PONG_MESSAGE
    ws.send("x", CONTINUATION)
    assert end_of(ws)[0] == 1002


def test_control_frames_may_come_between_fragments(ws):
    ws.send("", final=False)
    for i, part in enumerate(['{"type"', ":", "", '"ping"', "}"]):
        ws.send(f"p{i}", PING)
        ws.send("unasked", PONG)
        ws.send(part, CONTINUATION, final=i == 4)
        seen = [ws.receive() for _ in range(1 if i < 4 else 2)]
        assert (PONG, f"p{i}".encode()) in seen
    assert (TEXT, b'{"type":"pong"}') in seen


# --- control frames

@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_never_fragmented(ws, opcode):
    ws.send(struct.pack(">H", 1000), opcode, final=False)
    assert end_of(ws)[0] == 1002


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_is_never_longer_than_125_bytes(ws, opcode):
    ws.send(struct.pack(">H", 1000) + b"x" * 124, opcode)
    assert end_of(ws)[0] in (None, 1002)


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_is_answered_with_what_it_carries(ws, size):
    payload = os.urandom(size)
    ws.send(payload, PING)
    assert ws.receive() == (PONG, payload)


def test_a_flood_of_pings_is_answered_in_part_and_harms_nobody(api, user, ws, operation, publish):
    other = user.open(api, operation.path)
    assert other.next()["type"] == "current_state"
    flood = b"".join(frame(PING, struct.pack(">I", i)) + frame(PONG, b"x") for i in range(20000))
    sending = threading.Thread(target=ws.sock.sendall, args=(flood,))
    sending.start()
    publish(operation, data={"n": 1})
    assert numbers([other.next()]) == [1]
    last = -1
    while not (ws.frames and ws.frames[-1] == PONG_MESSAGE):
        opcode, payload = ws.receive()
        if opcode == PONG:
            assert struct.unpack(">I", payload)[0] > last
            last = struct.unpack(">I", payload)[0]
        elif opcode == TEXT and json.loads(payload) == PONG_MESSAGE:
            break
        elif not sending.is_alive():
            ws.say({"type": "ping"})
    sending.join()
    assert last >= 0
    other.close()


# --- UTF-8

@pytest.mark.parametrize("text", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xce", b"\x80", b"\xf8\x88\x80\x80\x80"])
def test_text_that_is_not_utf_8_closes_with_1007(api, user, text):
    for pieces in ([text], [text[i:i + 1] for i in range(len(text))]):
        ws = user.open(api)
        for i, piece in enumerate(pieces):
            ws.send(piece, TEXT if i == 0 else CONTINUATION, final=i == len(pieces) - 1)
        assert end_of(ws)[0] == 1007
    deflating = user.open_packed(api)
    deflating.sock.sendall(with_bits(frame(TEXT, packed(text)), 0x40))
    assert end_of(deflating)[0] == 1007


def test_a_character_may_be_cut_between_fragments(ws):
    text = '{"type":"ping","x":"κόσμε𐍈\U0010ffff"}'.encode()
    for i in range(len(text)):
        ws.send(text[i:i + 1], CONTINUATION if i else TEXT, final=i == len(text) - 1)
    assert ws.next() == PONG_MESSAGE


def test_binary_messages_hold_any_bytes_and_are_ignored(ws):
    ws.send(b"\xff\xfe", BINARY)
    assert answers(ws)


# --- closing

def close_frame(code, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_code(ws, code):
    ws.sock.sendall(close_frame(code, "tschüß".encode()))
    assert end_of(ws)[0] == code


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_with_a_code_that_means_nothing_is_answered_with_1002(ws, code):
    ws.sock.sendall(close_frame(code))
    assert end_of(ws)[0] == 1002


@pytest.mark.parametrize("payload,code", [(b"", 1005), (b"\x03", 1002), (b"\x03\xe8\xff", 1007), (b"\x03\xe8abc\xce", 1007), (b"\x03\xe8" + b"r" * 123, 1000)])
def test_closes_of_every_form(ws, payload, code):
    ws.send(payload, CLOSE)
    assert end_of(ws)[0] == code


def test_what_follows_a_close_is_not_read(ws):
    ws.sock.sendall(close_frame(1000) + frame(TEXT, '{"type":"ping"}') + frame(PING, "x") + close_frame(1001))
    assert end_of(ws)[0] == 1000


def test_both_sides_close_at_once(api, user):
    ws = user.open(api)
    ws.sock.sendall(frame(TEXT, b"x" * 65537) + close_frame(1001))
    assert end_of(ws)[0] == 1009


def test_nothing_is_sent_after_a_close_frame_of_the_server(api, user, operation, publish):
    """It waits for the client's; events that come meanwhile are not for this client any more."""
    ws = user.open(api, operation.path)
    assert ws.next()["type"] == "current_state"
    ws.send("x", 3)
    while ws.receive()[0] != CLOSE:
        continue
    for n in range(20):
        publish(operation, data={"n": n})
    ws.sock.settimeout(20)
    try:
        assert ws.buffer + ws.sock.recv(65536) == b""
    except ConnectionResetError:
        pass


# --- the connection

def test_resets_in_every_state_harm_nobody(api, user, operation, publish):
    other = user.open(api, operation.path)
    assert other.next()["type"] == "current_state"
    token = "access_token." + user.token
    head = (f"GET /ws/operations HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {token}\r\n{OFFER}\r\n\r\n").encode()
    stages = [b"", b"G", head[:40], head[:-1], head, head + b"\x81", head + b"\x81\xfe\x00", head + frame(TEXT, "x" * 500)[:-1], head + frame(TEXT, "x", final=False),
              head + close_frame(1000), head + b"\xff" * 20, head + with_bits(frame(TEXT, packed("x" * 5000))[:-1], 0x40)]
    choice = random.Random(5)
    for _ in range(10):
        for stage in stages:
            sock = socket.create_connection(("127.0.0.1", api.port))
            sock.sendall(stage)
            if choice.random() < 0.5 and len(stage) > len(head) - 1:
                sock.recv(20)
            if choice.random() < 0.7:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
    publish(operation, data={"n": 1})
    assert numbers([other.next()]) == [1]
    other.close()


def test_a_client_that_sends_no_more_is_let_go(api, user):
    ws = user.open(api)
    ws.sock.shutdown(socket.SHUT_WR)
    assert end_of(ws)[0] is None


# --- permessage-deflate

def open_packed(user, api, path="/ws/operations", **more):
    return Deflating(api.url, path, user.token, **more)


User.open_packed = open_packed


def fill(n, size=300):
    return {"n": n, "current_file": "/srv/docs/" + "reports/" * (size // 8) + f"{n}.pdf"}


def test_events_are_compressed_each_by_itself_for_those_who_offer_it(stack, api, publish):
    history, live, user = 30, 30, User(stack)
    operation = Operation(stack, user)
    for n in range(history):
        publish(operation, data=fill(n))
    clients = [user.open_packed(api, operation.path), user.open_packed(api, "/ws/operations?last_id=0"),
               user.open_packed(api, operation.path, offer="Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12", window=12)]
    plain = user.open(api, operation.path)
    assert plain.headers.get("sec-websocket-extensions") is None
    assert [c.headers.get("sec-websocket-extensions") for c in clients] == [ANSWER, ANSWER, ANSWER + "; server_max_window_bits=12"]
    for n in range(history, history + live):
        publish(operation, data=fill(n, 300 + n * 300))
    publish(operation, "operation_completed", status="completed", data=fill(history + live))
    frames = [ws.until("operation_completed") for ws in [*clients, plain]]
    for seen in frames:
        assert numbers(seen) == list(range(history + live + 1))
    assert frames[0][1:] == frames[3][1:], "the same bytes, compressed or not; their current_state has a time of its own"
    for ws in clients:
        assert ws.packed_frames >= history + live + 1
        ws.close()
    plain.close()


def test_small_messages_and_control_frames_are_not_compressed(api, user):
    ws = user.open_packed(api)
    ws.say({"type": "ping"})
    assert ws.next() == PONG_MESSAGE
    ws.send("x" * 125, PING)
    assert ws.receive() == (PONG, b"x" * 125)
    assert ws.packed_frames == 0 and ws.plain_frames == 1
    ws.close()


def test_flat_frames_are_compressed_too(api, user, operation, publish):
    publish(operation, "document_processed", data={**fill(1), "processed": 1, "total": 2})
    publish(operation, "operation_completed", status="completed", data={"message": "m" * 300})
    ws, plain = user.open_packed(api, operation.path + "?format=flat"), user.open(api, operation.path + "?format=flat")
    frames = ws.until("operation_completed")
    assert frames == plain.until("operation_completed")
    assert [f["type"] for f in frames][-3:] == ["file_processing", "file_completed", "operation_completed"]
    assert ws.packed_frames == 3
    ws.close()
    plain.close()


def test_compressed_messages_of_a_client_are_read(api, user, operation, publish):
    ids = [publish(operation, data={"n": n}) for n in range(3)]
    ws = user.open_packed(api)
    for text in ("ping", '{"type":"ping"}', json.dumps({"type": "ping", "pad": "x" * 60000}), json.dumps({"type": "ping", "pad": [str(n) for n in range(5000)]})):
        ws.say_packed(text)
        assert ws.next() == PONG_MESSAGE
        ws.send(text)
        assert ws.next() == PONG_MESSAGE
    for whole in (b"\x00", b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"):
        ws.sock.sendall(with_bits(frame(TEXT, whole), 0x40))
    assert answers(ws)
    ws.say_packed(json.dumps({"type": "resume", "last_id": ids[0]}))
    assert numbers([ws.next(), ws.next()]) == [1, 2]
    ws.close()


def test_a_compressed_message_may_be_fragmented_with_control_frames_between(api, user):
    ws = user.open_packed(api)
    data = packed(json.dumps({"type": "ping", "pad": os.urandom(1500).hex()}))
    pieces = [data[i:i + 97] for i in range(0, len(data), 97)] + [b""]
    raw = b""
    for i, piece in enumerate(pieces):
        made = frame(TEXT if i == 0 else CONTINUATION, piece, final=i == len(pieces) - 1)
        raw += (with_bits(made, 0x40) if i == 0 else made) + frame(PONG, b"between")
    for i in range(0, len(raw), 13): # so that frames arrive in pieces
        ws.sock.sendall(raw[i:i + 13])
    assert ws.next() == PONG_MESSAGE
    ws.send("ping")
    assert ws.next() == PONG_MESSAGE
    ws.close()


@pytest.mark.parametrize("raw", [
    with_bits(frame(TEXT, packed("x" * 300)), 0x60), with_bits(frame(TEXT, packed("x" * 300)), 0x50),
    with_bits(frame(TEXT, packed("x" * 300)), 0x40)[:1] + frame(TEXT, packed("x" * 300))[1:] + with_bits(frame(PONG, b"x"), 0x40),
    with_bits(frame(TEXT, "a", final=False), 0x40) + with_bits(frame(CONTINUATION, "b"), 0x40),
    frame(TEXT, "a", final=False) + with_bits(frame(CONTINUATION, "b"), 0x40)], ids=["rsv2", "rsv3", "pong", "goes-on", "begins-plain"])
def test_the_bit_of_compression_stands_on_a_message_s_first_frame_alone(api, user, raw):
    ws = user.open_packed(api)
    ws.sock.sendall(raw)
    assert end_of(ws)[0] == 1002


@pytest.mark.parametrize("payload", [b"", b"\x06", b"\xff\xff\xff\xff", packed("ping" * 100)[:-3], packed("x" * 40)[1:]], ids=["empty", "kind", "ones", "cut", "shifted"])
def test_what_cannot_be_decompressed_closes_with_1007(api, user, payload):
    ws = user.open_packed(api)
    ws.sock.sendall(with_bits(frame(TEXT, payload), 0x40))
    assert end_of(ws)[0] == 1007


@pytest.mark.parametrize("size", [65537, 10 << 20, 60 << 20])
def test_a_bomb_closes_with_1009(api, user, size):
    ws = user.open_packed(api)
    ws.say_packed("x" * size)
    assert end_of(ws)[0] == 1009


def resident_kib(process):
    with open(f"/proc/{process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_bombs_take_no_memory_that_stays(api, user):
    bomb = with_bits(frame(TEXT, packed("x" * (60 << 20))), 0x40)
    before = resident_kib(api)
    for _ in range(100):
        ws = user.open_packed(api)
        ws.sock.sendall(bomb)
        assert ws.end()[0] == 1009
        ws.abort()
    assert resident_kib(api) - before < 64 << 10


@pytest.mark.parametrize("offer,answer", [
    ("permessage-deflate; server_max_window_bits=11", None), ("permessage-deflate; client_max_window_bits=16", None), ("permessage-deflate; what", None),
    ("x-webkit-deflate-frame", None), ('a; b="', None), ("permessage-deflate; client_max_window_bits=8; client_no_context_takeover", ANSWER),
    ("permessage-deflate; server_max_window_bits=10, permessage-deflate", ANSWER), ("y, permessage-deflate; server_max_window_bits=15", ANSWER + "; server_max_window_bits=12"),
    ("permessage-deflate;" + " client_no_context_takeover;" * 20, None)], ids=range(9))
def test_an_offer_is_kept_or_declined(api, user, operation, publish, offer, answer):
    ws = user.open_packed(api, operation.path, offer="Sec-WebSocket-Extensions: " + offer)
    assert ws.headers.get("sec-websocket-extensions") == answer
    publish(operation, "operation_completed", status="completed", data=fill(7))
    assert numbers(ws.until("operation_completed")) == [7]
    assert (ws.packed_frames > 0) == (answer is not None)
    ws.close()


def test_nothing_is_compressed_unless_it_was_switched_on(make_stack):
    stack = make_stack(apis=1, workers=0)
    user = User(stack)
    ws = open_packed(user, stack.apis[0])
    assert "sec-websocket-extensions" not in ws.headers
    ws.say_packed("ping")
    assert end_of(ws)[0] == 1002


# --- all at once

def test_random_frames_on_many_connections_while_events_flow(make_stack):
    """Valid and invalid ones in any order; those who behave get every event once, in order, and the program lives and ends well (built with sanitizers:
    without a report and a leak). OPSTREAM_WS_STORM_SECONDS and OPSTREAM_WS_STORM_CONNECTIONS make it longer and larger."""
    stack = make_stack(apis=1, workers=0, WS_DEFLATE="on", WS_MAX_CONNECTIONS_PER_USER=200)
    api, publish, watcher = stack.apis[0], Publisher(stack), User(stack)
    operation = Operation(stack, watcher)
    seconds, total = float(os.environ.get("OPSTREAM_WS_STORM_SECONDS", "5")), 0
    connections = int(os.environ.get("OPSTREAM_WS_STORM_CONNECTIONS", "60"))
    calm = [watcher.open(api, operation.path), watcher.open_packed(api, operation.path)]
    for ws in calm:
        assert ws.next()["type"] == "current_state"
    stop, opened, errors = threading.Event(), [0], []

    def anything(choice):
        payload = choice.choice([b"ping", b'{"type":"ping"}', b'{"type":"resume","last_id":"0"}', choice.randbytes(choice.randint(0, 300)), b"x" * choice.choice([126, 1024, 70000])])
        raw = frame(choice.choice([TEXT] * 6 + [BINARY, CONTINUATION, PING, PONG, CLOSE, choice.randint(0, 15)]), packed(payload) if choice.random() < 0.4 else payload,
                    final=choice.random() < 0.8)
        if choice.random() < 0.4:
            raw = with_bits(raw, choice.choice([0x40] * 8 + [0x20, 0x10]))
        if choice.random() < 0.05:
            raw = bytes(raw[:choice.randint(1, len(raw))]) + choice.randbytes(3)
        return raw

    def disturb(seed):
        choice, held = random.Random(seed), []
        try:
            mine = [User(stack) for _ in range(2)]
            while not stop.is_set():
                while len(held) < connections // 4:
                    who = choice.choice(mine)
                    held.append(choice.choice([who.open, who.open_packed])(api, choice.choice(["/ws/operations?last_id=0", operation.path, "/ws/operations"])))
                    opened[0] += 1
                ws = choice.choice(held)
                try:
                    for _ in range(choice.randint(1, 6)):
                        ws.sock.sendall(anything(choice))
                    ws.sock.settimeout(0.001)
                    while ws.sock.recv(65536):
                        continue
                    held.remove(ws)
                    ws.close()
                except TimeoutError:
                    pass
                except OSError:
                    held.remove(ws)
                if choice.random() < 0.1 and ws in held:
                    held.remove(ws)
                    choice.choice([ws.abort, ws.close, ws.sock.close])()
        except BaseException as error:  # noqa: B902 - told by the main thread
            errors.append(repr(error))
        for ws in held:
            ws.abort()

    threads = [threading.Thread(target=disturb, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    while not stop.is_set():
        publish(operation, data=fill(total))
        total += 1
        for ws in calm:
            assert numbers([ws.next()]) == [total - 1]
    for thread in threads:
        thread.join()
    assert not errors and opened[0] > 30 and total > 20
    assert api.child.poll() is None
    publish.close()
    for ws in calm:
        assert answers(ws)
        ws.close()
    again = watcher.open(api)
    assert answers(again)
    assert api.stop() == 0, api.tail()
    assert again.end()[0] is None
