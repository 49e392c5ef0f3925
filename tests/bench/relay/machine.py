"""Processes on their cores and what they cost, the load client, the publisher."""
import contextlib
import json
import os
import signal
import subprocess
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
TOOLS = os.path.join(ROOT, "build/plain/tests/bench/relay")
TICKS = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0)) if "BENCH_CORES" not in os.environ else [int(core) for core in os.environ["BENCH_CORES"].split(",")]


def go_first(pid):
    """BENCH_PRIORITY, from 0 to -20: before other sessions of the machine, where its kernel deals out time by sessions. Only root may."""
    if os.environ.get("BENCH_PRIORITY"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w", encoding="utf-8") as file:
            file.write(os.environ["BENCH_PRIORITY"])


class Failed(Exception):
    """A sentence."""


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def tree(pid):
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]
        for thread in os.listdir(f"/proc/{pid}/task") if os.path.isdir(f"/proc/{pid}/task") else []:
            if int(thread) != pid:
                todo += [int(child) for child in read(f"/proc/{pid}/task/{thread}/children").split()]
    return found


def cpu_seconds(pids):
    """User and system time, from /proc/PID/stat."""
    total = 0
    for pid in pids:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:13])
    return total / TICKS


def memory_kib(pids):
    """Resident memory that belongs to these processes alone in proportion (Pss)."""
    total = 0
    for pid in pids:
        for line in read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def start(argv, env, log, core=None, **more):
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    with open(log, "ab") as file:
        child = subprocess.Popen([*pinned, *argv], env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, **more)
    go_first(child.pid)
    return child


def end(child):
    """The whole process group."""
    if child is None:
        return
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def tail(path, lines=8):
    return "\n".join("    " + line[:300] for line in read(path).splitlines()[-lines:])


def wait_until(is_so, seconds, step=0.02):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        answer = is_so()
        if answer:
            return answer
        time.sleep(step)
    return None


class Tool:
    """A program that answers each line on its standard input with a line of JSON."""

    def __init__(self, argv, env=None, core=None):
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        self.name = os.path.basename(argv[0])
        self.child = subprocess.Popen([*pinned, *argv], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        go_first(self.child.pid)

    def tell(self, *words):
        try:
            self.child.stdin.write(" ".join(str(word) for word in words) + "\n")
            self.child.stdin.flush()
        except BrokenPipeError as error:
            raise Failed(f"{self.name} ended by itself ({self.child.wait()})") from error

    def answer(self):
        line = self.child.stdout.readline()
        if not line:
            raise Failed(f"{self.name} ended by itself ({self.child.wait()})")
        return json.loads(line)

    def ask(self, *words):
        self.tell(*words)
        return self.answer()

    def close(self):
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()


class Load(Tool):
    def __init__(self, folder, lines, engineio=False, sources=8):
        path = os.path.join(folder, "connections")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        super().__init__([os.path.join(TOOLS, "load"), path, str(sources), *(["engineio"] if engineio else [])], core=CORES[-1])
        self.count = self.answer()["connections"]

    def open(self, first=0, count=None, window=128, events=0, seconds=120):
        got = self.ask("open", first, self.count if count is None else count, window, events, seconds)
        got["rate"] = got["ready"] / got["seconds"] if got["seconds"] else 0
        return got


class Publisher(Tool):
    def __init__(self, folder, how, operations, redis_url, pad=0, port=0):
        path = os.path.join(folder, "operations")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{o.uuid} {o.user_id} {o.collection}\n" for o in operations)
        super().__init__([os.path.join(TOOLS, "publish"), path, how, str(pad), str(port)], env={**os.environ, "REDIS_URL": redis_url}, core=CORES[-1])
        self.total, self.channels = 0, len(operations)

    def begin(self, rate, count):
        self.tell("run", rate, int(count))

    def finish(self):
        got = self.answer()
        self.total = got["total"]
        return got

    def run(self, rate, count):
        self.begin(rate, count)
        return self.finish()
