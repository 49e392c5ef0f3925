"""The stack under attack: two API instances and two workers, the second of each behind gates of its own that can swallow everything; a keeper that starts again
what died, as a container runtime does; and what /proc tells of their processes."""
import os
import signal
import threading
import time

from support.stack import Gate, Stack, wait_for

SETTINGS = {
    "WORKER_LEASE_SECONDS": 2, "RECONCILE_SECONDS": 1, "CHILD_SILENCE_SECONDS": 10, "DEFAULT_MAX_RETRIES": 8, "DEFAULT_RETRY_DELAY": 1, "DRAIN_SECONDS": 2,
    "VECTOR_UPLOAD_BATCH_SIZE": 40, "EMBEDDING_BATCH_SIZE": 40, "DOCUMENT_REMOVAL_BATCH_SIZE": 5, "EXACT_SCAN_ROWS": 60, "WORKER_CONCURRENCY": 2,
    "WORKER_MAX_TASKS_PER_CHILD": 30, "CLEANUP_DELAY_PER_10K_VECTORS": 5,
}


class ProcessTable:
    """One look at /proc: pid → (session, parent, state, words of its command line)."""

    def __init__(self):
        self.rows = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            self.rows[int(name)] = (int(fields[3]), int(fields[1]), fields[0], words)

    def of(self, session, flag=None):
        return [pid for pid, (sid, _, state, words) in self.rows.items() if sid == session and state != "Z" and (flag is None or flag in words)]


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def is_ours(pid):
    """Process ids are used again: one of a dead worker may be another program's by now."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("opstream-")
    except OSError:
        return False


class World:
    def __init__(self, servers, fault_dir=None):
        self.servers, self.sessions, self.lock = servers, set(), threading.Lock()
        settings = dict(SETTINGS)
        if fault_dir:
            settings["FAULT_DIR"] = fault_dir
        self.stack = Stack(apis=1, workers=1, **settings)
        self.far_postgres = Gate("127.0.0.1", servers.pg_port)
        self.far_redis = Gate("127.0.0.1", servers.redis_port)
        far = {"DATABASE_URL": self.stack.env["DATABASE_URL"].replace(f":{self.stack.postgres.port}/", f":{self.far_postgres.port}/"),
               "REDIS_URL": f"redis://127.0.0.1:{self.far_redis.port}"}
        # The others speak to the servers without a go-between.
        near = {"DATABASE_URL": self.stack.direct_url, "REDIS_URL": os.environ["REDIS_URL"]}
        for process in self.stack.processes:
            process.env.update(near)
        self.apis = [self.stack.apis[0], self.stack.add("api", **far)]
        self.workers = [self.stack.workers[0], self.stack.add("worker", **far)]
        self.processes = self.apis + self.workers
        self.far_processes = [self.apis[1], self.workers[1]]
        for process in self.processes[:1] + self.workers[:1]:
            process.restart()
        self.sessions.update(p.pid for p in self.processes)
        self.is_keeping, self.paused = True, set()
        self.keeper = threading.Thread(target=self._keep, daemon=True)
        self.keeper.start()

    # ---- the keeper

    def _keep(self):
        while self.is_keeping:
            with self.lock:
                for process in self.processes:
                    if process.child.poll() is not None and process not in self.paused:
                        process.launch()
                        self.sessions.add(process.pid)
            time.sleep(0.05)

    def is_ready(self, process):
        return process.child.poll() is None and process.readiness()[0] == 200

    def wait_ready(self, seconds=90):
        for process in self.processes:
            wait_for(f"{process.name} to be ready again", lambda p=process: self.is_ready(p), seconds=seconds, every=0.1)

    def close(self):
        self.is_keeping = False
        self.keeper.join(10)
        self.far_postgres.release()
        self.far_redis.release()
        self.far_postgres.shut()
        self.far_redis.shut()
        self.stack.close()

    # ---- processes

    def helpers(self, worker, flag):
        return ProcessTable().of(worker.pid, flag)

    def leftovers(self):
        """Processes whose API instance or worker is dead."""
        table, living = ProcessTable(), {p.pid for p in self.processes if p.child.poll() is None}
        return [(pid, b" ".join(table.rows[pid][3])[:80]) for session in self.sessions - living for pid in table.of(session) if is_ours(pid)]

    def wake_all(self):
        """Continues whatever of ours was stopped."""
        table = ProcessTable()
        send([pid for session in self.sessions for pid in table.of(session) if table.rows[pid][2] in "Tt" and is_ours(pid)], signal.SIGCONT)

    def stopped(self):
        table = ProcessTable()
        return [pid for session in self.sessions for pid in table.of(session) if table.rows[pid][2] in "Tt" and is_ours(pid)]

    # ---- stores

    def sql(self, statement, *values, seconds=60):
        """Against the server itself; waits for it to be back."""
        last = []

        def attempt():
            try:
                return (self.stack.sql(statement, *values),)
            except AssertionError as problem:
                last[:] = [problem]
                text = str(problem)
                if "ERROR:" in text and "terminat" not in text and "recovery" not in text:
                    raise
                return None
        try:
            return wait_for("PostgreSQL", attempt, seconds=seconds, every=0.1)[0]
        except AssertionError:
            raise last[0] from None

    def hurry(self):
        """Nobody waits for a retry that is put off by minutes: it is due now."""
        self.sql("UPDATE operations SET not_before = now() WHERE status = 'pending' AND not_before > now() + interval '2 seconds'")

    def value(self, statement, *values):
        rows = self.sql(statement, *values)
        return rows[0][0] if rows else None
