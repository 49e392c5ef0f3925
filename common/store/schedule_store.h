/* The tables `schedules` and `system_tasks`: which due time of what runs by the clock was taken, and what became of its
 * run. Times are the database's, in whole seconds since 1970. Every function is a statement of its own. */
#pragma once

#include "common/db.h"

struct schedule_state {
    const char *name, *expression;
    int64_t next_due;
};

/* All that is scheduled, in the arena, and the time. */
enum status schedule_store_state(struct scope *sc, struct db *db, int64_t *out_now, struct schedule_state **out,
                                 size_t *out_count) must_check;
/* A new one, or one with another expression. */
enum status schedule_store_put(struct scope *sc, struct db *db, const char *name, const char *expression,
                               int64_t next_due) must_check;
enum status schedule_store_remove(struct scope *sc, struct db *db, const char *name) must_check;

struct schedule_due {
    const char *name;
    int64_t seen; /* next_due of the state that this follows from */
    int64_t due, next;
    int missed;
};
/* Takes the due time and records its run. STATUS_CONFLICT: somebody else did. */
enum status schedule_store_take(struct scope *sc, struct db *db, const struct schedule_due *due, const char *worker,
                                double lease_seconds, int64_t *out_task_id) must_check;
/* Records a run that nobody's clock asked for. */
enum status schedule_store_by_hand(struct scope *sc, struct db *db, const char *name, const char *worker,
                                   double lease_seconds, int64_t *out_task_id) must_check;
/* The runs go on: they count as lost only so many seconds from now. */
enum status schedule_store_extend(struct scope *sc, struct db *db, const int64_t *task_ids, size_t count,
                                  double lease_seconds) must_check;
/* Runs that nobody extends are lost; their due times are taken again. A row for each, with id, name, worker. */
enum status schedule_store_lost(struct scope *sc, struct db *db, PGresult **out_rows) must_check;
/* `status`: completed, failed, stopped (its due time is taken again). `result_json` and `error` may be NULL.
 * `is_transient`: it failed because something was away, and is tried again soon, twice. STATUS_LOST: it was counted as
 * lost. */
enum status schedule_store_end(struct scope *sc, struct db *db, int64_t task_id, const char *status,
                               const char *result_json, const char *error, bool is_transient) must_check;

/* The table lease of that name. *out_is_ours: taken or renewed. */
enum status schedule_store_lease(struct scope *sc, struct db *db, const char *holder, double seconds,
                                 bool *out_is_ours) must_check;
enum status schedule_store_release(struct scope *sc, struct db *db, const char *holder) must_check;
