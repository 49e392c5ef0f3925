#!/usr/bin/env python3
"""Breaks a running stack at random moments while folders are read into collections, and checks after each round that what is promised still holds.

Run it by `make chaos` (SEED=, ROUNDS=, MINUTES=, FAULTS=name,name). The same seed makes the same choices; what the machine does in between differs.
"""
import argparse
import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from support.client import LAST, Client  # noqa: E402
from support.stack import Stack, wait_for  # noqa: E402

FINAL = ("completed", "failed", "cancelled")
LEFTOVERS_SECONDS = 60  # what a dead attempt left is gone within 30 s; the machine may be slow
WORDS = "harbour lantern orchard granite violet meadow copper whistle amber thistle candle river falcon".split()


# ---- the documents

class Folder:
    """A source that changes from round to round."""

    def __init__(self, stack, rng, name):
        self.path, self.rng, self.count = os.path.join(stack.roots, name), rng, 0
        os.mkdir(self.path)

    def write(self, name, words):
        text = " ".join(self.rng.choice(WORDS) for _ in range(words)) + f" {secrets.token_hex(4)}\n"
        with open(os.path.join(self.path, name), "w") as file:
            file.write(text)

    def files(self):
        return sorted(os.listdir(self.path))

    def change(self):
        for _ in range(self.rng.randint(4, 20)):
            self.count += 1
            self.write(f"file-{self.count}.txt", self.rng.choice((5, 30, 100, 300)))
        known = self.files()
        for name in self.rng.sample(known, min(len(known), 8)):
            what = self.rng.random()
            if what < 0.6:
                self.write(name, self.rng.choice((8, 60, 200)))
            elif what < 0.8:
                with open(os.path.join(self.path, name), "rb") as file, open(os.path.join(self.path, "copy-of-" + name[-40:]), "wb") as copy:
                    copy.write(file.read())
            else:
                with open(os.path.join(self.path, name), "wb") as file:
                    file.write(b"\x7fELF" + os.urandom(200))
        if self.rng.random() < 0.3:
            self.count += 1
            self.write(f"large-{self.count}.txt", 14000)


# ---- processes of a worker

def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def helpers(worker, flag):
    """Pids of a worker's own processes that were started with a flag."""
    found = []
    try:
        for pid in children_of(worker.pid):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if flag in file.read().split(b"\0"):
                    found.append(pid)
    except OSError:
        pass
    return found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def start(process):
    """Unless what put another fault right has started it already."""
    if process.child.poll() is not None:
        process.start()


# ---- what goes wrong: each returns what puts it right, or None

class Faults:
    def __init__(self, stack, rng):
        self.stack, self.rng = stack, rng

    def worker(self):
        return self.rng.choice(self.stack.workers)

    def kill_child(self):
        for worker in self.stack.workers:
            send(helpers(worker, b"--child"), signal.SIGKILL)

    def kill_embedder(self):
        send(helpers(self.worker(), b"--embedder"), signal.SIGKILL)

    def kill_worker(self):
        worker = self.worker()
        worker.kill()
        return lambda: start(worker)

    def kill_all_workers(self):
        for worker in self.stack.workers:
            worker.kill()
        return lambda: [start(worker) for worker in self.stack.workers]

    def drain_worker(self):
        worker = self.worker()
        worker.stop()
        return lambda: start(worker)

    def kill_api(self):
        api = self.rng.choice(self.stack.apis)
        api.kill()
        return lambda: start(api)

    def stop_worker(self):
        """Past its lease: others take over, then it comes back and believes that nothing happened."""
        worker = self.worker()
        pids = [worker.pid] + (helpers(worker, b"--child") if self.rng.random() < 0.5 else [])
        send(pids, signal.SIGSTOP)
        time.sleep(self.rng.uniform(1, 7))
        send(pids, signal.SIGCONT)

    def stop_child(self):
        pids = helpers(self.worker(), b"--child")
        send(pids, signal.SIGSTOP)
        time.sleep(self.rng.uniform(1, 5))
        send(pids, signal.SIGCONT)

    def postgres_away(self):
        self.stack.postgres.shut()
        time.sleep(self.rng.uniform(0.1, 8))
        self.stack.postgres.open()

    def backends(self, condition):
        return [int(row[0]) for row in self.stack.sql(
            f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND ({condition})")]

    def postgres_crash(self):
        send(self.backends("true")[:1], signal.SIGKILL)  # the server takes all other sessions down and recovers
        wait_for("PostgreSQL to be back", self.answers)

    def answers(self):
        try:
            return self.stack.sql_value("SELECT 1")
        except AssertionError:
            return None

    def postgres_terminates(self):
        self.stack.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")

    def postgres_freezes(self):
        """One session of a worker answers so late that nobody waits for it any more, but it answers."""
        pids = self.backends("application_name LIKE 'opstream-worker%'")
        pids = self.rng.sample(pids, min(len(pids), 3))
        send(pids, signal.SIGSTOP)
        time.sleep(self.rng.choice((2, 13)))
        send(pids, signal.SIGCONT)

    def redis_away(self):
        self.stack.redis.shut()
        time.sleep(self.rng.uniform(0.1, 8))
        self.stack.redis.open()

    def redis_flush(self):
        self.stack.redis_cli("FLUSHALL")

    def cancel(self):
        return "cancel"


class Round:
    def __init__(self, chaos, number):
        self.chaos, self.stack, self.rng, self.number = chaos, chaos.stack, chaos.rng, number
        self.names = [self.rng.choice(chaos.names) for _ in range(self.rng.choice((1, 1, 2, 3)))]
        self.has_lost_events = any(name in ("redis_flush",) for name in self.names)

    def ask(self, call):
        """Until some API instance answers."""
        def attempt():
            for api in self.stack.apis:
                try:
                    return call(self.chaos.client.at(api))
                except (OSError, AssertionError) as problem:
                    self.last = problem
            return None
        try:
            return wait_for("an API instance", attempt, every=0.3)
        except AssertionError:
            raise self.last from None

    def begin(self):
        if not self.chaos.collection or self.rng.random() < 0.2:
            made = self.ask(lambda c: c.must("POST", "/api/v2/collections", {"name": "chaos-" + secrets.token_hex(6)}, status=201))
            # Smaller than the API allows: many chunks for little work.
            self.stack.sql("UPDATE collections SET chunk_size = 24, chunk_overlap = 2 WHERE uuid = :'v1'", made["id"])
            self.chaos.collection, self.chaos.folder = made["id"], Folder(self.stack, self.rng, secrets.token_hex(4))
            self.wait_over(made["initial_operation_id"])
        self.chaos.folder.change()
        return self.ask(lambda c: c.add_source(self.chaos.collection, self.chaos.folder.path))["id"]

    def wait_over(self, operation):
        return wait_for(f"operation {operation} to be over", lambda: self.over(operation), every=0.2)

    def over(self, operation):
        status = self.stack.sql_value("SELECT status FROM operations WHERE uuid = :'v1'", operation)
        return status if status in FINAL else None

    def cancel(self, operation):
        for api in self.stack.apis:
            try:
                self.chaos.client.at(api).ask("DELETE", "/api/v2/operations/" + operation, timeout=5)
                return
            except OSError:
                pass

    def run(self):
        operation = self.begin()
        repairs = []
        for name in self.names:
            time.sleep(self.rng.choice((0, 0.05, 0.3, 1, 2)) * self.rng.random())
            repair = getattr(self.chaos.faults, name)()
            if repair == "cancel":
                self.cancel(operation)
            elif repair:
                repairs.append(repair)
        for repair in repairs:
            time.sleep(self.rng.random())
            repair()
        status = self.wait_over(operation)
        attempt, failures = self.stack.sql("SELECT attempt, failures FROM operations WHERE uuid = :'v1'", operation)[0]
        print(f"round {self.number}: {' + '.join(self.names)}: {status} after {attempt} attempts, {failures} failures", flush=True)
        Check(self, operation, status).all()
        if self.rng.random() < 0.1:
            self.delete()

    def delete(self):
        collection, self.chaos.collection = self.chaos.collection, None
        operation = self.ask(lambda c: c.ask("DELETE", "/api/v2/collections/" + collection).headers["X-Operation-ID"])
        if self.rng.random() < 0.7:
            time.sleep(self.rng.random() * 0.2)
            self.chaos.faults.kill_child()
        status = self.wait_over(operation)
        assert status == "completed", f"the deletion {status}"
        left = self.stack.sql_value("""SELECT (SELECT count(*) FROM collections WHERE uuid = :'v1') + (SELECT count(*) FROM chunks k
            WHERE NOT EXISTS (SELECT FROM collections c WHERE c.id = k.collection_id))""", collection)
        assert left == "0", f"{left} rows are left of a deleted collection"
        print(f"round {self.number}: the collection was deleted", flush=True)


# ---- what must hold

class Check:
    def __init__(self, this, operation, status):
        self.round, self.stack, self.operation, self.status = this, this.stack, operation, status
        self.collection = this.chaos.collection

    def none(self, what, statement, seconds=0):
        """No row comes back, at the latest after some seconds."""
        rows = []

        def is_gone():
            rows[:] = self.stack.sql(statement, self.collection, self.operation)
            return not rows
        try:
            wait_for(what, is_gone, seconds=max(seconds, 0.01), every=0.5)
        except AssertionError:
            raise AssertionError(f"{what}: {rows[:5]}") from None

    def all(self):
        self.none("an end that was not announced", "SELECT uuid FROM operations WHERE status IN ('completed', 'failed', 'cancelled') AND announced_at IS NULL", 60)
        self.none("an operation that is stuck", "SELECT uuid, status, type FROM operations WHERE status IN ('pending', 'processing')", 60)
        self.none("a collection that is busy with nothing", """SELECT c.uuid, c.status FROM collections c WHERE status = 'processing' AND NOT EXISTS (
            SELECT FROM operations o WHERE o.collection_id = c.id AND o.mutates AND o.status IN ('pending', 'processing'))""")
        self.none("a document left half written", "SELECT uuid FROM documents WHERE status = 'processing'", LEFTOVERS_SECONDS)
        self.none("a session that holds a transaction open", """SELECT pid, application_name, query FROM pg_stat_activity
            WHERE datname = current_database() AND state LIKE 'idle in transaction%'""", 30)
        self.rows()
        self.counters()
        self.tables()
        self.events()
        if self.status == "completed":
            self.contents()

    def rows(self):
        self.none("a visible document with missing or doubled chunks", """
            SELECT d.file_name, d.live_version, d.chunk_count, count(k.id), max(k.ordinal) FROM documents d
            LEFT JOIN chunks k ON k.collection_id = d.collection_id AND k.document_id = d.id AND k.version = d.live_version
            WHERE d.live_version > 0 GROUP BY d.id
            HAVING count(k.id) <> d.chunk_count OR count(DISTINCT k.ordinal) <> d.chunk_count OR max(k.ordinal) <> d.chunk_count - 1""")
        self.none("chunks that nobody sees", """
            SELECT k.document_id, k.version, d.live_version, d.next_version, d.status, count(*) FROM chunks k LEFT JOIN documents d ON d.id = k.document_id
            WHERE d.live_version IS DISTINCT FROM k.version GROUP BY 1, 2, 3, 4, 5""", LEFTOVERS_SECONDS)
        for generation, collection in self.stack.sql("SELECT g.id, g.collection_id FROM generations g"):
            self.none("vectors and chunks that do not belong together", f"""
                SELECT k.id, v.chunk_id, k.document_id, v.document_id FROM (SELECT * FROM chunks WHERE collection_id = {collection}) k
                FULL JOIN vec.g{generation} v ON v.chunk_id = k.id AND v.document_id = k.document_id AND v.version = k.version
                WHERE k.id IS NULL OR v.chunk_id IS NULL""", LEFTOVERS_SECONDS)

    def counters(self):
        self.none("counters of a collection that are not so", """
            SELECT c.uuid, c.document_count, n.documents, c.vector_count, n.vectors, c.total_size_bytes, n.bytes, c.error_count, n.failed
            FROM collections c, LATERAL (SELECT count(*) FILTER (WHERE live_version > 0) AS documents,
                coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0) AS bytes,
                coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0) AS vectors,
                count(*) FILTER (WHERE status = 'failed') AS failed FROM documents d WHERE d.collection_id = c.id) n
            WHERE c.deleted_at IS NULL AND (c.document_count, c.vector_count, c.total_size_bytes, c.error_count)
                IS DISTINCT FROM (n.documents, n.vectors, n.bytes, n.failed)""")

    def tables(self):
        self.none("tables of vectors that belong to nobody", """
            SELECT relname FROM pg_class WHERE relnamespace = 'vec'::regnamespace AND relkind = 'r' AND relname <> 'g0'
                AND NOT EXISTS (SELECT FROM generations g WHERE 'g' || g.id = relname)
            UNION ALL SELECT 'generation ' || g.id FROM generations g WHERE NOT EXISTS (SELECT FROM collections c WHERE c.id = g.collection_id)""")

    def events(self):
        key = f"{self.stack.name}:operation-progress:{self.operation}"
        raw = self.stack.redis_cli("--json", "XRANGE", key, "-", "+") if self.round.chaos.has_json else ""
        types = [json.loads(fields[fields.index("message") + 1])["type"] for _, fields in json.loads(raw or "[]")]
        last = [t for t in types if t in LAST]
        assert last == ["operation_" + self.status] or (self.round.has_lost_events and not types), f"last events {last} of a {self.status} operation"
        assert not last or types[-1] in LAST, f"events after the last one: {types}"

    def contents(self):
        """A completed operation has read everything as it is."""
        known = {name: (digest, live, duplicate, status) for name, digest, live, duplicate, status in self.stack.sql(
            """SELECT d.file_name, d.content_hash, d.live_version, d.duplicate_of, d.status FROM documents d JOIN collections c ON c.id = d.collection_id
               WHERE c.uuid = :'v1'""", self.collection)}
        for name in self.round.chaos.folder.files():
            with open(os.path.join(self.round.chaos.folder.path, name), "rb") as file:
                content = file.read()
            assert name in known, f"{name} was not read"
            digest, live, duplicate, status = known[name]
            if content.startswith(b"\x7fELF"):
                assert status == "failed" and live == "0" or duplicate, f"{name}: {known[name]}"
                continue
            assert digest == hashlib.sha256(content).hexdigest(), f"{name} has other content by now"
            assert duplicate or (int(live) > 0 and status == "completed"), f"{name} is not visible: {known[name]}"


class Chaos:
    def __init__(self, options):
        self.options, self.rng = options, random.Random(options.seed)
        all_names = [name for name in vars(Faults) if not name.startswith("_") and name not in ("worker", "backends", "answers")]
        self.names = options.faults.split(",") if options.faults else all_names
        self.collection = self.folder = None
        self.stack = Stack(apis=2, workers=2, CHILD_SILENCE_SECONDS=30)
        self.has_json = "--json" in subprocess.run(["redis-cli", "--help"], capture_output=True, text=True, check=False).stdout
        self.faults = Faults(self.stack, self.rng)
        self.client = Client.registered(self.stack.apis[0].url)

    def run(self):
        deadline, clean, failed = time.monotonic() + self.options.minutes * 60, 0, []
        for number in range(1, self.options.rounds + 1):
            if time.monotonic() > deadline:
                break
            this = Round(self, number)
            try:
                this.run()
                clean += 1
            except AssertionError as problem:
                failed.append((number, this.names, problem))
                print(f"round {number}: {' + '.join(this.names)}: BROKEN: {problem}", flush=True)
                if not self.options.go_on:
                    break
                self.collection = None
        print(f"seed {self.options.seed}: {clean} rounds clean, {len(failed)} broken", flush=True)
        for number, names, problem in failed:
            print(f"  {number} {names}: {problem}")
        return 1 if failed or clean == 0 else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or secrets.randbits(31)))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 30))
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("MINUTES") or 15))
    parser.add_argument("--faults", default=os.environ.get("FAULTS"))
    parser.add_argument("--go-on", action="store_true", help="after a broken round, with a new collection")
    parser.add_argument("--keep", action="store_true", help="the folder with the logs")
    options = parser.parse_args()
    print(f"seed {options.seed}, at most {options.rounds} rounds and {options.minutes:g} minutes", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("interrupted"))
    chaos = Chaos(options)
    try:
        return chaos.run()
    finally:
        if options.keep:
            subprocess.run(["cp", "-r", chaos.stack.dir, f"/tmp/opstream-chaos-{options.seed}"], check=False)
        chaos.stack.close()


if __name__ == "__main__":
    sys.exit(main())
