"""Opstream's worker in the queue benchmark: operations of type noop, every state of them a row.

The rows are committed and their UUIDs pushed as the API does it. The embedder, which the worker starts and no noop uses, is left out of memory and CPU time."""
import os
import signal
import time
import urllib.request

from machine import ROOT, Memory, Redis, cpu_seconds, free_port, memory, percentile, read, start, steady_rate, stop_here, tail, tree, wait_until

WORKER = os.path.join(ROOT, "build", "bin", "opstream-worker")
ROWS_A_STATEMENT = 20000
PUSH_AT_A_TIME = 1000
SELDOM = "600"


def words_of(pid):
    return read(f"/proc/{pid}/cmdline").split("\0")


class Opstream:
    name, least, most = "opstream", 400, 100000

    def __init__(self, slots):
        self.slots = slots
        self.key = f"opstream, {slots} slot{'s' if slots > 1 else ''}"

    # --- rows and pushes ---

    @staticmethod
    def empty(bench):
        """Nothing of an earlier run: no rows, no jobs, no streams. No worker may be up."""
        bench.sql("TRUNCATE operations CASCADE")
        bench.sql("DELETE FROM workers")
        bench.queue.call("FLUSHALL")
        bench.sql("CHECKPOINT")

    @staticmethod
    def accept(bench, count, config='{"events": 0}'):
        """Committed as accepted; their UUIDs."""
        uuids = []
        for first in range(0, count, ROWS_A_STATEMENT):
            uuids += bench.sql(f"INSERT INTO operations (user_id, type, mutates, queue, config) SELECT {bench.user}, 'noop', false, 'default', '{config}'"
                               f" FROM generate_series(1, {min(ROWS_A_STATEMENT, count - first)}) RETURNING uuid").split()
        return uuids

    @staticmethod
    def push(bench, uuids):
        key = os.environ.get("REDIS_PREFIX", "") + "queue:default"
        for first in range(0, len(uuids), PUSH_AT_A_TIME):
            bench.queue.call("LPUSH", key, *uuids[first:first + PUSH_AT_A_TIME])

    # --- processes ---

    def begin(self, bench, **settings):
        """A worker that says it is ready."""
        port = free_port()
        log = os.path.join(bench.run, "bench-opstream-worker.log")
        env = {**os.environ, "WORKER_CONCURRENCY": str(self.slots), "WORKER_PORT": str(port), "TEST_OPERATIONS": "true", "LOG_LEVEL": "warning", **settings}
        env.pop("WORKER_METRICS_PORT", None)
        worker = start([WORKER], env, log, cwd=ROOT)

        def is_ready():
            if worker.poll() is not None:
                stop_here(f"the worker ended; the end of its log:\n{tail(log)}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                    return answer.status == 200
            except OSError:
                return False
        if not wait_until(is_ready, 90, 0.05):
            stop_here(f"the worker did not become ready; the end of its log:\n{tail(log)}")
        return worker

    @staticmethod
    def processes(worker):
        """All but the embedder and what that has started."""
        pids = tree(worker.pid)
        without = {below for pid in pids if "--embedder" in words_of(pid) for below in tree(pid)}
        return [pid for pid in pids if pid not in without]

    @staticmethod
    def kill(worker):
        """Everything at once, as when a container is killed: children have process groups of their own."""
        for pid in tree(worker.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        worker.wait()

    # --- what is measured ---

    @staticmethod
    def wait_for_end(bench, seconds):
        """Asked seldom, and PostgreSQL only once the queue is empty, so that waiting costs the servers little."""
        queue = os.environ.get("REDIS_PREFIX", "") + "queue:default"

        def is_over():
            return not bench.queue.call("LLEN", queue) and bench.sql("SELECT count(*) FROM operations WHERE status IN ('pending', 'processing')") == "0"
        return wait_until(is_over, seconds, 0.25)

    @staticmethod
    def rows(bench):
        """What became of the operations: (start, end, attempt) of those that completed, and how many did not."""
        rows = [line.split("|") for line in bench.sql("SELECT extract(epoch FROM started_at), extract(epoch FROM completed_at), attempt, status FROM operations").split()]
        done = [(float(begun), float(ended), int(attempt)) for begun, ended, attempt, status in rows if status == "completed"]
        return done, len(rows) - len(done)

    def throughput(self, bench, count):
        self.empty(bench)
        uuids = self.accept(bench, count)
        bench.sql("ANALYZE operations")
        bench.sql("CHECKPOINT")
        worker = self.begin(bench)
        try:
            servers, before = bench.servers_cpu(), cpu_seconds(self.processes(worker))
            self.push(bench, uuids)
            self.wait_for_end(bench, bench.patience)
            pids = self.processes(worker)
            cpu, busy = cpu_seconds(pids) - before, memory(pids)
            servers = [after - before for after, before in zip(bench.servers_cpu(), servers)]
        finally:
            self.kill(worker)
        done, lost = self.rows(bench)
        if not done:
            stop_here("the worker completed no operation; its log is bench-opstream-worker.log in " + bench.run)
        return {"rate": steady_rate([row[0] for row in done], [row[1] for row in done]), "count": count, "cpu_us": cpu * 1e6 / len(done),
                "postgres_us": servers[0] * 1e6 / len(done), "redis_us": servers[1] * 1e6 / len(done), "busy": busy, "lost": lost,
                "doubled": sum(attempt > 1 for _, _, attempt in done)}

    def latency(self, bench, count, rate):
        """From just before the push of an operation that was committed before, to `started_at` and to `completed_at` of its row."""
        self.empty(bench)
        # The reconciler would push rows that wait for their turn here.
        worker = self.begin(bench, RECONCILE_SECONDS=SELDOM)
        try:
            self.push(bench, self.accept(bench, 1))
            self.wait_for_end(bench, 30)
            time.sleep(1)
            idle = memory(self.processes(worker))
            uuids = self.accept(bench, count)
            key = os.environ.get("REDIS_PREFIX", "") + "queue:default"
            pushed, begun = {}, time.monotonic()
            for i, uuid in enumerate(uuids):
                time.sleep(max(0, begun + i / rate - time.monotonic()))
                pushed[uuid] = time.time()
                bench.queue.call("LPUSH", key, uuid)
            self.wait_for_end(bench, 20)
        finally:
            self.kill(worker)
        rows = [line.split("|") for line in bench.sql("SELECT uuid, extract(epoch FROM started_at), extract(epoch FROM completed_at), attempt FROM operations"
                                                      " WHERE status = 'completed'").split()]
        rows = [row for row in rows if row[0] in pushed]
        starts = [(float(begun) - pushed[uuid]) * 1000 for uuid, begun, _, _ in rows]
        ends = [(float(ended) - pushed[uuid]) * 1000 for uuid, _, ended, _ in rows]
        return {"p50": percentile(starts, 50), "p99": percentile(starts, 99), "done_p50": percentile(ends, 50), "done_p99": percentile(ends, 99), "idle": idle,
                "lost": count - len(rows), "doubled": sum(int(row[3]) > 1 for row in rows)}

    def idle_memory(self, bench):
        """By process: (role, RSS, PSS, private, threads), in MB; and Memory of all but the embedder."""
        self.empty(bench)
        worker = self.begin(bench)
        try:
            time.sleep(3)
            return [(self.role(pid), *self.sizes(pid)) for pid in tree(worker.pid)], memory(self.processes(worker))
        finally:
            self.kill(worker)

    @staticmethod
    def role(pid):
        words = words_of(pid)
        return words[1].lstrip("-") if len(words) > 1 and words[1].startswith("--") else "supervisor"

    @staticmethod
    def sizes(pid):
        private = sum(int(line.split()[1]) for line in read(f"/proc/{pid}/smaps_rollup").splitlines() if line.startswith(("Private_Clean:", "Private_Dirty:")))
        threads = next((int(line.split()[1]) for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("Threads:")), 0)
        held: Memory = memory([pid])
        return held.rss_mb, held.pss_mb, private / 1024, threads
