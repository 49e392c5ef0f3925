"""What every contender of the queue benchmark shares: processes and what they cost, a Redis connection, a psql session, figures."""
import collections
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
TICKS = os.sysconf("SC_CLK_TCK")
Memory = collections.namedtuple("Memory", "rss_mb pss_mb once_mb processes")


def stop_here(sentence):
    sys.exit("bench-queue: " + sentence)


# --- processes -------------------------------------------------------------------------------------------------------

def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # it has ended


def tree(pid):
    """The process and all below it, by what each thread says its children are."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            todo += [int(child) for child in read(f"/proc/{pid}/task/{thread}/children").split()]
    return found


def cpu_seconds(pids):
    """User and system time, with that of children that have ended and were waited for."""
    ticks = 0
    for pid in pids:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def memory(pids):
    """RSS counts a shared page once a process, PSS divides it by all processes of the machine that map it, `once` counts it once: what these
    processes would hold if they were alone, as in a container of their own."""
    rss = pss = anonymous = 0
    files = {}
    for pid in pids:
        where, held = None, 0
        for line in read(f"/proc/{pid}/smaps").splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                held = int(rest.split()[0])
                rss += held
            elif name == "Pss":
                pss += int(rest.split()[0])
            elif name == "Anonymous":
                own = int(rest.split()[0])
                anonymous += own
                files[where] = max(files.get(where, 0), held - own)
            elif "-" in line.split(" ", 1)[0]:
                fields = line.split()
                where = fields[2], fields[3], fields[4]  # offset, device and inode
    return Memory(rss / 1024, pss / 1024, (anonymous + sum(files.values())) / 1024, len(pids))


def start(argv, env, log, cwd=None):
    """In a process group of its own, so that all of it can be killed."""
    with open(log, "ab") as file:
        return subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)


def kill_group(child):
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def tail(path, count=8):
    return "\n".join("    " + line[:300] for line in read(path).splitlines()[-count:])


def wait_until(is_so, seconds, step=0.02):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        answer = is_so()
        if answer:
            return answer
        time.sleep(step)
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --- servers -----------------------------------------------------------------------------------------------------------

class Redis:
    """One connection; commands may be sent ahead of their answers. The arguments are text or numbers."""

    def __init__(self, url, database):
        self.address = urllib.parse.urlparse(url)
        self.sock = socket.create_connection((self.address.hostname, self.address.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")
        if self.address.password:
            self.call("AUTH", self.address.username or "default", self.address.password)
        self.call("SELECT", database)

    def call(self, *words):
        words = [str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        return self.answer()

    def answer(self):
        line = self.file.readline().strip()
        kind, rest = line[:1], line[1:]
        if kind == b"-" or not kind:
            stop_here(f"Redis says {line!r}")
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode() if rest != b"-1" else None
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest.decode()


class Sql:
    """A psql that stays, so that a question costs a round trip and no process."""
    MARK = "--answered--"

    def __init__(self, url):
        env = {**os.environ, "PGOPTIONS": "-c client_min_messages=warning"}
        self.child = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __call__(self, statement):
        self.child.stdin.write(f"{statement};\n\\echo {self.MARK}\n")
        self.child.stdin.flush()
        lines = []
        for line in self.child.stdout:
            if line.strip() == self.MARK:
                return "\n".join(lines)
            lines.append(line.rstrip("\n"))
        return stop_here("psql ended; what it said stands above")


# --- figures -----------------------------------------------------------------------------------------------------------

def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]


def steady_rate(starts, ends):
    """Jobs a second from the moment when 5 % had started to the last end, so that starting up is not counted."""
    starts = sorted(starts)
    first = len(starts) // 20
    took = max(ends) - starts[first]
    return (len(starts) - first) / took if took > 0 else 0


def spread(values):
    values = [value for value in values if value is not None]
    return [statistics.median(values), min(values), max(values)] if values else None


def shown(spread_of, digits=0):
    """median (least–most), with thousands apart."""
    if not spread_of:
        return "–"
    middle, least, most = (f"{value:,.{digits}f}" for value in spread_of)
    return f"{middle} ({least}–{most})"
