/* One run of a scheduled task, on a thread and connections of its own, so that a long one holds up neither the clock
 * nor the others. What became of it is recorded by the thread. */
#pragma once

#include "worker/schedule.h"

struct scheduled_run;

/* `task_id`: its row of system_tasks. `session_name`: of its database sessions. NULL when no thread can be made (its
 * row is lost in time). The settings must outlive it. */
struct scheduled_run *scheduled_run_start(const struct settings *settings, const struct scheduled_row *row,
                                          int64_t task_id, const char *session_name);
/* It ends soon, and its due time is taken again. */
void scheduled_run_stop(struct scheduled_run *run);
bool scheduled_run_is_over(const struct scheduled_run *run);
int64_t scheduled_run_task_id(const struct scheduled_run *run);
const struct scheduled_row *scheduled_run_row(const struct scheduled_run *run);
/* Waits for its end and frees it. *out_result (may be NULL; the caller frees) is its result or the reason of its
 * failure. */
enum status scheduled_run_join(struct scheduled_run *run, char **out_result);
