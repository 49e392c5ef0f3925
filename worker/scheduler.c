#include "worker/scheduler.h"

#include "common/clock.h"
#include "common/cron.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/schedule_store.h"
#include "worker/scheduled_run.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    MOST_RUNS = 4, /* at a time; what else is due waits */
    LEASES = 3,    /* of a worker, make the scheduler's: a worker that is only slow keeps it */
    ROUNDS = 3,    /* in a lease */
    STATEMENT_MS = 5000,
    NOT_READY_MS = 250,
};

struct scheduler {
    const struct settings *settings;
    struct lease *lease;
    struct db *db;
    char session_name[64];
    char holder[64];
    bool is_holder;
    int64_t held_until_ms; /* on our clock, no later than in the row */
    struct scheduled_run *runs[MOST_RUNS];
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool has_to_stop;
};

double scheduler_lease_seconds(const struct settings *settings)
{
    return (double)(settings->worker_lease_seconds * LEASES);
}

/* ---- runs ---- */

static struct scheduled_run **slot_for(struct scheduler *s, const char *name)
{
    struct scheduled_run **free_one = NULL;
    for (size_t i = 0; i < MOST_RUNS; i++) {
        if (!s->runs[i])
            free_one = &s->runs[i];
        else if (strcmp(scheduled_run_row(s->runs[i])->name, name) == 0)
            return NULL; /* the run before goes on still */
    }
    return free_one;
}

static void collect_runs(struct scheduler *s)
{
    for (size_t i = 0; i < MOST_RUNS; i++) {
        if (s->runs[i] && scheduled_run_is_over(s->runs[i])) {
            (void)scheduled_run_join(s->runs[i], NULL);
            s->runs[i] = NULL;
        }
    }
}

static void stop_runs(struct scheduler *s)
{
    for (size_t i = 0; i < MOST_RUNS; i++) {
        if (s->runs[i])
            scheduled_run_stop(s->runs[i]);
    }
}

static enum status extend_runs(struct scope *sc, struct scheduler *s)
{
    int64_t ids[MOST_RUNS];
    size_t count = 0;
    for (size_t i = 0; i < MOST_RUNS; i++) {
        if (s->runs[i])
            ids[count++] = scheduled_run_task_id(s->runs[i]);
    }
    return schedule_store_extend(sc, s->db, ids, count, scheduler_lease_seconds(s->settings));
}

/* ---- what is due ---- */

static enum status start_run(struct scope *sc, struct scheduler *s, const struct scheduled_row *row,
                             const struct schedule_due *due)
{
    struct scheduled_run **slot = slot_for(s, row->name);
    int64_t task_id;
    char session_name[64];
    if (!slot)
        return STATUS_OK;
    enum status status = schedule_store_take(sc, s->db, due, s->holder, scheduler_lease_seconds(s->settings), &task_id);
    if (status == STATUS_CONFLICT) {
        scope_forgive(sc);
        return STATUS_OK;
    }
    if (status != STATUS_OK)
        return status;
    (void)FAULT(RUN_TAKEN, row->name);
    if (due->missed > 0)
        log_warning("scheduled_runs_missed", log_text("task", row->name), log_int("missed", due->missed));
    lease_session_name(s->lease, "scheduled", session_name);
    *slot = scheduled_run_start(s->settings, row, task_id, session_name);
    return STATUS_OK;
}

static const struct schedule_state *find(const struct schedule_state *all, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(all[i].name, name) == 0)
            return &all[i];
    }
    return NULL;
}

/* What this worker's settings say stands in the table: it is the holder. */
static enum status note(struct scope *sc, struct scheduler *s, const struct scheduled_row *row,
                        const struct schedule_state *known, int64_t now)
{
    const char *expression = schedule_expression(s->settings, row);
    struct cron cron;
    char problem[CRON_PROBLEM_BYTES];
    int64_t next;
    if (!*expression)
        return known ? schedule_store_remove(sc, s->db, row->name) : STATUS_OK;
    if (known && strcmp(known->expression, expression) == 0)
        return STATUS_OK;
    if (!cron_parse(expression, &cron, problem) || !cron_next(&cron, now, &next))
        return STATUS_OK; /* never: the settings were looked at */
    return schedule_store_put(sc, s->db, row->name, expression, next);
}

static enum status run_what_is_due(struct scope *sc, struct scheduler *s, int64_t *out_wait_ms)
{
    struct schedule_state *all;
    size_t known_count, count;
    int64_t now;
    const struct scheduled_row *rows = schedule_rows(&count);
    enum status status = schedule_store_state(sc, s->db, &now, &all, &known_count);
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        const struct schedule_state *known = find(all, known_count, rows[i].name);
        struct schedule_due due = {.name = rows[i].name};
        status = note(sc, s, &rows[i], known, now);
        if (status != STATUS_OK || !known || strcmp(known->expression, schedule_expression(s->settings, &rows[i])) != 0)
            continue;
        due.seen = known->next_due;
        if (schedule_choose(known->expression, known->next_due, now, &due.due, &due.next, &due.missed))
            status = start_run(sc, s, &rows[i], &due);
        else if ((known->next_due - now) * 1000 < *out_wait_ms)
            *out_wait_ms = (known->next_due - now) * 1000;
    }
    return status;
}

static enum status bury_the_lost(struct scope *sc, struct scheduler *s)
{
    scoped(PGresult) *rows = NULL;
    enum status status = schedule_store_lost(sc, s->db, &rows);
    for (int r = 0; status == STATUS_OK && r < PQntuples(rows); r++) {
        metrics_add(METRIC_SCHEDULED_RUNS, db_text(rows, r, "name"), "lost", 1);
        log_warning("scheduled_run_lost", log_text("task", db_text(rows, r, "name")),
                    log_text("run", db_text(rows, r, "id")), log_text("worker", db_text(rows, r, "worker")));
    }
    return status;
}

/* ---- the lease ---- */

/* The worker's id is new after a lost lease. */
static void take_names(struct scheduler *s)
{
    char name[64];
    lease_worker_id(s->lease, s->holder);
    lease_session_name(s->lease, "scheduler", name);
    if (strcmp(name, s->session_name) == 0)
        return;
    memcpy(s->session_name, name, sizeof name);
    db_disconnect(s->db);
    db_rename(s->db, name);
}

static enum status hold(struct scope *sc, struct scheduler *s)
{
    bool was_holder = s->is_holder, is_ours = false;
    int64_t asked_ms = clock_monotonic_ms();
    double seconds = scheduler_lease_seconds(s->settings);
    enum status status = schedule_store_lease(sc, s->db, s->holder, seconds, &is_ours);
    if (status == STATUS_OK && is_ours)
        s->held_until_ms = asked_ms + (int64_t)(seconds * 1000);
    if (status == STATUS_OK)
        s->is_holder = is_ours;
    else
        s->is_holder = s->is_holder && clock_monotonic_ms() < s->held_until_ms; /* nobody else can have it before */
    if (was_holder != s->is_holder)
        log_info(s->is_holder ? "scheduler_chosen" : "scheduler_replaced", log_text("worker", s->holder));
    if (was_holder && !s->is_holder)
        stop_runs(s);
    return status;
}

static enum status one_round(struct scope *sc, struct scheduler *s, int64_t *out_wait_ms)
{
    if (lease_problem(s->lease) && !s->is_holder) { /* not registered, an old schema, or cut off */
        *out_wait_ms = NOT_READY_MS;
        return STATUS_OK;
    }
    enum status status = hold(sc, s);
    if (status != STATUS_OK || !s->is_holder)
        return status;
    (void)FAULT(SCHEDULER_CHOSEN, NULL);
    status = extend_runs(sc, s);
    if (status == STATUS_OK)
        status = bury_the_lost(sc, s);
    if (status == STATUS_OK && !lease_problem(s->lease)) /* one that is about to end starts nothing */
        status = run_what_is_due(sc, s, out_wait_ms);
    return status;
}

/* ---- the thread ---- */

static bool has_to_stop(void *context)
{
    struct scheduler *s = context;
    pthread_mutex_lock(&s->lock);
    bool stop = s->has_to_stop;
    pthread_mutex_unlock(&s->lock);
    return stop;
}

/* False when it is time to stop. */
static bool pause_ms(struct scheduler *s, int64_t ms)
{
    const struct timespec until = clock_in_ms(ms);
    pthread_mutex_lock(&s->lock);
    int e = 0;
    while (!s->has_to_stop && e == 0)
        e = pthread_cond_timedwait(&s->wake, &s->lock, &until);
    bool goes_on = !s->has_to_stop;
    pthread_mutex_unlock(&s->lock);
    return goes_on;
}

/* The lease goes last: who has it next finds the due times of stopped runs given back. */
static void hand_over(struct scheduler *s)
{
    struct scope sc;
    stop_runs(s);
    for (size_t i = 0; i < MOST_RUNS; i++) {
        if (s->runs[i])
            (void)scheduled_run_join(s->runs[i], NULL);
        s->runs[i] = NULL;
    }
    scope_init(&sc, NULL);
    db_on_wait(s->db, NULL, NULL);
    if (s->is_holder && schedule_store_release(&sc, s->db, s->holder) != STATUS_OK)
        log_debug("scheduler_not_released", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void *run(void *context)
{
    struct scheduler *s = context;
    int64_t round_ms = (int64_t)(scheduler_lease_seconds(s->settings) * 1000) / ROUNDS, wait_ms;
    do {
        struct scope sc;
        scope_init(&sc, NULL);
        wait_ms = round_ms;
        take_names(s);
        collect_runs(s);
        if (one_round(&sc, s, &wait_ms) != STATUS_OK)
            log_debug("schedule_round_failed", log_text("problem", sc.problem_text));
        db_rollback(s->db);
        scope_done(&sc);
    } while (pause_ms(s, wait_ms < 1 ? 1 : wait_ms));
    hand_over(s);
    return NULL;
}

struct scheduler *scheduler_start(const struct settings *settings, struct lease *lease)
{
    struct scheduler *s = must_calloc(1, sizeof *s);
    s->settings = settings;
    s->lease = lease;
    s->db = db_new(&(struct db_options){.url = settings->database_url, .statement_timeout_ms = STATEMENT_MS});
    db_on_wait(s->db, has_to_stop, s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&s->thread, NULL, run, s) != 0)
        abort(); /* no thread at start: nothing can work */
    return s;
}

void scheduler_hand_over(struct scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->has_to_stop = true;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void scheduler_stop(struct scheduler *s)
{
    if (!s)
        return;
    scheduler_hand_over(s);
    pthread_join(s->thread, NULL);
    db_free(s->db);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
