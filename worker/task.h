/* One attempt of an operation, in its child process: claim's facts, the database and event connections, progress, and
 * the fence. The functions of tasks.def do the work; what all kinds share is in task.c (one attempt's
 * life), task_events.c (what it tells) and task_end.c (its last transaction). */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "common/json.h"
#include "common/operation.h"
#include "common/redis.h"

struct task {
    const struct settings *settings;
    struct db *db;               /* its application_name is the task id */
    struct redis *events;        /* stream database */
    const char *embedder_socket; /* Unix socket of the worker's embedder */
    const char *executable;      /* of this program, for helper processes */

    char operation_id[37];
    char task_id[37];
    char worker_id[64];
    enum operation_type type;
    int attempt;
    int64_t user_id;
    int64_t collection_id; /* row id; 0 when the collection is gone */
    char collection_uuid[37];
    const cJSON *config; /* the operation's config */

    /* Filled by the task as it goes; written to the row and to events. */
    int64_t processed, failed, total; /* total < 0 = not known yet */
    bool has_committed; /* something of this attempt is in the database: a soft time limit hands back instead of failing
                         */
    bool has_progressed;                       /* a document is: failures are counted from there on */
    int failures;                              /* failures and crashes since the last committed document */
    int max_attempts;                          /* so many of them are one too many */
    int64_t earlier_processed, earlier_failed; /* by earlier attempts */
    int64_t chunks, tokens;                    /* written and embedded by this attempt, for its figures */
    const char *last_reason;                   /* why the attempt before was given back; NULL = there was none */

    /* Filled by the task for its end. */
    const char *result_json;        /* `result` of operation_completed; NULL = {} */
    const char *collection_status;  /* what the collection becomes on success: "ready"; NULL = left alone */
    const char *collection_message; /* status_message on success, e.g. "Completed with errors" */
    const char *last_stage;         /* event to be published with the result once the end is committed; NULL = none */
    /* Runs at the beginning of the last transaction when the operation completes, for a kind whose whole effect comes
     * with its end; again when that transaction has to be tried again. Locks documents, then calls task_fence(), then
     * collections. Only for kinds that mutate. NULL = nothing. */
    enum status (*in_last_transaction)(struct scope *sc, struct task *task);
    void *last_context;           /* of in_last_transaction, in the arena of the task's scope */
    struct task_runtime *runtime; /* task.c's own */
};

enum { TASK_EVENT_ALWAYS = 1 }; /* passes the throttle: first, last, failures, state changes */

/* Publishes an event with operation_id, status and percent added. Best effort: Redis may be away. Progress events
 * closer together than PROGRESS_THROTTLE_MS are dropped unless flags say TASK_EVENT_ALWAYS; when one passes, processed,
 * failed, total, percent and current_file are written to the operation's row too. Also tells the supervisor that the
 * child is alive. */
void task_event(struct scope *sc, struct task *task, const char *type, double percent, const char *current_file,
                const char *data_json, int flags);
/* Tells the supervisor that the child is alive; cheap, call it in every loop. */
void task_heartbeat(struct task *task);
/* STATUS_OK to go on; STATUS_CANCELLED (told to stop), STATUS_LOST, or STATUS_TIMEOUT (soft limit: save and return it).
 * Ask between documents and batches. */
enum status task_check(struct scope *sc, struct task *task) must_check;
/* For whatever waits for long (embedder, extractor, PostgreSQL): tells the supervisor that the child is alive; true =
 * told to stop. `context` is the task. */
bool task_has_to_stop(void *context);
/* The fence alone, in the middle of a transaction: what locks collections comes after it. */
enum status task_fence(struct scope *sc, struct task *task) must_check;
/* In a transaction that makes documents whole: the failures before them count no more, and the row tells how many
 * documents of the operation are done then. Takes the operation's row lock, so it comes after the documents. */
enum status task_progressed(struct scope *sc, struct task *task, int64_t processed, int64_t failed) must_check;
/* Ends the transaction that db_begin opened: fence, then COMMIT at once. On any failure the transaction is rolled back.
 * STATUS_LOST means stop now: another attempt owns the operation, or it was cancelled. Sets has_committed. */
enum status task_commit(struct scope *sc, struct task *task) must_check;

/* Ends the transaction of a note (what was begun, how far it is), which is no work that a next attempt could go on
 * from: as task_commit() if `s` is STATUS_OK, else rolled back. has_committed stays as it was. */
enum status task_commit_note(struct scope *sc, struct task *task, enum status s) must_check;

/* What a row of tasks.def names. Works until done; STATUS_OK = completed. The end itself (status, collection, audit,
 * fence, COMMIT, last event) is task_end.c's. Must leave nothing half visible whenever it stops. */
typedef enum status task_function(struct scope *sc, struct task *task);

#define TASK(type, function, is_brief) task_function function;
#include "worker/tasks/tasks.def"
#undef TASK
