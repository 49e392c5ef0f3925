/* Vectors by generations: one complete set of a collection's vectors each, one of them active. The default store keeps
 * a generation in one PostgreSQL table, vec.g<id> (pgvector); the interface has the shape that other stores need too.
 */
#pragma once

#include "common/db.h"

struct generation {
    int64_t id;
    int64_t collection_id;
    int dim;
    bool has_graph;
    bool is_half; /* halfvec (float16, int8) or vector (float32) */
    const char *model;
};

/* One chunk's vector on its way in. */
struct vector_row {
    int64_t chunk_id;
    int64_t document_id;
    int version;
    const float *embedding; /* [dim], normalised */
};

struct vector_hit {
    int64_t chunk_id;
    int64_t document_id;
    double score; /* cosine */
};

/* The generation that readers use. STATUS_NOT_FOUND when the collection has none yet. */
enum status vector_store_active(struct scope *sc, struct db *db, int64_t collection_id,
                                struct generation *out) must_check;
/* Makes a collection's first generation, in the caller's transaction; readers see it after vector_store_activate(). */
enum status vector_store_create(struct scope *sc, struct db *db, int64_t collection_id, const char *model, int dim,
                                const char *quantization, struct generation *out) must_check;
/* The generation, with its table, whose row was inserted as `id`. */
enum status vector_store_make(struct scope *sc, struct db *db, int64_t id, int64_t collection_id, const char *model,
                              int dim, const char *quantization, struct generation *out) must_check;
bool vector_store_is_half(const char *quantization);
/* A statement of sql/queries that names vec.g0 (and vec.g_to, which is written to), for these generations; in the
 * arena. */
const char *vector_store_statement(struct scope *sc, const char *sql, const struct generation *from,
                                   const struct generation *to);
/* Readers use it from the COMMIT on. Locks the collection's row, so it comes after the fence. */
enum status vector_store_activate(struct scope *sc, struct db *db, const struct generation *generation) must_check;
/* Writes rows by COPY BINARY in the caller's transaction. */
enum status vector_store_write(struct scope *sc, struct db *db, const struct generation *generation,
                               const struct vector_row *rows, size_t count) must_check;
/* Removes a document's rows of this version, and with `older` those of all earlier ones; in the caller's transaction.
 * *out_removed (may be NULL) is how many. */
enum status vector_store_remove(struct scope *sc, struct db *db, const struct generation *generation,
                                int64_t document_id, int version, bool older, int64_t *out_removed) must_check;
/* Removes all versions of some documents (an array as PostgreSQL writes it); in the caller's transaction. *out_removed
 * is how many vectors that were. */
enum status vector_store_remove_documents(struct scope *sc, struct db *db, const struct generation *generation,
                                          const char *document_ids, int64_t *out_removed) must_check;
/* The `limit` nearest visible chunks of a collection with a score of at least `threshold`, best first, in the arena. A
 * collection without vectors has none: STATUS_OK. STATUS_INVALID when the query's dimension is not the generation's. A
 * generation that was replaced meanwhile is looked up again, so that the answer is wholly of one generation, which was
 * the active one. Must not be called inside a transaction. */
enum status vector_store_search(struct scope *sc, struct db *db, int64_t collection_id, const float *query, int dim,
                                int limit, double threshold, struct vector_hit **out, size_t *out_count) must_check;
/* The same for a query that was embedded with `model`: STATUS_CONFLICT when the collection's vectors are of another one
 * by now, so that vectors of two models are never compared. */
enum status vector_store_search_of_model(struct scope *sc, struct db *db, int64_t collection_id, const char *model,
                                         const float *query, int dim, int limit, double threshold,
                                         struct vector_hit **out, size_t *out_count) must_check;
/* The same in one generation. With `is_staged` it is one that is being built (worker/tasks/staging.h) and what is
 * staged is visible; else what is live is. STATUS_NOT_FOUND: its table is gone. */
enum status vector_store_search_generation(struct scope *sc, struct db *db, const struct generation *generation,
                                           bool is_staged, const float *query, int dim, int limit, double threshold,
                                           struct vector_hit **out, size_t *out_count) must_check;
/* The statement that builds a generation's HNSW graph, in the arena, to be run (db_script) by someone who can wait;
 * serial before pgvector 0.8.4 (parallel builds leaked memory of other tables: CVE-2026-3172). Then
 * vector_store_graph_built(). */
enum status vector_store_graph_sql(struct scope *sc, struct db *db, const struct generation *generation,
                                   const char **out_sql) must_check;
enum status vector_store_graph_built(struct scope *sc, struct db *db, int64_t generation_id) must_check;
/* Drops a generation's table, waiting at most 2 s for its readers. */
enum status vector_store_drop(struct scope *sc, struct db *db, int64_t generation_id) must_check;

/* A statement written against vec.g0, for a generation's own table. In the arena. */
const char *vector_store_sql(struct scope *sc, const char *sql, const struct generation *generation);

/* IEEE half precision, round to nearest even; overflow becomes infinity. Exposed for tests. */
uint16_t half_from_float(float f);
