"""What users do meanwhile: they make collections, add and change folders, cancel and delete, and watch all of it over one WebSocket each that they lose and open
again. Every request is repeated, with its Idempotency-Key, until somebody has said yes or no; so what was accepted is known exactly."""
import json
import os
import random
import secrets
import shutil
import threading
import time
import uuid
from urllib.parse import quote

from support.client import Client
from support.ws import Closed, Cut, WebSocket

FINAL = ("completed", "failed", "cancelled")
WORDS = "harbour lantern orchard granite violet meadow copper whistle amber thistle candle river falcon".split()


class Folder:
    """A source that changes from operation to operation."""

    def __init__(self, roots, rng, name):
        self.path, self.rng, self.count = os.path.join(roots, name), rng, 0
        os.mkdir(self.path)

    def write(self, name, words):
        text = " ".join(self.rng.choice(WORDS) for _ in range(words)) + f" {secrets.token_hex(4)}\n"
        with open(os.path.join(self.path, name), "w") as file:
            file.write(text)

    def files(self):
        return sorted(os.listdir(self.path))

    def change(self, most=10):
        for _ in range(self.rng.randint(2, most)):
            self.count += 1
            self.write(f"file-{self.count}.txt", self.rng.choice((5, 20, 60, 120)))
        known = self.files()
        for name in self.rng.sample(known, min(len(known), 4)):
            what = self.rng.random()
            if what < 0.6:
                self.write(name, self.rng.choice((8, 40, 90)))
            elif what < 0.8:
                shutil.copy(os.path.join(self.path, name), os.path.join(self.path, "copy-of-" + name[-40:]))
            else:
                with open(os.path.join(self.path, name), "wb") as file:
                    file.write(b"\x7fELF" + os.urandom(200))
        if self.rng.random() < 0.2:
            self.large()

    def forget(self):
        """Some file goes."""
        known = self.files()
        if len(known) > 3:
            os.unlink(os.path.join(self.path, self.rng.choice(known)))

    def large(self, words=1500):
        """More chunks than one transaction takes."""
        self.count += 1
        self.write(f"large-{self.count}.txt", words)


class Collection:
    def __init__(self, uuid_, folder):
        self.uuid, self.folder = uuid_, folder
        self.operations = []  # what was accepted for it, in order


class User:
    def __init__(self, world, name):
        self.world, self.name = world, name
        self.client = Client.registered(world.apis[0].url)
        self.id = world.value("SELECT id FROM users WHERE username = :'v1'", self.client.username)
        self.collections, self.deleted = [], []
        self.accepted = {}   # uuid → kind
        self.cancelled = set()  # whose cancel was confirmed
        self.has_to_stop = threading.Event()
        self.problems = []
        self.watcher = Watcher(self)

    # ---- requests

    def ask(self, rng, method, path, body=None, key=None, patience=120):
        """Until an instance gives an answer that is one: neither silence nor 5xx nor 429."""
        deadline, last = time.monotonic() + patience, None
        while time.monotonic() < deadline:
            api = rng.choice(self.world.apis)
            try:
                answer = self.client.at(api).ask(method, path, body, headers={"Idempotency-Key": key} if key else None, timeout=4)
                if answer.status < 500 and answer.status != 429:
                    return answer
                last = answer
            except (OSError, ValueError) as problem:  # cut, refused, timed out, half an answer
                last = problem
            except Exception as problem:  # noqa: B902 - http.client has exceptions of its own for cut answers
                last = problem
            time.sleep(0.1)
        raise AssertionError(f"nobody answered {method} {path} for {patience} s: {last!r}")

    def accept(self, rng, path, body, method="POST", refusals=()):
        """Posts with one key until it is accepted; waits while the collection is busy. The answer's JSON, or None when it was refused."""
        key = str(uuid.UUID(int=rng.getrandbits(128)))
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            answer = self.ask(rng, method, path, body, key)
            if answer.status in (200, 201, 202):
                return answer.json
            if answer.status in refusals:
                return None
            if answer.status != 409:
                raise AssertionError(f"{method} {path}: {answer}")
            if self.has_to_stop.is_set():
                return None
            self.world.hurry()
            time.sleep(0.3)
        raise AssertionError(f"{path} stayed busy for 180 s")

    # ---- what a user does

    def create(self, rng):
        made = self.accept(rng, "/api/v2/collections", {"name": "chaos-" + secrets.token_hex(8)})
        if made is None:
            return None
        self.world.sql("UPDATE collections SET chunk_size = 24, chunk_overlap = 2 WHERE uuid = :'v1'", made["id"])
        collection = Collection(made["id"], Folder(self.world.stack.roots, rng, secrets.token_hex(6)))
        collection.operations.append(made["initial_operation_id"])
        self.accepted[made["initial_operation_id"]] = "index"
        self.collections.append(collection)
        return collection

    def append(self, rng, collection=None, change=True):
        collection = collection or rng.choice(self.collections)
        if change and self.is_idle(collection):
            collection.folder.change()
        path = collection.folder.path
        made = self.accept(rng, f"/api/v2/collections/{collection.uuid}/sources",
                           {"source_type": "directory", "source_config": {"path": path}, "source_path": path})
        if made is None:
            return None
        collection.operations.append(made["id"])
        self.accepted[made["id"]] = "append"
        return made["id"]

    # ---- and with what is there

    def note(self, kind, operation):
        if operation:
            self.accepted[operation] = kind
        return operation

    def reindex(self, rng, collection=None, body=None):
        """What is in it stays; how it is cut or kept changes."""
        collection = collection or rng.choice(self.collections)
        body = body or rng.choice(({}, {"chunk_size": 100, "chunk_overlap": 10}, {"chunk_size": 120, "chunk_overlap": 0}, {"quantization": "float32"},
                                   {"quantization": "float16"}, {"chunking_strategy": "character"}, {"chunking_strategy": "hierarchical"}))
        made = self.accept(rng, f"/api/v2/collections/{collection.uuid}/reindex", body)
        return made and self.note("reindex", made["id"])

    def remove_source(self, rng, collection=None):
        """Its only source, with all its documents; nothing is expected to be there until it is read again."""
        collection = collection or rng.choice(self.collections)
        path = f"/api/v2/collections/{collection.uuid}/sources?source_path={quote(collection.folder.path)}"
        made = self.accept(rng, path, None, method="DELETE", refusals=(404,))
        if made:
            del collection.operations[1:]
            self.note("remove_source", made["id"])
        return made and made["id"]

    def retry(self, rng, collection=None):
        collection = collection or rng.choice(self.collections)
        made = self.accept(rng, f"/api/v2/collections/{collection.uuid}/documents/retry-failed", None)
        return made and self.note("retry_documents", made["operation_id"])

    def sync(self, rng, collection=None, change=True):
        collection = collection or rng.choice(self.collections)
        answer = self.ask(rng, "PUT", "/api/v2/collections/" + collection.uuid, {"sync_mode": "continuous", "sync_interval_minutes": 525600})
        assert answer.status == 200, f"continuous: {answer}"
        if change and self.is_idle(collection) and collection.folder.files():
            collection.folder.change()
            collection.folder.forget()
        made = self.accept(rng, f"/api/v2/collections/{collection.uuid}/sync/run", None, refusals=(400, 409))
        if made:
            collection.operations.append(made["operation_id"])
            self.note("sync", made["operation_id"])
        return made and made["operation_id"]

    def project(self, rng, collection=None):
        collection = collection or rng.choice(self.collections)
        made = self.accept(rng, f"/api/v2/collections/{collection.uuid}/projections", {"method": rng.choice(("pca", "umap")), "seed": rng.randint(1, 9)},
                           refusals=(400, 409))
        return made and self.note("projection_build", made["operation_id"])

    def is_idle(self, collection):
        """Nothing of it runs, so that what is changed now is what the next operation reads."""
        return not self.world.sql("""SELECT 1 FROM operations o JOIN collections c ON c.id = o.collection_id WHERE c.uuid = :'v1'
                                     AND o.status IN ('pending', 'processing')""", collection.uuid)

    def noop(self, rng, config=None):
        """Put in by hand, and left to the reconciler."""
        number = str(uuid.UUID(int=rng.getrandbits(128)))
        config = config or {"events": rng.randint(1, 20), "sleep_ms": rng.choice((1, 100, 600))}
        self.world.sql("""INSERT INTO operations (uuid, user_id, type, mutates, queue, config, max_attempts)
                          VALUES (:'v1', :v2, 'noop', false, 'default', :'v3', 9) ON CONFLICT DO NOTHING""", number, self.id, json.dumps(config))
        self.accepted[number] = "noop"
        return number

    def cancel(self, rng, operation):
        answer = self.ask(rng, "DELETE", "/api/v2/operations/" + operation)
        if answer.status == 200:
            self.cancelled.add(operation)
        elif answer.status not in (400, 422):
            raise AssertionError(f"cancel of {operation}: {answer}")

    def perhaps_cancel(self, rng, operation, probability):
        if operation and rng.random() < probability:
            time.sleep(rng.choice((0, 0.1, 0.5, 1)) * rng.random())
            self.cancel(rng, operation)

    def delete(self, rng, collection):
        self.collections.remove(collection)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            answer = self.ask(rng, "DELETE", "/api/v2/collections/" + collection.uuid)
            if answer.status in (204, 404):  # 404: an earlier try was accepted, its answer lost
                self.deleted.append(collection)
                return
            assert answer.status == 409, f"deletion of {collection.uuid}: {answer}"
            self.world.hurry()
            time.sleep(0.3)
        raise AssertionError(f"{collection.uuid} stayed busy for 180 s")

    def live(self, seed):
        """One user's round."""
        rng = random.Random(seed)
        try:
            while not self.has_to_stop.is_set():
                what = rng.random()
                if len(self.collections) < 2 or (what < 0.08 and len(self.collections) < 4):
                    self.create(rng)
                elif what < 0.40:
                    self.perhaps_cancel(rng, self.append(rng), 0.15)
                elif what < 0.66:
                    work = rng.choices((self.reindex, self.sync, self.remove_source, self.retry, self.project), (8, 5, 2, 2, 2))[0]
                    self.perhaps_cancel(rng, work(rng), 0.2)
                elif what < 0.86:
                    number = self.noop(rng)
                    if rng.random() < 0.15:
                        self.cancel(rng, number)
                elif what < 0.88:
                    for _ in range(20):  # taken many at a time
                        self.noop(rng, {"events": 1, "sleep_ms": rng.choice((0, 0, 0, 1, 30))})
                elif what < 0.92:
                    self.delete(rng, rng.choice(self.collections))
                self.has_to_stop.wait(rng.random() * 0.6)
        except BaseException as problem:  # noqa: B902 - told by the main thread
            self.problems.append(f"{self.name}: {problem!r}")

    def start(self, seed):
        self.has_to_stop.clear()
        self.thread = threading.Thread(target=self.live, args=(seed,), daemon=True)
        self.thread.start()

    def stop(self):
        self.has_to_stop.set()
        self.thread.join(240)
        if self.thread.is_alive():
            self.problems.append(f"{self.name} does not come to an end")


class Watcher:
    """Follows all operations of its user over sockets that break; keeps what it saw."""

    def __init__(self, user):
        self.user, self.rng = user, random.Random(user.name)
        self.seen = []          # (id, type, operation) in the order of arrival; without an id where it was told that the history is truncated
        self.truncated = 0
        self.connections = self.refused = 0
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def last_id(self):
        return next((entry[0] for entry in reversed(self.seen) if entry[0]), "0")

    def _follow(self):
        while not self.is_over.is_set():
            try:
                api = self.rng.choice(self.user.world.apis)
                socket = WebSocket(api.url, "/ws/operations?last_id=" + self.last_id(), self.user.client.token)
            except (OSError, AssertionError, Cut):
                time.sleep(0.2)
                continue
            self.connections += 1
            try:
                self._read(socket)
            except Closed as closed:
                self.refused += closed.code == 1008  # sockets of an instance that was killed count for a while yet
            except (Cut, OSError, ValueError):
                pass
            socket.abort()
            self.is_over.wait(0.1)

    def _read(self, socket):
        until = time.monotonic() + self.rng.uniform(1, 12)
        while not self.is_over.is_set() and time.monotonic() < until:
            try:
                message = socket.next(0.5)
            except TimeoutError:
                continue
            kind = message.get("type")
            if kind == "history_truncated":
                self.truncated += 1
                self.seen.append((None, kind, None))
            elif message.get("id"):
                self.seen.append((message["id"], kind, (message.get("data") or {}).get("operation_id") or message.get("operation_id")))
