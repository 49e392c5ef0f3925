"""What runs by the clock: once, whoever dies; and what an operator sees and does of it."""
import json
import os
import subprocess
import uuid

import pytest
from support import documents as docs
from support import rows
from support.client import Client
from support.stack import Stack, fetch, wait_for

TASK = {"id", "name", "due_at", "missed", "started_at", "ended_at", "status", "worker", "result", "error"}
NEVER = {"SYNC_DISPATCH_CRON": "", "RETENTION_CRON": "0 3 * * *", "HEALTH_CRON": "0 */6 * * *"}


@pytest.fixture(scope="module")
def stack():
    made = Stack(apis=1, workers=1, WORKER_LEASE_SECONDS=1, **NEVER)
    yield made
    made.close()


@pytest.fixture(scope="module")
def user(stack):
    """The first one: a superuser."""
    return Client.registered(stack.apis[0].url)


def run(stack, *words, **env):
    done = subprocess.run([Stack.program("worker", stack.bin), *words], env={**stack.env, "LOG_LEVEL": "error", **env}, capture_output=True, text=True, timeout=60,
                          check=False)
    return done.returncode, done.stdout, done.stderr


def due_now(stack, name):
    stack.sql(f"UPDATE schedules SET next_due_at = date_trunc('minute', now()) WHERE name = '{name}'")


def known(stack, name="retention"):
    wait_for("the schedule to be noted", lambda: stack.sql_value(f"SELECT count(*) FROM schedules WHERE name = '{name}'") == "1")


def statuses(stack, name):
    return [row[0] for row in stack.sql(f"SELECT status FROM system_tasks WHERE name = '{name}' ORDER BY id")]


@pytest.mark.parametrize("name, value, fault", [("RETENTION_CRON", "61 * * * *", "61 is no minute from 0 to 59"), ("HEALTH_CRON", "0 0 30 2 *", "it never runs"),
                                                ("SYNC_DISPATCH_CRON", "often", "`often` is no minute"), ("RETENTION_DAYS", "0", "0 is less than 1")])
def test_a_worker_refuses_to_start_with_a_schedule_that_is_none(stack, name, value, fault):
    status, out, err = run(stack, **{name: value})
    assert status == 2 and out == "" and name in err and fault in err and value in err


def test_the_schedule_is_shown_as_a_table_and_as_json(stack):
    known(stack)
    status, out, err = run(stack, "--schedule")
    assert (status, err) == (0, "") and "retention" in out and "0 3 * * *" in out and "run by worker" in out and "in " in out
    assert all(len(line) <= 120 for line in out.splitlines())
    status, out, err = run(stack, "--schedule", "--json")
    shown = json.loads(out)
    assert {t["name"] for t in shown["tasks"]} >= {"retention", "store_health"} and shown["holder"]
    assert "dispatch_syncs" not in {t["name"] for t in shown["tasks"]}  # its expression is empty
    assert run(stack, "--schedule", "now")[0] == 2 and run(stack, "--run-scheduled")[0] == 2
    status, out, err = run(stack, "--run-scheduled", "nothing")
    assert status == 1 and "`nothing` is not scheduled" in err and "retention" in err


def test_a_due_task_runs_and_superusers_see_its_run(stack, user):
    known(stack, "store_health")
    due_now(stack, "store_health")
    wait_for("the run", lambda: statuses(stack, "store_health") == ["completed"])
    listed = user.must("GET", "/api/v2/system/tasks?name=store_health&limit=1")
    assert set(listed) == {"items", "total", "offset", "limit"} and listed["total"] == 1
    task = listed["items"][0]
    assert set(task) == TASK and task["status"] == "completed" and task["due_at"] and task["error"] is None and task["missed"] == 0
    assert task["result"]["invalid_indexes"] == [] and task["result"]["tables"] >= 16 and task["result"]["missing_graphs"] == 0
    metrics = fetch(stack.workers[0].url + "/metrics")[1]
    assert 'scheduled_runs_total{task="store_health",status="completed"} 1' in metrics and "scheduled_run_seconds_count" in metrics
    status, out, _ = run(stack, "--schedule")
    assert status == 0 and "completed" in out
    assert Client.registered(stack.apis[0].url).ask("GET", "/api/v2/system/tasks").status == 403
    assert user.ask("GET", "/api/v2/system/tasks?limit=0").status == 422


def test_health_tells_of_missing_graphs_broken_indexes_and_makes_statistics(stack, user):
    made = rows.ready_collection(stack, user)
    document = rows.add_document(stack, made["id"], "/x/a.txt")
    table = f"vec.g{rows.add_vectors(stack, made['id'], [(document, 'some text', [1, 0, 0, 0])] * 2)}"
    stack.sql(f"CREATE INDEX broken_on_purpose ON {table} (document_id); "
              "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vec.broken_on_purpose'::regclass")
    status, out, err = run(stack, "--run-scheduled", "store_health", EXACT_SCAN_ROWS="1")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["missing_graphs"] == 1 and result["invalid_indexes"] == ["vec.broken_on_purpose"] and result["analyzed"] >= 1
    assert json.loads(run(stack, "--run-scheduled", "store_health")[1])["analyzed"] == 0
    stack.sql("DROP INDEX vec.broken_on_purpose")
    assert stack.sql_value("SELECT count(*) FROM system_tasks WHERE name = 'store_health' AND due_at IS NULL AND worker LIKE 'by hand%'") == "2"


def test_retention_forgets_what_is_old_and_only_that(stack, user):
    made = user.collection()
    finished = [user.must("GET", f"/api/v2/collections/{made['id']}/operations")[0]["id"]]
    old, young = str(uuid.uuid4()), str(uuid.uuid4())
    for name, age in ((old, 31), (young, 29)):
        stack.sql("INSERT INTO operations (uuid, user_id, type, mutates, queue, config, status, completed_at, announced_at) VALUES "
                  f"('{name}', 1, 'noop', false, 'nobody', '{{\"a\":1}}', 'completed', now() - interval '{age} days', now()); "
                  f"INSERT INTO operation_figures (operation_uuid, attempt, figures) VALUES ('{name}', 1, '{{}}'); "
                  f"INSERT INTO audit_log (operation_uuid, action, created_at) VALUES ('{name}', 'x', now() - interval '{age} days')")
    waiting = str(uuid.uuid4())
    stack.sql("INSERT INTO operations (uuid, user_id, type, mutates, queue, config, created_at) VALUES "
              f"('{waiting}', 1, 'noop', false, 'nobody', '{{\"a\":1}}', now() - interval '90 days')")
    stack.sql("INSERT INTO refresh_tokens (jti, user_id, token_hash, expires_at, revoked_at) VALUES ('out', 1, 'h1', now() - interval '1 second', NULL), "
              "('revoked', 1, 'h2', now() + interval '1 day', now() - interval '31 days'), ('fresh', 1, 'h3', now() + interval '1 day', now())")
    stack.sql("INSERT INTO idempotency_keys (user_id, key, request_hash, status, body, created_at) VALUES (1, 'k', 'h', 200, '', now() - interval '31 days')")
    stack.sql("INSERT INTO system_tasks (name, status, worker, started_at, expires_at) SELECT 'ancient', 'completed', 'w', now() - interval '40 days', now() "
              "FROM generate_series(1, 3)")
    stack.sql("INSERT INTO sync_runs (collection_id, collection_uuid, operation_uuid, triggered_by, status, completed_at) SELECT id, uuid, gen_random_uuid(), 'user', "
              f"'success', now() - interval '31 days' FROM collections WHERE uuid = '{made['id']}'")
    prefix = stack.env["REDIS_PREFIX"]
    for name in (old, waiting):
        stack.redis_cli("XADD", f"{prefix}operation-progress:{name}", "*", "message", "{}")
    status, out, err = run(stack, "--run-scheduled", "retention")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert (result["operations"], result["refresh_tokens"], result["system_tasks"], result["sync_runs"]) == (1, 2, 2, 1) and result["audit_rows"] == 1
    left = {row[0] for row in stack.sql("SELECT uuid FROM operations")}
    assert left >= {young, waiting, *finished} and old not in left
    assert [row[0] for row in stack.sql(f"SELECT operation_uuid FROM operation_figures WHERE operation_uuid IN ('{old}', '{young}')")] == [young]
    assert stack.sql_value(f"SELECT count(*) FROM audit_log WHERE operation_uuid = '{young}'") == "1"
    assert [row[0] for row in stack.sql("SELECT jti FROM refresh_tokens WHERE jti IN ('out', 'revoked', 'fresh')")] == ["fresh"]
    assert stack.sql_value("SELECT count(*) FROM system_tasks WHERE name = 'ancient'") == "1"
    assert result["streams"] == 1 and 0 < int(stack.redis_cli("TTL", f"{prefix}operation-progress:{old}")) <= 86400
    assert stack.redis_cli("TTL", f"{prefix}operation-progress:{waiting}") == "-1"
    assert json.loads(run(stack, "--run-scheduled", "retention")[1])["operations"] == 0


def test_retention_works_off_more_than_one_piece_and_passes_by_what_is_held(stack, user):
    stack.sql("INSERT INTO operations (user_id, type, mutates, queue, config, status, completed_at, announced_at) SELECT 1, 'noop', false, 'nobody', '{\"a\":1}', "
              "'completed', now() - interval '31 days', now() FROM generate_series(1, 2345)")
    held = stack.sql_value("SELECT max(id) FROM operations WHERE completed_at < now() - interval '30 days'")
    psql = subprocess.Popen(["psql", "-X", "-q", "-d", stack.direct_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    psql.stdin.write(f"BEGIN; SELECT 'held' FROM operations WHERE id = {held} FOR UPDATE;\n")
    psql.stdin.flush()
    wait_for("the lock", lambda: "held" in psql.stdout.readline())
    try:
        assert json.loads(run(stack, "--run-scheduled", "retention")[1])["operations"] == 2344
    finally:
        psql.stdin.close()
        psql.wait()
    assert json.loads(run(stack, "--run-scheduled", "retention")[1])["operations"] == 1


def test_a_task_that_fails_says_so_and_the_next_time_comes(stack):
    known(stack)
    stack.sql("ALTER TABLE idempotency_keys RENAME TO elsewhere")
    try:
        status, _, err = run(stack, "--run-scheduled", "retention")
        assert status == 1 and err.startswith("opstream-worker: ")
        assert statuses(stack, "retention")[-1] == "failed"
        assert stack.sql_value("SELECT error IS NOT NULL FROM system_tasks WHERE name = 'retention' ORDER BY id DESC LIMIT 1") == "t"
    finally:
        stack.sql("ALTER TABLE elsewhere RENAME TO idempotency_keys")
    status, out, _ = run(stack, "--schedule")
    assert "failed" in out


@pytest.mark.parametrize("point", ["run_taken", "before_run_recorded"])
def test_a_holder_that_is_killed_in_the_middle_is_followed_by_one_that_makes_the_run_again(make_stack, tmp_path, point):
    faults = tmp_path / "faults"
    faults.mkdir()
    stack = make_stack(apis=0, workers=2, has_faults=True, FAULT_DIR=faults, FAULT=f"{point}:kill*1@retention", WORKER_LEASE_SECONDS=1, **NEVER)
    known(stack)
    due_now(stack, "retention")
    wait_for("the second run", lambda: "completed" in statuses(stack, "retention"))
    assert statuses(stack, "retention") == ["lost", "completed"]
    assert len([w for w in stack.workers if w.child.poll() is not None]) == 1
    due = stack.sql("SELECT count(DISTINCT due_at), count(DISTINCT worker) FROM system_tasks WHERE name = 'retention'")[0]
    assert due == ["1", "2"]


@pytest.mark.parametrize("point", ["before_dispatch_commit", "after_dispatch_commit"])
def test_a_sync_whose_dispatch_is_killed_is_done_once(make_stack, tmp_path, point):
    faults = tmp_path / "faults"
    faults.mkdir()
    stack = make_stack(apis=1, workers=2, has_faults=True, FAULT_DIR=faults, FAULT=f"{point}:kill*1", WORKER_LEASE_SECONDS=1,
                       **{**NEVER, "SYNC_DISPATCH_CRON": "* * * * *"})
    user = Client.registered(stack.apis[0].url)
    folder = os.path.join(stack.roots, "followed")
    docs.write_many(folder, 1)
    made = user.collection(sync_mode="continuous", sync_interval_minutes=15)
    user.index(made["id"], folder)
    known(stack, "dispatch_syncs")
    stack.sql("UPDATE collections SET sync_next_run_at = now() - interval '1 minute'")
    due_now(stack, "dispatch_syncs")
    path = f"/api/v2/collections/{made['id']}/sync/runs"
    wait_for("the run", lambda: [r["status"] for r in user.must("GET", path)["items"]] == ["success"])
    shown = user.show(made["id"])
    assert shown["status"] == "ready" and shown["sync_last_run_status"] == "success"
    assert stack.sql_value("SELECT count(*) FROM operations WHERE type = 'sync'") == "1"
    minutes = float(stack.sql_value("SELECT extract(epoch FROM sync_next_run_at - sync_last_run_completed_at) / 60 FROM collections"))
    assert 15 <= minutes <= 15.75


def test_a_worker_that_ends_hands_the_schedule_over_at_once(make_stack):
    stack = make_stack(apis=0, workers=2, WORKER_LEASE_SECONDS=20, **NEVER)  # a lapse would take a minute
    known(stack)
    holder = stack.sql_value("SELECT holder FROM leases WHERE name = 'scheduler'")
    pid = stack.sql_value(f"SELECT pid FROM workers WHERE id = '{holder}'")
    leaving = next(w for w in stack.workers if str(w.pid) == pid)
    assert leaving.stop() == 0
    assert stack.sql_value(f"SELECT count(*) FROM leases WHERE name = 'scheduler' AND holder = '{holder}'") == "0"
