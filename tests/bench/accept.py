"""How many operations a second are accepted, and what PostgreSQL alone makes of it on the same machine, in turn with it.

Four things are run with 1, 8 and 32 clients, each a fixed number of times, fsync on, each transaction durable when it is answered:
  bare       pgbench: a row into a table with a primary key and nothing else
  operation  pgbench: a row into the real `operations`, with all its indexes and foreign keys
  statement  pgbench: the statement by which one source is accepted (sql/queries/source_add.sql)
  api        POST ../sources over HTTP: all of that, and the push, the user's token, JSON
CPU time is that of the processes themselves, in microseconds an operation."""
import os
import re
import resource
import statistics
import subprocess

KINDS = ("bare", "operation", "statement", "api")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
COUNTS = {1: 1000, 8: 8000, 32: 16000}
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
UUID = "00000000-0000-4000-8000-"


def stat(pid):
    """(parent, own CPU µs, that of its ended children)"""
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rsplit(")", 1)[1].split()
    own, ended = (int(words[11]) + int(words[12])) * TICK_US, (int(words[13]) + int(words[14])) * TICK_US
    return int(words[1]), own, ended


def tree_us(root):
    """CPU µs of a process and of all that it started, those that ended included."""
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            parent, own, ended = stat(name)
        except (OSError, IndexError):
            continue
        if int(name) == root or parent == root:
            total += own + ended
    return total


def pid_in(path):
    with open(path) as file:
        return int(file.read().split()[0])


class Bench:
    def __init__(self, run, root, url, token, folder, user_id, sql):
        self.run, self.url, self.token, self.folder, self.user_id, self.sql = run, url, token, folder, user_id, sql
        self.pids = {"API": pid_in(f"{run}/api.pid"), "PostgreSQL": pid_in(f"{run}/postgres.pid"), "Redis": pid_in(f"{run}/redis.pid")}
        sql("CREATE TABLE IF NOT EXISTS bench_row (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uuid uuid NOT NULL, body text,"
            " created_at timestamptz DEFAULT now())")
        with open(f"{root}/sql/queries/source_add.sql") as file:
            self.statement = re.sub(r"^--.*\n", "", file.read(), flags=re.M)

    def prepare(self, count):
        """A fresh collection for each operation; before it everything of the last run goes."""
        self.sql(f"TRUNCATE collections, bench_row RESTART IDENTITY CASCADE;"
                 f" INSERT INTO collections (uuid, name, owner_id, embedding_model, status)"
                 f" SELECT ('{UUID}' || lpad(i::text, 12, '0'))::uuid, 'accept ' || i, {self.user_id}, 'all-MiniLM-L6-v2', 'ready'"
                 f" FROM generate_series(1, {count}) i ORDER BY i; VACUUM ANALYZE collections; VACUUM ANALYZE operations; VACUUM ANALYZE sources; CHECKPOINT")

    def script(self, kind):
        config = f'{{"path":"{self.folder}"}}'
        if kind == "bare":
            return "INSERT INTO bench_row (uuid, body) VALUES (gen_random_uuid(), 'a row of about the size of an operation, a hundred bytes or so of text in it');\n"
        if kind == "operation":
            whole = f'{{"source_id":1,"source_type":"directory","source_config":{config},"source_path":"{self.folder}","additional_config":{{}}}}'
            return ("\\set i :i + 1\n\\set n :i * :clients + :client_id + 1\n"
                    "INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, max_attempts)"
                    f" VALUES (:n, ('{UUID}' || lpad((:n)::text, 12, '0'))::uuid, {self.user_id}, 'append', true, 'default', '{whole}', 4);\n")
        values = [f"('{UUID}' || lpad((:n)::text, 12, '0'))", f"'{self.user_id}'", "'directory'", f"'{self.folder}'", f"'{config}'", "NULL", "'4'", "'default'", "'false'"]
        text = re.sub(r"\$(\d)", lambda m: values[int(m.group(1)) - 1], self.statement)
        return "\\set i :i + 1\n\\set n :i * :clients + :client_id + 1\n" + " ".join(text.split()) + ";\n"

    def pgbench(self, kind, clients, count):
        path = f"{self.run}/accept-{kind}.sql"
        with open(path, "w") as file:
            file.write(self.script(kind))
        out = subprocess.run([os.environ["PGBENCH"], "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-t", str(count // clients),
                              "-D", "i=-1", "-D", f"clients={clients}", "-f", path, os.environ["DATABASE_URL"]], capture_output=True, text=True, check=False)
        if out.returncode:
            raise SystemExit("bench: pgbench: " + out.stderr[-2000:])
        return float(next(line.split("=")[1].split()[0] for line in out.stdout.splitlines() if line.startswith("tps"))), None

    def api(self, clients, count):
        uuids = "".join(f"{UUID}{i:012d}\n" for i in range(1, count + 1))
        out = subprocess.run([os.environ["BENCH_ACCEPT"], self.url.rsplit(":", 1)[1], self.token, self.folder, str(clients), "600"],
                             input=uuids, capture_output=True, text=True, check=False)
        if out.returncode:
            raise SystemExit("bench: " + out.stderr)
        accepted, took, refused, median, slow = out.stdout.split()
        if int(refused):
            raise SystemExit(f"bench: {refused} requests were refused: {out.stderr}")
        return int(accepted) / float(took), (int(median) / 1000, int(slow) / 1000)

    def once(self, kind, clients):
        count = COUNTS[clients] // clients * clients
        self.prepare(count)
        before = {name: tree_us(pid) for name, pid in self.pids.items()}
        client = resource.getrusage(resource.RUSAGE_CHILDREN)
        rate, latency = self.api(clients, count) if kind == "api" else self.pgbench(kind, clients, count)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = {name: (tree_us(pid) - before[name]) / count for name, pid in self.pids.items()}
        cpu["client"] = (after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime) * 1_000_000 / count
        table = "bench_row" if kind == "bare" else "operations"
        there = int(self.sql(f"SELECT count(*) FROM {table}"))
        if there != count:
            raise SystemExit(f"bench: {kind}: {there} rows, {count} were to be accepted")
        return rate, latency, cpu


def run(bench, row, flush):
    """`row(what, figure, note)` prints; `flush()` empties the queue that the API filled. Medians of the rounds."""
    for clients in COUNTS:
        got = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                got[kind].append(bench.once(kind, clients))
            flush()
        rates = {kind: statistics.median(r[0] for r in got[kind]) for kind in KINDS}
        for kind in KINDS:
            cpu = {name: statistics.median(r[2][name] for r in got[kind]) for name in ("API", "PostgreSQL", "Redis", "client")}
            used = ", ".join(f"{name} {us:.0f}" for name, us in cpu.items() if kind == "api" or name in ("PostgreSQL", "client"))
            note = f"CPU µs each: {used}"
            if kind == "api":
                p50, p99 = (statistics.median(r[1][i] for r in got[kind]) for i in (0, 1))
                ratios = ", ".join(f"{rates['api'] / rates[other]:.2f} of {other}" for other in KINDS[:3])
                note = f"{ratios}; p50 {p50:.1f} ms, p99 {p99:.1f} ms; {note}"
            row(f"accept, {clients} clients: {kind}", f"{rates[kind]:.0f} /s", note)
    bench.sql("TRUNCATE collections, bench_row CASCADE")
