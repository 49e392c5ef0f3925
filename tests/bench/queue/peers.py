"""The other queues: how each is installed (into build/bench-peers, by name and version), started, and given work.

A job's record is one line `number enqueued started` (nanoseconds since 1970), appended by the job with one write, so that lost and doubled jobs are counted."""
import hashlib
import os
import shutil
import subprocess
import time
import urllib.parse

from machine import ROOT, Redis, Sql, cpu_seconds, kill_group, memory, percentile, read, start, steady_rate, stop_here, tail, tree, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.join(ROOT, "build", "bench-peers")
REDIS_DATABASE = 7
DATABASE = "bench_river"


class NotHere(Exception):
    """A sentence: what is missing."""


def need(program, what):
    if not shutil.which(program):
        raise NotHere(f"{program} is not installed ({what})")


def step(argv, cwd, env=None):
    done = subprocess.run(argv, cwd=cwd, env=env or os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"`{' '.join(argv)[:120]}` failed: {(done.stderr or done.stdout).strip()[-400:]}")


def install_once(name, files, work):
    """Runs work(folder) again only when one of the files has changed."""
    folder = os.path.join(HOME, name)
    mark = os.path.join(folder, ".installed")
    digest = hashlib.sha256("".join(read(os.path.join(HERE, name, file)) for file in files).encode()).hexdigest()
    if read(mark) != digest:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        work(folder)
        with open(mark, "w", encoding="utf-8") as file:
            file.write(digest)
    return folder


class Peer:
    """One queue with one configuration. A throughput run has `least` to `most` jobs: so many that what interprets or compiles code has warmed up."""
    least, most = 5000, 100000

    def __init__(self, name, variant, slots, version=""):
        self.name, self.variant, self.slots, self.version = name, variant, slots, version
        self.key = f"{name}, {variant}, {slots} slot{'s' if slots > 1 else ''}"
        self.folder = os.path.join(HOME, name)
        self.source = os.path.join(HERE, name)

    def install(self):
        raise NotImplementedError

    def worker(self):
        raise NotImplementedError

    def producer(self):
        raise NotImplementedError

    # --- one run ---

    def prepare(self, bench):
        self.record = os.path.join(bench.run, "bench-record")
        self.log = os.path.join(bench.run, f"bench-{self.name}.log")
        with open(self.record, "w", encoding="utf-8"):
            pass
        address = urllib.parse.urlparse(bench.redis_url)
        Redis(bench.redis_url, REDIS_DATABASE).call("FLUSHDB")
        self.env = {**os.environ, "BENCH_REDIS_PORT": str(address.port), "BENCH_REDIS_PASSWORD": address.password or "", "BENCH_REDIS_DB": str(REDIS_DATABASE),
                    "BENCH_DATABASE": urllib.parse.urlparse(bench.database_url)._replace(path="/" + DATABASE).geturl(),
                    "BENCH_RECORD": self.record, "BENCH_SLOTS": str(self.slots), "BENCH_VARIANT": self.variant}
        for name in ("DATABASE_URL", "REDIS_URL"):
            self.env.pop(name, None)

    def produce(self, count, rate=0):
        with open(self.log, "ab") as log:
            done = subprocess.run([*self.producer(), str(count), str(rate)], env=self.env, cwd=self.folder, stdout=log, stderr=log, check=False)
        if done.returncode:
            stop_here(f"{self.name} cannot enqueue; the end of its log:\n{tail(self.log)}")

    def begin(self):
        return start(self.worker(), self.env, self.log, cwd=self.folder)

    def lines(self):
        rows = [line.split() for line in read(self.record).splitlines()]
        return [(int(number), int(enqueued), int(started)) for number, enqueued, started in (row for row in rows if len(row) == 3)]

    def wait_for(self, count, seconds, on_first=lambda done: None):
        """All jobs, or as many as there are once nothing has come for a while. on_first is told how many are done when that is first seen."""
        have, changed = 0, time.monotonic()
        limit = changed + seconds
        while time.monotonic() < limit:
            now = read(self.record).count("\n")
            if now and not have:
                on_first(now)
            if now >= count:
                return
            if now != have:
                have, changed = now, time.monotonic()
            elif time.monotonic() - changed > 30:
                return
            time.sleep(0.1)

    def throughput(self, bench, count):
        self.prepare(bench)
        self.produce(count)
        servers = bench.servers_cpu()
        worker = self.begin()
        started_up = []  # the CPU time of starting, and the jobs that were done by then

        def on_first(done):
            started_up.append((cpu_seconds(tree(worker.pid)), done))
        try:
            self.wait_for(count, bench.patience, on_first)
            time.sleep(0.2)
            pids = tree(worker.pid)
            cpu, busy = cpu_seconds(pids), memory(pids)
            servers = [after - before for after, before in zip(bench.servers_cpu(), servers)]
        finally:
            kill_group(worker)
        lines = self.lines()
        starts = [started / 1e9 for _, _, started in lines]
        if not starts:
            stop_here(f"{self.name} ran no job; the end of its log:\n{tail(self.log)}")
        numbers = {number for number, _, _ in lines}
        before, done = started_up[0] if started_up and started_up[0][1] < len(lines) else (0, 0)
        return {"rate": steady_rate(starts, starts), "count": count, "cpu_us": (cpu - before) * 1e6 / (len(lines) - done), "postgres_us": servers[0] * 1e6 / len(lines),
                "redis_us": servers[1] * 1e6 / len(lines), "busy": busy, "lost": count - len(numbers), "doubled": len(lines) - len(numbers)}

    def warm(self):
        self.produce(1)
        if not wait_until(lambda: read(self.record).count("\n") >= 1, 60):
            stop_here(f"{self.name} ran no job; the end of its log:\n{tail(self.log)}")
        time.sleep(1)

    def latency(self, bench, count, rate):
        self.prepare(bench)
        worker = self.begin()
        try:
            self.warm()
            idle = memory(tree(worker.pid))
            with open(self.record, "w", encoding="utf-8"):
                pass
            self.produce(count, rate)
            self.wait_for(count, 20)
        finally:
            kill_group(worker)
        lines = self.lines()
        waits = [(started - enqueued) / 1e6 for _, enqueued, started in lines]
        return {"p50": percentile(waits, 50), "p99": percentile(waits, 99), "idle": idle, "lost": count - len({line[0] for line in lines}),
                "doubled": len(lines) - len({line[0] for line in lines})}


class Floor(Peer):
    def install(self):
        need("cc", "a C compiler")
        install_once("floor", ["floor.c"], lambda folder: step(["cc", "-std=gnu17", "-O2", os.path.join(self.source, "floor.c"), "-o", os.path.join(folder, "floor")], folder))

    def worker(self):
        return ["./floor", "work"]

    def producer(self):
        return ["./floor", "produce"]


class BullMq(Peer):
    def install(self):
        need("node", "Node.js")
        need("npm", "Node.js's package manager")

        def work(folder):
            for name in ("package.json", "package-lock.json"):
                shutil.copy(os.path.join(self.source, name), folder)
            step(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
        install_once("bullmq", ["package.json", "package-lock.json"], work)

    def worker(self):
        return ["node", os.path.join(self.source, "job.js"), "work"]

    def producer(self):
        return ["node", os.path.join(self.source, "job.js"), "produce"]


class Sidekiq(Peer):
    def install(self):
        need("ruby", "Debian's package ruby")
        need("sidekiq", "Debian's package ruby-sidekiq")
        os.makedirs(self.folder, exist_ok=True)
        told = subprocess.run(["sidekiq", "--version"], capture_output=True, text=True, check=False).stdout.split()
        self.version = told[-1] if told else ""

    def worker(self):
        return ["sidekiq", "-q", "default", "-c", str(self.slots), "-e", "production", "-r", os.path.join(self.source, "job.rb")]

    def producer(self):
        return ["ruby", os.path.join(self.source, "job.rb"), "produce"]


class GoPeer(Peer):
    def install(self):
        need("go", "Go 1.26")

        def work(folder):
            for name in ("go.mod", "go.sum", "main.go"):
                shutil.copy(os.path.join(self.source, name), folder)
            step(["go", "build", "-mod=readonly", "-o", self.name, "."], folder, {**os.environ, "GOFLAGS": "-buildvcs=false"})
        install_once(self.name, ["go.mod", "go.sum", "main.go"], work)

    def worker(self):
        return ["./" + self.name, "work"]

    def producer(self):
        return ["./" + self.name, "produce"]


class River(GoPeer):
    least = 3000

    def prepare(self, bench):
        super().prepare(bench)
        sql = Sql(bench.database_url)
        sql(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        sql(f"CREATE DATABASE {DATABASE}")
        step(["./river", "migrate"], self.folder, self.env)
        sql("CHECKPOINT")


class Celery(Peer):
    least = 1000

    def install(self):
        def work(folder):
            python = os.path.join(folder, "venv", "bin", "python")
            step(["/usr/bin/python3", "-m", "venv", "venv"], folder)
            step([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes",
                  "-r", os.path.join(self.source, "requirements.txt")], folder)
        install_once("celery", ["requirements.txt"], work)

    def prepare(self, bench):
        super().prepare(bench)
        self.env["PYTHONPATH"] = self.source
        self.env["PYTHONDONTWRITEBYTECODE"] = "1"

    def worker(self):
        return ["venv/bin/celery", "-A", "job", "worker", "-c", str(self.slots), "-l", "WARNING"]

    def producer(self):
        return ["venv/bin/python", os.path.join(self.source, "job.py"), "produce"]


def all_peers():
    return [Floor("floor", "plain", 1), Floor("floor", "one write", 1),
            BullMq("bullmq", "default", 1, "6.7.0"), BullMq("bullmq", "default", 50, "6.7.0"), Sidekiq("sidekiq", "default", 1),
            GoPeer("asynq", "default", 1, "0.26.0"), GoPeer("asynq", "shortest poll", 1, "0.26.0"), GoPeer("asynq", "shortest poll", 10, "0.26.0"),
            River("river", "default", 100, "0.51.1"), Celery("celery", "acknowledged late", 1, "5.7.0")]


def installed(wanted):
    """Those of the wanted names that can run here; a plain sentence for each that cannot."""
    here, refused = [], {}
    names = {peer.name: None for peer in all_peers()}
    unknown = [name for name in wanted if name not in names and wanted != ["all"]]
    if unknown:
        stop_here(f"BENCH_PEERS names {', '.join(unknown)}; there are {', '.join(names)}, all and none")
    for peer in all_peers():
        if (wanted != ["all"] and peer.name not in wanted) or peer.name in refused:
            continue
        try:
            peer.install()
            here.append(peer)
        except NotHere as problem:
            refused[peer.name] = str(problem)
            print(f"  {peer.name} is left out: {problem}.", flush=True)
    return here, refused
