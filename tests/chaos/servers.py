"""A PostgreSQL (fsync on) and a Redis (append-only file) of the chaos run's own, which may be killed and started again on the same ports."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

from support.stack import ROOT, free_port, wait_for


def shell(command, **more):
    return subprocess.run(["bash", "-c", ". scripts/lib.sh; " + command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, **more)


class Servers:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="opstream-chaos-servers-")
        os.chmod(self.dir, 0o755)
        self.pg_port, self.redis_port = free_port(), free_port()
        self.data, self.redis_child = os.path.join(self.dir, "pg"), None
        os.environ["PGPASSWORD"] = "chaos"
        # Debian's psql is a script that looks for the program at each call.
        os.environ["PATH"] = shell("pg_bin").stdout.strip() + ":" + os.environ["PATH"]
        os.environ["DATABASE_URL"] = f"postgresql://opstream:chaos@127.0.0.1:{self.pg_port}/postgres"
        os.environ["REDIS_URL"] = f"redis://127.0.0.1:{self.redis_port}"
        self.start_postgres()
        self.start_redis()

    # ---- PostgreSQL

    def start_postgres(self):
        deadline = time.monotonic() + 60
        while True:
            out = shell(f"pg_start {self.data} {self.pg_port} {self.dir}/pg.log -c fsync=on -c full_page_writes=on -c synchronous_commit=on -c log_min_messages=warning")
            if out.returncode == 0:
                return
            if time.monotonic() > deadline:  # sessions of the killed server may still be ending
                raise AssertionError("PostgreSQL does not start again: " + out.stderr[-2000:])
            time.sleep(0.2)

    def postmaster(self):
        try:
            with open(os.path.join(self.data, "postmaster.pid")) as file:
                return int(file.readline())
        except (OSError, ValueError):
            return None

    def kill_postgres(self):
        """As a power cut, save that the kernel still writes what it was given."""
        pid = self.postmaster()
        if pid:
            os.kill(pid, signal.SIGKILL)

    def stop_postgres(self, mode="immediate"):
        stop = "cd / && as_pg \"$(pg_bin)/pg_ctl\" -D {} -m {} -t {} -s stop"
        if shell(stop.format(self.data, mode, 15)).returncode != 0:
            shell(stop.format(self.data, "immediate", 30))

    # ---- Redis

    def start_redis(self):
        with open(os.path.join(self.dir, "redis.log"), "ab") as log:
            self.redis_child = subprocess.Popen(
                ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", self.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "no",
                 "--maxmemory-policy", "noeviction"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        wait_for("Redis to answer", lambda: "PONG" in subprocess.run(["redis-cli", "-p", str(self.redis_port), "ping"], capture_output=True, text=True,
                                                                    check=False).stdout, seconds=60)

    def kill_redis(self, forget):
        self.redis_child.kill()
        self.redis_child.wait()
        if forget:
            shutil.rmtree(os.path.join(self.dir, "appendonlydir"), ignore_errors=True)

    def close(self):
        if self.redis_child:
            self.redis_child.kill()
            self.redis_child.wait()
        self.stop_postgres()
        shutil.rmtree(self.dir, ignore_errors=True)
