"""The servers behind the contenders, the users and their tokens, the operations that are watched."""
import base64
import collections
import hashlib
import hmac
import json
import os
import secrets
import socket
import subprocess
import time

from machine import CORES, Failed, end, go_first, read, start, tail, tree, wait_until

USERS = 1000
Operation = collections.namedtuple("Operation", "uuid user_id collection")
User = collections.namedtuple("User", "id name token")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Redis:
    """A server of its own: started again without its data for each run, or with an append-only file that outlives a restart."""

    def __init__(self, folder, is_durable=False):
        self.port, self.is_durable = free_port(), is_durable
        self.folder = os.path.join(folder, f"redis-{self.port}")
        os.makedirs(self.folder)
        self.child = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        log = os.path.join(self.folder, "redis.log")
        self.child = start(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "", "--appendonly",
                            "yes" if self.is_durable else "no", "--appendfsync", "always", "--maxmemory-policy", "noeviction"], os.environ, log, CORES[-1])
        if not wait_until(lambda: self.cli("ping") == "PONG", 20):
            raise Failed("Redis did not start:\n" + tail(log))

    def cli(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, check=False).stdout.strip()

    def flush(self):
        self.cli("flushall")

    def kill(self):
        end(self.child)

    def stop(self):
        self.cli("shutdown")
        self.child.wait(20)


class World:
    def __init__(self, folder, programs):
        self.folder, self.programs = folder, programs[0]
        self.database_url = os.environ["DATABASE_URL"]
        self.redis = Redis(folder)
        self.settings = {}  # of Opstream's API, for all runs
        self.key = secrets.token_hex(32)
        for each in programs:
            done = subprocess.run([os.path.join(each, "opstream-api"), "--migrate"], env=self.env(self.redis), capture_output=True, text=True, check=False)
            if done.returncode:
                raise Failed("the database could not be made: " + done.stderr[-500:])
        self.users = self._make_users()
        self.operations = self._make_operations()

    def close(self):
        self.redis.kill()

    def go_first(self):
        """PostgreSQL's processes: each is a session of its own."""
        for pid in tree(int(read(os.path.join(os.environ["SERVICES_DIR"], "pg/postmaster.pid")).split()[0])):
            go_first(pid)

    def env(self, redis, **settings):
        return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", "DATABASE_URL": self.database_url, "REDIS_URL": redis.url,
                "JWT_SECRET_KEY": self.key, "INTERNAL_API_KEY": "0" * 64, "LOG_LEVEL": "warning", **settings}

    def sql(self, statement):
        done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", " ", "-v", "ON_ERROR_STOP=1", "-d", self.database_url], input=statement, capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise Failed("psql: " + done.stderr[-500:])
        return [line.split() for line in done.stdout.splitlines() if line]

    def _token(self, name, number):
        claims = {"sub": name, "user_id": number, "exp": int(time.time()) + 86400, "type": "access"}
        body = encoded(b'{"alg":"HS256","typ":"JWT"}') + "." + encoded(json.dumps(claims).encode())
        return body + "." + encoded(hmac.new(self.key.encode(), body.encode(), hashlib.sha256).digest())

    def _make_users(self):
        rows = self.sql(f"""INSERT INTO users (username, email, password_hash) SELECT 'bench-' || i, 'bench-' || i || '@example.org', '!'
                            FROM generate_series(1, {USERS}) i RETURNING id, username""")
        return [User(int(number), name, self._token(name, int(number))) for number, name in rows]

    def _make_operations(self):
        """One for each user, which everyone may watch; no worker is there to take them."""
        rows = self.sql("""WITH c AS (INSERT INTO collections (name, owner_id, embedding_model, is_public)
                               SELECT 'bench-' || id, id, 'all-MiniLM-L6-v2', true FROM users ORDER BY id RETURNING id, uuid, owner_id)
                           INSERT INTO operations (collection_id, collection_uuid, user_id, type, mutates, queue, config, status, started_at, percent)
                           SELECT id, uuid, owner_id, 'append', false, 'default', '{"a":1}', 'processing', now(), 12.5 FROM c
                           RETURNING uuid, user_id, collection_uuid""")
        return [Operation(uuid, int(user), collection) for uuid, user, collection in rows]
