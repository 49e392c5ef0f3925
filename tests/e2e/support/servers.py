"""Servers of a test's own, to be killed, frozen and filled up: Redis, its sentinels, PostgreSQL."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

from .stack import free_port, run, wait_for


class Redis:
    """One redis-server. Settings are options of it: Redis(appendonly="yes")."""

    def __init__(self, port=None, **settings):
        self.port = port or free_port()
        self.dir = tempfile.mkdtemp(prefix="opstream-redis-")
        self.settings = {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction", **{k.replace("_", "-"): v for k, v in settings.items()}}
        self.child = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        options = [word for name, value in self.settings.items() for word in ("--" + name, str(value))]
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.child = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir, *options],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("Redis to answer", lambda: self.cli("ping", check=False) == "PONG")

    def cli(self, *words, db=0, check=True):
        command = ["redis-cli", "-p", str(self.port), "-n", str(db), *words]
        return run(command).strip() if check else subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def signal(self, number):
        os.kill(self.child.pid, number)

    def kill(self):
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Sentinels:
    """Three redis-sentinels that watch one primary and fail over after a second."""

    def __init__(self, primary):
        self.dir = tempfile.mkdtemp(prefix="opstream-sentinels-")
        self.children, self.ports = [], []
        for i in range(3):
            port = free_port()
            path = os.path.join(self.dir, f"{i}.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary.port} 2\nsentinel down-after-milliseconds main 1000\n"
                           f"sentinel failover-timeout main 6000\ndir {self.dir}\n")
            with open(path + ".log", "ab") as log:
                self.children.append(subprocess.Popen(["redis-server", path, "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            self.ports.append(port)
        wait_for("the sentinels to know each other and the replica", lambda: all(self._knows(p) for p in self.ports))

    def _knows(self, port):
        out = subprocess.run(["redis-cli", "-p", str(port), "sentinel", "master", "main"], capture_output=True, text=True, check=False).stdout.split("\n")
        facts = dict(zip(out[::2], out[1::2]))
        return facts.get("num-other-sentinels") == "2" and facts.get("num-slaves") == "1"

    @property
    def url(self):
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{p}" for p in self.ports) + "/main"

    def primary_port(self):
        return int(run(["redis-cli", "-p", str(self.ports[1]), "sentinel", "get-master-addr-by-name", "main"]).split()[1])

    def close(self):
        for child in self.children:
            child.kill()
            child.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Postgres:
    """A cluster of its own. `megabytes`: on a file system no larger than that (needs the right to mount, else OSError)."""

    def __init__(self, megabytes=None, **settings):
        self.bin = os.environ.get("PG_BIN") or sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[-2]))[-1]
        self.port = free_port()
        self.dir = tempfile.mkdtemp(prefix="opstream-pg-")
        self.is_mounted = False
        os.chmod(self.dir, 0o755)
        if megabytes:
            out = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", self.dir], capture_output=True, text=True, check=False)
            if out.returncode:
                os.rmdir(self.dir)
                raise OSError(out.stderr)
            self.is_mounted = True
            os.chmod(self.dir, 0o755)
        self.data = os.path.join(self.dir, "data")
        os.mkdir(self.data, 0o700)
        self.user = os.environ.get("PG_USER", "postgres") if os.getuid() == 0 else None
        if self.user:
            owner = pwd.getpwnam(self.user)
            os.chown(self.data, owner.pw_uid, owner.pw_gid)
        self._as_owner("initdb", "-D", self.data, "-U", "opstream", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a", encoding="utf-8") as file:
            for name, value in {"port": self.port, "listen_addresses": "'127.0.0.1'", "unix_socket_directories": "''", "shared_buffers": "'32MB'",
                                "fsync": "off", "client_connection_check_interval": "'2s'", "logging_collector": "off", **settings}.items():
                file.write(f"{name} = {value}\n")
        self.start()

    @property
    def url(self):
        return f"postgresql://opstream@127.0.0.1:{self.port}/postgres"

    def _as_owner(self, program, *words):
        prefix = ["runuser", "-u", self.user, "--"] if self.user else []
        out = subprocess.run([*prefix, os.path.join(self.bin, program), *words], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        assert out.returncode == 0, out.stderr

    def start(self):
        self._as_owner("pg_ctl", "-D", self.data, "-w", "-t", "60", "-l", os.path.join(self.data, "server.log"), "start")

    def stop(self, mode):
        self._as_owner("pg_ctl", "-D", self.data, "-w", "-t", "60", "-m", mode, "stop")

    def postmaster(self):
        with open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as file:
            return int(file.readline())

    def processes(self):
        top = self.postmaster()
        with open(f"/proc/{top}/task/{top}/children", encoding="utf-8") as file:
            return [top] + [int(pid) for pid in file.read().split()]

    def signal_all(self, number):
        """A new process may be forked meanwhile: until none is left over."""
        done = set()
        while True:
            new = [pid for pid in self.processes() if pid not in done]
            if not new:
                return
            for pid in new:
                done.add(pid)
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass

    def kill_all(self):
        """As a power cut would."""
        pids = self.processes()
        self.signal_all(signal.SIGKILL)
        wait_for("the server's processes to be gone", lambda: not any(_is_running(pid) for pid in pids))
        os.unlink(os.path.join(self.data, "postmaster.pid"))

    def sql(self, statement):
        return run(["psql", "-X", "-q", "-A", "-t", "-d", self.url, "-c", statement]).strip()

    def close(self):
        try:
            self.signal_all(signal.SIGCONT)
            self.stop("immediate")
        except (AssertionError, OSError):
            pass
        if self.is_mounted:
            for _ in range(50):
                if subprocess.run(["umount", self.dir], capture_output=True, check=False).returncode == 0:
                    break
                time.sleep(0.1)
        shutil.rmtree(self.dir, ignore_errors=True)


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
