/* Looks whether what is stored fits together: chunks, vectors, documents, counters, generations, collections, last
 * events and streams. Runs beside everything else without false alarms: each look at a collection is one statement, one
 * snapshot, in which no operation holds it; what an operation holds is looked at another time. Repairs are short
 * transactions that keep operations off the collection meanwhile. Goes from collection to collection, so its memory
 * does not grow with them. Nothing is kept on disk but what these two servers keep. */
#pragma once

#include "common/db.h"
#include "common/redis.h"

enum integrity_kind {
#define INTEGRITY(name, text, meaning, repair) INTEGRITY_##name,
#include "worker/integrity.def"
#undef INTEGRITY
    INTEGRITY_KINDS
};

struct integrity_finding {
    int64_t count, repaired;
    char examples[400]; /* some of them, for people */
};

struct integrity {
    struct db *db;
    struct redis *events; /* stream database */
    bool has_to_repair;
    bool (*has_to_stop)(void *context); /* asked between collections; NULL = nobody is asked */
    void *stop_context;

    /* What was found. */
    struct integrity_finding findings[INTEGRITY_KINDS];
    int64_t collections, held; /* looked at; of them, those that an operation was working on */
    int64_t streams;
    bool is_redis_away; /* the streams could not be looked at */
};

/* STATUS_OK whatever is found. */
enum status integrity_run(struct scope *sc, struct integrity *i) must_check;
/* Of all kinds; repaired ones count. */
int64_t integrity_total(const struct integrity *i);
const char *integrity_name(enum integrity_kind kind);
const char *integrity_meaning(enum integrity_kind kind);
/* What --repair does about it; NULL = nothing, it is for people to look at. */
const char *integrity_repair(enum integrity_kind kind);
