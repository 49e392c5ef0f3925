/* One attempt of an operation from its first statement to its end, and what becomes of those that are given back. */
#include "tests/support/golden.h"
#include "tests/support/store.h"
#include "worker/settle.h"
#include "worker/task_run.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct settings settings;
static struct task_host host;
static struct settle_stores stores;

static int setup(void **state)
{
    if (store_setup(state) != 0)
        return -1;
    char *models = strdup(golden_model_dir());
    *strrchr(models, '/') = '\0';
    setenv("OPSTREAM_MODEL_DIR", models, 1);
    free(models);
    setenv("TEST_OPERATIONS", "true", 1);
    setenv("OPSTREAM_SOURCE_ROOTS", "/srv/docs:/data", 1);
    if (settings_load(&store.sc, &settings, SETTING_WORKER) != STATUS_OK)
        return -1;
    host = (struct task_host){.settings = &settings,
                              .db = store_connect("test"),
                              .events = store.events,
                              .embedder_socket = "/nowhere",
                              .channel = -1};
    stores = (struct settle_stores){.db = store.db, .queue = store.queue, .events = store.events};
    return 0;
}

static int teardown(void **state)
{
    db_free(host.db);
    settings_done(&settings);
    return store_teardown(state);
}

/* A claimed operation on a collection that is being worked on. */
struct attempt {
    struct operation_ref ref;
    int64_t collection_id;
    const char *worker, *task;
};

static struct attempt attempt_of(enum operation_type type, const char *config, int max_attempts)
{
    struct attempt a = {0};
    int64_t user = store_user();
    a.collection_id = store_collection(user);
    a.ref = store_operation(user, a.collection_id, type);
    store_sql("UPDATE operations SET config = '%s', max_attempts = %d WHERE uuid = '%s'", config, max_attempts,
              a.ref.uuid);
    store_sql("UPDATE collections SET status = 'processing', embedding_model = 'all-MiniLM-L6-v2' WHERE id = %lld",
              (long long)a.collection_id);
    a.worker = store_worker(60);
    a.task = store_claim(a.ref.uuid, a.worker);
    assert_non_null(a.task);
    return a;
}

static struct task_end execute(const struct attempt *a)
{
    struct task_end end;
    task_execute(&host, a->ref.uuid, a->task, a->worker, &end);
    return end;
}

static enum settled give_back(const struct attempt *a, const struct task_end *end)
{
    struct hand_back give = {
        .delay_seconds = end->delay_seconds, .is_counted = end->is_counted, .class = (enum error_class)end->class};
    snprintf(give.operation_id, sizeof give.operation_id, "%s", a->ref.uuid);
    snprintf(give.task_id, sizeof give.task_id, "%s", a->task);
    snprintf(give.reason, sizeof give.reason, "%s", end->reason);
    enum settled settled = SETTLED_LOST;
    assert_ok(settle_hand_back(&store.sc, &stores, &give, &settled));
    return settled;
}

static const char *status_of(const struct attempt *a)
{
    return store_sql("SELECT status FROM operations WHERE uuid = '%s'", a->ref.uuid);
}

static const char *collection_of(const struct attempt *a)
{
    return store_sql("SELECT status || '|' || coalesce(status_message, '') FROM collections WHERE id = %lld",
                     (long long)a->collection_id);
}

/* Types of the operation's events, oldest first, separated by blanks. */
static const char *events_of(const char *uuid)
{
    scoped_text all = {0};
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.events, &reply, "XRANGE %s - +",
                        redis_key(&store.sc, store.events, MESSAGE_STREAM, uuid)));
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *fields = reply->element[i]->element[1];
        for (size_t f = 0; f + 1 < fields->elements; f += 2) {
            if (strcmp(fields->element[f]->str, "message") != 0)
                continue;
            scoped(cJSON) *json = cJSON_Parse(fields->element[f + 1]->str);
            text_printf(&all, "%s%s", all.len ? " " : "", json_get_text(json, "type", "?"));
        }
    }
    return arena_strdup(&store.sc.arena, text_str(&all));
}

static void a_finished_attempt_commits_its_end_with_audit_and_figures_and_announces_it(void **state)
{
    (void)state;
    struct attempt a = attempt_of(OPERATION_NOOP, "{\"events\": 2}", 4);
    struct task_end end = execute(&a);
    assert_int_equal(end.outcome, TASK_COMPLETED);
    assert_string_equal(status_of(&a), "completed");
    assert_string_equal(events_of(a.ref.uuid),
                        "operation_started processing_progress processing_progress operation_completed");
    assert_int_equal(
        store_sql_int(
            "SELECT count(*) FROM operations WHERE uuid = '%s' AND announced_at IS NOT NULL AND percent = 100",
            a.ref.uuid),
        1);
    assert_string_equal(
        store_sql("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE operation_uuid = '%s'", a.ref.uuid),
        "operation_noop_pending operation_noop_processing operation_noop_completed");
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM operation_figures, jsonb_object_keys(figures) WHERE operation_uuid = '%s'",
                      a.ref.uuid),
        9);
}

static void the_index_of_an_empty_collection_makes_it_ready(void **state)
{
    (void)state;
    struct attempt a = attempt_of(OPERATION_INDEX, "{\"empty\": true}", 4);
    assert_int_equal(execute(&a).outcome, TASK_COMPLETED);
    assert_string_equal(collection_of(&a), "ready|");
}

static void a_permanent_failure_ends_it_at_once_and_never_leaves_the_collection_processing(void **state)
{
    (void)state;
    struct attempt append = attempt_of(OPERATION_APPEND, "{\"source_id\": 0}", 4),
                   index = attempt_of(OPERATION_INDEX, "{\"source_id\": 12345}", 4);
    assert_int_equal(execute(&append).outcome, TASK_FAILED);
    assert_string_equal(collection_of(&append), "ready|append failed: the operation names no source");
    assert_int_equal(execute(&index).outcome, TASK_FAILED);
    assert_string_equal(collection_of(&index), "error|Initial indexing failed: the collection has no source 12345");
    assert_string_equal(store_sql("SELECT error_class FROM operations WHERE uuid = '%s'", index.ref.uuid), "permanent");
    assert_non_null(strstr(events_of(index.ref.uuid), "operation_failed"));
}

static void an_attempt_that_lost_its_operation_changes_nothing(void **state)
{
    (void)state;
    struct attempt a = attempt_of(OPERATION_NOOP, "{\"events\": 3}", 4);
    const char *task = a.task;
    a.task = "00000000-0000-4000-8000-000000000001";
    assert_int_equal(execute(&a).outcome, TASK_LOST);
    assert_string_equal(status_of(&a), "processing");
    assert_string_equal(events_of(a.ref.uuid), "");
    a.task = task;
    assert_int_equal(execute(&a).outcome, TASK_COMPLETED);
}

static void a_transient_failure_is_given_back_with_a_delay_until_the_attempts_are_used_up(void **state)
{
    (void)state;
    struct attempt a = attempt_of(OPERATION_NOOP, "{\"fail\": \"transient\"}", 2);
    struct task_end end = execute(&a);
    assert_int_equal(end.outcome, TASK_HAND_BACK);
    assert_true(end.is_counted && end.delay_seconds >= 1);
    assert_int_equal(give_back(&a, &end), SETTLED_PENDING);
    assert_int_equal(
        store_sql_int("SELECT count(*) FROM operations WHERE uuid = '%s' AND status = 'pending' AND failures = 1 "
                      "AND worker_id IS NULL AND not_before > now()",
                      a.ref.uuid),
        1);
    assert_int_equal(give_back(&a, &end), SETTLED_LOST); /* once only */
    store_sql("UPDATE operations SET not_before = now() WHERE uuid = '%s'", a.ref.uuid);
    a.task = store_claim(a.ref.uuid, a.worker);
    end = execute(&a);
    assert_int_equal(give_back(&a, &end), SETTLED_FAILED);
    assert_string_equal(events_of(a.ref.uuid), "operation_started operation_started operation_failed");
    assert_string_equal(store_sql("SELECT error_message FROM operations WHERE uuid = '%s'", a.ref.uuid),
                        "failed as asked");
}

static void what_is_given_back_without_delay_is_pushed_again(void **state)
{
    (void)state;
    struct attempt a = attempt_of(OPERATION_APPEND, "{\"x\": 1}", 4);
    struct task_end end = {.reason = "its worker was stopped"};
    assert_int_equal(give_back(&a, &end), SETTLED_PENDING);
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.queue, &reply, "RPOP %s", redis_key(&store.sc, store.queue, "queue:default")));
    assert_string_equal(reply->str, a.ref.uuid);
    assert_int_equal(store_sql_int("SELECT failures FROM operations WHERE uuid = '%s'", a.ref.uuid), 0);
}

static void an_append_whose_worker_dies_too_often_fails_and_frees_its_collection(void **state)
{
    (void)state;
    struct attempt a = attempt_of(OPERATION_APPEND, "{\"x\": 1}", 1);
    struct task_end end = {
        .is_counted = true, .class = ERROR_INTERNAL, .reason = "its worker died {n} times, last by signal 9"};
    assert_int_equal(give_back(&a, &end), SETTLED_FAILED);
    assert_string_equal(collection_of(&a), "ready|append failed: its worker died 1 times, last by signal 9");
    assert_string_equal(
        store_sql("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE operation_uuid = '%s'", a.ref.uuid),
        "operation_append_pending operation_append_failed");
}

static void the_operations_of_a_lapsed_worker_go_back_or_fail_and_those_of_a_living_one_stay(void **state)
{
    (void)state;
    struct attempt back = attempt_of(OPERATION_APPEND, "{\"x\": 1}", 4),
                   last = attempt_of(OPERATION_INDEX, "{\"x\": 1}", 1);
    struct attempt living = attempt_of(OPERATION_NOOP, "{\"x\": 1}", 4),
                   orphan = attempt_of(OPERATION_NOOP, "{\"x\": 1}", 4);
    store_sql("UPDATE workers SET expires_at = now() - interval '1 second' WHERE id IN ('%s', '%s')", back.worker,
              last.worker);
    store_sql("DELETE FROM workers WHERE id = '%s'", orphan.worker);
    int count = 0;
    assert_ok(settle_sweep(&store.sc, &stores, -1, 5, &count));
    assert_int_equal(count, 3);
    assert_string_equal(status_of(&back), "pending");
    assert_string_equal(status_of(&orphan), "pending");
    assert_string_equal(status_of(&living), "processing");
    assert_string_equal(status_of(&last), "failed");
    assert_string_equal(collection_of(&last),
                        "error|Initial indexing failed: its worker died 1 times, last because its lease lapsed");
    assert_string_equal(events_of(last.ref.uuid), "operation_failed");
    assert_int_equal(execute(&back).outcome, TASK_LOST);
    assert_ok(settle_sweep(&store.sc, &stores, -1, 5, &count));
    assert_int_equal(count, 0);
}

/* ---- cancel against completion ---- */

struct canceller {
    struct db *db;
    const char *uuid;
    int64_t pause_ns;
    bool has_won;
};

static void *cancel(void *context)
{
    struct canceller *c = context;
    struct scope sc;
    scope_init(&sc, NULL);
    nanosleep(&(struct timespec){.tv_nsec = c->pause_ns}, NULL);
    struct operation_ref ref;
    const char *worker_id;
    int64_t collection_id;
    enum status s = db_begin(&sc, c->db);
    if (s == STATUS_OK)
        s = operation_store_cancel(&sc, c->db, c->uuid, &ref, &worker_id, &collection_id);
    if (s == STATUS_OK)
        s = db_commit(&sc, c->db);
    else
        db_rollback(c->db);
    c->has_won = s == STATUS_OK;
    scope_done(&sc);
    return NULL;
}

static void of_cancel_and_completion_exactly_one_wins(void **state)
{
    (void)state;
    struct canceller c = {.db = store_connect("canceller")};
    for (int i = 0; i < 40; i++) {
        struct attempt a = attempt_of(OPERATION_NOOP, "{\"events\": 1}", 4);
        c.uuid = a.ref.uuid;
        c.pause_ns = i * 150000;
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, cancel, &c), 0);
        struct task_end end = execute(&a);
        pthread_join(thread, NULL);
        assert_string_equal(status_of(&a), c.has_won ? "cancelled" : "completed");
        assert_int_equal(end.outcome, c.has_won ? TASK_LOST : TASK_COMPLETED);
        assert_int_equal(store_sql_int("SELECT count(*) FROM audit_log WHERE operation_uuid = '%s' AND action LIKE "
                                       "'%%completed'",
                                       a.ref.uuid),
                         c.has_won ? 0 : 1);
        if (c.has_won)
            assert_ok(operation_store_announce(&store.sc, store.db, store.events, a.ref.uuid));
        const char *events = events_of(a.ref.uuid);
        assert_int_equal(strstr(events, "operation_completed") != NULL, !c.has_won);
        assert_int_equal(strstr(events, "operation_cancelled") != NULL, c.has_won);
    }
    db_free(c.db);
}

/* ---- what follows from how the work ended ---- */

static struct task_verdict judge(enum status s, enum operation_type type, int failures)
{
    return task_judge(s, &(struct task_facts){.type = type, .failures = failures, .default_retry_delay = 60});
}

static void retries_follow_the_class_of_the_error_and_the_kind_of_operation(void **state)
{
    (void)state;
    assert_int_equal(judge(STATUS_OK, OPERATION_APPEND, 0).outcome, TASK_COMPLETED);
    assert_int_equal(judge(STATUS_INVALID, OPERATION_APPEND, 0).outcome, TASK_FAILED);
    assert_int_equal(judge(STATUS_LOST, OPERATION_APPEND, 0).outcome, TASK_LOST);
    assert_int_equal(judge(STATUS_CANCELLED, OPERATION_APPEND, 0).outcome, TASK_STOPPED);
    assert_int_equal(judge(STATUS_INTERNAL, OPERATION_APPEND, 0).outcome, TASK_HAND_BACK);
    assert_true(judge(STATUS_UNAVAILABLE, OPERATION_APPEND, 0).delay_seconds == 60);
    assert_true(judge(STATUS_UNAVAILABLE, OPERATION_INDEX, 2).delay_seconds == 240);
    assert_true(judge(STATUS_UNAVAILABLE, OPERATION_REINDEX, 1).delay_seconds == 240);
    assert_true(judge(STATUS_UNAVAILABLE, OPERATION_DELETE, 2).delay_seconds == 60);
    assert_true(judge(STATUS_NO_SPACE, OPERATION_APPEND, 2).delay_seconds == 30);
    assert_true(judge(STATUS_BUSY, OPERATION_APPEND, 2).delay_seconds == 60);
    /* Each class has its row, and what nobody thought of is not tried for ever. */
    for (int s = 0; s <= (int)STATUS_CANCELLED; s++) {
        struct task_verdict v = judge((enum status)s, OPERATION_NOOP, 1);
        enum error_class class = status_class((enum status)s);
        bool is_tried_again = class == ERROR_TRANSIENT || class == ERROR_RESOURCE || class == ERROR_INTERNAL;
        assert_int_equal(v.outcome == TASK_HAND_BACK, is_tried_again);
        assert_int_equal(v.is_counted, is_tried_again);
        assert_int_equal(v.delay_seconds > 0, is_tried_again);
    }
    struct task_facts facts = {.type = OPERATION_APPEND, .jitter = 1};
    assert_true(task_judge(STATUS_UNAVAILABLE, &facts).delay_seconds == 75);
}

static void the_soft_limit_hands_back_what_has_something_to_show_and_fails_the_rest(void **state)
{
    (void)state;
    struct task_facts facts = {.type = OPERATION_APPEND, .is_over_limit = true};
    assert_int_equal(task_judge(STATUS_TIMEOUT, &facts).outcome, TASK_FAILED);
    facts.has_committed = true;
    assert_int_equal(task_judge(STATUS_TIMEOUT, &facts).outcome, TASK_HAND_BACK);
    assert_true(
        task_judge(STATUS_TIMEOUT, &facts).is_counted); /* registered, not one document done: this must end some time */
    facts.has_progressed = true;
    assert_false(task_judge(STATUS_TIMEOUT, &facts).is_counted);
}

static void what_leaves_the_worker_holds_no_path_outside_the_sources_and_no_secret(void **state)
{
    (void)state;
    static const struct {
        enum status status;
        const char *text, *shown;
    } cases[] = {
        {STATUS_INVALID, "cannot read /etc/opstream/secret.key: no", "cannot read …/secret.key: no"},
        {STATUS_INVALID, "/srv/docs/a b.txt is broken", "/srv/docs/a b.txt is broken"},
        {STATUS_INVALID, "/srv/docs-private/x is broken", "…/x is broken"},
        {STATUS_UNAVAILABLE, "see postgresql://ann:pw@db/x now", "see postgresql://… now"},
        {STATUS_UNAVAILABLE, "PostgreSQL cannot be reached: password of ann", "the database does not answer"},
        {STATUS_INTERNAL, "PostgreSQL 42703: column x", "the database refused a statement"},
        {STATUS_UNAVAILABLE, "a/b and 1 / 2", "a/b and 1 / 2"},
        {STATUS_BUSY, NULL, "too much at once"},
    };
    for (size_t i = 0; i < array_len(cases); i++)
        assert_string_equal(task_public_text(&store.sc, &settings, cases[i].status, cases[i].text), cases[i].shown);
    scoped_text t = {0};
    while (t.len < 5000)
        text_puts(&t, "ä");
    const char *cut = task_public_text(&store.sc, &settings, STATUS_INVALID, t.data);
    assert_true(strlen(cut) > 100 && strlen(cut) < REASON_BYTES && utf8_is_valid(cut, strlen(cut)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finished_attempt_commits_its_end_with_audit_and_figures_and_announces_it),
        cmocka_unit_test(the_index_of_an_empty_collection_makes_it_ready),
        cmocka_unit_test(a_permanent_failure_ends_it_at_once_and_never_leaves_the_collection_processing),
        cmocka_unit_test(an_attempt_that_lost_its_operation_changes_nothing),
        cmocka_unit_test(a_transient_failure_is_given_back_with_a_delay_until_the_attempts_are_used_up),
        cmocka_unit_test(what_is_given_back_without_delay_is_pushed_again),
        cmocka_unit_test(an_append_whose_worker_dies_too_often_fails_and_frees_its_collection),
        cmocka_unit_test(the_operations_of_a_lapsed_worker_go_back_or_fail_and_those_of_a_living_one_stay),
        cmocka_unit_test(of_cancel_and_completion_exactly_one_wins),
        cmocka_unit_test(retries_follow_the_class_of_the_error_and_the_kind_of_operation),
        cmocka_unit_test(the_soft_limit_hands_back_what_has_something_to_show_and_fails_the_rest),
        cmocka_unit_test(what_leaves_the_worker_holds_no_path_outside_the_sources_and_no_secret),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
