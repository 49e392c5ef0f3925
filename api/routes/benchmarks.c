/* Benchmarks: a dataset asked of a collection in every configuration of a grid. Who may read the collection may measure
 * it; who made a benchmark sees it. */
#include "api/accept.h"
#include "api/benchmark_grid.h"
#include "api/idempotency.h"
#include "api/router.h"
#include "api/views.h"
#include "common/store/benchmark_store.h"
#include "common/store/operation_view.h"
#include "common/store/vector_store.h"
#include "common/version.h"

#include <string.h>

static enum status find_benchmark(struct request *r, const char *uuid, PGresult **out_rows)
{
    return benchmark_store_find(r->sc, r->db, uuid, r->user.id, r->user.is_superuser, out_rows);
}

enum status benchmarks_list(struct request *r)
{
    int page, per_page;
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = benchmark_store_list(r->sc, r->db, r->user.id, per_page, (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_reply_page(r, "benchmarks", &schema_BENCHMARK, rows, page, per_page);
    return s;
}

static void write_benchmark(struct text *t, const PGresult *rows, const PGresult *configurations)
{
    view_fields_with(t, &schema_BENCHMARK, rows, 0, NULL, NULL);
    json_open(t, "configurations", '[');
    for (int i = 0; i < PQntuples(configurations); i++)
        view_write(t, NULL, &schema_BENCHMARK_CONFIGURATION, configurations, i);
    json_close(t, ']');
}

enum status benchmarks_show(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    scoped(PGresult) *configurations = NULL;
    enum status s = find_benchmark(r, r->params[0], &rows);
    if (s == STATUS_OK)
        s = benchmark_store_configurations(r->sc, r->db, db_int(rows, 0, "row_id", 0), &configurations);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    write_benchmark(t, rows, configurations);
    json_close(t, '}');
    return STATUS_OK;
}

enum status benchmarks_delete(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = find_benchmark(r, r->params[0], &rows);
    if (s == STATUS_OK)
        s = benchmark_store_delete(r->sc, r->db, db_int(rows, 0, "row_id", 0));
    return s == STATUS_OK ? reply_empty(r, 204) : s;
}

/* ---- creating ---- */

static enum status insert_benchmark(struct request *r, const struct operation_ref *o, void *context)
{
    struct benchmark_new *b = context;
    const char *uuid;
    b->operation_uuid = o->uuid;
    enum status s = benchmark_store_insert(r->sc, r->db, b, &uuid);
    scoped(PGresult) *rows = NULL;
    scoped(PGresult) *configurations = NULL;
    scoped(PGresult) *operation = NULL;
    if (s == STATUS_OK)
        s = find_benchmark(r, uuid, &rows);
    if (s == STATUS_OK)
        s = benchmark_store_configurations(r->sc, r->db, db_int(rows, 0, "row_id", 0), &configurations);
    if (s == STATUS_OK)
        s = operation_view_find(r->sc, r->db, o->uuid, false, &operation);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 202);
    json_open(t, NULL, '{');
    write_benchmark(t, rows, configurations);
    view_write(t, "operation", &schema_OPERATION, operation, 0);
    json_close(t, '}');
    return STATUS_OK;
}

/* What the figures depend on beside the collection's vectors, which each configuration notes when it runs. */
static const char *details_of(struct request *r, const PGresult *collection)
{
    static const char *const numbers[] = {"chunk_size", "chunk_overlap"};
    static const char *const words[] = {"embedding_model", "quantization", "chunking_strategy"};
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "software_version", OPSTREAM_VERSION);
    for (size_t i = 0; i < array_len(words); i++)
        json_text(&t, words[i], PQfnumber(collection, words[i]) >= 0 ? db_text(collection, 0, words[i]) : NULL);
    for (size_t i = 0; i < array_len(numbers); i++)
        json_raw(&t, numbers[i], PQfnumber(collection, numbers[i]) >= 0 ? db_text(collection, 0, numbers[i]) : NULL);
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

/* Refusals that need no transaction. */
static enum status check_collection(struct request *r, const struct collection *c, const struct benchmark_grid *grid)
{
    struct generation g;
    if (grid->has_chunking && c->owner_id != r->user.id)
        return fail(r->sc, STATUS_FORBIDDEN, "Only the owner of a collection may measure it with other chunkings");
    enum status s = vector_store_active(r->sc, r->db, c->id, &g);
    if (s == STATUS_NOT_FOUND)
        return fail(r->sc, STATUS_INVALID, "The collection has no vectors yet: there is nothing to measure");
    return s;
}

/* Everybody who may read the collection sees its operations; the benchmark and its dataset are the user's own. */
static const char *config_of(struct request *r)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_raw(&t, "configurations", body_json(r, "configurations"));
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

enum status benchmarks_create(struct request *r)
{
    struct collection c;
    struct benchmark_grid grid;
    scoped(PGresult) *dataset = NULL;
    scoped(PGresult) *collection = NULL;
    int repeats = (int)json_get_int(r->json, "repeats", 1);
    bool is_replay = false;
    enum status s = idempotency_replay(r, &is_replay);
    if (s != STATUS_OK || is_replay)
        return s;
    s = benchmark_grid_read(r, &grid);
    if (s == STATUS_OK)
        s = dataset_store_find(r->sc, r->db, json_get_text(r->json, "dataset_id", ""), r->user.id, r->user.is_superuser,
                               &dataset);
    if (s == STATUS_OK)
        s = guard_readable(r, json_get_text(r->json, "collection_id", ""), &c, &collection);
    if (s == STATUS_OK)
        s = check_collection(r, &c, &grid);
    if (s == STATUS_OK)
        s = benchmark_grid_check(r, &grid, db_int(dataset, 0, "query_count", 0), repeats);
    if (s != STATUS_OK)
        return s;
    struct benchmark_new b = {
        .name = json_get_text(r->json, "name", ""),
        .details_json = details_of(r, collection),
        .user_id = r->user.id,
        .dataset_id = db_int(dataset, 0, "row_id", 0),
        .collection_id = c.id,
        .repeats = repeats,
        .points = grid.points,
        .point_count = grid.count,
        .ignores_unknown = json_get_bool(r->json, "ignore_unknown", false),
    };
    return accept_operation(r,
                            &(struct acceptance){.collection = &c,
                                                 .type = OPERATION_BENCHMARK,
                                                 .config_json = config_of(r),
                                                 .what = "Cannot measure the collection",
                                                 .reply = insert_benchmark,
                                                 .context = &b},
                            NULL, &is_replay);
}

/* ---- results ---- */

/* The configuration that the query names by its number, 0 without one. */
static enum status find_configuration(struct request *r, const PGresult *benchmark, int64_t *out_id)
{
    int64_t wanted;
    scoped(PGresult) *rows = NULL;
    enum status s = request_query_int(r, "configuration", 0, INT32_MAX, 0, &wanted);
    if (s == STATUS_OK)
        s = benchmark_store_configurations(r->sc, r->db, db_int(benchmark, 0, "row_id", 0), &rows);
    if (s != STATUS_OK)
        return s;
    if (wanted >= PQntuples(rows))
        return fail(r->sc, STATUS_NOT_FOUND, "The benchmark has no configuration %lld; it has %d, from 0",
                    (long long)wanted, PQntuples(rows));
    *out_id = db_int(rows, (int)wanted, "row_id", 0);
    return STATUS_OK;
}

enum status benchmarks_results(struct request *r)
{
    int page, per_page;
    int64_t configuration = 0;
    scoped(PGresult) *benchmark = NULL;
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = find_benchmark(r, r->params[0], &benchmark);
    if (s == STATUS_OK)
        s = find_configuration(r, benchmark, &configuration);
    if (s == STATUS_OK)
        s = benchmark_store_results(r->sc, r->db, configuration, db_int(benchmark, 0, "dataset_row_id", 0), per_page,
                                    (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_reply_page(r, "results", &schema_BENCHMARK_RESULT, rows, page, per_page);
    return s;
}

static void reply_lines(struct request *r, const char *lines)
{
    text_puts(reply_json(r, 200), lines);
    r->reply.content_type = "text/plain; charset=utf-8";
}

/* For trec_eval: qid Q0 document rank score tag. */
enum status benchmarks_run_file(struct request *r)
{
    int64_t configuration = 0;
    scoped(PGresult) *benchmark = NULL;
    scoped(PGresult) *rows = NULL;
    scoped_text t = {0};
    enum status s = find_benchmark(r, r->params[0], &benchmark);
    if (s == STATUS_OK)
        s = find_configuration(r, benchmark, &configuration);
    if (s == STATUS_OK)
        s = benchmark_store_run_file(r->sc, r->db, configuration, db_int(benchmark, 0, "dataset_row_id", 0), &rows);
    if (s != STATUS_OK)
        return s;
    for (int i = 0; i < PQntuples(rows); i++)
        text_printf(&t, "%s Q0 %s %s %s opstream\n", db_text(rows, i, "query_id"), db_text(rows, i, "document"),
                    db_text(rows, i, "rank"), db_text(rows, i, "score"));
    reply_lines(r, text_str(&t));
    return STATUS_OK;
}

/* The judgments by the same names: qid 0 document grade. */
enum status benchmarks_qrels_file(struct request *r)
{
    scoped(PGresult) *benchmark = NULL;
    scoped(PGresult) *rows = NULL;
    scoped_text t = {0};
    enum status s = find_benchmark(r, r->params[0], &benchmark);
    if (s == STATUS_OK)
        s = benchmark_store_qrels_file(r->sc, r->db, db_int(benchmark, 0, "row_id", 0),
                                       db_int(benchmark, 0, "dataset_row_id", 0), &rows);
    if (s != STATUS_OK)
        return s;
    for (int i = 0; i < PQntuples(rows); i++)
        text_printf(&t, "%s 0 %s %s\n", db_text(rows, i, "query_id"), db_text(rows, i, "document"),
                    db_text(rows, i, "relevance"));
    reply_lines(r, text_str(&t));
    return STATUS_OK;
}
