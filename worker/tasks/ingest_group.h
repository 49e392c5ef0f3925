/* Documents that are embedded and committed together, so that small ones share a transaction. */
#pragma once

#include "worker/tasks/ahead.h"
#include "worker/tasks/ingest.h"

enum { GROUP_DOCUMENTS = 50 };

struct group {
    struct scope sc; /* owns the texts that were read for it, and what is computed of all */
    struct ready_document documents[GROUP_DOCUMENTS];
    struct ahead_document *held[GROUP_DOCUMENTS]; /* what owns documents[i] when it was read ahead, else NULL */
    size_t count, chunks, held_bytes;
};

/* As many as are worth a transaction; a suspected document is alone. */
bool group_is_full(const struct ingest *in, const struct group *g);
/* Embeds and writes them, and tells of each. What fails of one document is recorded with it. */
enum status group_write(struct scope *sc, struct ingest *in, struct group *g) must_check;
/* Empties it. */
void group_reset(struct group *g, const char *trace_id);
