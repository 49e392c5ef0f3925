"""What tests of the JavaScript client share: a server of pages, a gate to the API that can get in the way of WebSockets, watches in a page."""
import http.server
import json
import os
import threading
import time
import urllib.parse

from .stack import ROOT, Gate, wait_for

CLIENTS = os.path.join(ROOT, "api/clients")
EMPTY_PAGE = "<!doctype html><meta charset=utf-8><title>watches</title><link rel=icon href=data:,>"


def _has_polls():
    with open(os.path.join(ROOT, "api/routes.def"), encoding="utf-8") as file:
        return "/operations/events" in file.read()


HAS_POLLS = _has_polls()


class Pages:
    """Serves api/clients below /clients/ and what is put into `more` (path to file or text) on a port of its own, as another origin than the API."""

    def __init__(self):
        self.more = {"/": EMPTY_PAGE}
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}

            def do_GET(self):
                found = outer.more.get(self.path.split("?")[0])
                if found is None or not found.startswith("<"):
                    super().do_GET()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(found.encode())))
                self.end_headers()
                self.wfile.write(found.encode())

            def translate_path(self, path):
                path = urllib.parse.unquote(path.split("?")[0])
                return outer.more.get(path) or os.path.join(CLIENTS, os.path.basename(path))

            def log_message(self, *unused):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class ApiGate(Gate):
    """In front of one API instance, or of another one after `target` was set. `blocks_upgrades`: answers 403 to WebSockets, as some proxies do.
    `polls`: a Polls that answers requests for events in the API's place, where the API cannot or shall not."""

    def __init__(self, api, polls=None):
        self.blocks_upgrades = False
        self.upgrades = self.polled = 0
        self.polls = polls
        super().__init__("127.0.0.1", api.port)

    def aim(self, api):
        self.target = ("127.0.0.1", api.port)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def cut(self):
        """Resets what is open and goes on."""
        self.shut()
        self.open()

    def _may_pass(self, data, source, pair):
        if source is not pair[0] or data[:4] not in (b"GET ", b"OPTI"):
            return True
        path = data.split(b" ", 2)[1]
        if path.startswith(b"/ws/"):
            self.upgrades += 1
            if self.blocks_upgrades:
                pair[0].sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return not self.blocks_upgrades
        if b"/events?" in path:
            self.polled += data.startswith(b"GET ")
            if self.polls and (self.polls.refusals or not HAS_POLLS):
                self.polls.answer(data, pair[0])
                return False
        return True


class Polls:
    """Stands in for the API's polling: the history in Redis, in the shape of the real answers."""

    def __init__(self, stack, origin):
        self.stack, self.origin = stack, origin
        self.refusals = []  # (status, headers) of the next answers

    def _events(self, key, after):
        out = json.loads(self.stack.redis_cli("--json", "xrange", self.stack.env["REDIS_PREFIX"] + key, "-", "+") or "[]")
        events = [json.loads(fields[1]) for _, fields in out]
        known = [e["id"] for e in events]
        return events[known.index(after) + 1:] if after in known else events

    def answer(self, head, sock):
        query = urllib.parse.urlsplit(head.split(b" ", 2)[1].decode())
        values = dict(urllib.parse.parse_qsl(query.query))
        status, more, body = 204, "", None
        if head.startswith(b"GET"):
            status, more = self.refusals.pop(0) if self.refusals else (200, "")
            body = self._body(query.path.split("/")[4], values) if status == 200 else {"detail": f"refused with {status}"}
        data = json.dumps(body).encode() if body is not None else b""
        cors = (f"Access-Control-Allow-Origin: {self.origin}\r\nAccess-Control-Allow-Headers: Authorization\r\nAccess-Control-Expose-Headers: Retry-After\r\n"
                "Access-Control-Allow-Credentials: true\r\n")
        sock.sendall(f"HTTP/1.1 {status} X\r\n{cors}{more}Content-Type: application/json\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)

    def _body(self, target, values):
        is_all = target == "events"
        user = self.stack.sql_value("SELECT max(id) FROM users")
        key = f"user-progress:{user}" if is_all else "operation-progress:" + target
        after = values.get("after")
        if is_all and not after:
            events = self._events(key, None)
            return {"events": [], "last_id": events[-1]["id"] if events else "0", "has_ended": False}
        deadline = time.monotonic() + min(float(values.get("wait", 0)), 60)
        while not (events := self._events(key, after)) and time.monotonic() < deadline:
            time.sleep(0.05)
        status = None if is_all else self.stack.sql_value("SELECT status FROM operations WHERE uuid = :'v1'", target)
        state = [] if after or is_all else [{"type": "current_state", "timestamp": "2026-01-01T00:00:00Z", "operation_id": target, "collection_id": None,
                                            "status": status, "progress": 0, "data": {"status": status}}]
        has_ended = any(e["type"] in ("operation_completed", "operation_failed", "operation_cancelled") for e in events)
        return {"events": state + events, "last_id": events[-1]["id"] if events else after, "has_ended": has_ended}


class Watching:
    """A watch in a page. What its callbacks were told is kept there: events, states, errors, ends."""

    def __init__(self, page, base, token, operation=None, last_id=None, options="", settings=""):
        """`token`: a string, or JavaScript of a function if it holds an arrow. options, settings: JavaScript members."""
        self.page = page
        self.name = "watch" + str(page.evaluate("window.watchCount = (window.watchCount ?? 0) + 1"))
        get = token if "=>" in (token or "") else f"() => {json.dumps(token)}"
        what = f"watchOperation({json.dumps(operation.id)}, " if operation else "watchOperations("
        page.run(f"""
            const {{ OpstreamClient }} = await import("/clients/opstream.js");
            const got = {{ events: [], states: [], errors: [], ends: [], tokens: 0 }};
            const get = {get};
            const client = new OpstreamClient({{ baseUrl: {json.dumps(base)}, getToken: (about) => {{ got.tokens++; return get(about); }}, {settings} }});
            got.watch = client.{what}{{ lastId: {json.dumps(last_id)}, onEvent: (e) => got.events.push(e), onConnection: (s) => got.states.push(s),
                onError: (e) => got.errors.push({{ message: e.message, code: e.code, isFinal: e.isFinal, cause: String(e.cause) }}), onEnd: (e) => got.ends.push(e),
                {options} }});
            window[{json.dumps(self.name)}] = got;""")

    def get(self, expression):
        """An expression over `got`: events, states, errors, ends, tokens, watch."""
        return self.page.evaluate(f"((got) => {expression})(window.{self.name})")

    def until(self, expression):
        wait_for(f"{expression} of {self.name}", lambda: self.get(expression), every=0.02)
        return self

    def until_state(self, state):
        return self.until(f"got.watch.connection === {json.dumps(state)}")

    def until_count(self, count):
        """Until so many events with ids came."""
        return self.until(f"got.events.filter((e) => e.id).length >= {count}")

    @property
    def events(self):
        return self.get("got.events")

    @property
    def ids(self):
        return self.get("got.events.map((e) => e.id).filter(Boolean)")

    @property
    def states(self):
        return self.get("got.states")

    @property
    def errors(self):
        return self.get("got.errors")

    def close(self):
        self.get("got.watch.close()")
