"""The servers that are measured: each is started on the first core, alone, and stopped after its run."""
import glob
import hashlib
import os
import shutil
import socket
import subprocess
import time

from machine import CORES, ROOT, TOOLS, Failed, end, read, start, tail, tree, wait_until
from world import free_port


HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
HOME = os.path.join(ROOT, "build", "bench-peers", "relay")


def need(program, what):
    if not shutil.which(program):
        raise Failed(f"{program} is not installed ({what})")


def step(argv, cwd):
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`{' '.join(argv)[:120]}` failed: {(done.stderr or done.stdout).strip()[-400:]}")


def install_once(name, files, work):
    """A folder in which work(folder) was done; again only when one of the files has changed."""
    folder = os.path.join(HOME, name)
    mark = os.path.join(folder, ".installed")
    digest = hashlib.sha256("".join(read(os.path.join(HERE, name, file)) for file in files).encode()).hexdigest()
    if read(mark) != digest:
        print(f"  installing {name} …", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        work(folder)
        with open(mark, "w", encoding="utf-8") as file:
            file.write(digest)
    return folder


class Contender:
    name = ""
    how = "plain"  # what the publisher does
    engineio = False
    has_history = False

    def __init__(self, world):
        self.world, self.child, self.port = world, None, 0
        self.log = os.path.join(world.folder, self.name + ".log")

    def install(self):
        """Raises Failed with a sentence when it cannot run here."""

    def command(self, port, redis):
        raise NotImplementedError

    def env(self, redis, **settings):
        return dict(os.environ)

    def path(self, operation):
        return "/ws/operations/" + operation.uuid

    def line(self, channel, operation, user):
        """A connection as the load client reads it."""
        return f"{self.port} {channel} {self.path(operation)} -"

    def start(self, redis, core=None, **settings):
        self.port = free_port()
        self.child = start(self.command(self.port, redis), self.env(redis, **settings), self.log, CORES[0] if core is None else core)
        if not wait_until(self.is_ready, 30):
            self.stop()
            raise Failed(f"{self.name} did not start; the end of its log:\n{tail(self.log)}")
        return self

    def is_ready(self):
        if self.child.poll() is not None:
            return True
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def pids(self):
        return tree(self.child.pid)

    def stop(self):
        end(self.child)
        self.child = None


class Opstream(Contender):
    name, how, has_history = "opstream", "script", True

    def __init__(self, world, programs=None, name="opstream"):
        self.name, self.programs = name, programs or world.programs
        super().__init__(world)

    def command(self, port, redis):
        return [os.path.join(self.programs, "opstream-api")]

    def env(self, redis, **settings):
        return self.world.env(redis, API_PORT=str(self.port), RATE_LIMITS="off", WS_MAX_CONNECTIONS_PER_USER="20", WS_MAX_CONNECTIONS_PER_OPERATION="20000",
                              WS_MAX_TOTAL_CONNECTIONS="10000", **{**self.world.settings, **settings})

    def line(self, channel, operation, user):
        return f"{self.port} {channel} {self.path(operation)} {user.token}"


class Epoll(Contender):
    name = "epoll"

    def command(self, port, redis):
        return [os.path.join(TOOLS, "peers/epoll"), str(port), str(redis.port)]


class OnNode(Contender):
    """The JavaScript peers share one folder of packages."""
    script = program = ""

    def install(self):
        need("node", "Node.js")
        need("npm", "Node.js's package manager")

        def work(folder):
            for name in ("package.json", "package-lock.json"):
                shutil.copy(os.path.join(HERE, "node", name), folder)
            step(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
        self.folder = install_once("node", ["package.json", "package-lock.json"], work)

    def command(self, port, redis):
        # Modules look for their packages above themselves.
        shutil.copy(os.path.join(HERE, "node", self.script), self.folder)
        return [os.path.join(self.folder, self.program) if "/" in self.program else self.program, os.path.join(self.folder, self.script), str(port), str(redis.port)]


class NodeWs(OnNode):
    name, script, program = "node-ws", "ws.js", "node"


class Bun(OnNode):
    name, script, program = "bun", "bun.js", "node_modules/@oven/bun-linux-x64/bin/bun"

    def install(self):
        super().install()
        if not os.path.exists(os.path.join(self.folder, self.program)):
            self.program = "node_modules/@oven/bun-linux-x64-baseline/bin/bun"
        if not os.path.exists(os.path.join(self.folder, self.program)):
            raise Failed("its package has no program for this machine")


class SocketIo(OnNode):
    name, script, program, how, engineio = "socketio", "socketio.js", "node", "socketio", True

    def path(self, operation):
        return "/socket.io/?EIO=4&transport=websocket&operation=" + operation.uuid


class FastApi(Contender):
    name = "fastapi"

    def install(self):
        def work(folder):
            step(["/usr/bin/python3", "-m", "venv", "venv"], folder)
            step([os.path.join(folder, "venv/bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
                  "--require-hashes", "-r", os.path.join(HERE, "fastapi", "requirements.txt")], folder)
        self.folder = install_once("fastapi", ["requirements.txt"], work)

    def command(self, port, redis):
        return [os.path.join(self.folder, "venv/bin/uvicorn"), "--app-dir", os.path.join(HERE, "fastapi"), "--port", str(port), "--backlog", "4096",
                "--log-level", "warning", "--loop", "uvloop", "app:app"]

    def env(self, redis, **settings):
        return {**os.environ, "REDIS_PORT": str(redis.port), "PYTHONDONTWRITEBYTECODE": "1"}


class Nchan(Contender):
    name, how = "nchan", "http"

    def install(self):
        """Debian's packages, unpacked beside the others instead of installed."""
        need("apt-get", "Debian's package manager")

        def work(folder):
            step(["apt-get", "download", "nginx", "libnginx-mod-nchan"], folder)
            for package in glob.glob(os.path.join(folder, "*.deb")):
                step(["dpkg", "-x", package, folder], folder)
        self.folder = install_once("nchan", ["nginx.conf.in"], work)

    def start(self, redis, core=None, **settings):
        super().start(redis, core, **settings)
        time.sleep(1)  # it answers 503 until it has found out what its Redis is
        return self

    def command(self, port, redis):
        own = os.path.join(self.world.folder, "nchan")
        os.makedirs(own, exist_ok=True)
        text = read(os.path.join(HERE, "nchan/nginx.conf.in"))
        for word, value in (("@FOLDER@", own), ("@LIBRARIES@", os.path.join(self.folder, "usr/lib/nginx/modules")), ("@PORT@", str(port)),
                            ("@REDIS_PORT@", str(redis.port))):
            text = text.replace(word, value)
        with open(os.path.join(own, "nginx.conf"), "w", encoding="utf-8") as file:
            file.write(text)
        # Its module has nginx make the folders that it was built for, whatever the configuration says: they are made where nobody else sees them.
        apart = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /var/lib && mkdir /var/lib/nginx && exec "$@"', "nchan"]
        return [*apart, os.path.join(self.folder, "usr/sbin/nginx"), "-p", own, "-c", os.path.join(own, "nginx.conf"), "-e", os.path.join(own, "error.log")]


ALL = {made.name: made for made in (Opstream, Epoll, Bun, NodeWs, Nchan, SocketIo, FastApi)}
