"""What must hold when everything has come to rest: PostgreSQL, Redis and the API are asked."""
import hashlib
import json
import os
import subprocess

from support.client import LAST
from support.stack import wait_for
from support.ws import Closed, WebSocket

LEFTOVERS_SECONDS = 60  # what a dead attempt left is gone within 30 s; the machine may be slow
# Of these only the newest is kept for a reader that is slow.
SNAPSHOTS = {"document_processed", "processing_progress", "reprocessing_progress", "removing_documents", "deleting", "collection_stats"}
# A document that killed whoever had it in hand, or seemed to, is set aside with such a reason.
SET_ASIDE = ("died", "killed", "crash", "unexpectedly", "set aside")


class Check:
    def __init__(self, world, users, redis_lost_at=0.0, round_started=0.0, known_final=None):
        self.world, self.users = world, users
        self.redis_lost_at, self.round_started = redis_lost_at, round_started
        self.known_final = known_final if known_final is not None else {}
        self.set_aside = 0

    @property
    def has_redis_lost(self):
        return self.redis_lost_at > self.round_started

    def none(self, what, statement, seconds=0.0, *values):
        """No row comes back, at the latest after some seconds."""
        rows = []

        def is_gone():
            rows[:] = self.world.sql(statement, *values)
            return not rows
        try:
            wait_for(what, is_gone, seconds=max(seconds, 0.01), every=0.25)
        except AssertionError:
            raise AssertionError(f"{what}: {rows[:5]}") from None

    def all(self):
        self.none("a retry that is put off beyond its back-off", """SELECT uuid, failures, not_before FROM operations WHERE status = 'pending'
            AND not_before > now() + make_interval(secs => 1.25 * 60 * 2 ^ least(failures, 10))""")
        self.come_to_rest()
        self.none("an end that was not announced", "SELECT uuid FROM operations WHERE status IN ('completed', 'failed', 'cancelled') AND announced_at IS NULL", 60)
        self.none("STUCK: a collection that is busy with nothing", "SELECT uuid, status FROM collections WHERE status = 'processing' AND deleted_at IS NULL")
        self.none("a document left half written", "SELECT uuid, status, live_version, next_version FROM documents WHERE status = 'processing'", LEFTOVERS_SECONDS)
        self.none("a session that holds a transaction open", """SELECT pid, application_name, query FROM pg_stat_activity
            WHERE datname = current_database() AND state LIKE 'idle in transaction%'""", 30)
        self.accepted()
        self.ends()
        self.rows()
        self.counters()
        self.tables()
        self.integrity()
        self.queues()
        self.processes()
        self.contents()
        self.histories()
        self.watchers()

    def come_to_rest(self):
        unfinished = "SELECT uuid, status, type, attempt, failures, not_before, worker_id FROM operations WHERE status IN ('pending', 'processing')"
        rows = []

        def is_over():
            self.world.hurry()
            rows[:] = self.world.sql(unfinished)
            return not rows
        try:
            wait_for("all operations to be over", is_over, seconds=120, every=0.5)
        except AssertionError:
            raise AssertionError(f"STUCK: operations that do not end: {rows[:5]}") from None

    # ---- every accepted operation, exactly once

    def accepted(self):
        for user in self.users:
            assert not user.problems, user.problems
        state = {row[0]: row[1:] for row in self.world.sql("SELECT uuid, status, type, user_id FROM operations")}
        for user in self.users:
            mine = {uuid for uuid, (_, _, owner) in state.items() if owner == user.id}
            lost = [uuid for uuid in user.accepted if uuid not in mine]
            assert not lost, f"LOST: accepted and gone: {lost}"
            more = [uuid for uuid in mine if uuid not in user.accepted and state[uuid][1] != "delete"]
            assert not more, f"DOUBLED: operations that nobody asked for: {more}"
            for uuid in user.cancelled:
                assert state[uuid][0] == "cancelled", f"{uuid} was cancelled, so it was said, and is {state[uuid][0]}"
            deletions = self.world.value("SELECT count(*) FROM operations WHERE type = 'delete' AND user_id = :v1", user.id)
            assert int(deletions) == len(user.deleted), f"{user.name}: {deletions} deletions of {len(user.deleted)} that were asked for"
            for collection in user.deleted:
                left = self.world.value("SELECT count(*) FROM collections WHERE uuid = :'v1'", collection.uuid)
                assert left == "0", f"{collection.uuid} is not deleted"
        for uuid, (status, *_) in state.items():
            before = self.known_final.setdefault(uuid, status)
            assert before == status, f"{uuid} was {before} and is {status}"

    def ends(self):
        self.none("an end that is not audited exactly once", """SELECT o.uuid, o.type, o.status, count(a.id), array_agg(a.action) FROM operations o
            LEFT JOIN audit_log a ON a.operation_uuid = o.uuid AND a.action = ANY (ARRAY['operation_' || o.type || '_completed', 'operation_' || o.type || '_failed',
                'operation_' || o.type || '_cancelled'])
            GROUP BY o.id HAVING count(a.id) <> 1 OR bool_or(a.action <> 'operation_' || o.type || '_' || o.status)""")
        self.none("figures of an attempt that never was", """SELECT f.operation_uuid, f.attempt, o.attempt FROM operation_figures f
            JOIN operations o ON o.uuid = f.operation_uuid WHERE f.attempt > o.attempt""")
        self.none("a completed operation without figures", """SELECT uuid FROM operations o WHERE status = 'completed'
            AND NOT EXISTS (SELECT FROM operation_figures m WHERE m.operation_uuid = o.uuid AND m.attempt = o.attempt)""")
        self.none("more failures than attempts", "SELECT uuid, failures, attempt, max_attempts FROM operations WHERE failures > max_attempts OR failures > attempt")
        self.none("an operation that failed before its attempts were used up", """SELECT uuid, type, failures, max_attempts, error_class, error_message FROM operations
            WHERE status = 'failed' AND failures < max_attempts AND error_message NOT LIKE 'none of the % documents could be read%'""")
        self.none("a final operation without its times", """SELECT uuid, status FROM operations WHERE completed_at IS NULL OR completed_at < created_at
            OR (status = 'completed' AND (started_at IS NULL OR percent <> 100 OR error_message IS NOT NULL AND attempt = 1))""")
        for uuid, attempt, attempts in self.world.sql("SELECT uuid, attempt, coalesce(meta -> 'attempts', '[]') FROM operations WHERE attempt > 0"):
            history = json.loads(attempts)
            numbers = [entry.get("attempt") for entry in history]
            assert numbers and numbers == list(range(int(attempt) - len(numbers) + 1, int(attempt) + 1)), f"attempts of {uuid}: {numbers}, {attempt} in all"
            assert len({entry.get("task_id") for entry in history}) == len(history), f"{uuid}: one task twice"
            assert all(entry.get("ended_at") for entry in history[:-1]), f"{uuid}: an attempt without an end before the last: {history}"

        self.none("a sync whose run did not end with it", """SELECT o.uuid, o.status, r.status, r.error_summary FROM operations o
            LEFT JOIN sync_runs r ON r.operation_uuid = o.uuid WHERE o.type = 'sync' AND (r.status IS NULL OR r.status = 'running' OR r.completed_at IS NULL
                OR (r.status IN ('success', 'partial')) <> (o.status = 'completed')) AND o.collection_id IS NOT NULL""")

    # ---- no chunk or vector twice or orphaned

    def rows(self):
        self.none("DOUBLED: a visible document with missing or doubled chunks", """
            SELECT d.file_name, d.live_version, d.chunk_count, count(k.id), max(k.ordinal) FROM documents d
            LEFT JOIN chunks k ON k.collection_id = d.collection_id AND k.document_id = d.id AND k.version = d.live_version AND NOT k.is_parent
            WHERE d.live_version > 0 GROUP BY d.id
            HAVING count(k.id) <> d.chunk_count OR count(DISTINCT k.ordinal) <> d.chunk_count OR max(k.ordinal) <> d.chunk_count - 1""")
        self.none("chunks that nobody sees", """
            SELECT k.document_id, k.version, d.live_version, d.next_version, d.status, count(*) FROM chunks k LEFT JOIN documents d ON d.id = k.document_id
            WHERE d.live_version IS DISTINCT FROM k.version AND NOT EXISTS (SELECT FROM staged_documents s JOIN generations g ON g.id = s.generation_id
                WHERE s.document_id = k.document_id AND s.version = k.version AND g.state = 'retired')
            GROUP BY 1, 2, 3, 4, 5""", LEFTOVERS_SECONDS)
        self.none("a generation that a finished operation has left", """
            SELECT g.id, g.operation_uuid, o.status FROM generations g LEFT JOIN operations o ON o.uuid = g.operation_uuid
            WHERE g.state = 'building' AND coalesce(o.status, '') NOT IN ('pending', 'processing')""", LEFTOVERS_SECONDS)
        self.none("a collection whose active generation is another one", """SELECT c.uuid, c.active_generation, g.id, g.model, c.embedding_model FROM generations g
            JOIN collections c ON c.id = g.collection_id
            WHERE g.state = 'active' AND (c.active_generation IS DISTINCT FROM g.id OR c.embedding_model <> g.model)""", LEFTOVERS_SECONDS)
        pairs = [f"""SELECT {generation} AS generation, k.id, v.chunk_id, k.document_id, v.document_id FROM (SELECT k.* FROM chunks k
                    JOIN documents d ON d.id = k.document_id AND d.live_version = k.version WHERE k.collection_id = {collection} AND NOT k.is_parent) k
                FULL JOIN vec.g{generation} v ON v.chunk_id = k.id AND v.document_id = k.document_id AND v.version = k.version
                WHERE k.id IS NULL OR v.chunk_id IS NULL""" for generation, collection in self.world.sql(
                    "SELECT g.id, g.collection_id FROM generations g WHERE g.state = 'active'")]
        if pairs:
            self.none("vectors and chunks that do not belong together", " UNION ALL ".join(pairs), LEFTOVERS_SECONDS)

    def counters(self):
        self.none("counters of a collection that are not so", """
            SELECT c.uuid, c.document_count, n.documents, c.vector_count, n.vectors, c.total_size_bytes, n.bytes, c.error_count, n.failed
            FROM collections c, LATERAL (SELECT count(*) FILTER (WHERE live_version > 0) AS documents,
                coalesce(sum(file_size) FILTER (WHERE live_version > 0), 0) AS bytes,
                coalesce(sum(chunk_count) FILTER (WHERE live_version > 0), 0) AS vectors,
                count(*) FILTER (WHERE status = 'failed') AS failed FROM documents d WHERE d.collection_id = c.id) n
            WHERE c.deleted_at IS NULL AND (c.document_count, c.vector_count, c.total_size_bytes, c.error_count)
                IS DISTINCT FROM (n.documents, n.vectors, n.bytes, n.failed)""")

    def tables(self):
        self.none("tables of vectors that belong to nobody", """
            SELECT relname FROM pg_class WHERE relnamespace = 'vec'::regnamespace AND relkind = 'r' AND relname NOT IN ('g0', 'g_to')
                AND NOT EXISTS (SELECT FROM generations g WHERE 'g' || g.id = relname)
            UNION ALL SELECT 'generation ' || g.id FROM generations g WHERE NOT EXISTS (SELECT FROM collections c WHERE c.id = g.collection_id)
            UNION ALL SELECT 'row of nobody ' || d.id FROM documents d WHERE NOT EXISTS (SELECT FROM collections c WHERE c.id = d.collection_id)""")

    def integrity(self):
        """What the program's own check finds: nothing, at the latest when what dead attempts left is gone."""
        stack, seen = self.world.stack, []

        def is_clean():
            out = subprocess.run([stack.program("worker", stack.bin), "--check-integrity", "--json"], env={**stack.env, "DATABASE_URL": stack.direct_url,
                                 "REDIS_URL": os.environ["REDIS_URL"]}, capture_output=True, text=True, timeout=120, check=False)
            seen[:] = [out.stdout + out.stderr]
            return out.returncode == 0
        try:
            wait_for("the integrity check", is_clean, seconds=LEFTOVERS_SECONDS, every=1)
        except AssertionError:
            raise AssertionError(f"--check-integrity: {seen[0]}") from None

    def queues(self):
        prefix = self.world.stack.name + ":queue:"

        def held():
            names = self.world.stack.redis_cli("--scan", "--pattern", prefix + "*").split()
            return [entry for name in names for entry in self.world.stack.redis_cli("LRANGE", name, "0", "-1").split()]
        try:
            wait_for("the queues to be empty", lambda: not held(), seconds=30, every=0.2)
        except AssertionError:
            raise AssertionError(f"queues hold what is over: {held()[:5]}") from None

    def processes(self):
        try:
            wait_for("leftover processes", lambda: not self.world.leftovers(), seconds=15, every=0.3)
        except AssertionError:
            raise AssertionError(f"processes of dead programs: {self.world.leftovers()}") from None

    # ---- what was read

    def contents(self):
        """A completed operation has read everything as it is."""
        for user in self.users:
            for collection in user.collections:
                if collection.operations and self.known_final.get(collection.operations[-1]) == "completed" and collection.folder.files() and \
                        len(collection.operations) > 1:
                    self.folder(collection)
                    if user.accepted[collection.operations[-1]] == "sync":
                        self.followed(collection)

    def followed(self, collection):
        """What is not in the folder any more is not in the collection either."""
        known = {name for name, in self.world.sql("SELECT d.file_name FROM documents d JOIN collections c ON c.id = d.collection_id WHERE c.uuid = :'v1'", collection.uuid)}
        gone = known - set(collection.folder.files())
        assert not gone, f"{collection.uuid} was synchronised and still has {gone}"

    def folder(self, collection):
        known = {name: rest for name, *rest in self.world.sql(
            """SELECT d.file_name, d.content_hash, d.live_version, d.duplicate_of, d.status, d.error_message FROM documents d JOIN collections c ON c.id = d.collection_id
               WHERE c.uuid = :'v1'""", collection.uuid)}
        for name in collection.folder.files():
            with open(os.path.join(collection.folder.path, name), "rb") as file:
                content = file.read()
            assert name in known, f"LOST: {name} of {collection.uuid} was not read"
            digest, live, duplicate, status, message = known[name]
            if status == "failed" and any(word in message for word in SET_ASIDE):
                self.set_aside += 1
                continue
            if content.startswith(b"\x7fELF"):
                assert (status == "failed" and live == "0") or duplicate, f"{name}: {known[name]}"
                continue
            assert digest == hashlib.sha256(content).hexdigest(), f"{name} of {collection.uuid} has other content by now"
            assert duplicate or (int(live) > 0 and status == "completed"), f"LOST: {name} of {collection.uuid} is not visible: {known[name]}"

    # ---- events

    def stream(self, key):
        """(id, message) of every entry."""
        out = self.world.stack.redis_cli("--json", "XRANGE", f"{self.world.stack.name}:{key}", "-", "+")
        return [(entry, json.loads(fields[fields.index("message") + 1])) for entry, fields in json.loads(out or "[]")]

    def histories(self):
        rows = self.world.sql("""SELECT o.uuid, o.status, extract(epoch FROM o.announced_at),
                o.collection_uuid IS NULL OR o.type = 'delete' OR (c.id IS NOT NULL AND c.deleted_at IS NULL)
            FROM operations o LEFT JOIN collections c ON c.id = o.collection_id WHERE o.completed_at >= to_timestamp(:v1)""", self.round_started)
        for uuid, status, announced, _ in rows:
            types = [message["type"] for _, message in self.stream("operation-progress:" + uuid)]
            last = [t for t in types if t in LAST]
            if not last and self.redis_lost_at + 2 > float(announced) and self.has_redis_lost:
                continue  # it was out, and Redis forgot it
            assert last == ["operation_" + status], f"last events {last} of {uuid}, which is {status}; all: {types}"
            assert types[-1] in LAST, f"events of {uuid} after the last one: {types}"
        for uuid in [uuid for uuid, _, _, may_be_watched in rows if may_be_watched == "t"][:3]:
            self.replay(uuid)

    def replay(self, uuid):
        """What a client that comes now is shown is what the stream holds."""
        user = next((u for u in self.users if uuid in u.accepted), None)
        expected = [message["id"] for _, message in self.stream("operation-progress:" + uuid)]
        if not user or not expected:
            return
        shown = wait_for("a socket", lambda: self.shown(user, uuid), seconds=120, every=1)
        assert [i for i in shown if i in expected] == expected, f"{uuid}: shown {len(shown)} events of {len(expected)}"

    def shown(self, user, uuid):
        """None as long as sockets of killed instances count against the user's limit, which heals within a minute."""
        socket = WebSocket(self.world.apis[0].url, f"/ws/operations/{uuid}?last_id=0", user.client.token)
        try:
            return [message["id"] for message in socket.until(*LAST, seconds=20) if message.get("id") and message.get("type") not in ("current_state",)]
        except Closed as closed:
            assert "too many" in closed.reason, closed
            return None
        finally:
            socket.close()

    def watchers(self):
        for user in self.users:
            entries = [message for _, message in self.stream("user-progress:" + user.id)]
            watcher = user.watcher
            if entries:
                try:
                    wait_for("watchers", lambda w=watcher, e=entries: w.last_id() == e[-1]["id"], seconds=45, every=0.2)
                except AssertionError:
                    raise AssertionError(f"{user.name}'s socket saw nothing after {watcher.last_id()}; the stream is at {entries[-1]['id']}") from None
            parts = segments(watcher.seen)
            known = {entry[0] for part in parts for entry in part}
            missing = [(m["id"], m["type"]) for m in entries if m["type"] not in SNAPSHOTS and m["id"] not in known]
            assert not missing, f"holes in what {user.name} saw: {missing[:5]}"
            for part in parts:
                self.order(user, part)
                self.last_events(user, part)
            assert self.redis_lost_at or not watcher.truncated, f"{user.name} was told of a truncated history, and Redis lost nothing"

    def order(self, user, seen):
        ids = [entry[0] for entry in seen]
        twice = [i for i in range(len(ids)) if ids[i] in ids[:i]] if len(set(ids)) < len(ids) else []
        assert not twice, f"{user.name} saw an event twice: {seen[twice[0]]}, around it {seen[max(0, twice[0] - 3):twice[0] + 2]}"
        for one, other in zip(seen, seen[1:]):
            epoch, ms, number = one[0].rsplit("-", 2)
            epoch_after, ms_after, number_after = other[0].rsplit("-", 2)
            assert epoch != epoch_after or (int(ms), int(number)) < (int(ms_after), int(number_after)), f"{user.name} saw {other} after {one}"

    def last_events(self, user, seen):
        of = {}
        for entry in seen:
            of.setdefault((entry[2], entry[0].rsplit("-", 2)[0]), []).append(entry[1])
        for (operation, _), types in of.items():
            last = [t for t in types if t in LAST]
            assert len(last) <= 1 and (not last or types[-1] in LAST), f"{user.name} saw of {operation}: {types[-6:]}"


def segments(seen):
    """What was seen between two words about a truncated history: after one, all that is kept is shown from its beginning."""
    parts = [[]]
    for entry in seen:
        if entry[0] is None:
            parts.append([])
        else:
            parts[-1].append(entry)
    return parts


def story(world, uuid, most=60):
    """The log lines about an operation, in the order of time."""
    lines = []
    for process in world.processes:
        with open(process.log, errors="replace") as file:
            lines += [(line[:400].rstrip(), process.name) for line in file if uuid in line]
    return [f"  {name}: {line}" for line, name in sorted(lines)][-most:]
