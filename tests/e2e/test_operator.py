"""What an operator sees and does by hand: opstream-worker --status, --requeue, --drain, and one operation's story in the logs."""
import json
import os
import subprocess
import urllib.request

import pytest
from support import documents as docs
from support.client import Client
from support.stack import wait_for

LINE = 120


def ask(stack, *arguments, **env):
    return subprocess.run([stack.program("worker"), *arguments], env={**stack.env, **env}, capture_output=True, text=True, timeout=120, check=False)


def status(stack):
    out = ask(stack, "--status", "--json")
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def table(stack):
    out = ask(stack, "--status")
    assert out.returncode == 0, out.stderr
    assert [line for line in out.stdout.splitlines() if len(line) > LINE] == []
    return out.stdout


def new_noop(stack, seconds=0, **columns):
    """A test operation, as if an API had accepted it and its push had been lost: its UUID."""
    columns = {"config": "'" + json.dumps({"sleep_ms": int(seconds * 1000)}) + "'", **columns}
    names = "".join(", " + name for name in columns)
    return stack.sql_value("INSERT INTO operations (user_id, type, mutates, queue" + names + ") SELECT min(id), 'noop', false, 'default'"
                           + "".join(", " + value for value in columns.values()) + " FROM users RETURNING uuid")


def state_of(stack, uuid):
    return stack.sql_value("SELECT status FROM operations WHERE uuid = :'v1'", uuid)


def wait_state(stack, uuid, *states):
    return wait_for(f"{uuid} to be {states}", lambda: state_of(stack, uuid) in states)


def push(stack, uuid):
    stack.redis_cli("LPUSH", f"{stack.name}:queue:default", uuid, db=1)


def story(stack, uuid):
    """(program, event, line) of every log line that names the operation, in the order of time."""
    found = [(line["time"], name, line) for name, line in stack.log_lines() if line.get("operation") == uuid]
    return [(name, line["event"], line) for _, name, line in sorted(found, key=lambda one: one[0])]


def metrics(stack, worker):
    """Name and labels -> value."""
    request = urllib.request.Request(worker.url + "/metrics", headers={"X-Internal-Api-Key": stack.env["INTERNAL_API_KEY"]})
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))}


# --- status

def test_status_shows_no_worker_one_and_fifty_without_a_line_too_long(make_stack):
    stack = make_stack(apis=1, workers=0)
    assert "none: nothing that waits will be done" in table(stack) and status(stack)["workers"] == []
    stack.add("worker")
    one = table(stack)
    assert "WORKERS (1)" in one and "queues fast,default,maintenance" in one
    stack.sql("INSERT INTO workers (id, host, pid, queues, models, slots, version, expires_at) SELECT 'opstream-worker-7d9f8b6c5-x2x' || n || '-' || "
              "substr(md5(n::text), 1, 12), 'h', n, '{fast,default}', '{a-model-with-quite-a-long-name,another-one}', 5, '0.1.0', "
              "now() + (CASE WHEN n > 45 THEN '-1 s' ELSE '60 s' END)::interval FROM generate_series(1, 50) n")
    many = table(stack)
    shown = status(stack)
    assert "WORKERS (5" in many
    assert sum(worker["lease_seconds"] > 0 for worker in shown["workers"]) == 46


def test_status_shows_what_is_done_what_waits_and_what_names_cannot_do_to_a_terminal(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    running = new_noop(stack, seconds=60)
    waiting = new_noop(stack, attempt="2", failures="1", not_before="now() + interval '1 hour'", error_message="E'the source is \\u001b[2Jaway'")
    user.collection()
    stack.sql("UPDATE collections SET name = E'a \\u001b[31mred\\u0007 name \\u202e' || repeat('long ', 40)")
    stack.sql("UPDATE operations SET collection_id = (SELECT id FROM collections) WHERE uuid = :'v1'", running)
    push(stack, running)
    wait_state(stack, running, "processing")
    shown = status(stack)
    assert [(o["operation"], o["attempt"], o["holder"]) for o in shown["running"] if o["type"] == "noop"] == [(running, 1, "alive")]
    assert shown["running"][0]["worker"] == shown["workers"][0]["id"]
    assert [(o["operation"], o["failures"]) for o in shown["waiting"]] == [(waiting, 1)] and shown["waiting"][0]["in_seconds"] > 3000
    default = next(q for q in shown["queues"] if q["queue"] == "default")
    assert default["processing"] >= 1 and default["later"] == 1 and default["in_redis"] is not None
    text = table(stack)
    assert running in text and waiting in text and "1 of 4" in text
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text


def test_status_works_without_redis_and_says_so_and_tells_when_postgresql_is_away(make_stack):
    stack = make_stack(apis=1, workers=1)
    stack.redis.shut()
    assert "Redis does not answer" in table(stack)
    shown = status(stack)
    assert not shown["redis"]["answers"] and shown["redis"]["problem"] and shown["queues"][0]["in_redis"] is None
    stack.postgres.shut()
    out = ask(stack, "--status")
    assert out.returncode == 1 and out.stdout == "" and "PostgreSQL cannot be reached" in out.stderr


def test_status_says_when_redis_is_full(make_stack):
    stack = make_stack(apis=1, workers=0)
    stack.redis_cli("CONFIG", "SET", "maxmemory", "1")
    try:
        assert "Redis is FULL" in table(stack) and status(stack)["redis"]["is_full"]
    finally:
        stack.redis_cli("CONFIG", "SET", "maxmemory", "0")


def test_unknown_options_and_missing_arguments_are_refused(make_stack):
    stack = make_stack(apis=1, workers=0)
    for arguments in (["--status", "--force"], ["--requeue"], ["--requeue", "no-uuid"], ["--drain"], ["--drain", "x", "--no-wait", "y"]):
        out = ask(stack, *arguments)
        assert out.returncode == 2 and out.stderr.startswith("opstream-worker: "), (arguments, out)


# --- requeue

def test_an_operation_that_waits_for_its_retry_is_due_at_once_when_it_is_requeued(make_stack):
    stack = make_stack(apis=1, workers=1)
    Client.registered(stack.apis[0].url)
    uuid = new_noop(stack, attempt="1", failures="1", not_before="now() + interval '1 hour'")
    out = ask(stack, "--requeue", uuid)
    assert out.returncode == 0 and "is due now and in queue default" in out.stdout
    wait_state(stack, uuid, "completed")
    audit = stack.sql("SELECT details->>'was', details->>'forced' FROM audit_log WHERE operation_uuid = :'v1' AND action = 'operation_requeued'", uuid)
    assert audit == [["pending", "false"]]


def test_a_requeue_needs_no_redis(make_stack):
    stack = make_stack(apis=1, workers=1)
    Client.registered(stack.apis[0].url)
    uuid = new_noop(stack, attempt="1", not_before="now() + interval '1 hour'")
    stack.redis.shut()
    out = ask(stack, "--requeue", uuid)
    assert out.returncode == 0 and "Redis does not take it" in out.stdout
    wait_state(stack, uuid, "completed")


def test_what_runs_well_is_requeued_by_force_only_and_the_old_attempt_changes_nothing_more(make_stack):
    stack = make_stack(apis=1, workers=1)
    Client.registered(stack.apis[0].url)
    uuid = new_noop(stack, seconds=3)
    push(stack, uuid)
    wait_state(stack, uuid, "processing")
    worker = stack.sql_value("SELECT worker_id FROM operations WHERE uuid = :'v1'", uuid)
    out = ask(stack, "--requeue", uuid)
    assert out.returncode == 1 and worker in out.stderr and "--force" in out.stderr
    assert state_of(stack, uuid) == "processing"
    first = stack.sql_value("SELECT task_id FROM operations WHERE uuid = :'v1'", uuid)
    out = ask(stack, "--requeue", uuid, "--force")
    assert out.returncode == 0, out.stderr
    wait_state(stack, uuid, "completed")
    rows = stack.sql("SELECT a->>'task_id', a->>'ended', a->>'reason' FROM operations, jsonb_array_elements(meta->'attempts') a WHERE uuid = :'v1'", uuid)
    assert rows[0] == [first, "handed_back", "an operator took it back"] and rows[-1][1] == "completed" and rows[-1][0] != first
    assert stack.sql_value("SELECT failures FROM operations WHERE uuid = :'v1'", uuid) == "0", "it costs no attempt"


def test_what_is_final_or_unknown_is_not_requeued(make_stack):
    stack = make_stack(apis=1, workers=1)
    Client.registered(stack.apis[0].url)
    uuid = new_noop(stack)
    push(stack, uuid)
    wait_state(stack, uuid, "completed")
    for more in ([], ["--force"]):
        out = ask(stack, "--requeue", uuid, *more)
        assert out.returncode == 1 and "what is final stays so" in out.stderr and "start a new one" in out.stderr
    assert state_of(stack, uuid) == "completed"
    out = ask(stack, "--requeue", "00000000-0000-4000-8000-000000000000")
    assert out.returncode == 1 and "there is no operation" in out.stderr


# --- history

def test_rest_shows_every_attempt_and_names_workers_to_superusers_only(make_stack):
    stack = make_stack(apis=1, workers=1)
    admin, user = (Client.registered(stack.apis[0].url) for _ in range(2))
    uuid = new_noop(stack, config="""'{"fail": "transient", "fail_attempts": 1}'""")
    stack.sql("UPDATE operations SET user_id = (SELECT max(id) FROM users), not_before = now() WHERE uuid = :'v1'", uuid)
    push(stack, uuid)
    shown = user.wait_over(uuid)
    first, second = shown["attempts"]
    assert (first["attempt"], first["outcome"], first["error_class"], first["error_category"]) == (1, "failed", "transient", "transient")
    assert first["started_at"] <= first["ended_at"] <= second["started_at"] <= second["ended_at"] and first["reason"]
    assert (second["attempt"], second["outcome"], second["error_class"], second["reason"]) == (2, "completed", None, None)
    assert (shown["attempt"], shown["failures"], shown["max_attempts"], shown["next_attempt_at"], shown["earlier_attempts"]) == (2, 1, 4, None, 0)
    assert first["worker"] is None and first["task_id"] is None
    stack.sql("UPDATE operations SET user_id = (SELECT min(id) FROM users) WHERE uuid = :'v1'", uuid)
    seen = admin.operation(uuid)["attempts"]
    assert seen[0]["worker"] == seen[1]["worker"] == status(stack)["workers"][0]["id"] and seen[0]["task_id"] != seen[1]["task_id"]


def test_an_operation_that_waits_says_when_it_is_tried_again_and_a_cancelled_attempt_ends(make_stack):
    stack = make_stack(apis=1, workers=1, DEFAULT_RETRY_DELAY=3600)
    user = Client.registered(stack.apis[0].url)
    uuid = new_noop(stack, config="""'{"sleep_ms": 60000}'""")
    push(stack, uuid)
    wait_state(stack, uuid, "processing")
    assert [a["outcome"] for a in user.operation(uuid)["attempts"]] == ["running"]
    assert ask(stack, "--requeue", uuid, "--force").returncode == 0
    wait_for("the second attempt", lambda: len(user.operation(uuid)["attempts"]) == 2)
    user.must("DELETE", "/api/v2/operations/" + uuid)
    shown = user.operation(uuid)
    assert [a["outcome"] for a in shown["attempts"]] == ["handed_back", "cancelled"] and shown["attempts"][1]["ended_at"]
    waiting = new_noop(stack, attempt="1", failures="1", not_before="now() + interval '1 hour'",
                       meta="""'{"attempts": [{"attempt": 1, "started_at": "2026-01-01T00:00:00.000000Z", "ended_at": "2026-01-01T00:00:01.000000Z"}]}'""")
    shown = user.operation(waiting)
    assert shown["next_attempt_at"] and shown["attempts"][0]["next_try_at"] == shown["next_attempt_at"] and shown["attempts"][0]["outcome"] == "handed_back"


def test_the_history_keeps_the_newest_twenty_attempts_and_counts_the_others(make_stack):
    stack = make_stack(apis=1, workers=1)
    user = Client.registered(stack.apis[0].url)
    old = [{"attempt": n, "started_at": "2026-01-01T00:00:00.000000Z", "ended_at": "2026-01-01T00:00:01.000000Z", "ended": "handed_back"} for n in range(1, 21)]
    uuid = new_noop(stack, attempt="20", meta="'" + json.dumps({"attempts": old}) + "'")
    push(stack, uuid)
    shown = user.wait_over(uuid)
    assert [a["attempt"] for a in shown["attempts"]] == list(range(2, 22)) and shown["earlier_attempts"] == 1
    assert shown["attempts"][-1]["outcome"] == "completed"


# --- drain

@pytest.mark.parametrize("has_redis", [True, False])
def test_a_drained_worker_hands_back_what_it_cannot_finish_and_ends_with_0(make_stack, has_redis):
    stack = make_stack(apis=1, workers=2, DRAIN_SECONDS=1)
    Client.registered(stack.apis[0].url)
    uuid = new_noop(stack, seconds=30)
    push(stack, uuid)
    wait_state(stack, uuid, "processing")
    holder = stack.sql_value("SELECT worker_id FROM operations WHERE uuid = :'v1'", uuid)
    pid = int(stack.sql_value("SELECT pid FROM workers WHERE id = :'v1'", holder))
    if not has_redis:
        stack.redis.shut()
    out = ask(stack, "--drain", holder)
    assert out.returncode == 0 and f"{holder} was asked to end" in out.stdout and f"{holder} has ended" in out.stdout, out
    ended, other = sorted(stack.workers, key=lambda w: w.pid != pid)
    assert ended.child.wait(30) == 0
    assert other.child.poll() is None
    assert stack.sql_value("SELECT failures FROM operations WHERE uuid = :'v1'", uuid) == "0"
    wait_for("the other worker to take it", lambda: stack.sql_value("SELECT worker_id FROM operations WHERE uuid = :'v1' AND status = 'processing'", uuid) not in (None, "", holder))


def test_all_workers_are_drained_and_what_waits_stays(make_stack):
    stack = make_stack(apis=1, workers=2)
    Client.registered(stack.apis[0].url)
    out = ask(stack, "--drain", "all")
    assert out.returncode == 0 and out.stdout.count("has ended") == 2, out
    assert [w.child.wait(30) for w in stack.workers] == [0, 0]
    uuid = new_noop(stack)
    assert state_of(stack, uuid) == "pending" and "NOBODY" in table(stack)
    assert ask(stack, "--drain", "all").returncode == 1


def test_an_unknown_worker_is_refused_with_the_names_of_the_known(make_stack):
    stack = make_stack(apis=1, workers=1)
    known = status(stack)["workers"][0]["id"]
    out = ask(stack, "--drain", "somebody", "--no-wait")
    assert out.returncode == 1 and known in out.stderr and "somebody" in out.stderr
    assert stack.workers[0].child.poll() is None


def test_a_drain_that_nobody_waits_for_returns_at_once(make_stack):
    stack = make_stack(apis=1, workers=1)
    known = status(stack)["workers"][0]["id"]
    out = ask(stack, "--drain", known, "--no-wait")
    assert out.returncode == 0 and "has ended" not in out.stdout
    assert stack.workers[0].child.wait(30) == 0


# --- the story

def test_the_logs_tell_the_story_of_an_operation_that_was_killed_once_and_completed(make_stack):
    stack = make_stack(apis=2, workers=1)
    user = Client.registered(stack.apis[0].url)
    folder = os.path.join(stack.roots, "many")
    docs.write_many(folder, 200)
    collection = user.collection()
    watch = user.at(stack.apis[1]).watch("/ws/operations")
    uuid = user.at(stack.apis[1]).add_source(collection["id"], folder)["id"]
    watch.wait("some documents", lambda f: f.get("type") == "document_processed" and f["data"]["operation_id"] == uuid and f["data"]["processed"] >= 5)
    stack.workers[0].kill()
    stack.add("worker")
    user.wait_over(uuid)
    lines = wait_for("the announcement in the log", lambda: (lambda told: told if any(e == "operation_announced" for _, e, _ in told) else None)(story(stack, uuid)))
    events = [(name, event) for name, event, _ in lines]
    assert ("api-2", "operation_pushed") in events, "it may be claimed before that is in the log"
    expected = [("api-2", "operation_accepted"), ("worker-1", "operation_claimed"), ("worker-1", "task_started"),
                ("worker-1", "task_stage"), ("worker-2", "operation_swept"), ("worker-2", "operation_pushed"), ("worker-2", "operation_claimed"),
                ("worker-2", "task_started"), ("worker-2", "task_stage"), ("worker-2", "task_completed")]
    at = -1
    for one in expected:
        assert one in events[at + 1:], f"{one} is missing after {events[:at + 1]} in {events}"
        at = events.index(one, at + 1)
    assert events.count(("worker-2", "operation_announced")) == 1
    first, second = (next(line for name, event, line in lines if (name, event) == (worker, "operation_claimed")) for worker in ("worker-1", "worker-2"))
    assert (first["attempt"], second["attempt"]) == (1, 2) and first["task"] != second["task"] and first["worker"] != second["worker"]
    swept = next(line for _, event, line in lines if event == "operation_swept")
    assert (swept["task"], swept["worker"], swept["attempt"]) == (first["task"], first["worker"], 1)
    for name, event, line in lines:
        if event.startswith("task_"):
            claim = first if name == "worker-1" else second
            assert [line[key] for key in ("task", "worker", "attempt")] == [claim[key] for key in ("task", "worker", "attempt")], line
    seen = metrics(stack, stack.processes[-1])
    assert seen["workers_swept_total"] == 1 and seen['operations_swept_total{operation_type="append",status="pending"}'] == 1
    assert seen['operation_retries_total{operation_type="append",error_class="internal"}'] == 1
    waits = [value for name, value in seen.items() if name.startswith("operation_requeue_seconds_count")]
    assert sum(waits) >= 1, "from the lapsed lease's end to the next claim"
