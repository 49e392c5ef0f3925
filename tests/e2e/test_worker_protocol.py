"""Real workers against a database of their own and a Redis of their own: what is promised about claims, crashes, cancels and outages.

Operations of type noop are inserted by SQL. Nothing here depends on how fast the machine is: every wait has a generous end."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKER = pathlib.Path(os.environ.get("OPSTREAM_WORKER", ROOT / "build/bin/opstream-worker"))
PATIENCE = 60
NO_QUEUE = "nobody"


def wait_until(what, seconds=PATIENCE, step=0.05):
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            return value
        time.sleep(step)


class Database:
    def __init__(self, url):
        self.server, self.name = url, f"worker_protocol_{os.getpid()}"
        self.run_psql(url, f"CREATE DATABASE {self.name}")
        self.url = url.rsplit("/", 1)[0] + "/" + self.name
        self.migrate()
        self("INSERT INTO users (username, email, password_hash) VALUES ('ann', 'ann@example.org', 'x')")

    @staticmethod
    def run_psql(url, sql):
        done = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def __call__(self, sql):
        return self.run_psql(self.url, sql)

    def migrate(self):
        self("CREATE TABLE schema_migrations (number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
             " applied_at timestamptz NOT NULL DEFAULT now())")
        for path in sorted((ROOT / "sql/migrations").glob("*.sql")):
            done = subprocess.run(["psql", "-Xq1", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-f", path], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self(f"INSERT INTO schema_migrations (number, name, checksum) VALUES ({int(path.name[:4])}, '{path.stem}', '{digest}')")

    def drop(self):
        self.run_psql(self.server, f"DROP DATABASE {self.name} WITH (FORCE)")


class Redis:
    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
             "--appendonly", "no"], stdout=subprocess.DEVNULL)
        assert wait_until(lambda: self("PING", check=False) == "PONG")

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def __call__(self, *args, db=0, check=True):
        done = subprocess.run(["redis-cli", "-p", str(self.port), "-n", str(db), *args], capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def push(self, uuid, queue="default"):
        self("LPUSH", f"queue:{queue}", uuid, db=1)

    def events(self, uuid):
        lines = self("--json", "XRANGE", f"operation-progress:{uuid}", "-", "+")
        return [json.loads(dict(zip(e[1][::2], e[1][1::2]))["message"]) if isinstance(e[1], list) else json.loads(e[1]["message"])
                for e in json.loads(lines)]


class Worker:
    """One process of the program; its log goes to a file."""

    def __init__(self, db, redis, folder, sockets, **settings):
        self.log_path = folder / f"worker-{time.monotonic_ns()}.log"
        self.sockets = sockets
        keep = ("PATH", "HOME", "PGPASSWORD", "OPSTREAM_MODEL_DIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
        env = {k: os.environ[k] for k in keep if k in os.environ}
        env.update(DATABASE_URL=db.url, REDIS_URL=redis.url, TEST_OPERATIONS="true", WORKER_LEASE_SECONDS="2", RECONCILE_SECONDS="1",
                   WORKER_CONCURRENCY="2", EMBEDDING_THREADS="1", CANCEL_GRACE_SECONDS="1", LOG_LEVEL="debug", TMPDIR=str(sockets),
                   INTERNAL_API_KEY="internal-test-key")
        env.update({k: str(v) for k, v in settings.items()})
        self.db, self.env = db, env
        self.process = subprocess.Popen([WORKER], cwd=ROOT, env=env, stderr=open(self.log_path, "wb"))

    def log(self, event=None):
        lines = []
        for line in self.log_path.read_bytes().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return [entry for entry in lines if event is None or entry["event"] == event]

    def ready(self):
        """Registered, and its embedder answers."""
        def has_models():
            assert self.process.poll() is None, self.log_path.read_text()[-3000:]
            return self.id and self.db(f"SELECT 1 FROM workers WHERE id = '{self.id}' AND models <> '{{}}'")
        assert wait_until(has_models), self.log_path.read_text()[-3000:]
        return self

    @property
    def id(self):
        started = self.log("worker_registered")
        return started[-1]["worker"] if started else None

    def get(self, path, key=None):
        port = self.log("worker_started")[0]["port"]
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"X-Internal-Api-Key": key} if key else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def db():
    if "DATABASE_URL" not in os.environ:
        pytest.fail("run below scripts/with-services.sh")
    database = Database(os.environ["DATABASE_URL"])
    yield database
    database.drop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def start(db, redis, tmp_path):
    if redis.process is None:
        redis.start()
    redis("FLUSHALL")
    workers = []
    sockets = pathlib.Path(tempfile.mkdtemp(prefix="ow-"))  # short: a socket's path has at most 107 bytes

    def start_one(**settings):
        workers.append(Worker(db, redis, tmp_path, sockets, **settings))
        return workers[-1]
    yield start_one
    for w in workers:
        if w.process.poll() is None:
            w.process.kill()
        w.process.wait()
    shutil.rmtree(sockets, ignore_errors=True)
    db("UPDATE operations SET status = 'cancelled', completed_at = now(), announced_at = now() WHERE status IN ('pending', 'processing')")
    db("DELETE FROM workers")


def add(db, config=None, queue="default", max_attempts=4):
    text = json.dumps(config or {"sleep_ms": 0})
    return db("INSERT INTO operations (user_id, type, mutates, queue, config, max_attempts)"
              f" SELECT id, 'noop', false, '{queue}', '{text}', {max_attempts} FROM users RETURNING uuid")


def row(db, uuid):
    return json.loads(db(f"SELECT row_to_json(o) FROM operations o WHERE uuid = '{uuid}'"))


def status(db, uuid):
    return db(f"SELECT status FROM operations WHERE uuid = '{uuid}'")


def wait_for(db, uuid, *wanted):
    assert wait_until(lambda: status(db, uuid) in wanted), row(db, uuid)
    return row(db, uuid)


def cancel(db, uuid):
    return db(f"UPDATE operations SET status = 'cancelled', completed_at = now() WHERE uuid = '{uuid}'"
              " AND status IN ('pending', 'processing') RETURNING worker_id")


def test_a_job_is_claimed_run_and_announced(db, redis, start):
    w = start().ready()
    uuid = add(db, {"events": 3})
    redis.push(uuid)
    done = wait_for(db, uuid, "completed")
    assert done["attempt"] == 1 and done["worker_id"] == w.id and done["task_id"] and done["percent"] == 100
    assert wait_until(lambda: row(db, uuid)["announced_at"])
    types = [e["type"] for e in redis.events(uuid)]
    assert types[0] == "operation_started" and types[-1] == "operation_completed" and "processing_progress" in types
    assert db(f"SELECT action FROM audit_log WHERE operation_uuid = '{uuid}' ORDER BY id DESC LIMIT 1") == "operation_noop_completed"
    assert "duration_seconds" in db(f"SELECT figures FROM operation_figures WHERE operation_uuid = '{uuid}'")
    code, text = w.get("/metrics")
    assert code == 200 and 'operations_total{operation_type="noop",status="completed"} 1' in text
    assert w.get("/readyz")[0] == 200 and w.get("/internal/embed")[0] in (401, 405)
    shown = redis("HGET", f"worker:{w.id}", "slots")
    assert wait_until(lambda: redis("HGET", f"worker:{w.id}", "slots") == "3"), shown


def test_duplicates_and_rubbish_in_a_queue_do_no_harm(db, redis, start):
    uuid, final = add(db, {"sleep_ms": 50}), add(db)
    cancel(db, final)
    for entry in ["rubbish", "", "' OR 1=1", "x" * 5000, final, "00000000-0000-4000-8000-000000000000"] + [uuid] * 5:
        redis.push(entry)
    start().ready()
    assert wait_for(db, uuid, "completed")["attempt"] == 1
    assert wait_until(lambda: redis("LLEN", "queue:default", db=1) == "0")
    assert status(db, final) == "cancelled" and row(db, uuid)["attempt"] == 1


def test_every_worker_has_a_slot_more_for_fast_jobs(db, redis, start):
    start(WORKER_CONCURRENCY=1, WORKER_QUEUES="default").ready()
    long = add(db, {"sleep_ms": 600000})
    redis.push(long)
    wait_for(db, long, "processing")
    fast = add(db, queue="fast")
    redis.push(fast, "fast")
    wait_for(db, fast, "completed")
    waiting = add(db)
    redis.push(waiting)
    time.sleep(0.3)
    assert redis("LLEN", "queue:default", db=1) == "1" and status(db, waiting) == "pending"


def test_a_cancelled_task_stops_and_its_child_takes_the_next(db, redis, start):
    w = start(WORKER_CONCURRENCY=1).ready()
    uuid = add(db, {"sleep_ms": 600000})
    redis.push(uuid)
    wait_for(db, uuid, "processing")
    worker_id = cancel(db, uuid)
    redis("PUBLISH", f"control:{worker_id}", json.dumps({"action": "cancel", "operation_id": uuid}))
    assert wait_until(lambda: w.log("task_stopped"))
    after = add(db)
    redis.push(after)
    wait_for(db, after, "completed")
    assert status(db, uuid) == "cancelled" and not w.log("operation_handed_back")


def test_a_cancelled_task_that_does_not_listen_is_killed_without_any_message(db, redis, start):
    w = start(WORKER_CONCURRENCY=1).ready()
    uuid = add(db, {"sleep_ms": 600000, "deaf": True})
    redis.push(uuid)
    wait_for(db, uuid, "processing")
    cancel(db, uuid)
    assert wait_until(lambda: [e for e in w.log("child_ended") if e["why"] == "cancel"])
    after = add(db)
    redis.push(after)
    wait_for(db, after, "completed")
    assert status(db, uuid) == "cancelled"


def test_an_operation_whose_child_is_killed_runs_again_at_once(db, redis, start):
    w = start(WORKER_CONCURRENCY=1, RECONCILE_SECONDS=3600).ready()
    uuid = add(db, {"sleep_ms": 600000})
    redis.push(uuid)
    wait_for(db, uuid, "processing")

    def child():
        doing = redis("HGET", f"worker:{w.id}", "doing")
        return [s["pid"] for s in json.loads(doing or "[]") if s.get("operation_id") == uuid]
    os.kill(wait_until(child)[0], signal.SIGKILL)
    assert wait_until(lambda: row(db, uuid)["attempt"] == 2)
    again = wait_for(db, uuid, "processing")
    assert again["failures"] == 1 and again["meta"]["attempts"][0]["reason"] == "its worker died 1 times, last by signal 9"


def test_an_operation_that_kills_its_child_every_time_fails_with_the_reason(db, redis, start):
    start().ready()
    uuid, once = add(db, {"crash": 9}, max_attempts=3), add(db, {"crash": 11, "fail_attempts": 1})
    redis.push(uuid)
    failed = wait_for(db, uuid, "failed")
    redis.push(once)  # not beside the other: whoever stands beside a crash is handed back, which counts as no failure
    assert failed["failures"] == 3 and failed["error_message"] == "its worker died 3 times, last by signal 9"
    assert wait_until(lambda: row(db, uuid)["announced_at"])
    assert [e["type"] for e in redis.events(uuid)][-1] == "operation_failed"
    assert wait_for(db, once, "completed")["failures"] == 1


def test_failures_are_retried_or_not_by_their_class(db, redis, start):
    start().ready()
    passing, final = add(db, {"fail": "transient", "fail_attempts": 1}), add(db, {"fail": "permanent"})
    last = add(db, {"fail": "internal"}, max_attempts=1)
    for uuid in (passing, final, last):
        redis.push(uuid)
    assert wait_for(db, passing, "completed")["attempt"] == 2
    failed = wait_for(db, final, "failed")
    assert failed["attempt"] == 1 and failed["error_class"] == "permanent" and failed["error_message"] == "failed as asked"
    assert wait_for(db, last, "failed")["error_class"] == "internal"


def test_a_killed_worker_is_swept_by_another_which_runs_its_operations_again(db, redis, start):
    first = start(WORKER_CONCURRENCY=1).ready()
    uuid = add(db, {"sleep_ms": 600000, "sleep_attempts": 1})
    redis.push(uuid)
    assert wait_for(db, uuid, "processing")["worker_id"] == first.id
    second = start(WORKER_CONCURRENCY=1).ready()
    first.end(signal.SIGKILL)
    done = wait_for(db, uuid, "completed")
    assert done["worker_id"] == second.id and done["attempt"] == 2 and done["failures"] == 1
    assert db(f"SELECT count(*) FROM workers WHERE id = '{first.id}'") == "0"


def test_a_worker_that_lost_its_lease_stops_everything_and_starts_over(db, redis, start):
    w = start(WORKER_CONCURRENCY=1).ready()
    before = w.id
    uuid = add(db, {"sleep_ms": 600000, "deaf": True})
    redis.push(uuid)
    wait_for(db, uuid, "processing")
    db(f"DELETE FROM workers WHERE id = '{before}'")
    assert wait_until(lambda: w.id != before and row(db, uuid)["attempt"] == 2)
    assert row(db, uuid)["worker_id"] == w.id and w.process.poll() is None
    assert [e for e in w.log("child_ended") if e["why"] == "lease_lost"]


def test_a_drained_worker_finishes_what_it_has_and_takes_nothing_more(db, redis, start):
    w = start(WORKER_CONCURRENCY=1).ready()
    uuid = add(db, {"sleep_ms": 1500})
    redis.push(uuid)
    wait_for(db, uuid, "processing")
    assert list(w.sockets.glob("opstream-worker.*/embed"))
    w.process.terminate()
    assert wait_until(lambda: w.log("worker_draining"))
    later = add(db)
    redis.push(later)
    assert w.process.wait(PATIENCE) == 0
    assert status(db, uuid) == "completed" and status(db, later) == "pending"
    assert db("SELECT count(*) FROM workers") == "0" and not list(w.sockets.iterdir())


def test_a_drained_worker_gives_back_for_free_what_takes_too_long(db, redis, start):
    w = start(WORKER_CONCURRENCY=2, DRAIN_SECONDS=1).ready()
    uuids = [add(db, {"sleep_ms": 600000}), add(db, {"sleep_ms": 600000, "deaf": True})]
    for uuid in uuids:
        redis.push(uuid)
        wait_for(db, uuid, "processing")
    assert w.end() == 0
    for uuid in uuids:
        back = row(db, uuid)
        assert back["status"] == "pending" and back["failures"] == 0 and back["worker_id"] is None
        assert uuid in redis("LRANGE", "queue:default", "0", "-1", db=1)


def test_without_redis_due_operations_are_found_in_the_database(db, redis, start):
    redis.stop()
    start().ready()
    uuid = add(db, {"sleep_ms": 10})
    wait_for(db, uuid, "completed")
    long = add(db, {"sleep_ms": 600000})
    wait_for(db, long, "processing")
    cancel(db, long)
    redis.start()
    assert wait_until(lambda: [e["type"] for e in redis.events(uuid)][-1:] == ["operation_completed"])
    after = add(db)
    redis.push(after)
    wait_for(db, after, "completed")


def test_an_operation_that_no_queue_holds_is_pushed_again(db, redis, start):
    uuid = add(db)
    redis.push(uuid)
    redis("FLUSHALL")
    start().ready()
    wait_for(db, uuid, "completed")


def test_a_silent_child_and_one_over_the_hard_limit_are_killed_and_counted(db, redis, start):
    start(CHILD_SILENCE_SECONDS=1, OPERATION_HARD_TIME_LIMIT=2, OPERATION_SOFT_TIME_LIMIT=3600).ready()
    silent = add(db, {"sleep_ms": 600000, "silent": True, "deaf": True}, max_attempts=1)
    late = add(db, {"sleep_ms": 600000, "deaf": True}, max_attempts=1)
    redis.push(silent)
    redis.push(late)
    assert "no sign of life 1 times" in wait_for(db, silent, "failed")["error_message"]
    assert "OPERATION_HARD_TIME_LIMIT 1 times" in wait_for(db, late, "failed")["error_message"]


def test_a_soft_limit_without_anything_done_is_a_failure(db, redis, start):
    start(OPERATION_SOFT_TIME_LIMIT=1).ready()
    uuid = add(db, {"sleep_ms": 600000})
    redis.push(uuid)
    assert "OPERATION_SOFT_TIME_LIMIT (1 s)" in wait_for(db, uuid, "failed")["error_message"]


def test_the_embedder_is_started_again_when_it_dies(db, redis, start):
    w = start().ready()
    pid = [e for e in w.log("embedder_ready")][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: len(w.log("embedder_ready")) == 2)
    uuid = add(db)
    redis.push(uuid)
    wait_for(db, uuid, "completed")


def test_a_worker_waits_for_postgresql_and_says_so(db, redis, start):
    w = start(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", WORKER_PORT=0)
    assert wait_until(lambda: w.log("worker_not_ready"))
    code, text = w.get("/readyz")
    assert code == 503 and "PostgreSQL cannot be reached" in text and w.get("/healthz")[0] == 200
    assert w.end() == 0


def test_one_operation_can_be_run_by_hand(db, redis, start):
    w = start(WORKER_QUEUES=NO_QUEUE)
    uuid = add(db, {"events": 2}, queue="by-hand")
    done = subprocess.run([WORKER, "--task", uuid], cwd=ROOT, env=w.env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert row(db, uuid)["status"] == "completed" and row(db, uuid)["announced_at"]
    again = subprocess.run([WORKER, "--task", uuid], cwd=ROOT, env=w.env, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 1 and "not to be had" in again.stderr


def add_indexing(db, redis, folder, kind, queue):
    name = folder.name + str(time.monotonic_ns())
    db("INSERT INTO collections (name, owner_id, embedding_model, status)"
       f" SELECT '{name}', id, 'all-MiniLM-L6-v2', 'processing' FROM users")
    db(f"INSERT INTO sources (collection_id, source_path) SELECT id, '{folder}' FROM collections WHERE name = '{name}'")
    uuid = db("INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config)"
              f" SELECT c.id, c.uuid, c.owner_id, '{kind}', true, '{queue}', json_build_object('source_id', s.id)"
              f" FROM collections c JOIN sources s ON s.collection_id = c.id WHERE c.name = '{name}' RETURNING uuid")
    redis.push(uuid, queue)
    return uuid, f"(SELECT id FROM collections WHERE name = '{name}')"


def test_a_folder_is_indexed_and_what_cannot_be_read_is_recorded(db, redis, start, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "zebra.txt").write_text("The zebra is a striped animal of the savanna.\n" * 5)
    (folder / "whale.txt").write_text("The whale lives in the sea.\n" * 5)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing of that kind")
    w = start(OPSTREAM_SOURCE_ROOTS=tmp_path).ready()
    uuid, collection = add_indexing(db, redis, folder, "index", "fast")
    done = wait_for(db, uuid, "completed", "failed")
    assert done["status"] == "completed" and (done["processed"], done["failed"], done["total"]) == (3, 1, 3)
    counters = db(f"SELECT status, status_message, document_count, error_count FROM collections WHERE id = {collection}")
    assert counters == "ready|Completed with errors|2|1"
    assert db(f"SELECT count(*) > 1 FROM chunks WHERE collection_id = {collection}") == "t"
    generation = db(f"SELECT active_generation FROM collections WHERE id = {collection}")
    vectors = db(f"SELECT count(*) FROM vec.g{generation}")
    assert vectors == db(f"SELECT count(*) FROM chunks WHERE collection_id = {collection}") == db(
        f"SELECT vector_count FROM collections WHERE id = {collection}")
    assert wait_until(lambda: row(db, uuid)["announced_at"])
    types = [e["type"] for e in redis.events(uuid)]
    assert types[:3] == ["operation_started", "scanning_documents", "scanning_completed"]
    assert types[-2:] == ["index_completed", "operation_completed"] and "document_processed" in types
    assert wait_until(lambda: 'documents_processed_total{status="completed"} 2' in w.get("/metrics")[1])


def test_a_source_that_is_away_is_tried_again_and_its_collection_stays_with_it(db, redis, start, tmp_path):
    start(OPSTREAM_SOURCE_ROOTS=tmp_path).ready()
    uuid, collection = add_indexing(db, redis, tmp_path / "gone", "append", "default")
    assert wait_until(lambda: row(db, uuid)["failures"] == 1)
    back = row(db, uuid)
    assert back["status"] == "pending" and back["error_class"] == "transient"
    assert db(f"SELECT status FROM collections WHERE id = {collection}") == "processing"


@pytest.mark.parametrize("arguments, settings, words", [
    (["--nonsense"], {}, "`--nonsense` is no option"),
    (["--task"], {}, "--task needs 1 more argument"),
    (["--task", "x"], {}, "is not the UUID of an operation"),
    (["--task", "a", "b"], {}, "is one argument too many"),
    ([], {"WORKER_CONCURRENCY": "many", "WORKER_LEASE_SECONDS": "0"}, "WORKER_LEASE_SECONDS"),
])
def test_nonsense_is_refused_with_a_sentence(arguments, settings, words):
    done = subprocess.run([WORKER, *arguments], env={"PATH": os.environ["PATH"], **settings}, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2 and words in done.stderr


def test_help_and_version_are_told():
    for option, words in (("--help", "WORKER_CONCURRENCY"), ("--version", "opstream-worker ")):
        done = subprocess.run([WORKER, option], env={}, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0 and words in done.stdout


def test_the_folder_of_a_killed_worker_is_removed_by_the_next_one_and_no_living_ones(start):
    living, killed = start().ready(), None
    held = set(os.listdir(living.sockets))
    assert len(held) == 1
    killed = start().ready()
    deserted = set(os.listdir(living.sockets)) - held
    killed.end(signal.SIGKILL)
    for name in held | deserted:
        os.utime(living.sockets / name, (0, 0))
    start().ready()
    left = set(os.listdir(living.sockets))
    assert held <= left and not deserted & left
    assert (living.sockets / held.pop() / "embed").is_socket()
