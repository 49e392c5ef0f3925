#include "common/store/benchmark_store.h"

#include "build/queries.h"
#include "common/text.h"

/* ---- datasets ---- */

static enum status insert_queries(struct scope *sc, struct db *db, const char *id, const struct ir_dataset *d)
{
    scoped_text names = {0}, texts = {0};
    for (size_t i = 0; i < d->query_count; i++) {
        db_array_put(&names, d->queries[i].id);
        db_array_put(&texts, d->queries[i].text);
    }
    return db_run(sc, db, SQL_DATASET_INSERT_QUERIES, NULL, id, db_array_end(&names), db_array_end(&texts));
}

static enum status insert_judgments(struct scope *sc, struct db *db, const char *id, const struct ir_dataset *d)
{
    scoped_text queries = {0}, kinds = {0}, documents = {0}, grades = {0};
    for (size_t i = 0; i < d->judgment_count; i++) {
        const struct ir_dataset_judgment *j = &d->judgments[i];
        db_array_put(&queries, db_number(sc, (int64_t)j->query));
        db_array_put(&kinds, j->kind);
        db_array_put(&documents, j->document);
        db_array_put(&grades, db_number(sc, j->relevance));
    }
    return db_run(sc, db, SQL_DATASET_INSERT_JUDGMENTS, NULL, id, db_array_end(&queries), db_array_end(&kinds),
                  db_array_end(&documents), db_array_end(&grades));
}

enum status dataset_store_insert(struct scope *sc, struct db *db, const struct dataset_new *d, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_DATASET_INSERT, &rows, db_number(sc, d->owner_id), d->name, d->description,
                           d->format, d->content->hash, db_number(sc, (int64_t)d->content->query_count),
                           db_number(sc, (int64_t)d->content->judgment_count));
    if (s != STATUS_OK)
        return s;
    const char *id = arena_strdup(&sc->arena, db_text(rows, 0, "row_id"));
    s = insert_queries(sc, db, id, d->content);
    if (s == STATUS_OK)
        s = insert_judgments(sc, db, id, d->content);
    if (s != STATUS_OK)
        return s;
    *out_rows = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status dataset_store_list(struct scope *sc, struct db *db, int64_t owner_id, int limit, int64_t offset,
                               PGresult **out_rows)
{
    return db_run(sc, db, SQL_DATASET_LIST, out_rows, db_number(sc, owner_id), db_number(sc, limit),
                  db_number(sc, offset));
}

static enum status find(struct scope *sc, struct db *db, const char *sql, const char *what, const char *uuid,
                        int64_t user_id, bool is_superuser, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, sql, &rows, uuid, db_number(sc, user_id), is_superuser ? "true" : "false");
    if (s == STATUS_OK && PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "%s with ID '%s' not found", what, uuid);
    if (s == STATUS_OK) {
        *out_rows = rows;
        rows = NULL;
    }
    return s;
}

enum status dataset_store_find(struct scope *sc, struct db *db, const char *uuid, int64_t user_id, bool is_superuser,
                               PGresult **out_rows)
{
    return find(sc, db, SQL_DATASET_FIND, "Dataset", uuid, user_id, is_superuser, out_rows);
}

enum status dataset_store_queries(struct scope *sc, struct db *db, int64_t dataset, int limit, int64_t offset,
                                  PGresult **out_rows)
{
    return db_run(sc, db, SQL_DATASET_QUERIES, out_rows, db_number(sc, dataset), db_number(sc, limit),
                  db_number(sc, offset));
}

/* A statement that removes one row or, for the reason of the sentence, none. */
static enum status remove_one(struct scope *sc, struct db *db, const char *sql, int64_t id, const char *sentence)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, sql, &rows, db_number(sc, id));
    if (s == STATUS_OK && strtoll(PQcmdTuples(rows), NULL, 10) == 0)
        return fail(sc, STATUS_CONFLICT, "%s", sentence);
    return s;
}

enum status dataset_store_delete(struct scope *sc, struct db *db, int64_t dataset)
{
    return remove_one(sc, db, SQL_DATASET_DELETE, dataset, "Benchmarks use this dataset; delete them first");
}

/* ---- benchmarks ---- */

static enum status insert_points(struct scope *sc, struct db *db, const char *id, const struct benchmark_new *b)
{
    scoped_text k = {0}, modes = {0}, chunkings = {0};
    for (size_t i = 0; i < b->point_count; i++) {
        db_array_put(&k, db_number(sc, b->points[i].k));
        db_array_put(&modes, b->points[i].mode);
        db_array_put(&chunkings, b->points[i].chunking_json);
    }
    return db_run(sc, db, SQL_BENCHMARK_CONFIGURE, NULL, id, db_array_end(&k), db_array_end(&modes),
                  db_array_end(&chunkings));
}

/* The first few are named; `s` makes several of one. */
static const char *names_of(struct scope *sc, int64_t count, const char *first)
{
    return arena_printf(&sc->arena, "%lld document%s of the dataset (%s%s)", (long long)count, count == 1 ? "" : "s",
                        first, count > 3 ? ", …" : "");
}

static enum status resolve(struct scope *sc, struct db *db, const char *id, const struct benchmark_new *b)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_BENCHMARK_RESOLVE, &rows, id, db_number(sc, b->dataset_id),
                           db_number(sc, b->collection_id));
    if (s != STATUS_OK)
        return s;
    int64_t unknown = db_int(rows, 0, "unknown", 0), ambiguous = db_int(rows, 0, "ambiguous", 0);
    if (ambiguous > 0)
        return fail(sc, STATUS_INVALID,
                    "%s may mean several documents of the collection; name them by path or document_id",
                    names_of(sc, ambiguous, db_text(rows, 0, "first_ambiguous")));
    if (unknown > 0 && !b->ignores_unknown)
        return fail(sc, STATUS_INVALID, "The collection does not have %s; ignore_unknown leaves such judgments out",
                    names_of(sc, unknown, db_text(rows, 0, "first_unknown")));
    if (db_int(rows, 0, "relevant", 0) == 0)
        return fail(sc, STATUS_INVALID,
                    "None of the dataset's relevant documents is in the collection: nothing could be measured");
    return unknown > 0 ? db_run(sc, db, SQL_BENCHMARK_IGNORED, NULL, id, db_text(rows, 0, "ignored")) : STATUS_OK;
}

enum status benchmark_store_insert(struct scope *sc, struct db *db, const struct benchmark_new *b,
                                   const char **out_uuid)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_BENCHMARK_INSERT, &rows, b->name, db_number(sc, b->user_id),
                           db_number(sc, b->dataset_id), db_number(sc, b->collection_id), b->operation_uuid,
                           db_number(sc, b->repeats), b->details_json);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "The collection was deleted meanwhile");
    const char *id = arena_strdup(&sc->arena, db_text(rows, 0, "id"));
    *out_uuid = arena_strdup(&sc->arena, db_text(rows, 0, "uuid"));
    s = insert_points(sc, db, id, b);
    return s == STATUS_OK ? resolve(sc, db, id, b) : s;
}

enum status benchmark_store_list(struct scope *sc, struct db *db, int64_t user_id, int limit, int64_t offset,
                                 PGresult **out_rows)
{
    return db_run(sc, db, SQL_BENCHMARK_LIST, out_rows, db_number(sc, user_id), db_number(sc, limit),
                  db_number(sc, offset));
}

enum status benchmark_store_find(struct scope *sc, struct db *db, const char *uuid, int64_t user_id, bool is_superuser,
                                 PGresult **out_rows)
{
    return find(sc, db, SQL_BENCHMARK_FIND, "Benchmark", uuid, user_id, is_superuser, out_rows);
}

enum status benchmark_store_configurations(struct scope *sc, struct db *db, int64_t benchmark, PGresult **out_rows)
{
    return db_run(sc, db, SQL_BENCHMARK_CONFIGURATIONS, out_rows, db_number(sc, benchmark));
}

enum status benchmark_store_results(struct scope *sc, struct db *db, int64_t configuration, int64_t dataset, int limit,
                                    int64_t offset, PGresult **out_rows)
{
    return db_run(sc, db, SQL_BENCHMARK_RESULTS, out_rows, db_number(sc, configuration), db_number(sc, dataset),
                  db_number(sc, limit), db_number(sc, offset));
}

enum status benchmark_store_run_file(struct scope *sc, struct db *db, int64_t configuration, int64_t dataset,
                                     PGresult **out_rows)
{
    return db_run(sc, db, SQL_BENCHMARK_RUN_FILE, out_rows, db_number(sc, configuration), db_number(sc, dataset));
}

enum status benchmark_store_qrels_file(struct scope *sc, struct db *db, int64_t benchmark, int64_t dataset,
                                       PGresult **out_rows)
{
    return db_run(sc, db, SQL_BENCHMARK_QRELS_FILE, out_rows, db_number(sc, benchmark), db_number(sc, dataset));
}

enum status benchmark_store_pairs(struct scope *sc, struct db *db, int64_t a, int64_t b, PGresult **out_rows)
{
    return db_run(sc, db, SQL_BENCHMARK_PAIRS, out_rows, db_number(sc, a), db_number(sc, b));
}

enum status benchmark_store_delete(struct scope *sc, struct db *db, int64_t benchmark)
{
    return remove_one(sc, db, SQL_BENCHMARK_DELETE, benchmark,
                      "The benchmark is running; cancel its operation first, or wait for its end");
}
