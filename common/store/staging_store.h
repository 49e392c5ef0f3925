/* Generations that are built beside the live one and those that were replaced: the tables generations and
 * staged_documents. Everything here runs in the caller's transaction unless it says otherwise. */
#pragma once

#include "common/store/document_store.h"

/* What a building generation holds so far. */
struct staged_counts {
    int64_t documents_total; /* visible documents of the collection */
    int64_t vectors_total;   /* vectors that the live generation has of them */
    int64_t staged;          /* documents that are done with, in any of the ways below */
    int64_t unchanged;       /* same chunks as before */
    int64_t from_file;       /* cut anew from the file */
    int64_t from_chunks;     /* cut anew from the stored text: the file was away, or is another by now */
    int64_t lost;            /* could not be cut or embedded */
    int64_t skipped;         /* changed or went away meanwhile */
    int64_t vectors;         /* of all of them */
    int64_t reused;          /* vectors that were copied */
    int64_t embedded;        /* vectors that were computed */
    const char *problem;     /* of the first lost document; NULL = none */
};

/* A visible document that is to be staged. */
struct stageable {
    struct pending_document document; /* live_version > 0 */
    bool is_settled;                  /* its file is what its chunks were cut from, as far as is known */
};

/* How one document was staged. */
struct staged_document {
    int64_t document_id;
    int version, live_version; /* live_version: the visible one that it was made from */
    bool is_cut;               /* the version was written for this generation alone */
    int chunks;                /* rows */
    int64_t vectors, reused, embedded;
    const char *source;  /* "unchanged", "file", "chunks", "lost", "skipped" */
    const char *problem; /* of a lost one */
};

/* A chunk of a visible document. */
struct stored_chunk {
    int64_t id;
    uint32_t start, end;
    const char *content;
    size_t content_len;
    bool has_vector; /* in the live generation */
};

/* The building generation of an operation with these settings (JSON); STATUS_NOT_FOUND without a sentence: none. */
enum status staging_store_find(struct scope *sc, struct db *db, const char *operation_id, const char *settings_json,
                               struct generation *out) must_check;
/* Makes it with its table. */
enum status staging_store_make(struct scope *sc, struct db *db, int64_t collection_id, const char *operation_id,
                               const char *settings_json, const char *model, int dim, const char *quantization,
                               struct generation *out) must_check;
/* What is there and what is done; `vectors_total` stays as it is. generation_id 0 = nothing is made yet. */
enum status staging_store_counts(struct scope *sc, struct db *db, int64_t collection_id, int64_t generation_id,
                                 struct staged_counts *out) must_check;
/* Vectors of visible documents in the live generation. */
enum status staging_store_live_vectors(struct scope *sc, struct db *db, const struct generation *live,
                                       int64_t *out) must_check;
/* Visible documents after an id that are not staged. */
enum status staging_store_next(struct scope *sc, struct db *db, int64_t collection_id, int64_t generation_id,
                               int64_t after_id, int limit, struct stageable **out, size_t *out_count) must_check;
/* All chunks of one version, in their order. `live` NULL = none has a vector. */
enum status staging_store_chunks(struct scope *sc, struct db *db, const struct generation *live, int64_t collection_id,
                                 int64_t document_id, int version, struct stored_chunk **out,
                                 size_t *out_count) must_check;
/* A fresh version for a document that is cut anew, noted as not whole; 0 = it changed meanwhile. With `is_exclusive`
 * nobody else changes documents of the collection, so that its state does not matter. */
enum status staging_store_begin(struct scope *sc, struct db *db, int64_t generation_id, int64_t document_id,
                                int live_version, bool is_exclusive, int *out_version) must_check;
/* The same for one whose chunks stay, before the first of several transactions. */
enum status staging_store_begin_shared(struct scope *sc, struct db *db, int64_t generation_id, int64_t document_id,
                                       int live_version) must_check;
/* Locks documents before their rows are written; the live versions in their order, 0 = gone or hidden. */
enum status staging_store_lock(struct scope *sc, struct db *db, const int64_t *document_ids, size_t count,
                               int *out_live) must_check;
/* Copies the vectors of these versions from one generation into another. *out_copied: one number a document. */
enum status staging_store_copy(struct scope *sc, struct db *db, const struct generation *from,
                               const struct generation *to, const int64_t *document_ids, const int *versions,
                               size_t count, int64_t *out_copied) must_check;
/* Copies single chunks' vectors to other chunks of one document. *out_copied: how many were there. */
enum status staging_store_copy_chunks(struct scope *sc, struct db *db, const struct generation *from,
                                      const struct generation *to, int64_t document_id, int version,
                                      const int64_t *from_ids, const int64_t *to_ids, size_t count,
                                      int64_t *out_copied) must_check;
/* It is done with. */
enum status staging_store_done(struct scope *sc, struct db *db, int64_t generation_id,
                               const struct staged_document *d) must_check;
/* Removes what was written of documents that are not whole. */
enum status staging_store_remove_partial(struct scope *sc, struct db *db, const struct generation *g) must_check;

/* Vectors of staged documents in the generation's table, and those of nobody. */
enum status staging_store_count_vectors(struct scope *sc, struct db *db, const struct generation *g, int64_t *out_named,
                                        int64_t *out_other) must_check;
/* The same `count` chunks for the same seed (an operation's UUID): ids, documents and texts. */
struct sampled_chunk {
    int64_t id, document_id;
    const char *content;
    size_t content_len;
};
enum status staging_store_sample(struct scope *sc, struct db *db, const struct generation *g, const char *seed,
                                 int count, struct sampled_chunk **out, size_t *out_count) must_check;
/* How many of these chunks have exactly this text. */
enum status staging_store_same_text(struct scope *sc, struct db *db, int64_t collection_id, const int64_t *chunk_ids,
                                    size_t count, const char *content, int64_t *out) must_check;

/* What a collection gets with the switch. */
struct switched_settings {
    const char *model, *quantization, *strategy, *chunking_json;
    int chunk_size, chunk_overlap; /* 0 and < 0 = the default */
};
/* The first half, before the fence: documents see the staged versions; the replaced ones are noted for later removal
 * under `retired_id` (0 = there was no generation), which is dropped after `delay_seconds`. */
enum status staging_store_switch_documents(struct scope *sc, struct db *db, int64_t generation_id, int64_t retired_id,
                                           int64_t delay_seconds) must_check;
/* The second half, after the fence: readers use the generation; configuration and counts of the collection. */
enum status staging_store_switch_collection(struct scope *sc, struct db *db, const struct generation *g,
                                            const struct switched_settings *settings) must_check;

/* Removes a generation that is not the active one: table, chunks that were cut for it and that nobody sees, rows.
 * Transactions of its own; may be killed anywhere and called again, by several at a time. `should_stop` may be NULL. */
enum status staging_store_remove(struct scope *sc, struct db *db, int64_t collection_id, int64_t generation_id,
                                 bool (*should_stop)(void *context), void *context, int64_t *out_chunks) must_check;
/* Removes building generations whose operation is over. Transactions of its own; several may do it at a time.
 * STATUS_CANCELLED when `should_stop` (may be NULL) said so: the rest another time. */
enum status staging_store_remove_leftovers(struct scope *sc, struct db *db, bool (*should_stop)(void *context),
                                           void *context) must_check;
/* The next retired generation whose time has come, after an id; *out_id 0 = none. */
enum status staging_store_next_retired(struct scope *sc, struct db *db, int64_t after_id, int64_t *out_id,
                                       int64_t *out_collection_id) must_check;
/* Forgets `limit` notes of generations that were switched to: their documents name the versions themselves. */
enum status staging_store_forget(struct scope *sc, struct db *db, int limit, int64_t *out) must_check;
