/* Runs operations of a brief kind one after the other, and commits their ends in groups: one statement, one wait for
 * the disk, one write to Redis for many. */
#pragma once

#include "worker/task_run.h"

/* `say` tells the supervisor: REPORT_END for each item that did not simply complete, then REPORT_BATCH_END. */
void task_batch(const struct task_host *host, const struct batch_order *order, struct batch_page *page,
                void (*say)(const struct report *report));
