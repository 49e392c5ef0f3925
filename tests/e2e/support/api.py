"""One API process with a database of its own, and requests to it: whole ones, and bytes as they come. Standard library only."""
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import urllib.parse

from .stack import PATIENCE, ROOT, Gate, locked, run, wait_for

SECRET = "a secret of the tests, long enough to sign"
PASSWORD = "correct horse battery"


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:500]!r}"


def program():
    return os.path.join(os.environ.get("OPSTREAM_BIN", os.path.join(ROOT, "build/bin")), "opstream-api")


class Api:
    """`Api(SETTING=value, …)`; None takes a setting away. PostgreSQL and Redis are reached through gates that a test may shut."""

    def __init__(self, start=True, limit_files=None, **settings):
        self.dir = tempfile.mkdtemp(prefix="opstream-api-")
        self.log = os.path.join(self.dir, "api.log")
        self.admin_url = os.environ["DATABASE_URL"]
        self.name = "api_" + secrets.token_hex(4)
        run(["psql", "-X", "-q", "-d", self.admin_url, "-c", f"CREATE DATABASE {self.name}"])
        database, redis = urllib.parse.urlsplit(self.admin_url), urllib.parse.urlsplit(os.environ["REDIS_URL"])
        self.postgres, self.redis = Gate(database.hostname, database.port), Gate(redis.hostname, redis.port)
        self.direct_url = database._replace(path="/" + self.name).geturl()
        gated = database._replace(path="/" + self.name, netloc=database.netloc.rsplit(":", 1)[0] + f":{self.postgres.port}").geturl()
        self.env = {"PATH": os.environ["PATH"], "DATABASE_URL": gated, "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}", "REDIS_PREFIX": self.name + ":",
                    "JWT_SECRET_KEY": SECRET, "API_PORT": "0", "API_THREADS": "4", "DRAIN_SECONDS": "20", "RATE_LIMITS": "off"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "RELAY_THREADS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        for name, value in settings.items():
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = str(value)
        self.limit_files = limit_files
        self.child = None
        try:
            run([program(), "--migrate"], env=self.env)
            if start:
                self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        command = [program()]
        if self.limit_files:
            command = ["prlimit", f"--nofile={self.limit_files}:{self.limit_files}", *command]
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=ROOT)
        ready = wait_for("api_ready in the log", self._ready)
        self.port, self.ws_port, self.metrics_port = ready["port"], ready["ws_port"], ready["metrics_port"]

    def _ready(self):
        assert self.child.poll() is None, f"it ended with {self.child.returncode}: {self.text_of_log()}"
        return next(iter(self.events("api_ready")), None)

    def text_of_log(self):
        with open(self.log, errors="replace") as file:
            return file.read()

    def events(self, name):
        lines = [json.loads(line) for line in self.text_of_log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == name]

    def wait_ready(self):
        wait_for("readiness", lambda: self.request("GET", "/readyz").status == 200)
        return self

    def signal(self, number=signal.SIGTERM):
        self.child.send_signal(number)

    def ended(self):
        """The exit status, once it has ended."""
        return self.child.wait(PATIENCE)

    def stop(self):
        self.signal()
        return self.ended()

    def close(self):
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.postgres.shut()
        self.redis.shut()
        subprocess.run(["psql", "-X", "-q", "-d", self.admin_url, "-c", f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)"], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", self.dir], check=False)

    def sql(self, statement):
        return run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.direct_url, "-c", statement]).strip()

    def locked(self, table):
        """Whoever reads that table meanwhile waits."""
        return locked(self.direct_url, table)

    # --- requests

    def request(self, method, path, body=None, token=None, headers=None, raw=None, port=None):
        data = json.dumps(body).encode() if body is not None else raw
        sent = {"Content-Type": "application/json"} if data is not None else {}
        if token:
            sent["Authorization"] = "Bearer " + token
        sent.update(headers or {})
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def must(self, method, path, body=None, token=None, status=200, **more):
        answer = self.request(method, path, body, token, **more)
        assert answer.status == status, f"{method} {path}: {answer}"
        return answer.json if answer.body else None

    def register(self, name=None, status=200, **more):
        name = name or "user_" + secrets.token_hex(4)
        return self.must("POST", "/api/auth/register", {"username": name, "email": name + "@example.org", "password": PASSWORD, **more}, status=status)

    def login(self, name, password=PASSWORD):
        return self.must("POST", "/api/auth/login", {"username": name, "password": password})

    def new_user(self):
        """A user and his tokens."""
        user = self.register()
        return user, self.login(user["username"])

    def connect(self, port=None):
        return socket.create_connection(("127.0.0.1", port or self.port), timeout=PATIENCE)

    def raw(self, data, port=None):
        """Sends bytes, then everything that comes back until the other side closes."""
        with self.connect(port) as s:
            try:
                s.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return read_all(s)


def read_all(s):
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := s.recv(65536):
            got += data
    return got


def read_answer(file):
    """One answer from a connection's file (socket.makefile('rb')): (status, headers, body)."""
    line = file.readline()
    if not line:
        return None
    status = int(line.split()[1])
    headers = http.client.parse_headers(file)
    if status == 100:
        return Answer(status, headers, b"")
    return Answer(status, headers, file.read(int(headers.get("Content-Length", 0))))
