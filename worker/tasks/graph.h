/* The HNSW graph of a generation, built when it has grown past what is searched exactly. */
#pragma once

#include "common/store/vector_store.h"
#include "worker/task.h"

/* Builds it in a fenced transaction of its own when there is none and the generation holds more than EXACT_SCAN_ROWS of
 * `vectors`. Keeps the supervisor informed; STATUS_CANCELLED when told to stop. */
enum status graph_build(struct scope *sc, struct task *task, struct generation *generation, int64_t vectors) must_check;
