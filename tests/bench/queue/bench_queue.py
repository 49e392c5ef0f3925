"""The queue beside its peers, against the servers of the instance that scripts/bench.sh started. docs/benchmarks.md says what is measured.

BENCH_PEERS: names separated by commas, `all`, or `none`. BENCH_QUEUE_PARTS: some of throughput latency memory recovery. BENCH_ROUNDS (3).
BENCH_SLOTS: slots of Opstream's worker, separated by commas; unset = 1 and what is fastest of 2, 4 and 8 in a first trial."""
import datetime
import json
import os
import platform
import signal
import statistics
import sys
import time

import peers
import recovery
from machine import ROOT, Redis, Sql, cpu_seconds, shown, spread, stop_here, tree
from ours import Opstream

PARTS = os.environ.get("BENCH_QUEUE_PARTS", "throughput latency memory recovery").split()
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
PEERS = [name for name in os.environ.get("BENCH_PEERS", "none").split(",") if name]
SECONDS_A_RUN = 3
TRIAL = 400
LATENCY = (400, 100)
IDLE = (20, 4)
SERVER_SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_compression", "shared_buffers", "commit_delay")


class Bench:
    """The servers, and who asks them."""
    patience = 120

    def __init__(self):
        self.run = os.environ["BENCH_RUN"]
        self.database_url, self.redis_url = os.environ["DATABASE_URL"], os.environ["REDIS_URL"]
        self.postgres_pid, self.redis_pid = int(os.environ["POSTGRES_PID"]), int(os.environ["REDIS_PID"])
        self.sql = Sql(self.database_url)
        self.queue = Redis(self.redis_url, os.environ.get("REDIS_QUEUE_DB", "1"))
        self.user = self.sql("INSERT INTO users (username, email, password_hash) VALUES ('bench-queue', 'bench-queue@example.org', '!')"
                             " ON CONFLICT (lower(username)) DO UPDATE SET full_name = NULL RETURNING id")

    def servers_cpu(self):
        return cpu_seconds(tree(self.postgres_pid)), cpu_seconds([self.redis_pid])

    def server_settings(self):
        settings = {name: self.sql(f"SHOW {name}") for name in SERVER_SETTINGS}
        settings["redis"] = next(line.partition(":")[2] for line in self.queue.call("INFO", "server").splitlines() if line.startswith("redis_version"))
        for name in ("appendonly", "appendfsync"):
            settings["redis_" + name] = self.queue.call("CONFIG", "GET", name)[1]
        return settings


class Results:
    """All runs of each contender, by what was run."""

    def __init__(self):
        self.runs = {}

    def add(self, who, what, run):
        self.runs.setdefault(who.key, {}).setdefault(what, []).append(run)

    def of(self, who, what, *path):
        values = []
        for run in self.runs.get(who.key, {}).get(what, []):
            for name in path:
                run = getattr(run, name) if hasattr(run, "_fields") else run.get(name)
            values.append(run)
        return spread(values)

    def ratio(self, own, who):
        """How many times as fast as `who` is `own`, each compared within one turn only: the machine's other work comes and goes."""
        def rates(contender):
            by_turn = {}
            for run in self.runs.get(contender.key, {}).get("throughput", []):
                by_turn.setdefault(run["turn"], []).append(run["rate"])
            return {turn: statistics.median(values) for turn, values in by_turn.items()}
        ours, theirs = rates(own), rates(who)
        return spread([ours[turn] / theirs[turn] for turn in ours if turn in theirs])

    def total(self, who, name):
        return sum(run.get(name, 0) for runs in self.runs.get(who.key, {}).values() for run in runs)


def in_turn(others, own):
    """One of ours between any two of the others, so that each is measured in the same weather: A, ours, B, ours, …"""
    if not others:
        return list(own)
    order = []
    for i, other in enumerate(others):
        order += [other, own[i % len(own)]]
    return order


def job_count(bench, who):
    """As many as take some seconds; a first run of a few tells the speed, and that it works at all."""
    count = TRIAL
    for _ in range(2):
        run = who.throughput(bench, count)
        count = int(min(who.most, max(TRIAL, run["rate"] * SECONDS_A_RUN)))
        if count < 4 * TRIAL:
            break
    count = max(count, who.least)
    return count - count % 100


def best_slots(bench):
    asked = [int(slots) for slots in os.environ.get("BENCH_SLOTS", "").split(",") if slots]
    if asked:
        return [Opstream(slots) for slots in asked]
    rates = {}
    for slots in (2, 4, 8):
        who = Opstream(slots)
        rates[slots] = statistics.median(who.throughput(bench, max(TRIAL, job_count(bench, who) // 2))["rate"] for _ in range(2))
        print(f"  {who.key} in a trial: {rates[slots]:,.0f} /s", flush=True)
    return [Opstream(1), Opstream(max(rates, key=rates.get))]


def measure_throughput(bench, order, results):
    counts = {}
    for who in order:
        if who.key not in counts:
            counts[who.key] = job_count(bench, who)
    for turn in range(ROUNDS):
        for who in order:
            run = {"turn": turn, "load": os.getloadavg()[0], **who.throughput(bench, counts[who.key])}
            results.add(who, "throughput", run)
            print(f"  {turn + 1}/{ROUNDS}  {who.key:<38} {run['rate']:>9,.0f} /s  {run['cpu_us']:>7.0f} µs", flush=True)


def measure_latency(bench, order, results):
    once = list({who.key: who for who in order}.values())
    for turn in range(ROUNDS):
        for what, (count, rate), who_all in (("busy", LATENCY, order if turn == 0 else once), ("idle", IDLE, once)):
            for who in who_all:
                run = {"turn": turn, "load": os.getloadavg()[0], **who.latency(bench, count, rate)}
                results.add(who, what, run)
                print(f"  {turn + 1}/{ROUNDS}  {who.key:<38} at {rate:>3} /s: p50 {run['p50']:>8.2f} ms, p99 {run['p99']:>8.2f} ms", flush=True)


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
    print(flush=True)


def show(who_all, own, results):
    if "throughput" in PARTS:
        print("\nThroughput, median (least–most) of the runs; CPU time in µs an operation; `once`: pages that its processes share counted once")
        print(f"  ours = {own.key}; `ours / it`: rates of the same turn\n")
        table([("", "a second", "ours / it", "worker", "PostgreSQL", "Redis", "busy RSS MB", "once MB", "lost", "doubled")] + [
            (who.key, shown(results.of(who, "throughput", "rate")), shown(results.ratio(own, who), 2), *(shown(results.of(who, "throughput", name)) for name in ("cpu_us", "postgres_us", "redis_us")),
             shown(results.of(who, "throughput", "busy", "rss_mb"), 1), shown(results.of(who, "throughput", "busy", "once_mb"), 1),
             str(results.total(who, "lost")), str(results.total(who, "doubled"))) for who in who_all])
    if "latency" in PARTS:
        print("From enqueued to started, ms; memory before the first job, MB\n")
        table([("", "p50 at 100/s", "p99 at 100/s", "p50 at 4/s", "p99 at 4/s", "idle RSS", "once")] + [
            (who.key, *(shown(results.of(who, what, name), 2) for what in ("busy", "idle") for name in ("p50", "p99")),
             *(shown(results.of(who, "busy", "idle", name), 1) for name in ("rss_mb", "once_mb"))) for who in who_all])
        for who in who_all:
            if results.of(who, "busy", "done_p50"):
                print(f"  {who.key}: from the push to completed at 100/s: p50 {shown(results.of(who, 'busy', 'done_p50'), 2)}, p99 {shown(results.of(who, 'busy', 'done_p99'), 2)} ms")


def measure_memory(bench):
    print("\nThe worker when idle, 1 slot, MB\n")
    rows, together = Opstream(1).idle_memory(bench)
    table([("", "RSS", "PSS", "private", "threads")] + [(role, *(f"{size:.1f}" for size in sizes[:3]), str(sizes[3])) for role, *sizes in rows])
    print(f"  without the embedder: PSS {together.pss_mb:.1f} MB, with shared pages counted once {together.once_mb:.1f} MB; the supervisor alone: PSS {rows[0][2]:.1f} MB,"
          f" RSS {rows[0][1]:.1f} MB")
    return {"processes": rows, "without_embedder": together._asdict()}


def measure_recovery(bench):
    print(f"\nSeconds from SIGKILL to the operation's next start, {recovery.RUNS} runs each\n")
    own, found = Opstream(1), {}
    for lease in (5, 2):
        found[f"worker, lease {lease} s"] = recovery.after_group_kill(bench, own, lease)
    child = recovery.after_child_kill(bench, own)
    found["child: noticed"], found["child: runs again"] = [noticed for noticed, _ in child], [again for _, again in child]
    table([("", "median (least–most)", "all")] + [(what, shown(spread(times), 3), " ".join(f"{t:.3f}" for t in times)) for what, times in found.items()])
    return found


def plain(run):
    return {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in run.items()}


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "?")


def compare(bench, others, report):
    results, own = Results(), best_slots(bench)
    order = in_turn(others, own)
    try:
        if "throughput" in PARTS:
            measure_throughput(bench, order, results)
        if "latency" in PARTS:
            measure_latency(bench, order, results)
    finally:
        show(list({who.key: who for who in order}.values()), own[-1], results)
        report["runs"] = {who: {what: [plain(run) for run in runs] for what, runs in of.items()} for who, of in results.runs.items()}


def measure(bench, others, report):
    if "throughput" in PARTS or "latency" in PARTS:
        compare(bench, others, report)
    if "memory" in PARTS:
        report["memory"] = measure_memory(bench)
    if "recovery" in PARTS:
        report["recovery"] = measure_recovery(bench)


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, interrupt)
    begun = time.monotonic()
    if not os.environ.get("BENCH_RUN"):
        stop_here("run it with: make bench-queue")
    bench = Bench()
    report = {"date": datetime.date.today().isoformat(), "processor": processor(), "cores": os.cpu_count(), "kernel": platform.release(),
              "servers": bench.server_settings(), "rounds": ROUNDS}
    print(f"The queue on {report['cores']} cores ({report['processor']}), Linux {report['kernel']}")
    print("  " + ", ".join(f"{name} {value}" for name, value in report["servers"].items()))
    print(f"  load average {os.getloadavg()[0]:.1f}: above 1, other work takes part and figures are lower than they could be", flush=True)
    others, report["left_out"] = ([], {}) if PEERS in ([], ["none"]) else peers.installed(PEERS)
    report["versions"] = {peer.name: peer.version for peer in others if peer.version}
    if report["versions"]:
        print("  " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()), flush=True)
    try:
        measure(bench, others, report)
    except KeyboardInterrupt:
        report["interrupted"] = True
        print("  interrupted: what was measured until then is kept", flush=True)
    with open(os.path.join(ROOT, "build", "bench-queue.json"), "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1, ensure_ascii=False)
    print(f"\n  {time.monotonic() - begun:.0f} s; every run is in build/bench-queue.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
