#include "common/store/vector_store.h"

#include "build/queries.h"
#include "common/copy.h"
#include "common/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Puts the generation's table, and its type of vector, in the place of the template's. */
const char *vector_store_sql(struct scope *sc, const char *sql, const struct generation *g)
{
    return vector_store_statement(sc, sql, g, g);
}

/* The cast is to the type of what is written to; where nothing is, to that of what is searched. */
const char *vector_store_statement(struct scope *sc, const char *sql, const struct generation *from,
                                   const struct generation *to)
{
    scoped_text out = {0};
    for (const char *p = sql; *p;) {
        if (strncmp(p, "vec.g_to", 8) == 0) {
            text_printf(&out, "vec.g%lld", (long long)to->id);
            p += 8;
        } else if (strncmp(p, "vec.g0", 6) == 0) {
            text_printf(&out, "vec.g%lld", (long long)from->id);
            p += 6;
        } else if (!to->is_half && strncmp(p, "::halfvec", 9) == 0) {
            text_puts(&out, "::vector");
            p += 9;
        } else {
            text_putc(&out, *p++);
        }
    }
    return arena_strdup(&sc->arena, text_str(&out));
}

bool vector_store_is_half(const char *quantization)
{
    return strcmp(quantization, "float32") != 0;
}

enum status vector_store_active(struct scope *sc, struct db *db, int64_t collection_id, struct generation *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, db, SQL_GENERATION_ACTIVE, &rows, db_number(sc, collection_id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return STATUS_NOT_FOUND;
    *out = (struct generation){
        .id = db_int(rows, 0, "id", 0),
        .collection_id = collection_id,
        .dim = (int)db_int(rows, 0, "dim", 0),
        .has_graph = db_bool(rows, 0, "has_graph"),
        .is_half = vector_store_is_half(db_text(rows, 0, "quantization")),
        .model = arena_strdup(&sc->arena, db_text(rows, 0, "model")),
    };
    return STATUS_OK;
}

static enum status make_table(struct scope *sc, struct db *db, const struct generation *g)
{
    const char *sql = arena_printf(&sc->arena,
                                   "CREATE TABLE vec.g%lld (chunk_id bigint PRIMARY KEY, document_id bigint NOT NULL, "
                                   "version integer NOT NULL, embedding %s(%d) NOT NULL)",
                                   (long long)g->id, g->is_half ? "halfvec" : "vector", g->dim);
    enum status s = db_run(sc, db, sql, NULL);
    /* A vector past 2 kB would go out of line and every exact scan would fetch it back piece by piece. */
    if (s == STATUS_OK)
        s = db_run(sc, db,
                   arena_printf(&sc->arena, "ALTER TABLE vec.g%lld ALTER COLUMN embedding SET STORAGE %s",
                                (long long)g->id, g->dim * (g->is_half ? 2 : 4) <= 7900 ? "PLAIN" : "EXTERNAL"),
                   NULL);
    if (s == STATUS_OK)
        s = db_run(sc, db,
                   arena_printf(&sc->arena, "CREATE INDEX ON vec.g%lld (document_id, version)", (long long)g->id),
                   NULL);
    return s;
}

enum status vector_store_make(struct scope *sc, struct db *db, int64_t id, int64_t collection_id, const char *model,
                              int dim, const char *quantization, struct generation *out)
{
    struct generation g = {.id = id,
                           .collection_id = collection_id,
                           .dim = dim,
                           .is_half = vector_store_is_half(quantization),
                           .model = arena_strdup(&sc->arena, model)};
    enum status s = make_table(sc, db, &g);
    if (s == STATUS_OK)
        *out = g;
    return s;
}

enum status vector_store_create(struct scope *sc, struct db *db, int64_t collection_id, const char *model, int dim,
                                const char *quantization, struct generation *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_GENERATION_INSERT, &rows, db_number(sc, collection_id), model,
                           db_number(sc, dim), quantization);
    if (s != STATUS_OK)
        return s;
    return vector_store_make(sc, db, db_int(rows, 0, "id", 0), collection_id, model, dim, quantization, out);
}

enum status vector_store_activate(struct scope *sc, struct db *db, const struct generation *g)
{
    return db_run(sc, db, SQL_GENERATION_ACTIVATE, NULL, db_number(sc, g->collection_id), db_number(sc, g->id));
}

uint16_t half_from_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude >= 0x47800000) /* 65536 and more, infinities, NaN */
        return sign | (magnitude > 0x7F800000 ? 0x7E00 : 0x7C00);
    if (magnitude < 0x38800000) { /* subnormal halves: counted in units of 2^-24 */
        float absolute;
        memcpy(&absolute, &magnitude, sizeof absolute);
        return sign | (uint16_t)lrintf(absolute * 16777216.0f);
    }
    uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return sign | (uint16_t)((rounded - 0x38000000) >> 13);
}

/* A vector is int16 dimension, int16 0, then the elements. */
static void put_row(struct text *t, const struct generation *g, const struct vector_row *row)
{
    copy_row(t, 4);
    copy_i64(t, row->chunk_id);
    copy_i64(t, row->document_id);
    copy_i32(t, row->version);
    copy_length(t, 4 + (size_t)g->dim * (g->is_half ? 2 : 4));
    copy_raw_u16(t, (uint16_t)g->dim);
    copy_raw_u16(t, 0);
    for (int i = 0; i < g->dim; i++) {
        uint32_t bits;
        memcpy(&bits, &row->embedding[i], sizeof bits);
        if (g->is_half)
            copy_raw_u16(t, half_from_float(row->embedding[i]));
        else
            copy_raw_u32(t, bits);
    }
}

enum status vector_store_write(struct scope *sc, struct db *db, const struct generation *g,
                               const struct vector_row *rows, size_t count)
{
    scoped_text data = {0};
    copy_begin(&data);
    for (size_t i = 0; i < count; i++)
        put_row(&data, g, &rows[i]);
    copy_end(&data);
    return db_copy_in(sc, db,
                      arena_printf(&sc->arena,
                                   "COPY vec.g%lld (chunk_id, document_id, version, embedding) FROM STDIN BINARY",
                                   (long long)g->id),
                      data.data, data.len);
}

enum status vector_store_remove(struct scope *sc, struct db *db, const struct generation *g, int64_t document_id,
                                int version, bool older, int64_t *out_removed)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_sql(sc, SQL_VECTOR_DELETE_VERSION, g), &rows,
                           db_number(sc, document_id), db_number(sc, version), older ? "true" : "false");
    if (s == STATUS_OK && out_removed)
        *out_removed = strtoll(PQcmdTuples(rows), NULL, 10);
    return s;
}

enum status vector_store_remove_documents(struct scope *sc, struct db *db, const struct generation *g,
                                          const char *document_ids, int64_t *out_removed)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, vector_store_sql(sc, SQL_VECTOR_DELETE_DOCUMENTS, g), &rows, document_ids);
    if (s == STATUS_OK)
        *out_removed = strtoll(PQcmdTuples(rows), NULL, 10);
    return s;
}

static const char *vector_literal(struct scope *sc, const float *v, int dim)
{
    scoped_text t = {0};
    for (int i = 0; i < dim; i++)
        text_printf(&t, "%c%.7g", i ? ',' : '[', (double)v[i]);
    text_putc(&t, ']');
    return arena_strdup(&sc->arena, text_str(&t));
}

enum { LARGEST_EF_SEARCH = 1000, SMALLEST_EF_SEARCH = 80, LARGEST_FETCH = 20000, MOST_TRIES = 5 };

/* What is searched, and how. */
struct vector_query {
    const struct generation *generation;
    bool is_staged; /* what is staged is visible, not what is live */
    const char *literal;
    int limit;
    double threshold;
};

static enum status run_search(struct scope *sc, struct db *db, const struct vector_query *q, int fetch, PGresult **out)
{
    const struct generation *g = q->generation;
    const char *sql = vector_store_sql(sc, q->is_staged ? SQL_VECTOR_SEARCH_STAGED : SQL_VECTOR_SEARCH, g);
    const char *params[] = {q->literal,
                            db_number(sc, fetch),
                            arena_printf(&sc->arena, "%.9g", q->threshold),
                            db_number(sc, q->limit),
                            db_number(sc, g->id),
                            db_number(sc, g->collection_id)};
    int count = (int)array_len(params) - (q->is_staged ? 1 : 0);
    if (!g->has_graph)
        return db_query(sc, db, sql, count, params, out);
    int ef = fetch < SMALLEST_EF_SEARCH ? SMALLEST_EF_SEARCH : fetch > LARGEST_EF_SEARCH ? LARGEST_EF_SEARCH : fetch;
    const char *settings_params[] = {db_number(sc, ef)};
    return db_query_pair(
        sc, db, &(struct db_statement){SQL_VECTOR_SEARCH_SETTINGS, array_len(settings_params), settings_params},
        &(struct db_statement){sql, count, params}, out);
}

static size_t read_hits(struct scope *sc, const PGresult *rows, struct vector_hit **out)
{
    size_t count = 0;
    *out = arena_array(&sc->arena, (size_t)PQntuples(rows) + 1, sizeof **out);
    for (int i = 0; i < PQntuples(rows) && db_text(rows, i, "chunk_id"); i++)
        (*out)[count++] = (struct vector_hit){db_int(rows, i, "chunk_id", 0), db_int(rows, i, "document_id", 0),
                                              db_real(rows, i, "score", 0)};
    return count;
}

/* Fetches more than asked for, since chunks of unfinished or replaced versions are among the nearest; widens until
 * there are enough, all were fetched, or the next ones would be below the threshold anyway. *out_is_active: the
 * generation was still the one that readers use. */
static enum status search_generation(struct scope *sc, struct db *db, const struct vector_query *q,
                                     struct vector_hit **out, size_t *out_count, bool *out_is_active)
{
    for (int fetch = q->limit * 2 + 32;; fetch *= 4) {
        scoped(PGresult) *rows = NULL;
        enum status s = run_search(sc, db, q, fetch, &rows);
        if (s != STATUS_OK)
            return s;
        *out_is_active = db_bool(rows, 0, "is_active");
        bool is_all = db_int(rows, 0, "fetched", 0) < fetch || db_real(rows, 0, "worst", 0) < q->threshold;
        size_t count = read_hits(sc, rows, out);
        if (*out_is_active && count < (size_t)q->limit && !is_all && fetch < LARGEST_FETCH)
            continue;
        *out_count = count;
        return STATUS_OK;
    }
}

enum status vector_store_search_generation(struct scope *sc, struct db *db, const struct generation *g, bool is_staged,
                                           const float *query, int dim, int limit, double threshold,
                                           struct vector_hit **out, size_t *out_count)
{
    if (g->dim != dim)
        return fail(sc, STATUS_INVALID, "the query has %d dimensions, the generation %d", dim, g->dim);
    bool is_active;
    const struct vector_query q = {g, is_staged, vector_literal(sc, query, dim), limit, threshold};
    return search_generation(sc, db, &q, out, out_count, &is_active);
}

/* Which generation readers use is asked first, the search comes after: between the two a switch may come (the search
 * tells), or the table may go. Both mean: ask again. */
enum status vector_store_search_of_model(struct scope *sc, struct db *db, int64_t collection_id, const char *model,
                                         const float *query, int dim, int limit, double threshold,
                                         struct vector_hit **out, size_t *out_count)
{
    struct vector_query q = {.literal = vector_literal(sc, query, dim), .limit = limit, .threshold = threshold};
    bool is_active = false;
    for (int try = 0; try < MOST_TRIES; try++) {
        struct generation g;
        enum status s = vector_store_active(sc, db, collection_id, &g);
        if (s == STATUS_NOT_FOUND) {
            *out = NULL;
            *out_count = 0;
            return STATUS_OK;
        }
        if (s != STATUS_OK)
            return s;
        if (model && strcmp(model, g.model) != 0)
            return fail(sc, STATUS_CONFLICT, "the collection's vectors are of %s, the query's is of %s", g.model,
                        model);
        if (g.dim != dim)
            return fail(sc, STATUS_INVALID, "the query has %d dimensions, the collection %d", dim, g.dim);
        q.generation = &g;
        s = search_generation(sc, db, &q, out, out_count, &is_active);
        if (s != STATUS_OK && s != STATUS_NOT_FOUND)
            return s;
        if (s == STATUS_OK && is_active)
            return STATUS_OK;
        scope_forgive(sc);
    }
    return fail(sc, STATUS_UNAVAILABLE, "the collection's vectors were replaced again and again during the search");
}

enum status vector_store_search(struct scope *sc, struct db *db, int64_t collection_id, const float *query, int dim,
                                int limit, double threshold, struct vector_hit **out, size_t *out_count)
{
    return vector_store_search_of_model(sc, db, collection_id, NULL, query, dim, limit, threshold, out, out_count);
}

enum status vector_store_graph_sql(struct scope *sc, struct db *db, const struct generation *g, const char **out_sql)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db,
                           "SELECT string_to_array(extversion, '.')::int[] >= ARRAY[0, 8, 4] AS is_sound "
                           "FROM pg_extension WHERE extname = 'vector'",
                           &rows);
    if (s != STATUS_OK)
        return s;
    bool is_sound = PQntuples(rows) > 0 && db_bool(rows, 0, "is_sound");
    *out_sql = arena_printf(
        &sc->arena,
        "SET LOCAL maintenance_work_mem = '1GB'; %sCREATE INDEX IF NOT EXISTS g%lld_graph ON vec.g%lld "
        "USING hnsw (embedding %s) WITH (m = 16, ef_construction = 64)",
        is_sound ? "" : "SET LOCAL max_parallel_maintenance_workers = 0; ", (long long)g->id, (long long)g->id,
        g->is_half ? "halfvec_ip_ops" : "vector_ip_ops");
    return STATUS_OK;
}

enum status vector_store_graph_built(struct scope *sc, struct db *db, int64_t generation_id)
{
    return db_run(sc, db, SQL_GENERATION_GRAPH_BUILT, NULL, db_number(sc, generation_id));
}

enum status vector_store_drop(struct scope *sc, struct db *db, int64_t generation_id)
{
    enum status s = db_begin(sc, db);
    if (s == STATUS_OK)
        s = db_run(sc, db, "SET LOCAL lock_timeout = '2s'", NULL);
    if (s == STATUS_OK)
        s = db_run(sc, db, arena_printf(&sc->arena, "DROP TABLE IF EXISTS vec.g%lld", (long long)generation_id), NULL);
    if (s == STATUS_OK)
        s = db_commit(sc, db);
    if (s != STATUS_OK)
        db_rollback(db);
    return s;
}
