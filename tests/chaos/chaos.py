#!/usr/bin/env python3
"""Breaks a running stack on purpose, and checks that what is promised holds: no accepted operation is lost, doubled, stuck or half seen.

First the walk: every fault point of common/fault.def × kill, fail, sleep and stop. Then rounds of random kills under load. Run it by `make chaos`
(SEED=, KILLS=, MINUTES=, PART=walk|random, FAULTS=name,name, POINTS=name,name, ACTIONS=kill,stop, ROUND=n) or `make chaos-short`. The same seed makes
the same choices; what the machine does in between differs. docs/tests.md says more.
"""
import argparse
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import check  # noqa: E402
import faults  # noqa: E402
import load  # noqa: E402
import servers  # noqa: E402
import walk  # noqa: E402
import world  # noqa: E402
from support.stack import wait_for  # noqa: E402

FAULTS_A_ROUND = (50, 80)
GAP_SECONDS = (0.05, 0.6)


class Recorder:
    """When what a fault hit works again."""

    def __init__(self, stack):
        self.stack, self.kinds, self.lock, self.threads = stack, {}, threading.Lock(), []

    def note(self, kind, affected):
        row = self.kinds.setdefault(kind, {"fired": 0, "recovered": 0, "seconds": []})
        row["fired"] += 1
        thread = threading.Thread(target=self._wait, args=(row, affected, time.monotonic()), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _wait(self, row, affected, started):
        processes = self.stack.processes if affected == faults.STORES else affected
        time.sleep(0.05)
        try:
            for process in processes:
                wait_for("recovery", lambda p=process: self.stack.is_ready(p), seconds=120, every=0.1)
        except AssertionError:
            return
        with self.lock:
            row["recovered"] += 1
            if processes:
                row["seconds"].append(time.monotonic() - started)

    def join(self):
        for thread in self.threads:
            thread.join(130)
        self.threads = []

    def table(self):
        lines = [f"{'kind of fault':26} {'fired':>6} {'recovered':>9} {'median s':>9} {'max s':>7}"]
        for kind in sorted(self.kinds, key=lambda k: (k not in faults.KILLS, k)):
            row = self.kinds[kind]
            seconds = row["seconds"] or [0.0]
            lines.append(f"{kind:26} {row['fired']:6} {row['recovered']:9} {statistics.median(seconds):9.2f} {max(seconds):7.2f}")
        return "\n".join(lines)


class Chaos:
    def __init__(self, options):
        self.options = options
        self.started = time.monotonic()
        self.kills = self.other = self.rounds = self.set_aside = self.walked = 0
        self.broken, self.known_final, self.passed = [], {}, 0
        self.servers = servers.Servers()
        self.stack = None
        try:
            self.points = walk.Points(os.path.join(self.servers.dir, "faults"))
            self.points.disarm()
            self.stack = world.World(self.servers, self.points.folder)
            self.users = []
            self.recorder = Recorder(self.stack)
            self.faults = faults.Faults(self.stack, random.Random(options.seed), self.points)
        except BaseException:
            self.close()
            raise

    def log(self, text):
        print(f"[{time.monotonic() - self.started:7.1f}] {text}", flush=True)

    def checked(self, round_started):
        this = check.Check(self.stack, self.users, self.faults.redis_lost_at, round_started, self.known_final)
        this.all()
        self.set_aside = max(self.set_aside, this.set_aside)

    def guarded(self, name, action):
        """A failure is told with its story, and ends the run unless --go-on."""
        try:
            action()
            self.passed += 1
            return True
        except Exception as problem:  # noqa: B902 - whatever goes wrong is this round's failure
            self.broken.append((name, str(problem)[:600]))
            self.log(f"BROKEN {name}: {problem}")
            if not isinstance(problem, AssertionError):
                traceback.print_exc()
            for uuid in list(dict.fromkeys(re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", str(problem))))[:2]:
                print(f"  the story of {uuid}:")
                print("\n".join(check.story(self.stack, uuid)), flush=True)
            return False

    def out_of_time(self):
        return time.monotonic() - self.started > self.options.minutes * 60

    # ---- the walk

    def walk(self):
        user = load.User(self.stack, "walker")
        self.users = [user]
        only = self.options.points.split(",") if self.options.points else None
        this = walk.Walk(self.stack, self.points, user, lambda: self.checked(step_started[0]), self.options.seed, self.log)
        step_started = [0.0]
        for name, action in this.steps(self.options.short, only, self.options.actions and self.options.actions.split(",")):
            if self.out_of_time():
                self.log("walk: out of time")
                break
            step_started[0] = time.time() - 1
            if not self.guarded(f"walk {name}:{action}", lambda n=name, a=action: this.step(n, a)) and not self.options.go_on:
                break
        for missed in this.unfired:
            self.broken.append((f"walk {missed}", "no workload reached this point (tests/chaos/walk.py: NEEDS says what reaches which)"))
        self.log(f"walk: {this.fired} fired, {len(this.unfired)} not reached")
        self.walked = this.fired

    # ---- random kills

    def random_part(self):
        if self.options.round is None:
            number = 1
            while self.kills < self.options.kills and not self.out_of_time():
                if not self.guarded(f"round {number} (SEED={self.options.seed} ROUND={number})", lambda n=number: self.round(n)) and not self.options.go_on:
                    break
                number += 1
        else:
            self.guarded(f"round {self.options.round}", lambda: self.round(self.options.round))

    def users_of(self, count=3):
        while len(self.users) < count:
            self.users.append(load.User(self.stack, f"user {len(self.users) + 1}"))

    def round(self, number):
        rng = random.Random(f"{self.options.seed}/{number}")
        self.faults.rng = rng
        self.users_of()
        names = self.options.faults.split(",") if self.options.faults else list(faults.WEIGHTS)
        weights = [faults.WEIGHTS[name] for name in names]
        started, hits = time.time() - 1, []
        for i, user in enumerate(self.users):
            user.start(f"{self.options.seed}/{number}/{i}")
        for _ in range(rng.randint(*FAULTS_A_ROUND)):
            time.sleep(rng.uniform(*GAP_SECONDS))
            name = rng.choices(names, weights)[0]
            hits.append(name)
            self.fire(name)
            if self.kills >= self.options.kills or self.out_of_time():
                break
        self.count_point(self.points.disarm())
        fault_seconds = time.time() - started
        self.faults.settle()
        for user in self.users:
            user.has_to_stop.set()
        for user in self.users:
            user.stop()
        self.stack.wait_ready()
        self.checked(started)
        self.recorder.join()
        self.rounds += 1
        statuses = dict(self.stack.sql("SELECT status, count(*) FROM operations GROUP BY 1"))
        self.log(f"round {number}: {len(hits)} faults in {fault_seconds:.0f} s, clean after {time.time() - started:.0f} s; {self.kills} kills so far; operations: " +
                 ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())))

    def fire(self, name):
        was_fired = self.points.has_fired() if name == "kill_at_point" else False
        affected = getattr(self.faults, name)()
        if name == "kill_at_point":
            self.count_point(was_fired)  # the one before: this one may never come by
            return
        self.recorder.note(name, affected)
        if name in faults.KILLS:
            self.kills += 1
        else:
            self.other += 1

    def count_point(self, has_fired):
        if has_fired:
            self.recorder.note("kill_at_point", [])
            self.kills += 1

    # ---- the end

    def report(self):
        lost = sum("LOST" in problem for _, problem in self.broken)
        doubled = sum("DOUBLED" in problem or "twice" in problem for _, problem in self.broken)
        stuck = sum("STUCK" in problem or "in vain" in problem for _, problem in self.broken)
        operations = 0
        try:
            operations = self.stack.value("SELECT count(*) FROM operations")
        except AssertionError:
            pass
        print(self.recorder.table())
        print(f"seed {self.options.seed}: {self.walked} points × actions walked, {self.kills} random kills and {self.other} other faults in {self.rounds} clean "
              f"rounds, {operations} operations, {sum(u.watcher.connections for u in self.users)} sockets of which "
              f"{sum(u.watcher.refused for u in self.users)} were refused, {self.set_aside} documents set aside, "
              f"{time.monotonic() - self.started:.0f} s")
        print(f"{lost} lost, {doubled} doubled, {stuck} stuck, {len(self.broken) - lost - doubled - stuck} otherwise broken")
        for name, problem in self.broken:
            print(f"  {name}: {problem}")
        print(f"{self.passed} passed, {len(self.broken)} failed", flush=True)
        if os.environ.get("TEST_TOTALS"):
            with open(os.environ["TEST_TOTALS"], "a") as file:
                file.write(f"{self.passed} {len(self.broken)}\n")
        return 1 if self.broken or not self.passed else 0

    def keep(self):
        where = f"/tmp/opstream-chaos-{self.options.seed}"
        subprocess.run(["rm", "-rf", where], check=False)
        subprocess.run(["cp", "-r", self.stack.stack.dir, where], check=False)
        subprocess.run(["cp", os.path.join(self.servers.dir, "pg.log"), os.path.join(self.servers.dir, "redis.log"), where], check=False)
        print(f"logs: {where}", flush=True)

    def close(self):
        for user in getattr(self, "users", []):
            user.has_to_stop.set()
            user.watcher.is_over.set()
        if self.stack:
            self.stack.close()
        self.servers.close()


def read_options():
    e = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(e("SEED") or secrets.randbits(31)))
    parser.add_argument("--kills", type=int, default=int(e("KILLS") or 1000), help="random kills (1000)")
    parser.add_argument("--minutes", type=float, default=float(e("MINUTES") or 90), help="no new round after so long (90)")
    parser.add_argument("--part", choices=("walk", "random", "all"), default=e("PART") or "all")
    parser.add_argument("--faults", default=e("FAULTS"), help="kinds of random faults")
    parser.add_argument("--points", default=e("POINTS"), help="fault points to walk")
    parser.add_argument("--actions", default=e("ACTIONS"), help="of kill, fail, sleep, stop")
    parser.add_argument("--round", type=int, default=int(e("ROUND")) if e("ROUND") else None, help="this random round alone")
    parser.add_argument("--short", action="store_true", help="the essential points and some kills, for CI")
    parser.add_argument("--go-on", action="store_true", help="after a failure")
    parser.add_argument("--keep", action="store_true", help="keep the logs even when all went well")
    return parser.parse_args()


def main():
    options = read_options()
    print(f"seed {options.seed}", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("interrupted"))
    chaos = Chaos(options)
    try:
        if options.part in ("walk", "all") and options.round is None:
            chaos.walk()
        if options.part in ("random", "all") and (not chaos.broken or options.go_on):
            chaos.random_part()
        status = chaos.report()
        if status or options.keep:
            chaos.keep()
        return status
    finally:
        chaos.close()


if __name__ == "__main__":
    sys.exit(main())
