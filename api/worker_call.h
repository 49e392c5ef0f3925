/* Calls of a worker's internal HTTP: of OPSTREAM_EMBED_URL, or of a live worker that has the model, over connections
 * that each handler thread keeps. The one file that includes libcurl. */
#pragma once

#include "common/config.h"
#include "common/db.h"

struct worker_call {
    const char *path;       /* "/internal/…" */
    const char *model;      /* that the worker must have */
    const char *body;       /* JSON */
    int whole_ms, first_ms; /* for two tries together, and for the first one at most */
    size_t most_answer_bytes;
    /* What a worker answered, whatever its status. STATUS_UNAVAILABLE = try another one. */
    enum status (*use)(struct scope *sc, int http, const struct text *answer, void *context);
    void *context;
};

/* What `use` returned. STATUS_UNAVAILABLE: no worker has the model, or none answered in time. */
enum status worker_call(struct scope *sc, struct db *db, const struct settings *settings,
                        const struct worker_call *call) must_check;
