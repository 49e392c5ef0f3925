"""The walk: every point of common/fault.def × every action, each in a small workload of its own, and the whole check after each. A new row is walked by itself; one
that the workloads do not reach fails the walk."""
import glob
import os
import random
import re
import signal
import subprocess
import threading
import time

from support.client import LAST
from support.stack import ROOT, wait_for
from support.ws import Closed, Cut, WebSocket
from world import send

SLEEP_MS = 1500


class Points:
    """The rows of fault.def, and the folder by which the programs are told which of them is armed."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o777)
        with open(os.path.join(ROOT, "common/fault.def")) as file:
            rows = re.findall(r'^FAULT_POINT\((\w+),\s*"(\w+)",\s*"(\w+)"', file.read(), re.M)
        self.program = {name: program for _, name, program in rows}
        self.names = list(self.program)
        self.everywhere = [name for name in self.names if self.program[name] != "migrate"]
        code = ""
        for part in ("api", "common", "sql", "worker"):
            for path in glob.glob(os.path.join(ROOT, part, "**", "*.c"), recursive=True):
                with open(path) as file:
                    code += file.read()
        # Where the code looks at what FAULT() says, it can be told that the step failed.
        self.can_fail = {name for constant, name, _ in rows if re.search(r"(?<!\(void\))\bFAULT\(" + constant + r"\b", code)}
        self.armed = None

    def actions(self, name):
        return ["kill", f"sleep={SLEEP_MS}", "stop"] + (["fail"] if name in self.can_fail else [])

    def write(self, text):
        path = os.path.join(self.folder, "faults")
        with open(path + ".new", "w") as file:
            file.write(text + "\n")
        os.rename(path + ".new", path)

    def disarm(self):
        """Whether what was armed has fired."""
        self.write("")
        fired = self.has_fired()
        for path in glob.glob(os.path.join(self.folder, "*.[0-9]")):
            os.unlink(path)
        self.armed = None
        return fired

    def has_fired(self):
        return bool(self.armed) and os.path.exists(os.path.join(self.folder, self.armed + ".0"))

    def arm(self, name, action, subject=None, also=()):
        fired = self.disarm()
        self.armed = name
        self.write(",".join([f"{name}:{action}*1" + (f"@{subject}" if subject else ""), *also]))
        return fired


# What reaches a point: (pattern of names, workloads in order, faults that have to happen too). The first that fits; all else is reached by "documents".
NEEDS = (
    (r"before_migration_commit|after_migration_commit", ("migrate",), ()),
    (r".*cancel.*|before_task_told_to_stop", ("cancel",), ()),
    (r".*projection.*", ("project",), ()),
    (r"before_delete_commit|generation_dropped|.*deleted", ("documents", "delete"), ()),
    (r"(after_)?source_.*removed", ("documents", "remove_source"), ()),
    (r"retry_reset|documents_reset", ("documents", "retry"), ()),
    (r"(before|after)_reconcile_push|reconciler_chosen", ("push",), ("after_commit_before_push:fail*1",)),
    (r"batch_claimed|batch_item_begun|(before|after)_batch_end", ("brief",), ()),
    (r"child_reaped|(before|after)_hand_back_commit", ("child",), ()),
    (r"before_leftovers.*", ("child", "leftovers"), ("after_part_commit:kill*1",)),
    (r"(before|after)_sweep_commit", ("lapse",), ()),
    (r"(before|after)_unseen_removed|before_sync_noted", ("sync",), ()),
    (r"scheduler_chosen|run_taken|before_run_recorded|operations_forgotten|(before|after)_dispatch_commit", ("scheduled",), ()),
    (r"before_start_over", ("freeze",), ()),
    (r"staging_dropped", ("documents", "reindex_cancelled"), ("staging_validated:sleep=3000*1",)),
    (r"before_staged_part_commit", ("documents", "reindex_embedded"), ()),
    (r"reindex_preflight|.*staging_commit|staging_made|.*staged.*|staging_validated|.*switch_commit", ("documents", "reindex"), ()),
    (r"before_history", ("documents", "watch"), ()),
    (r"benchmark_.*", ("benchmark",), ()),
    (r"before_put_back", ("held",), ("before_claim:fail",)),
    (r"orphan_found", ("documents",), ("after_claim:fail*1",)),
    (r"drain_.*|before_worker_ends|before_registration|embedder_listens", ("drain",), ()),
)
SUBJECTS = {"request_read": "/sources", "before_answer": "/sources"}
# Of the short form: where a crash would hurt most.
ESSENTIAL = ("after_commit_before_push", "after_pop", "after_claim", "after_part_commit", "before_document_commit", "before_ack", "after_final_before_announce", "after_last_event",
             "after_cancel_commit", "before_accept_commit", "after_hand_back_commit", "generation_dropped", "batch_computed", "after_staged_commit", "before_switch_commit", "after_switch_commit")


class Workloads:
    def __init__(self, world, points, user, rng):
        self.world, self.points, self.user, self.rng = world, points, user, rng
        self.collection = None

    def over(self, operation):
        def is_over():
            self.world.hurry()
            return self.world.value("SELECT status FROM operations WHERE uuid = :'v1'", operation) in ("completed", "failed", "cancelled")
        wait_for(f"operation {operation} to be over", is_over, seconds=120, every=0.1)

    def running(self, operation, seconds=60):
        wait_for(f"operation {operation} to run", lambda: self.world.value("SELECT status FROM operations WHERE uuid = :'v1'", operation) != "pending",
                 seconds=seconds, every=0.05)

    def begin(self, large=True):
        self.collection = self.user.create(self.rng)
        for words in (8, 30, 60):
            self.collection.folder.count += 1
            self.collection.folder.write(f"small-{self.collection.folder.count}.txt", words)
        if large:
            self.collection.folder.large(1200)
        return self.user.append(self.rng, self.collection, change=False)

    def documents(self):
        self.over(self.begin())
        self.over(self.user.noop(self.rng, {"events": 3}))

    def cancel(self):
        operation = self.user.noop(self.rng, {"events": 1, "sleep_ms": 20000})
        self.running(operation)
        self.user.cancel(self.rng, operation)
        self.over(operation)

    def change_followed(self):
        """A continuous collection whose files come, change and go."""
        self.over(self.begin(large=False))
        folder = self.collection.folder
        answer = self.user.ask(self.rng, "PUT", "/api/v2/collections/" + self.collection.uuid, {"sync_mode": "continuous", "sync_interval_minutes": 60})
        assert answer.status == 200, answer
        names = folder.files()
        os.remove(os.path.join(folder.path, names[0]))
        folder.write(names[1], 30)
        folder.count += 1
        folder.write(f"small-{folder.count}.txt", 12)

    def follow(self, operation):
        self.user.accepted[operation] = "sync"
        self.collection.operations.append(operation)
        self.over(operation)
        run = self.world.sql("SELECT status, documents_added, documents_modified, documents_deleted, documents_unchanged FROM sync_runs WHERE operation_uuid = :'v1'", operation)
        assert run == [["success", "1", "1", "1", "1"]], f"sync {operation}: {run}"

    def sync(self):
        self.change_followed()
        self.follow(self.user.accept(self.rng, f"/api/v2/collections/{self.collection.uuid}/sync/run", {})["operation_id"])

    def scheduled(self):
        """All that runs by the clock is due, a sync among it."""
        self.change_followed()
        self.world.sql("UPDATE collections SET sync_next_run_at = now() - interval '1 second' WHERE uuid = :'v1'", self.collection.uuid)
        before = self.world.value("SELECT coalesce(max(id), 0) FROM system_tasks")
        self.world.sql("UPDATE schedules SET next_due_at = date_trunc('minute', now())")
        wait_for("what is scheduled to be run", lambda: self.world.value("""SELECT count(*) FROM schedules s WHERE NOT EXISTS (
            SELECT 1 FROM system_tasks t WHERE t.name = s.name AND t.id > :v1 AND t.status = 'completed')""", before) == "0", seconds=120, every=0.2)
        runs = self.world.sql("SELECT operation_uuid FROM sync_runs WHERE collection_uuid = :'v1'", self.collection.uuid)
        assert len(runs) == 1, f"{len(runs)} syncs of one due time"
        self.follow(runs[0][0])

    def project(self):
        """Whatever happens on the way, there is a whole projection in the end."""
        self.over(self.begin(large=False))
        where = f"/api/v2/collections/{self.collection.uuid}/projections"
        made = self.user.accept(self.rng, where, {"method": self.rng.choice(("pca", "umap", "tsne"))})
        self.user.accepted[made["operation_id"]] = "projection_build"
        self.over(made["operation_id"])
        points = int(self.world.value("SELECT point_count FROM projections WHERE uuid = :'v1'", made["id"]))
        arrays = self.user.ask(self.rng, "GET", f"{where}/{made['id']}/arrays")
        assert arrays.status == 200 and points > 0 and len(arrays.raw) == 20 * points, f"{points} points, {arrays.status}, {len(arrays.raw)} bytes"

    def delete(self):
        self.user.delete(self.rng, self.collection)
        for operation in [row[0] for row in self.world.sql("SELECT uuid FROM operations WHERE type = 'delete' AND status IN ('pending', 'processing')")]:
            self.over(operation)

    def remove_source(self):
        """The collection's only source, with all of its documents."""
        operation = self.user.remove_source(self.rng, self.collection)
        self.over(operation)

    def retry(self):
        """A document that fails whenever it is read, and is said to be worth a retry."""
        with open(os.path.join(self.collection.folder.path, "program"), "wb") as file:
            file.write(b"\x7fELF" + os.urandom(20))
        self.over(self.user.append(self.rng, self.collection, change=False))
        self.world.sql("""UPDATE documents SET error_category = 'transient' WHERE status = 'failed' AND collection_id = (
            SELECT id FROM collections WHERE uuid = :'v1')""", self.collection.uuid)
        self.over(self.user.retry(self.rng, self.collection))

    def reindex(self):
        """Cut anew; the model stays."""
        self.over(self.user.reindex(self.rng, self.collection, {"chunk_size": 100, "chunk_overlap": 5}))

    def reindex_embedded(self):
        """The same chunks, more of them than one transaction takes, with vectors of twice the precision."""
        self.over(self.user.reindex(self.rng, self.collection, {"quantization": "float32"}))

    def reindex_cancelled(self):
        """What is staged is left to the leftovers."""
        operation = self.user.reindex(self.rng, self.collection, {"chunk_size": 100, "chunk_overlap": 5})
        wait_for("something to be staged", lambda: self.world.value("SELECT count(*) FROM staged_documents") != "0", seconds=60, every=0.1)
        self.user.cancel(self.rng, operation)
        self.over(operation)
        wait_for("the leftovers to go", lambda: self.points.has_fired(), seconds=60, every=0.2)

    def watch(self):
        """A socket that asks for the history of what is over, until it was shown to the end."""
        path = f"/ws/operations/{self.collection.operations[-1]}?last_id=0"

        def is_shown():
            try:
                socket = WebSocket(self.rng.choice(self.world.apis).url, path, self.user.client.token)
                return socket.until(*LAST, seconds=12)
            except (OSError, AssertionError, Cut, Closed):
                return None
        wait_for("a history to be shown", is_shown, every=0.2)

    def push(self):
        self.over(self.user.noop(self.rng, {"events": 1}))  # put in by hand, so no queue holds it
        self.over(self.begin(large=False))

    def child(self):
        operation = self.user.noop(self.rng, {"events": 1, "crash": 9, "fail_attempts": 1})
        self.over(operation)

    def brief(self):
        """Pushed together by the reconciler, so that they are taken many at a time."""
        for operation in [self.user.noop(self.rng, {"events": 1}) for _ in range(40)]:
            self.over(operation)

    def benchmark(self):
        """The searches of a collection that was just filled, measured in two chunkings."""
        self.over(self.begin(large=False))
        client = self.user.client
        name = client.must("GET", f"/api/v2/collections/{self.collection.uuid}/documents?per_page=1")["documents"][0]["file_name"]
        dataset = client.must("POST", "/api/v2/benchmark-datasets", {"name": "chaos", "queries": [
            {"id": str(i), "text": f"question {i}", "relevant": [{"document": name}]} for i in range(5)]}, status=201)
        made = client.must("POST", "/api/v2/benchmarks", {"name": "chaos", "dataset_id": dataset["id"], "collection_id": self.collection.uuid,
                                                          "configurations": {"k": [1, 3], "chunking": [None, {"chunk_size": 100}]}}, status=202)
        self.user.accepted[made["operation_id"]] = "benchmark"
        self.over(made["operation_id"])

    def leftovers(self):
        self.over(self.begin())

    def lapse(self):
        operation = self.user.noop(self.rng, {"events": 1, "sleep_ms": 3000, "sleep_attempts": 1})
        self.running(operation)
        holder = self.world.value("SELECT w.pid FROM operations o JOIN workers w ON w.id = o.worker_id WHERE o.uuid = :'v1'", operation)
        send([int(holder or 0)] if holder else [], signal.SIGKILL)
        self.over(operation)

    def freeze(self):
        operation = self.user.noop(self.rng, {"events": 1, "sleep_ms": 5000, "sleep_attempts": 1})
        self.running(operation)
        worker = self.world.workers[0]
        send([worker.pid], signal.SIGSTOP)
        time.sleep(5)
        send([worker.pid], signal.SIGCONT)
        self.over(operation)
        time.sleep(1)

    def held(self):
        operation = self.user.noop(self.rng, {"events": 1})
        time.sleep(3)  # pushed by the reconciler, popped, and not to be claimed
        for worker in self.world.workers:
            send([worker.pid], signal.SIGTERM)
        time.sleep(1.5)
        self.points.write("")  # now it can be
        self.over(operation)

    def drain(self):
        operation = self.user.noop(self.rng, {"events": 1, "sleep_ms": 2000, "sleep_attempts": 1})
        self.running(operation)
        send([self.world.workers[0].pid], signal.SIGTERM)
        self.over(operation)
        self.world.wait_ready()

    def migrate(self):
        """A database that is brought up to date by a program that is killed meanwhile, and then again."""
        stack, name = self.world.stack, "migrate_" + os.urandom(4).hex()
        stack.sql(f"CREATE DATABASE {name}")
        url = stack.direct_url.rsplit("/", 1)[0] + "/" + name
        env = {**stack.env, "DATABASE_URL": url}
        first = subprocess.Popen([stack.program("api"), "--migrate"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.world.sessions.add(first.pid)
        first.wait(60)
        self.world.sessions.discard(first.pid)
        again = subprocess.run([stack.program("api"), "--migrate"], env=env, capture_output=True, text=True, check=False)
        assert again.returncode == 0, f"after {first.returncode}: {again.stderr}"
        stack.sql(f"DROP DATABASE {name} WITH (FORCE)")


class Walk:
    def __init__(self, world, points, user, check, seed, log):
        self.world, self.points, self.user, self.check, self.log = world, points, user, check, log
        self.rng = random.Random(seed)
        self.workloads = Workloads(world, points, user, self.rng)
        self.fired, self.unfired = 0, []

    def steps(self, is_short, only=None, actions=None):
        names = only or (ESSENTIAL if is_short else self.points.names)
        unknown = [name for name in names if name not in self.points.program]
        assert not unknown, f"no such point: {unknown}"
        for action in ("kill", "fail", f"sleep={SLEEP_MS}", "stop"):
            if (is_short and action != "kill") or (actions and action.split("=")[0] not in actions):
                continue
            for name in names:
                if action in self.points.actions(name):
                    yield name, action

    def needs(self, name):
        return next(((works, also) for pattern, works, also in NEEDS if re.fullmatch(pattern, name)), (("documents",), ()))

    def continue_stopped(self, is_over):
        """What the point stopped goes on after 2–8 s: shorter and longer than a lease."""
        while not is_over.is_set():
            if self.points.has_fired() and self.world.stopped():
                is_over.wait(self.rng.uniform(2, 8))
                self.world.wake_all()
            is_over.wait(0.1)

    def step(self, name, action):
        works, also = self.needs(name)
        started, is_over = time.monotonic(), threading.Event()
        self.points.arm(name, action, SUBJECTS.get(name), [a for a in also if not a.startswith(name + ":")])
        waker = threading.Thread(target=self.continue_stopped, args=(is_over,), daemon=True)
        if action == "stop":
            waker.start()
        try:
            for work in works:
                getattr(self.workloads, work)()
        finally:
            is_over.set()
            if action == "stop":
                waker.join()
            fired = self.points.disarm()
            self.world.wake_all()
        worked = time.monotonic() - started
        self.world.wait_ready()
        self.check()
        if self.workloads.collection in self.user.collections and len(self.user.collections) > 6:
            self.user.delete(self.rng, self.user.collections[0])
        seconds = time.monotonic() - started
        if fired:
            self.fired += 1
        else:
            self.unfired.append(f"{name}:{action}")
        self.log(f"walk {name}:{action} {'' if fired else 'NOT REACHED '}by {'+'.join(works)} {worked:.1f} s, whole and checked after {seconds:.1f} s")
        return fired
