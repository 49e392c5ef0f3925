/* Documents and their chunks: registered by a scan, written in fenced batches, visible when live_version moves.
 * Everything here runs in the caller's transaction unless it says otherwise. Paths are bytes. */
#pragma once

#include "common/db.h"
#include "common/store/vector_store.h"

struct collection_stats {
    int64_t documents, vectors, bytes;
};

struct ingest_collection {
    int64_t id;
    const char *model; /* canonical name */
    const char *quantization;
    int chunk_size;            /* tokens; 0 = default */
    int chunk_overlap;         /* tokens; < 0 = default */
    const char *strategy;      /* NULL = default */
    const char *chunking_json; /* keys of the strategy; NULL = none */
    struct collection_stats stats;
};

struct ingest_source {
    int64_t id;
    const char *type;
    const char *path;
    const char *config_json;
};

struct path_bytes {
    const char *bytes;
    size_t len;
};

/* What is known of one path; id 0 = nothing. */
struct known_document {
    int64_t id, size, mtime_ns;
    const char *hash, *status;
    bool is_good;    /* not a duplicate whose original has changed */
    bool is_settled; /* this operation found it bad before, or it was set aside: not tried again as it is */
};

struct new_document {
    struct path_bytes path;
    int64_t source_id, size, mtime_ns;
    const char *hash;     /* "" when it could not be read */
    const char *status;   /* "pending", "completed" (a duplicate), "failed" */
    const char *problem;  /* with "failed" */
    const char *category; /* "transient", "permanent", "unknown", with "failed" */
    int64_t duplicate_of; /* 0 = none */
    const char *operation_id;
};

struct pending_document {
    int64_t id, size, mtime_ns;
    struct path_bytes path;
    const char *name; /* shown */
    const char *hash;
    int next_version, live_version, chunk_count;
    bool is_suspected;   /* was in hand when an attempt died: read alone */
    int crashes, losses; /* deaths of children, lost workers, that had it alone in hand */
};

struct document_failure {
    const char *reason, *category;
    const char *mime_type;    /* may be NULL */
    const char *operation_id; /* that found it; may be NULL */
    bool is_set_aside;        /* it killed those who read it */
};

struct chunk_row {
    int64_t id; /* of document_store_reserve */
    int64_t document_id;
    int version, ordinal, tokens;
    uint32_t start, end; /* bytes of the document's text */
    const char *content;
    size_t content_len;
    const char *metadata_json; /* NULL = none */
};

/* STATUS_NOT_FOUND when it is deleted. */
enum status document_store_collection(struct scope *sc, struct db *db, int64_t collection_id,
                                      struct ingest_collection *out) must_check;
enum status document_store_source(struct scope *sc, struct db *db, int64_t source_id, int64_t collection_id,
                                  struct ingest_source *out) must_check;
/* `state`: running, success, partial, failed. */
enum status document_store_source_run(struct scope *sc, struct db *db, int64_t source_id, const char *state,
                                      const char *error) must_check;

/* A bytea cell as bytes, NUL-terminated, in the arena. */
struct path_bytes document_store_path(struct scope *sc, const char *hex);
/* One answer a path, in their order. */
enum status document_store_known(struct scope *sc, struct db *db, int64_t collection_id, const char *operation_id,
                                 const struct path_bytes *paths, size_t count, struct known_document **out) must_check;
/* Another document of the collection with this content; *out_id 0 = none. */
enum status document_store_original(struct scope *sc, struct db *db, int64_t collection_id, const char *hash,
                                    struct path_bytes path, int64_t *out_id) must_check;
enum status document_store_register(struct scope *sc, struct db *db, int64_t collection_id,
                                    const struct new_document *d, int64_t *out_id, int *out_live_version) must_check;
enum status document_store_touch(struct scope *sc, struct db *db, int64_t document_id, int64_t mtime_ns) must_check;
/* Those of the whole collection: what an earlier attempt on another source left pending is read too. Either the
 * suspected ones or the others. */
enum status document_store_pending(struct scope *sc, struct db *db, int64_t collection_id, bool is_suspected,
                                   int64_t after_id, int limit, struct pending_document **out,
                                   size_t *out_count) must_check;
enum status document_store_pending_count(struct scope *sc, struct db *db, int64_t collection_id,
                                         int64_t *out) must_check;

/* `count` chunk ids; may run outside a transaction. */
enum status document_store_reserve(struct scope *sc, struct db *db, size_t count, int64_t *out_ids) must_check;
enum status document_store_write_chunks(struct scope *sc, struct db *db, int64_t collection_id,
                                        const struct chunk_row *rows, size_t count) must_check;
/* Before the first of several transactions of one document. */
enum status document_store_begin(struct scope *sc, struct db *db, int64_t document_id) must_check;
/* The new version becomes what searches see; older rows go. *out_removed: vectors removed. */
enum status document_store_done(struct scope *sc, struct db *db, const struct generation *generation,
                                int64_t collection_id, int64_t document_id, int version, int chunks,
                                const char *mime_type, const char *metadata_json, int64_t *out_removed) must_check;
/* Recorded with its reason; what was visible of it before goes, since the file is not that any more. `generation` may
 * be NULL. */
enum status document_store_failed(struct scope *sc, struct db *db, const struct generation *generation,
                                  int64_t collection_id, int64_t document_id, int live_version,
                                  const struct document_failure *failure, int64_t *out_removed) must_check;
/* Removes the rows of a version that nobody saw. `generation` may be NULL. */
enum status document_store_abandon(struct scope *sc, struct db *db, const struct generation *generation,
                                   int64_t collection_id, int64_t document_id, int version) must_check;
/* Takes a document's visible version away, whose file is not that any more. `generation` may be NULL. *out_removed:
 * vectors removed. */
enum status document_store_hide(struct scope *sc, struct db *db, const struct generation *generation,
                                int64_t collection_id, int64_t document_id, int live_version,
                                int64_t *out_removed) must_check;
/* After a scan: files that were skipped because another one had the same content, which has changed since, become
 * pending (one of each content). *out_count: how many. */
enum status document_store_revive_duplicates(struct scope *sc, struct db *db, int64_t collection_id,
                                             int64_t *out_count) must_check;
/* Adds to a collection's counters, after the fence. `out` may be NULL. */
enum status document_store_count(struct scope *sc, struct db *db, int64_t collection_id, int64_t documents,
                                 int64_t vectors, int64_t bytes, int64_t failed,
                                 struct collection_stats *out) must_check;
/* Counts them anew from the documents; `vectors` is added. */
enum status document_store_recount(struct scope *sc, struct db *db, int64_t collection_id, int64_t vectors,
                                   struct collection_stats *out) must_check;

/* Removes what dead attempts left unseen: of one collection (for the attempt that holds it, `task_id`), or of all that
 * no operation holds (collection_id 0, task_id NULL). Opens transactions of its own. */
enum status document_store_remove_leftovers(struct scope *sc, struct db *db, int64_t collection_id,
                                            const char *task_id) must_check;
