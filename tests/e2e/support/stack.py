"""The programs running together, as an operator runs them: a fresh database, any number of API instances and workers on free ports.

Needs DATABASE_URL and REDIS_URL (scripts/with-services.sh gives them) and the programs in build/bin. PostgreSQL and Redis are reached through a Gate each,
so that a test can take them away and give them back.
"""
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BIN = os.environ.get("OPSTREAM_BIN", os.path.join(ROOT, "build/bin"))
FAULTS_BIN = os.environ.get("OPSTREAM_FAULTS_BIN", os.path.join(ROOT, "build/plain-faults/bin"))
PATIENCE = 180  # seconds: no test depends on how fast the machine is


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=PATIENCE, every=0.05):
    """The condition's first true value. What it is about goes into the failure."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(every)


class Gate:
    """A TCP forwarder in front of a server: shut() cuts what is open and refuses what comes, open() lets through again; hold() keeps every byte back
    without closing anything, as a network that is cut in two does, release() delivers them late."""

    def __init__(self, host, port):
        self.target = (host, port)
        self.port = free_port()
        self.pairs = set()
        self.lock = threading.Lock()
        self.flows = threading.Event()
        self.flows.set()
        self.listener = None
        self.open()

    def open(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self.listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self):
        listener, self.listener = self.listener, None
        if listener:
            # close() alone does not wake a thread in accept().
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            pairs, self.pairs = self.pairs, set()
        for pair in pairs:
            for one in pair:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def hold(self):
        self.flows.clear()

    def release(self):
        self.flows.set()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.flows.wait()
            try:
                server = socket.create_connection(self.target, timeout=5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            pair = (client, server)
            with self.lock:
                if self.listener is not listener:
                    client.close()
                    server.close()
                    continue
                self.pairs.add(pair)
            for source, sink in (pair, pair[::-1]):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._copy, args=(source, sink, pair), daemon=True).start()

    def _copy(self, source, sink, pair):
        try:
            while data := source.recv(65536):
                self.flows.wait()
                if not self._may_pass(data, source, pair):
                    break
                sink.sendall(data)
        except OSError:
            pass
        for one in pair:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self.lock:
            self.pairs.discard(pair)


    def _may_pass(self, data, source, pair):
        """False: the pair (client, server) is cut here."""
        return True


@contextlib.contextmanager
def locked(url, table, mode="ACCESS EXCLUSIVE"):
    """Another session holds a lock on the table."""
    with subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-d", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as psql:
        psql.stdin.write(f"BEGIN; LOCK TABLE {table} IN {mode} MODE; SELECT 'locked';\n")
        psql.stdin.flush()
        assert psql.stdout.readline().strip() == "locked"
        try:
            yield
        finally:
            psql.stdin.write("ROLLBACK;\n")
            psql.stdin.close()
            psql.wait()


class Process:
    """One API instance or worker."""

    def __init__(self, stack, kind, name, env):
        self.stack, self.kind, self.name = stack, kind, name
        self.port = free_port()
        self.env = {**stack.env, ("API_PORT" if kind == "api" else "WORKER_PORT"): str(self.port), **env}
        self.log = os.path.join(stack.dir, name + ".log")
        self.child = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.child.pid

    def launch(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen([Stack.program(self.kind, self.stack.bin)], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          start_new_session=True, cwd=ROOT)

    def start(self):
        self.launch()
        wait_for(f"{self.name} to be ready", self._is_ready)

    def _is_ready(self):
        if self.child.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
        return self.readiness()[0] == 200

    def readiness(self):
        return fetch(self.url + ("/api/health/readyz" if self.kind == "api" else "/readyz"))

    def kill(self):
        """As the OOM killer or a power cut would: the whole process group, at once."""
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    def stop(self, patience=30):
        """As an operator would: SIGTERM. Its exit status."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not end within {patience} s of SIGTERM:\n{self.tail()}")
        return self.child.returncode

    def restart(self):
        self.stop()
        self.start()

    def tail(self, lines=40):
        try:
            with open(self.log, errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except OSError:
            return ""


def fetch(url, timeout=5):
    """(status, text); status 0 when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


class Stack:
    running = []  # for the logs of a failed test

    def __init__(self, apis=1, workers=1, has_faults=False, **settings):
        """With faults: programs that have fault points (common/fault.h), for the settings FAULT and FAULT_DIR."""
        self.bin = FAULTS_BIN if has_faults else BIN
        self.dir = tempfile.mkdtemp(prefix="opstream-e2e-")
        self.roots = os.path.join(self.dir, "documents")
        os.mkdir(self.roots)
        self.processes = []
        self.name = "e2e_" + secrets.token_hex(4)
        self.admin_url = os.environ["DATABASE_URL"]
        run(["psql", "-X", "-q", "-d", self.admin_url, "-c", f"CREATE DATABASE {self.name}"])
        database, redis = urllib.parse.urlsplit(self.admin_url), urllib.parse.urlsplit(os.environ["REDIS_URL"])
        self.postgres = Gate(database.hostname, database.port)
        self.redis = Gate(redis.hostname, redis.port)
        self.direct_url = database._replace(path="/" + self.name).geturl()
        gated = database._replace(path="/" + self.name, netloc=database.netloc.rsplit(":", 1)[0] + f":{self.postgres.port}").geturl()
        self.env = {
            "PATH": os.environ["PATH"], "TMPDIR": self.dir, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8",
            "DATABASE_URL": gated, "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}", "REDIS_PREFIX": self.name + ":",
            "JWT_SECRET_KEY": secrets.token_hex(32), "INTERNAL_API_KEY": secrets.token_hex(32),
            "OPSTREAM_SOURCE_ROOTS": self.roots, "OPSTREAM_MODEL_DIR": os.environ.get("OPSTREAM_MODEL_DIR", os.path.join(ROOT, "build/models")),
            "RATE_LIMITS": "off", "TEST_OPERATIONS": "true", "LOG_LEVEL": "info", "WORKER_LEASE_SECONDS": "2", "RECONCILE_SECONDS": "1",
            "DEFAULT_RETRY_DELAY": "1", "DRAIN_SECONDS": "5", "CANCEL_GRACE_SECONDS": "2", "PROGRESS_THROTTLE_MS": "50", "API_THREADS": "4",
            "WORKER_CONCURRENCY": "2", **{name: str(value) for name, value in settings.items()},
        }
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "RELAY_THREADS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        Stack.running.append(self)
        try:
            run([Stack.program("api", self.bin), "--migrate"], env=self.env)
            self.apis = [self.add("api") for _ in range(apis)]
            self.workers = [self.add("worker") for _ in range(workers)]
        except BaseException:
            self.close()
            raise

    @staticmethod
    def program(kind, folder=BIN):
        return os.path.join(folder, "opstream-" + kind)

    def add(self, kind, **settings):
        count = sum(p.kind == kind for p in self.processes)
        process = Process.__new__(Process)
        # Known before it is started, so that its log is shown when it does not start.
        self.processes.append(process)
        process.__init__(self, kind, f"{kind}-{count + 1}", {name: str(value) for name, value in settings.items()})
        return process

    def sql(self, statement, *values):
        """Rows as lists of text; values are put in as literals for psql's :'name'. Goes around the gate."""
        command = ["psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-R", "\x1e", "-v", "ON_ERROR_STOP=1", "-d", self.direct_url]
        for i, value in enumerate(values):
            command += ["-v", f"v{i + 1}={value}"]
        out = subprocess.run(command, input=statement, capture_output=True, text=True, timeout=60, check=False)
        assert out.returncode == 0, out.stderr
        return [row.split("\x1f") for row in out.stdout.rstrip("\n").split("\x1e") if row]

    def sql_value(self, statement, *values):
        rows = self.sql(statement, *values)
        return rows[0][0] if rows else None

    def redis_cli(self, *arguments, db=0):
        """Goes around the gate."""
        return run(["redis-cli", "-u", os.environ["REDIS_URL"], "-n", str(db), *arguments]).strip()

    def logs(self):
        return [(p.name, "".join(line[:300].rstrip() + "\n" for line in p.tail(200).splitlines() if '"status":20' not in line)[-4000:])
                for p in self.processes if hasattr(p, "log")]

    def log_lines(self):
        """Every JSON line of every log."""
        for process in self.processes:
            with open(process.log, errors="replace") as file:
                for line in file:
                    if line.startswith("{"):
                        try:
                            yield process.name, json.loads(line)
                        except ValueError:
                            yield process.name, {"event": "not_json", "line": line}

    def close(self):
        if self in Stack.running:
            Stack.running.remove(self)
        for process in self.processes:
            if getattr(process, "child", None) and process.child.poll() is None:
                process.kill()
        self.postgres.shut()
        self.redis.shut()
        subprocess.run(["psql", "-X", "-q", "-d", self.admin_url, "-c", f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)"], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", self.dir], check=False)


def run(command, env=None):
    out = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert out.returncode == 0, f"{command[0]} {command[1] if len(command) > 1 else ''}: {out.stdout}{out.stderr}"
    return out.stdout
