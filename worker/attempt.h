/* The life of one attempt, for those who run attempts: task.c one (with task_events.c and task_end.c), task_batch.c
 * many of a brief kind. */
#pragma once

#include "common/message.h"
#include "worker/task_run.h"

#include <sys/resource.h>

enum { MOST_HELD_EVENTS = 8 };

struct task_runtime {
    const struct task_host *host;
    int64_t started_ms, told_alive_ms, told_progress_ms;
    bool is_stopped, is_lost;
    char logged_stage[48]; /* the newest stage in the log, and when how far it is was logged */
    int64_t logged_ms;
    struct rusage usage;
    double waited_seconds; /* from due to loaded */
    bool has_own_peak;     /* of memory; brief attempts share the process's */
    /* Of a brief kind: events wait for its end, so that they travel in one write with it; when it takes long after all,
     * they go out one by one. */
    bool holds_events;
    struct event held[MOST_HELD_EVENTS];
    size_t held_count;
    void (*on_slow)(void *context); /* called once when it takes long after all; may use the database */
    void *slow_context;
};

struct attempt {
    struct scope sc;
    struct task task;
    struct task_runtime runtime;
    struct task_facts facts;
    cJSON *config;
    enum status status; /* of the work */
    struct task_end end;
};

/* Zeroed before; attempt_done() whatever follows. */
void attempt_init(struct attempt *a, const struct task_host *host, const char *operation_id, const char *task_id,
                  const char *worker_id);
void attempt_done(struct attempt *a);
/* Reads what `count` attempts need to know, by one statement, and calls the session by the first task. Those that lost
 * their operation get STATUS_LOST. */
enum status attempts_load(struct attempt *const *attempts, size_t count) must_check;
/* Does the work of one that was loaded, and judges: a->end says what follows. */
void attempt_work(struct attempt *a);
/* Writes the ends (completed or failed) of some attempts: audit, figures, and the rows that
 * operation_store_announce_rows() needs in *out. Attempts that lost their operation get the outcome TASK_LOST. */
enum status attempts_end(struct scope *sc, struct db *db, struct attempt *const *attempts, size_t count,
                         PGresult **out) must_check;
/* What the attempt took so far. */
void attempt_measure(const struct task *task, struct task_end *out);
/* The last transaction of one attempt, tried again while the database is away; *out as attempts_end() gives it.
 * STATUS_LOST: another attempt owns the operation. Anything else: it could not be recorded. */
enum status attempt_finish(struct attempt *a, PGresult **out) must_check;
/* The last event, after the commit. */
void attempt_announce_end(const struct task *task, const PGresult *rows);
/* operation_started. */
void task_announce_start(struct scope *sc, struct task *task);
/* A task's last_stage: told before the last event, but only once it is so, as clients look at the collection when they
 * hear of it. */
void task_announce_stage(const struct task *task);
/* The end could not be recorded: what was committed stays, the next attempt finds little left to do. */
void attempt_not_recorded(struct attempt *a, enum status s);
void attempt_log_end(const struct attempt *a);
/* Publishes what was held back. */
void attempt_release_events(struct attempt *a);
/* Whether this process may run operations of that type many at a time. */
bool task_is_brief(enum operation_type type);
