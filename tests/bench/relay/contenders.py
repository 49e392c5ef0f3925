"""The servers that are measured: each is started on the first core, alone, and stopped after its run."""
import os
import socket

from machine import CORES, TOOLS, Failed, end, start, tail, tree, wait_until
from world import free_port


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
                              WS_MAX_TOTAL_CONNECTIONS="10000", **settings)

    def line(self, channel, operation, user):
        return f"{self.port} {channel} {self.path(operation)} {user.token}"


class Epoll(Contender):
    name = "epoll"

    def command(self, port, redis):
        return [os.path.join(TOOLS, "peers/epoll"), str(port), str(redis.port)]


ALL = {"opstream": Opstream, "epoll": Epoll}
