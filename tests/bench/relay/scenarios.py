"""What is measured: each scenario is a function of a contender that is not running, and gives a dictionary of figures. docs/benchmarks.md says what each is."""
import time

from machine import Load, Publisher, cpu_seconds, memory_kib

WARM_SECONDS = 1


class Run:
    """A contender with clients and a publisher, for one scenario."""

    def __init__(self, contender, channels, clients, users, pad=0, **settings):
        self.world, self.contender = contender.world, contender
        self.redis = self.world.redis
        self.redis.flush()
        self.load = self.publisher = None
        contender.start(self.redis, **settings)
        try:
            operations = self.world.operations[:channels]
            self.empty_kib = memory_kib(contender.pids())
            lines = [contender.line(i % channels, operations[i % channels], self.world.users[i % users]) for i in range(clients)]
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
        self.contender.stop()

    def cpu(self):
        return cpu_seconds(self.contender.pids())

    def stream(self, rate, seconds, patience=15):
        """A window: events at a rate, until all have come or patience is over."""
        self.load.ask("mark")
        started, cpu = time.monotonic(), self.cpu()
        published = self.publisher.run(rate, rate * seconds)
        drained = self.load.ask("drain", self.publisher.total, self.publisher.channels, patience)
        wall, cpu = time.monotonic() - started, self.cpu() - cpu
        report = self.load.ask("report")
        # What the publisher and the client wait for at the end is no time of the server: nearly nothing unless it falls behind.
        wall = max(published["seconds"], report["window_s"]) if drained["lost"] == 0 else wall
        return {"asked": rate, "delivered_per_s": report["delivered"] / wall, "delivered": report["delivered"], "cores": cpu / wall,
                "per_cpu_s": report["delivered"] / cpu if cpu else 0, "lost": drained["lost"],
                **{name: report[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms", "late", "twice", "wrong_channel", "wrong_frames", "closed", "truncated")},
                "publisher_latest_ms": published["latest_ms"]}

    def open_all(self, **more):
        opened = self.load.open(**more)
        if opened["ready"] < self.load.count:
            print(f"    {self.contender.name}: {opened['ready']} of {self.load.count} are open, {opened['refused']} refused ({opened['first_refusal']})", flush=True)
        return opened


def scenario_a(contender, options):
    """1,000 clients of 100 users on one operation, 100 events a second."""
    with Run(contender, 1, 1000, 100) as run:
        run.open_all()
        run.publisher.run(100, 100 * WARM_SECONDS)
        return run.stream(100, options.seconds)


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
        held = memory_kib(run.contender.pids())
        run.load.ask("mark")
        started, cpu = time.monotonic(), run.cpu()
        time.sleep(options.idle)
        wall, cpu = time.monotonic() - started, run.cpu() - cpu
        report = run.load.ask("report")
        return {"opened": opened["ready"], "closed": report["closed"], "closed_with": report["closed_with"], "connects_per_s": opened["rate"],
                "kib_each": (held - run.empty_kib) / opened["ready"] if opened["ready"] else 0, "idle_percent": 100 * cpu / wall, "pings": report["pings"],
                "seconds": wall}


ALL = {"A": scenario_a, "B": scenario_b, "C": scenario_c}
