/* Room that removed rows leave in the tables that collections share. Autovacuum comes by when a fifth of a table is
 * dead; after a large removal the room is made usable at once. Nobody who reads or writes is kept waiting, and what
 * goes wrong is left to autovacuum. Tables of vectors are left out: those of a deleted collection are dropped, and a
 * graph is not vacuumed before pgvector 0.8.4. */
#pragma once

#include "worker/task.h"

struct reclaim {
    char partition[64];        /* of the collection's chunks; "" = unknown */
    int64_t documents, chunks; /* removed by this attempt */
};

/* Before the removal, as afterwards nobody can tell. */
void reclaim_begin(struct scope *sc, struct task *task, struct reclaim *r);
/* After it, outside a transaction. */
void reclaim_end(struct scope *sc, struct task *task, const struct reclaim *r);
