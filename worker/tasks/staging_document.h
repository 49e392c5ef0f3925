/* staging.c's own: one document on its way into a generation that is built. staging_prepare.c decides what becomes of
 * it and of each of its chunks, staging_write.c brings them in. */
#pragma once

#include "worker/tasks/staging.h"

enum staging_way {
    STAGING_COPY,  /* same chunks, same vectors: copied within the database */
    STAGING_EMBED, /* same chunks, other vectors */
    STAGING_CUT,   /* other chunks */
    STAGING_LOST,  /* it cannot be cut or embedded: `problem` */
    STAGING_SKIPPED,
};

struct staging_item;

/* A chunk that is to have a vector in the new generation. */
struct piece {
    struct staging_item *of;
    const char *text;
    size_t len;
    int64_t chunk_id;    /* STAGING_EMBED: of the row that is there */
    int64_t reused_id;   /* STAGING_CUT: of the chunk with the same text, whose vector is copied; 0 = none */
    bool has_vector;     /* false: a chunk without one */
    const float *vector; /* once it is embedded */
};

struct staging_item {
    const struct stageable *from;
    enum staging_way way;
    const char *problem;
    const char *source;          /* what staged_documents says */
    struct ready_document ready; /* STAGING_CUT: text and chunks, one a piece */
    struct piece *pieces;
    size_t count;
    size_t written; /* pieces that earlier transactions brought in */
    int version;    /* of STAGING_CUT, once it has begun */
    int chunks;     /* rows of the version */
    int64_t vectors, reused, embedded;
};

/* Fills an item of which only `from` is set; what it needs lives in `own`. */
enum status staging_item_prepare(struct scope *sc, struct scope *own, struct staging *st,
                                 struct staging_item *item) must_check;
/* Brings in the first pieces of an item that is too large for one transaction, in fenced ones of their own. */
enum status staging_item_write_early(struct scope *sc, struct staging *st, struct staging_item *item) must_check;
/* Brings in all the rest of some items in one fenced transaction, after which they are staged. */
enum status staging_items_write(struct scope *sc, struct staging *st, struct staging_item *items,
                                size_t count) must_check;
