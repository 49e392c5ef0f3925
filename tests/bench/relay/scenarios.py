"""What is measured: each scenario is a function of a contender that is not running, and gives a dictionary of figures. docs/benchmarks.md says what each is."""
import copy
import subprocess
import threading
import time

from machine import Load, Publisher, cpu_seconds, memory_kib
from world import Redis

WARM_SECONDS = 1
PAGE_BYTES = 4096
SMALL_BUFFER = 8192
LONGEST_P99_MS = 30
FIGURES = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "late", "twice", "wrong_channel", "wrong_frames", "closed", "truncated")


class Run:
    """A contender (or two instances of it) with clients and a publisher, for one scenario."""

    def __init__(self, contender, channels, clients, users, pad=0, instances=1, redis=None, **settings):
        self.world, self.contender = contender.world, contender
        self.instances = [contender, *(copy.copy(contender) for _ in range(instances - 1))]
        self.redis = redis or self.world.redis
        self.redis.flush()
        self.load = self.publisher = None
        try:
            for one in self.instances:
                one.start(self.redis, **settings)
            operations = self.world.operations[:channels]
            self.empty_kib = self.memory_kib()
            lines = [self.instances[i % instances].line(i % channels if instances == 1 else i // instances % channels,
                                                        operations[(i if instances == 1 else i // instances) % channels],
                                                        self.world.users[i % users]) for i in range(clients)]
            self.load = Load(self.world.folder, lines, contender.engineio)
            self.publisher = Publisher(self.world.folder, contender.how, operations, self.redis.url, pad, contender.port)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        for one in (self.load, self.publisher):
            if one:
                one.close()
        for one in self.instances:
            one.stop()

    def pids(self):
        return [pid for one in self.instances for pid in one.pids()]

    def cpu(self):
        return cpu_seconds(self.pids())

    def memory_kib(self):
        return memory_kib(self.pids())

    def stream(self, rate, seconds, patience=15, meanwhile=None):
        """A window: events at a rate, until all have come or patience is over."""
        self.load.ask("mark")
        started, cpu, client = time.monotonic(), self.cpu(), cpu_seconds([self.load.child.pid])
        self.publisher.begin(rate, rate * seconds)
        if meanwhile:
            meanwhile()
        published = self.publisher.finish()
        drained = self.load.ask("drain", self.publisher.total, self.publisher.channels, patience)
        wall, cpu, client = time.monotonic() - started, self.cpu() - cpu, cpu_seconds([self.load.child.pid]) - client
        report = self.load.ask("report")
        # The client and the publisher are looked at a little later than the last event came.
        wall = max(published["seconds"], report["window_s"]) if drained["lost"] == 0 else wall
        delivered = report["delivered"]
        return {"asked": rate, "delivered_per_s": delivered / wall, "delivered": delivered, "event_bytes": report["bytes"] / delivered if delivered else 0,
                "cores": cpu / wall, "client_cores": client / wall, "per_cpu_s": delivered / cpu if cpu else 0, "lost": drained["lost"],
                **{name: report[name] for name in FIGURES}, "publisher_latest_ms": published["latest_ms"]}

    def open_all(self, **more):
        self.world.go_first()
        opened = self.load.open(**more)
        if opened["ready"] < more.get("count", self.load.count):
            print(f"    {self.contender.name}: {opened['ready']} of {self.load.count} are open, {opened['refused']} refused ({opened['first_refusal']})", flush=True)
        return opened


def scenario_a(contender, options):
    """1,000 clients of 100 users on one operation, 100 events a second."""
    with Run(contender, 1, 1000, 100) as run:
        run.open_all()
        run.publisher.run(100, 100 * WARM_SECONDS)
        return run.stream(100, options.seconds)


def is_held(step):
    return (step["lost"] == 0 and step["closed"] == 0 and step["p99_ms"] <= LONGEST_P99_MS and step["delivered_per_s"] >= 0.97 * step["asked"] * 1000)


def scenario_l(contender, options):
    """The highest rate of A that is held: nothing lost, p99 of 30 ms at most, no growing backlog. A rate is tried up to three times."""
    held = step = None
    with Run(contender, 1, 1000, 100) as run:
        run.open_all()
        run.publisher.run(100, 100 * WARM_SECONDS)
        for rate in options.ladder:
            for _ in range(3):
                step = run.stream(rate, 3)
                if options.verbose:
                    print(f"    {contender.name} {rate * 1000:,}/s: {step['delivered_per_s']:,.0f}/s, {step['cores']:.2f} cores, client {step['client_cores']:.2f},"
                          f" p50 {step['p50_ms']:.1f} ms, p99 {step['p99_ms']:.1f} ms, {step['lost']} lost, {step['closed']} closed", flush=True)
                if is_held(step) or step["closed"]:
                    break
            if not is_held(step):
                break
            held = step
    return {**(held or dict.fromkeys(step, 0)), "held_per_s": held["asked"] * 1000 if held else 0, "next_per_s": None if step is held else step["delivered_per_s"],
            "lost_at_next": step["lost"]}


def scenario_b(contender, options):
    """10,000 clients on 1,000 operations, 1,000 events a second."""
    with Run(contender, 1000, 10000, 1000) as run:
        opened = run.open_all()
        run.publisher.run(1000, 1000 * WARM_SECONDS)
        return {"connects_per_s": opened["rate"], **run.stream(1000, options.seconds)}


def scenario_c(contender, options):
    """10,000 idle connections."""
    with Run(contender, 1000, 10000, 1000) as run:
        opened = run.open_all()
        run.load.ask("turn", 2)
        held_kib = run.memory_kib()
        run.load.ask("mark")
        started, cpu = time.monotonic(), run.cpu()
        time.sleep(options.idle)
        wall, cpu = time.monotonic() - started, run.cpu() - cpu
        report = run.load.ask("report")
        return {"opened": opened["ready"], "closed": report["closed"], "closed_with": report["closed_with"], "connects_per_s": opened["rate"],
                "kib_each": (held_kib - run.empty_kib) / opened["ready"] if opened["ready"] else 0, "idle_percent": 100 * cpu / wall, "pings": report["pings"],
                "seconds": wall}


class Watch:
    """Looks at a server's memory, and at what the kernel holds for its sockets to these clients, until it is asked."""

    def __init__(self, run, ports):
        self.run, self.ports, self.is_over = run, {str(port) for port in ports}, threading.Event()
        self.before_kib, self.user_kib, self.kernel_kib = run.memory_kib(), 0, 0
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def _kernel_kib(self):
        said = subprocess.run(["ss", "-tmnOH", "state", "all", f"sport = :{self.run.contender.port}"], capture_output=True, text=True, check=False).stdout
        total = 0
        for line in said.splitlines():
            words = line.split()
            if "skmem:(" not in line or words[4].rpartition(":")[2] not in self.ports:
                continue
            fields = line.partition("skmem:(")[2].partition(")")[0].split(",")
            # r and t: received and in flight; w: waiting to be sent, with what is in flight; f: set aside for more; bl: the backlog
            held = {field.rstrip("0123456789"): int(field.lstrip("abcdefghijklmnopqrstuvwxyz")) for field in fields}
            total += held["r"] + max(held["w"], held["t"]) + held["f"] + held["bl"]
        return total / 1024

    def _look(self):
        while not self.is_over.wait(0.1):
            self.user_kib = max(self.user_kib, self.run.memory_kib() - self.before_kib)
            self.kernel_kib = max(self.kernel_kib, self._kernel_kib())

    def end(self):
        self.is_over.set()
        self.thread.join()


def made_whole(run, count):
    """Readers that were cut come again with the last id that they have: what they lack after that, and what came twice."""
    if not run.contender.has_history:
        return {"lost_after_resume": None, "slow_twice": None}
    run.load.ask("buffer", 0)
    run.load.ask("read", 0, count)
    run.load.ask("turn", 0.5)
    run.load.ask("close", 0, count, "hard")  # those that were not cut
    run.open_all(count=count, seconds=60)
    run.load.ask("drain", run.publisher.total, 1, 30)
    lost = run.load.ask("lost", run.publisher.total, 1, 0, count)
    report = run.load.ask("report")
    return {"lost_after_resume": lost["lost"], "not_whole": lost["connections"], "slow_twice": report["apart_twice"], "slow_truncated": report["truncated"]}


def stopped(contender, options, slow, others, users, rate, seconds):
    """`slow` readers join the others, have what comes for a second, then stop reading."""
    with Run(contender, 1, slow + others, users, PAGE_BYTES) as run:
        run.open_all(first=slow, count=others)
        run.publisher.run(rate, rate * WARM_SECONDS)
        without = run.stream(rate, options.seconds)
        run.load.ask("follow", 0, slow, slow)
        run.load.ask("buffer", SMALL_BUFFER)
        run.open_all(count=slow)
        run.publisher.run(rate, rate * WARM_SECONDS)
        run.load.ask("drain", run.publisher.total, 1, 30)
        watch = Watch(run, run.load.ask("ports", 0, slow))
        run.load.ask("stop", 0, slow)
        beside = run.stream(rate, seconds)
        if contender.has_history:
            run.load.ask("turn", 6)
        watch.end()
        cut = run.load.ask("report")
        return {"p99_ms": beside["p99_ms"], "p99_without_ms": without["p99_ms"], "p99_times": beside["p99_ms"] / without["p99_ms"], "p50_ms": beside["p50_ms"],
                "lost": without["lost"] + beside["lost"], "user_kib": watch.user_kib, "kernel_kib": watch.kernel_kib, "slow_kib": (watch.user_kib + watch.kernel_kib) / slow,
                "slow_cut": cut["slow_cut"], "cut_ms": cut["cut_max_ms"] if cut["slow_cut"] else None, **made_whole(run, slow)}


def scenario_d(contender, options):
    """100 connections on one operation, 200 events of 4 KiB a second; one stops reading."""
    return stopped(contender, options, 1, 99, 50, 200, 4)


def scenario_m(contender, options):
    """1,200 connections on one operation, 50 events of 4 KiB a second; 1,000 stop reading."""
    return stopped(contender, options, 1000, 200, 120, 50, 10)


def scenario_e(contender, options):
    """Two instances, 1,000 connections over 10 operations, 100 events a second; with history: Redis is killed and started again in mid-stream."""
    redis = Redis(contender.world.folder, is_durable=True)
    try:
        with Run(contender, 10, 1000, 100, instances=2, redis=redis) as run:
            run.open_all()
            run.load.ask("reconnect", 1)
            run.publisher.run(100, 100 * WARM_SECONDS)
            calm = run.stream(100, options.seconds)
            figures = {"cores": calm["cores"], "p50_ms": calm["p50_ms"], "p99_ms": calm["p99_ms"], "lost": calm["lost"], "twice": calm["twice"], "late": calm["late"]}
            if not contender.has_history:
                return figures

            def restart():
                time.sleep(3)
                redis.kill()
                time.sleep(1)
                redis.start()
            hurt = run.stream(100, 8, patience=40, meanwhile=restart)
            report = run.load.ask("report")
            return {**figures, "restart_lost": hurt["lost"], "restart_twice": hurt["twice"], "restart_late": hurt["late"], "restart_closed": hurt["closed"],
                    "restart_truncated": report["truncated"], "published_twice": report["published_twice"], "longest_ms": hurt["max_ms"]}
    finally:
        redis.kill()


def scenario_f(contender, options):
    """5,000 handshakes on 500 operations: token, rights, limits, state and 100 events of history, until the last event is there; bare for those without history."""
    with Run(contender, 500, 5000, 500) as run:
        if contender.has_history:
            run.publisher.run(0, 500 * 100)
        cpu, server = time.monotonic(), run.cpu()
        opened = run.open_all(window=256, events=100 if contender.has_history else 0)
        wall, server = time.monotonic() - cpu, run.cpu() - server
        lost = run.load.ask("lost", run.publisher.total, 500, 0, 5000)
        report = run.load.ask("report")
        return {"ready": opened["ready"], "connects_per_s": opened["rate"], "p50_ms": opened["p50_ms"], "p99_ms": opened["p99_ms"], "cores": server / wall,
                "server_us": 1e6 * server / max(opened["ready"], 1), "lost": lost["lost"], "twice": report["twice"]}


ALL = {"A": scenario_a, "L": scenario_l, "B": scenario_b, "C": scenario_c, "D": scenario_d, "M": scenario_m, "E": scenario_e, "F": scenario_f}
