/* The tables of benchmarks as the API reads and changes them. Rows have the columns that clients see; caller:
 * scoped(PGresult). */
#pragma once

#include "common/db.h"
#include "common/ir/dataset.h"

struct dataset_new {
    const char *name, *description, *format; /* description may be NULL */
    int64_t owner_id;
    const struct ir_dataset *content;
};

/* In a transaction of the caller's. */
enum status dataset_store_insert(struct scope *sc, struct db *db, const struct dataset_new *d,
                                 PGresult **out_rows) must_check;
enum status dataset_store_list(struct scope *sc, struct db *db, int64_t owner_id, int limit, int64_t offset,
                               PGresult **out_rows) must_check;
/* STATUS_NOT_FOUND with the sentence when there is none or it is another's; superusers see all. Has row_id too. */
enum status dataset_store_find(struct scope *sc, struct db *db, const char *uuid, int64_t user_id, bool is_superuser,
                               PGresult **out_rows) must_check;
enum status dataset_store_queries(struct scope *sc, struct db *db, int64_t dataset, int limit, int64_t offset,
                                  PGresult **out_rows) must_check;
/* STATUS_CONFLICT while a benchmark uses it. */
enum status dataset_store_delete(struct scope *sc, struct db *db, int64_t dataset) must_check;

/* One point of the grid. */
struct benchmark_point {
    int k;
    const char *mode;
    const char *chunking_json; /* NULL = the collection's live vectors */
};

struct benchmark_new {
    const char *name, *operation_uuid, *details_json;
    int64_t user_id, dataset_id, collection_id; /* row ids */
    int repeats;
    const struct benchmark_point *points;
    size_t point_count;
    bool ignores_unknown;
};

/* In the transaction that accepts the operation, after its row. STATUS_INVALID naming documents that the collection
 * does not have, or whose names mean several; STATUS_NOT_FOUND: the collection was deleted meanwhile. */
enum status benchmark_store_insert(struct scope *sc, struct db *db, const struct benchmark_new *b,
                                   const char **out_uuid) must_check;
enum status benchmark_store_list(struct scope *sc, struct db *db, int64_t user_id, int limit, int64_t offset,
                                 PGresult **out_rows) must_check;
/* As dataset_store_find(). Has row_id and dataset_row_id too. */
enum status benchmark_store_find(struct scope *sc, struct db *db, const char *uuid, int64_t user_id, bool is_superuser,
                                 PGresult **out_rows) must_check;
/* In the grid's order, with row_id. */
enum status benchmark_store_configurations(struct scope *sc, struct db *db, int64_t benchmark,
                                           PGresult **out_rows) must_check;
enum status benchmark_store_results(struct scope *sc, struct db *db, int64_t configuration, int64_t dataset, int limit,
                                    int64_t offset, PGresult **out_rows) must_check;
/* Columns query_id, document, rank, score; query_id, document, relevance. */
enum status benchmark_store_run_file(struct scope *sc, struct db *db, int64_t configuration, int64_t dataset,
                                     PGresult **out_rows) must_check;
enum status benchmark_store_qrels_file(struct scope *sc, struct db *db, int64_t benchmark, int64_t dataset,
                                       PGresult **out_rows) must_check;
/* The same queries' figures in two configurations: precision_a, precision_b, … map_b. */
enum status benchmark_store_pairs(struct scope *sc, struct db *db, int64_t a, int64_t b,
                                  PGresult **out_rows) must_check;
/* STATUS_CONFLICT while its operation has not ended. */
enum status benchmark_store_delete(struct scope *sc, struct db *db, int64_t benchmark) must_check;
