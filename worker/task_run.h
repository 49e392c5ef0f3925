/* One attempt from its first statement to its last: what child.c and `--task` call. task.h is what the kinds of tasks
 * see of it. */
#pragma once

#include "worker/orders.h"
#include "worker/retry.h"
#include "worker/task.h"

#include <signal.h>

/* Lives as long as the process that runs tasks. */
struct task_host {
    const struct settings *settings;
    struct db *db;
    struct redis *events; /* stream database */
    const char *embedder_socket;
    int channel;                    /* to the supervisor (SOCK_SEQPACKET); -1 = none */
    volatile sig_atomic_t *is_told; /* set by SIGTERM; may be NULL */
};

/* Runs a claimed operation. Committed ends (completed, failed) are announced; everything else is for the caller to
 * settle. */
void task_execute(const struct task_host *host, const char *operation_id, const char *task_id, const char *worker_id,
                  struct task_end *out);

/* What went wrong is the database's matter, by the sentence of common/db.c. */
bool task_problem_is_of_database(const char *problem);
/* The sentence as it may leave the worker: no credentials, no path outside the source roots, nothing of the database's
 * own words. In the arena. */
const char *task_public_text(struct scope *sc, const struct settings *settings, enum status s, const char *text);

/* What a collection becomes when an operation on it failed. */
const char *task_failed_collection_status(enum operation_type type);
const char *task_failed_collection_message(struct scope *sc, enum operation_type type, const char *reason);
