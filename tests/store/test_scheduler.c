#include "worker/scheduler.h"

#include "common/clock.h"
#include "common/store/schedule_store.h"
#include "tests/support/store.h"
#include "worker/scheduled_run.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, LOOK_MS = 20 };

static struct settings settings;

/* A worker as far as the clock is concerned. */
struct worker {
    struct lease *lease;
    struct scheduler *scheduler;
    int wake_fd;
};

static struct worker start_worker(void)
{
    static char *queues[] = {"default", NULL};
    struct worker w = {.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    w.lease = lease_start(&settings, &(struct lease_facts){.queues = queues, .slots = 1}, w.wake_fd);
    w.scheduler = scheduler_start(&settings, w.lease);
    return w;
}

static void stop_worker(struct worker *w)
{
    scheduler_stop(w->scheduler);
    lease_stop(w->lease, true);
    close(w->wake_fd);
}

/* Until the statement gives anything but 0. */
static int64_t wait_for(const char *sql)
{
    for (int64_t until = clock_monotonic_ms() + PATIENCE_MS; clock_monotonic_ms() < until; poll(NULL, 0, LOOK_MS)) {
        int64_t n = store_sql_int("%s", sql);
        if (n > 0)
            return n;
    }
    fail_msg("waited in vain for: %s", sql);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, NULL);
    setenv("WORKER_LEASE_SECONDS", "1", 1);
    if (settings_load(&sc, &settings, SETTING_WORKER) != STATUS_OK)
        fail_msg("%s", sc.problem_text);
    settings.database_url = store.database_url; /* not by the environment, which says where the server is */
    scope_done(&sc);
    store_sql("DELETE FROM system_tasks");
    store_sql("DELETE FROM schedules");
    store_sql("DELETE FROM leases");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    settings_done(&settings);
    /* A statement that was given up ends in the server a little later. */
    wait_for("SELECT (count(*) = 0)::int FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
             "pg_backend_pid() "
             "AND backend_type = 'client backend'");
    return 0;
}

static void is_due(const char *name, const char *since)
{
    store_sql("INSERT INTO schedules (name, expression, next_due_at) VALUES ('%s', '%s', date_trunc('minute', now()) - "
              "interval '%s') ON CONFLICT (name) DO UPDATE SET next_due_at = excluded.next_due_at",
              name, schedule_expression(&settings, schedule_find(name)), since);
}

static void two_schedulers_make_one_run_of_a_due_time(void **state)
{
    (void)state;
    is_due("store_health", "1 second");
    struct worker one = start_worker(), two = start_worker();
    wait_for("SELECT count(*) FROM system_tasks WHERE name = 'store_health' AND status = 'completed'");
    wait_for("SELECT count(*) FROM schedules WHERE name = 'retention'"); /* what was not known yet is noted */
    is_due("store_health", "1 second");
    wait_for("SELECT count(*) / 2 FROM system_tasks WHERE name = 'store_health' AND status = 'completed'");
    stop_worker(&one);
    stop_worker(&two);
    assert_int_equal(store_sql_int("SELECT count(*) FROM system_tasks WHERE name = 'store_health'"), 2);
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM schedules WHERE name = 'store_health' AND next_due_at > now()"), 1);
    assert_int_equal(store_sql_int("SELECT count(*) FROM leases WHERE name = 'scheduler'"), 0);
}

static void a_due_time_is_taken_once_whoever_asks(void **state)
{
    int64_t now, id;
    size_t count;
    struct schedule_state *all;
    (void)state;
    is_due("retention", "1 second");
    assert_ok(schedule_store_state(&store.sc, store.db, &now, &all, &count));
    assert_int_equal(count, 1);
    struct schedule_due due = {
        .name = "retention", .seen = all[0].next_due, .due = all[0].next_due, .next = now + 3600};
    assert_ok(schedule_store_take(&store.sc, store.db, &due, "one", 60, &id));
    assert_status(STATUS_CONFLICT, schedule_store_take(&store.sc, store.db, &due, "two", 60, &id));
}

static void after_downtime_one_run_is_made_and_says_how_many_were_missed(void **state)
{
    (void)state;
    is_due("dispatch_syncs", "20 minutes");
    struct worker w = start_worker();
    wait_for("SELECT count(*) FROM system_tasks WHERE name = 'dispatch_syncs' AND status = 'completed'");
    stop_worker(&w);
    int64_t runs = store_sql_int("SELECT count(*) FROM system_tasks WHERE name = 'dispatch_syncs'");
    assert_true(runs >= 1 && runs <= 2); /* a minute may have begun meanwhile */
    int64_t missed = store_sql_int("SELECT missed FROM system_tasks WHERE name = 'dispatch_syncs' ORDER BY id LIMIT 1");
    assert_true(missed == 20 || missed == 21);
}

static void lose_a_run(int losses)
{
    is_due("store_health", "1 second");
    store_sql(
        "UPDATE schedules SET last_due_at = date_trunc('minute', now()), next_due_at = now() + interval '1 hour', "
        "losses = %d WHERE name = 'store_health'",
        losses);
    store_sql("INSERT INTO system_tasks (name, due_at, worker, expires_at) SELECT name, last_due_at, 'dead', now() - "
              "interval '1 second' FROM schedules WHERE name = 'store_health'");
}

static void a_run_whose_worker_died_is_lost_and_made_again(void **state)
{
    (void)state;
    lose_a_run(0);
    struct worker w = start_worker();
    wait_for("SELECT count(*) FROM system_tasks WHERE name = 'store_health' AND status = 'completed'");
    stop_worker(&w);
    assert_int_equal(
        store_sql_int(
            "SELECT count(*) FROM system_tasks WHERE worker = 'dead' AND status = 'lost' AND error IS NOT NULL"),
        1);
    assert_int_equal(store_sql_int("SELECT losses FROM schedules WHERE name = 'store_health'"), 0); /* it went well */
}

static void what_kills_its_worker_for_the_third_time_waits_for_its_next_time(void **state)
{
    (void)state;
    lose_a_run(2);
    struct worker w = start_worker();
    wait_for("SELECT count(*) FROM system_tasks WHERE worker = 'dead' AND status = 'lost'");
    wait_for("SELECT count(*) FROM schedules WHERE name = 'retention'"); /* that round went to its end */
    stop_worker(&w);
    assert_int_equal(store_sql_int("SELECT count(*) FROM system_tasks WHERE name = 'store_health'"), 1);
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM schedules WHERE name = 'store_health' AND next_due_at > now()"), 1);
}

static void a_long_run_keeps_its_lease_and_ends_when_its_worker_does(void **state)
{
    (void)state;
    struct db *other = store_connect("locker");
    assert_ok(db_begin(&store.sc, other));
    assert_ok(db_script(&store.sc, other, "LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE"));
    is_due("retention", "1 second");
    struct worker w = start_worker();
    wait_for("SELECT count(*) FROM system_tasks WHERE name = 'retention' AND status = 'running'");
    /* Longer than it was believed in at first. */
    wait_for("SELECT count(*) FROM system_tasks WHERE expires_at - started_at > interval '4 seconds' AND status = "
             "'running'");
    assert_int_equal(store_sql_int("SELECT count(*) FROM leases WHERE name = 'scheduler' AND expires_at > now()"), 1);
    int64_t asked_ms = clock_monotonic_ms();
    stop_worker(&w);
    assert_true(clock_monotonic_ms() - asked_ms < PATIENCE_MS / 4);
    db_rollback(other);
    db_free(other);
    assert_int_equal(store_sql_int("SELECT count(*) FROM system_tasks WHERE name = 'retention' AND status = 'stopped'"),
                     1);
    assert_int_equal(store_sql_int("SELECT count(*) FROM schedules WHERE name = 'retention' AND next_due_at <= now()"),
                     1);
    /* And is made by the next one. */
    w = start_worker();
    wait_for("SELECT count(*) FROM system_tasks WHERE name = 'retention' AND status = 'completed'");
    stop_worker(&w);
}

static void a_run_that_found_something_away_is_tried_again_twice_and_then_waits(void **state)
{
    (void)state;
    for (int losses = 0; losses <= 3; losses++) {
        int64_t id;
        bool is_soon = losses < 2, is_transient = losses < 3;
        is_due("retention", "1 second");
        store_sql("UPDATE schedules SET last_due_at = next_due_at, next_due_at = now() + interval '1 day', losses = %d",
                  losses);
        assert_ok(schedule_store_by_hand(&store.sc, store.db, "retention", "w", 60, &id));
        store_sql("UPDATE system_tasks SET due_at = (SELECT last_due_at FROM schedules) WHERE id = %lld",
                  (long long)id);
        assert_ok(schedule_store_end(&store.sc, store.db, id, "failed", NULL, "Redis was away", is_transient));
        assert_int_equal(
            store_sql_int("SELECT count(*) FROM schedules WHERE next_due_at BETWEEN now() + interval '50 seconds' "
                          "AND now() + interval '3 minutes'"),
            is_soon);
        assert_int_equal(store_sql_int("SELECT losses FROM schedules"), is_transient ? losses + 1 : 0);
    }
}

static bool goes_on(void *context)
{
    (void)context;
    return false;
}

static void what_is_not_announced_or_not_over_is_never_forgotten(void **state)
{
    (void)state;
    int64_t user = store_user();
    struct operation_ref waits = store_operation(user, 0, OPERATION_NOOP),
                         unheard = store_operation(user, 0, OPERATION_NOOP),
                         old = store_operation(user, 0, OPERATION_NOOP);
    store_sql("UPDATE operations SET created_at = now() - interval '90 days'");
    store_sql("UPDATE operations SET status = 'cancelled', completed_at = now() - interval '90 days', announced_at = "
              "CASE WHEN "
              "uuid = '%s' THEN now() END WHERE uuid IN ('%s', '%s')",
              old.uuid, old.uuid, unheard.uuid);
    struct scheduled s = {
        .settings = &settings, .db = store.db, .queue = store.queue, .events = store.events, .has_to_stop = goes_on};
    assert_ok(retention(&store.sc, &s));
    assert_non_null(strstr(s.result_json, "\"operations\":1,"));
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM operations WHERE uuid IN ('%s', '%s')", waits.uuid, unheard.uuid), 2);
    assert_int_equal(store_sql_int("SELECT count(*) FROM operations WHERE uuid = '%s'", old.uuid), 0);
}

static void another_expression_takes_effect_and_an_empty_one_switches_off(void **state)
{
    (void)state;
    store_sql("INSERT INTO schedules (name, expression, next_due_at) VALUES ('retention', '7 7 7 7 *', now() - "
              "interval '1 day')");
    struct worker w = start_worker();
    wait_for(
        "SELECT count(*) FROM schedules WHERE name = 'retention' AND expression = '0 3 * * *' AND next_due_at > now()");
    stop_worker(&w);
    settings.retention_cron = " ";
    w = start_worker();
    wait_for("SELECT 1 - count(*) FROM schedules WHERE name = 'retention'");
    stop_worker(&w);
    assert_int_equal(store_sql_int("SELECT count(*) FROM system_tasks WHERE name = 'retention'"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_schedulers_make_one_run_of_a_due_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_due_time_is_taken_once_whoever_asks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(after_downtime_one_run_is_made_and_says_how_many_were_missed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_run_whose_worker_died_is_lost_and_made_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_kills_its_worker_for_the_third_time_waits_for_its_next_time, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_long_run_keeps_its_lease_and_ends_when_its_worker_does, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_run_that_found_something_away_is_tried_again_twice_and_then_waits, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_announced_or_not_over_is_never_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_expression_takes_effect_and_an_empty_one_switches_off, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
