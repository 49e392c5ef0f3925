#include "worker/scheduled_run.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/schedule_store.h"

#include <pthread.h>
#include <stdatomic.h>

enum { REDIS_MS = 1000 };

struct scheduled_run {
    const struct settings *settings;
    const struct scheduled_row *row;
    int64_t task_id;
    struct db *db;
    struct redis *queue, *events;
    pthread_t thread;
    atomic_bool has_to_stop, is_over;
    enum status status; /* what follows is the thread's until it is over */
    char *result;       /* or the reason of its failure; NULL = nothing to tell */
};

static bool has_to_stop(void *context)
{
    const struct scheduled_run *run = context;
    return atomic_load(&run->has_to_stop);
}

static const char *state_of(enum status s)
{
    return s == STATUS_OK ? "completed" : s == STATUS_CANCELLED ? "stopped" : "failed";
}

/* Also of one that was told to stop: that is why nobody is asked while its end is written. */
static void record(struct scheduled_run *run, const char *result_json, const char *problem)
{
    struct scope sc;
    scope_init(&sc, NULL);
    db_rollback(run->db); /* nothing may be left open, whatever went wrong */
    db_on_wait(run->db, NULL, NULL);
    (void)FAULT(BEFORE_RUN_RECORDED, run->row->name);
    enum error_class class = status_class(run->status);
    enum status s = schedule_store_end(&sc, run->db, run->task_id, state_of(run->status), result_json, problem,
                                       class == ERROR_TRANSIENT || class == ERROR_RESOURCE);
    if (s != STATUS_OK)
        log_warning("scheduled_run_not_recorded", log_text("task", run->row->name), log_int("run", run->task_id),
                    log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void tell(const struct scheduled_run *run, double seconds)
{
    enum log_level level = run->status == STATUS_OK || run->status == STATUS_CANCELLED ? LOG_INFO : LOG_WARNING;
    metrics_add(METRIC_SCHEDULED_RUNS, run->row->name, state_of(run->status), 1);
    metrics_observe(METRIC_SCHEDULED_RUN_SECONDS, run->row->name, NULL, seconds);
    log_at(level, "scheduled_run_ended", log_text("task", run->row->name), log_int("run", run->task_id),
           log_text("status", state_of(run->status)), log_real("seconds", seconds),
           log_text(run->status == STATUS_OK ? "result" : "problem", run->result));
}

static void *work(void *context)
{
    struct scheduled_run *run = context;
    struct scope sc;
    int64_t started_ms = clock_monotonic_ms();
    scope_init(&sc, NULL);
    struct scheduled s = {.settings = run->settings,
                          .db = run->db,
                          .queue = run->queue,
                          .events = run->events,
                          .has_to_stop = has_to_stop,
                          .stop_context = run};
    log_info("scheduled_run_started", log_text("task", run->row->name), log_int("run", run->task_id));
    run->status = run->row->function(&sc, &s);
    const char *problem = run->status == STATUS_OK ? NULL
                          : sc.problem_text        ? sc.problem_text
                                                   : status_text(run->status);
    const char *result_json = s.result_json ? s.result_json : "{}";
    record(run, result_json, problem);
    run->result = must_strdup(problem ? problem : result_json);
    tell(run, (double)(clock_monotonic_ms() - started_ms) / 1000);
    scope_done(&sc);
    atomic_store(&run->is_over, true);
    return NULL;
}

static struct redis *connect_redis(const struct settings *s, int64_t database)
{
    return redis_new(&(struct redis_options){
        .url = s->redis_url, .database = (int)database, .prefix = s->redis_prefix, .timeout_ms = REDIS_MS});
}

static void release(struct scheduled_run *run)
{
    db_free(run->db);
    redis_free(run->queue);
    redis_free(run->events);
    free(run->result);
    free(run);
}

struct scheduled_run *scheduled_run_start(const struct settings *settings, const struct scheduled_row *row,
                                          int64_t task_id, const char *session_name)
{
    struct scheduled_run *run = must_calloc(1, sizeof *run);
    run->settings = settings;
    run->row = row;
    run->task_id = task_id;
    run->db = db_new(&(struct db_options){.url = settings->database_url, .application_name = session_name});
    run->queue = connect_redis(settings, settings->redis_queue_db);
    run->events = connect_redis(settings, settings->redis_stream_db);
    db_on_wait(run->db, has_to_stop, run);
    if (pthread_create(&run->thread, NULL, work, run) == 0)
        return run;
    log_warning("scheduled_run_not_started", log_text("task", row->name), log_text("problem", "no thread can be made"));
    release(run);
    return NULL;
}

void scheduled_run_stop(struct scheduled_run *run)
{
    atomic_store(&run->has_to_stop, true);
}

bool scheduled_run_is_over(const struct scheduled_run *run)
{
    return atomic_load(&run->is_over);
}

int64_t scheduled_run_task_id(const struct scheduled_run *run)
{
    return run->task_id;
}

const struct scheduled_row *scheduled_run_row(const struct scheduled_run *run)
{
    return run->row;
}

enum status scheduled_run_join(struct scheduled_run *run, char **out_result)
{
    pthread_join(run->thread, NULL);
    enum status s = run->status;
    if (out_result) {
        *out_result = run->result;
        run->result = NULL;
    }
    release(run);
    return s;
}
