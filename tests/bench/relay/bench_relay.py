"""The relay beside its peers: `make bench-relay`, or

    python3 tests/bench/relay/bench_relay.py [--scenarios A,B,C] [--peers opstream,epoll] [--repeat 3] [--idle 60] [--bin FOLDER]
    python3 tests/bench/relay/bench_relay.py --full

Contenders take turns, so that each ratio compares what ran side by side. docs/benchmarks.md says what is measured."""
import argparse
import datetime
import fcntl
import json
import os
import statistics
import sys
import tempfile

import contenders
import scenarios
from machine import CORES, ROOT, Failed
from world import World

RESULTS = os.path.join(ROOT, "build/bench-relay.jsonl")
BASE = "epoll"
# By scenario: figure, heading, digits.
STREAM = [("delivered_per_s", "delivered/s", 0), ("cores", "cores", 3), ("per_cpu_s", "per CPU s", 0), ("p50_ms", "p50 ms", 3), ("p99_ms", "p99 ms", 2), ("max_ms", "max ms", 1),
          ("lost", "lost", 0), ("twice", "twice", 0), ("late", "late", 0)]
SLOW = [("p99_ms", "others' p99 ms", 2), ("p99_without_ms", "without", 2), ("p99_times", "times", 2), ("lost", "lost", 0), ("user_kib", "own KiB", 0),
        ("kernel_kib", "kernel KiB", 0), ("slow_kib", "both, each", 0), ("slow_cut", "cut", 0), ("cut_ms", "after ms", 0), ("lost_after_resume", "lost after resume", 0),
        ("slow_twice", "twice", 0)]
COLUMNS = {
    "A": STREAM,
    "L": [("held_per_s", "held/s", 0), ("cores", "cores", 2), ("client_cores", "client", 2), ("per_cpu_s", "per CPU s", 0), ("p50_ms", "p50 ms", 2), ("p99_ms", "p99 ms", 1),
          ("next_per_s", "next step gave/s", 0)],
    "B": [*STREAM, ("connects_per_s", "connects/s", 0)],
    "C": [("opened", "opened", 0), ("closed", "closed", 0), ("kib_each", "KiB each", 2), ("idle_percent", "idle CPU %", 2), ("connects_per_s", "connects/s", 0)],
    "D": SLOW,
    "M": SLOW,
    "E": [("cores", "cores", 3), ("p50_ms", "p50 ms", 2), ("p99_ms", "p99 ms", 2), ("lost", "lost", 0), ("twice", "twice", 0), ("late", "late", 0),
          ("restart_lost", "restart: lost", 0), ("restart_twice", "twice", 0), ("restart_late", "late", 0), ("restart_closed", "closed", 0), ("longest_ms", "longest ms", 0)],
    "F": [("ready", "ready", 0), ("connects_per_s", "connects/s", 0), ("p50_ms", "p50 ms", 1), ("p99_ms", "p99 ms", 1), ("cores", "cores", 2), ("server_us", "CPU µs each", 0),
          ("lost", "lost", 0), ("twice", "twice", 0)],
}
REPEATED = "ABF"  # of all of it; the others take long, or are right or wrong
RATIOS = ("cores", "per_cpu_s", "p50_ms")


def arguments():
    parser = argparse.ArgumentParser(description="The relay beside its peers")
    parser.add_argument("--full", action="store_true", help="all scenarios and peers, A, B and F three times, C for a minute: half an hour")
    parser.add_argument("--scenarios", default="A,L,B,C,D,M,E,F", help="some of " + ",".join(scenarios.ALL) + ", or all")
    parser.add_argument("--peers", default="opstream,epoll", help="some of " + ",".join(contenders.ALL) + ", or all")
    parser.add_argument("--repeat", type=int, default=1, help="turns; figures are medians")
    parser.add_argument("--seconds", type=int, default=5, help="of publishing in a run")
    parser.add_argument("--idle", type=int, default=35, help="seconds of C")
    parser.add_argument("--ladder", default="200,300,400,600,800,1000,1200,1600,2000", help="events a second of L, one after another")
    parser.add_argument("--verbose", action="store_true", help="each step of L")
    parser.add_argument("--bin", action="append", metavar="FOLDER", help="programs to be measured in place of build/bin; given twice, both, in turn")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", default=[], help="a setting of Opstream's API")
    parser.add_argument("--out", default=RESULTS, help="lines of JSON are added there")
    options = parser.parse_args()
    if options.full:
        options.scenarios, options.peers, options.repeat, options.idle = "all", "all", 3, 60
    options.ladder = [int(rate) for rate in options.ladder.split(",")]
    return options


def with_services():
    """Starts itself again beside a private PostgreSQL, on the second core."""
    script = os.path.join(ROOT, "scripts/with-services.sh")
    pinned = ["taskset", "-c", str(CORES[-1])] if len(CORES) > 1 else []
    os.environ["BENCH_CORES"] = ",".join(str(core) for core in CORES)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["OPSTREAM_BENCH_RELAY"] = "1"
    os.execvp((pinned or [script])[0], [*pinned, script, "/usr/bin/python3", os.path.abspath(__file__), *sys.argv[1:]])


def alone():
    """The file of a lock: two of these at a time would measure each other."""
    lock = open(os.path.join(tempfile.gettempdir(), "opstream-bench-relay.lock"), "w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("bench-relay: another one runs on this machine; this one begins when that one ends", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def chosen(world, options):
    names = list(contenders.ALL) if options.peers == "all" else options.peers.split(",")
    unknown = [name for name in names if name not in contenders.ALL]
    if unknown:
        sys.exit(f"bench-relay: --peers names {', '.join(unknown)}; there are {', '.join(contenders.ALL)}")
    found = []
    for name in names:
        folders = options.bin if name == "opstream" and options.bin else [None]
        for number, folder in enumerate(folders):
            try:
                made = contenders.Opstream(world, folder, "opstream" if number == 0 else f"opstream-{number + 1}") if name == "opstream" else contenders.ALL[name](world)
                made.install()
                found.append(made)
            except Failed as problem:
                print(f"  {name} is absent: {problem}", flush=True)
    return found


def cell(values, digits):
    """Median, and from where to where."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if least == most else f"{middle} ({least}–{most})"


def ratio(runs, base, figure):
    """To the yardstick in the same turn."""
    by_turn = {run["turn"]: run for run in base}
    pairs = [run[figure] / by_turn[run["turn"]][figure] for run in runs if run["turn"] in by_turn and by_turn[run["turn"]][figure]]
    return f"{statistics.median(pairs):.2f}" if pairs else "–"


def show(letter, results):
    columns, base = COLUMNS[letter], results.get(BASE, [])
    against = [figure for figure in (name for name, _, _ in columns) if figure in RATIOS] if base and len(results) > 1 else []
    headings = {name: heading for name, heading, _ in columns}
    rows = [["", *(heading for _, heading, _ in columns), *(f"{headings[figure]} / {BASE}" for figure in against)]]
    for name, runs in results.items():
        rows.append([name, *(cell([run.get(figure) for run in runs], digits) for figure, _, digits in columns), *(ratio(runs, base, figure) for figure in against)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(f"\n{letter}: {scenarios.ALL[letter].__doc__}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))
    print(flush=True)


def main():
    options = arguments()
    letters = list(scenarios.ALL) if options.scenarios == "all" else options.scenarios.split(",")
    unknown = [letter for letter in letters if letter not in scenarios.ALL]
    if unknown:
        sys.exit(f"bench-relay: --scenarios names {', '.join(unknown)}; there are {', '.join(scenarios.ALL)}")
    if "OPSTREAM_BENCH_RELAY" not in os.environ:
        with_services()
    lock = alone()
    started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    print(f"bench-relay: {started}, load average {os.getloadavg()[0]:.2f}, servers on core {CORES[0]}, all else on core {CORES[-1]}", flush=True)
    with tempfile.TemporaryDirectory(prefix="opstream-bench-relay-") as folder:
        world = World(folder, options.bin or [os.path.join(ROOT, "build/bin")])
        world.settings = dict(setting.split("=", 1) for setting in options.set)
        try:
            who = chosen(world, options)
            for letter in letters:
                results = {}
                for turn in range(1 if options.full and letter not in REPEATED else options.repeat):
                    for contender in who:
                        load = os.getloadavg()[0]
                        try:
                            run = scenarios.ALL[letter](contender, options)
                        except Failed as problem:
                            print(f"  {letter} {contender.name}: {problem}", flush=True)
                            continue
                        run["turn"] = turn
                        results.setdefault(contender.name, []).append(run)
                        with open(options.out, "a", encoding="utf-8") as file:
                            file.write(json.dumps({"run": started, "scenario": letter, "who": contender.name, "load": load, **run}) + "\n")
                show(letter, results)
        finally:
            world.close()
    lock.close()
    print(f"bench-relay: done, load average {os.getloadavg()[0]:.2f}; each run is a line of {os.path.relpath(options.out, ROOT)}")


if __name__ == "__main__":
    main()
