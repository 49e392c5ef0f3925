/* Searches over one or several collections: the query is embedded once a model, each collection is searched, the best
 * hits of all are merged by score and get their texts by one statement. */
#include "api/embed_query.h"
#include "api/guard.h"
#include "api/router.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/store/search_store.h"
#include "common/store/vector_store.h"

#include <stdio.h>
#include <string.h>

enum { MOST_COLLECTIONS = 10, DEFAULT_K = 10, MOST_WARNINGS = 8, MOST_TRIES = 3 };

struct target {
    int64_t id;
    const char *uuid, *name, *model; /* model: of its vectors, or of the collection without any */
    bool has_vectors;
    bool is_failed;
    const char *error, *error_message; /* of a failed one */
    int64_t result_count;
};

struct hit {
    struct vector_hit vector;
    const struct target *target;
};

/* One model's embedding of the query. */
struct embedded {
    const char *model;
    float *vector;
    int dim;
    enum status status;
    const char *problem;
};

struct search {
    const char *query, *search_type;
    int k;
    double threshold;
    bool with_content;
    struct target *targets;
    size_t target_count;
    struct embedded embedded[MOST_COLLECTIONS * MOST_TRIES];
    size_t embedded_count;
    struct hit *hits; /* best first */
    size_t hit_count;
    const char *warnings[MOST_WARNINGS];
    size_t warning_count;
    int64_t embedding_us, search_us;
    bool has_embedded;
};

/* ---- the request ---- */

static bool is_one_of(const char *word, const char *const *valid)
{
    for (; *valid; valid++) {
        if (strcmp(word, *valid) == 0)
            return true;
    }
    return false;
}

static void warn(struct search *q, const char *sentence)
{
    if (q->warning_count < MOST_WARNINGS)
        q->warnings[q->warning_count++] = sentence;
}

static bool asks_for(const cJSON *body, const char *field)
{
    return json_get_bool(body, field, false);
}

static enum status read_modes(struct request *r, struct search *q)
{
    static const char *const types[] = {"semantic", "question", "code", "hybrid", NULL};
    static const char *const modes[] = {"dense", "sparse", "hybrid", NULL};
    q->search_type = json_get_text(r->json, "search_type", "semantic");
    const char *mode = json_get_text(r->json, "search_mode",
                                     strcmp(q->search_type, "hybrid") == 0 ? "hybrid" : "dense");
    if (!is_one_of(q->search_type, types))
        return request_invalid(r, "body", "search_type", "value_error",
                               "search_type must be one of: semantic, question, code, hybrid");
    if (!is_one_of(mode, modes))
        return request_invalid(r, "body", "search_mode", "value_error",
                               "search_mode must be one of: dense, sparse, hybrid");
    if (strcmp(mode, "dense") != 0)
        warn(q, strcmp(mode, "hybrid") == 0
                    ? "Hybrid search is not available; the results are those of a dense search."
                    : "Sparse search is not available; the results are those of a dense search.");
    if (asks_for(r->json, "use_reranker"))
        warn(q, "Reranking is not available; the results are in the order of their dense scores.");
    if (asks_for(r->json, "use_hyde"))
        warn(q, "Query expansion (HyDE) is not available; the query was searched as it is.");
    const cJSON *filter = cJSON_GetObjectItemCaseSensitive(r->json, "metadata_filter");
    if (cJSON_IsObject(filter) && filter->child)
        warn(q, "Filtering by metadata is not available; metadata_filter was not applied.");
    return STATUS_OK;
}

static bool is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n")] == '\0';
}

static enum status read_search(struct request *r, struct search *q)
{
    q->query = json_get_text(r->json, "query", "");
    q->k = (int)json_get_int(r->json, "k", DEFAULT_K);
    q->threshold = json_get_real(r->json, "score_threshold", 0);
    q->with_content = json_get_bool(r->json, "include_content", true);
    if (is_blank(q->query))
        return request_invalid(r, "body", "query", "string_too_short", "query must not be empty");
    return read_modes(r, q);
}

/* ---- the collections ---- */

static const char *uuid_array(struct request *r, const cJSON *list)
{
    scoped_text t = {0};
    int n = 0;
    for (const cJSON *i = list->child; i; i = i->next, n++)
        text_printf(&t, "%c%s", n ? ',' : '{', i->valuestring);
    text_putc(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

static void read_target(struct request *r, const PGresult *rows, int row, struct target *out)
{
    struct arena *a = &r->sc->arena;
    const char *model = db_text(rows, row, "generation_model");
    *out = (struct target){
        .id = db_int(rows, row, "id", 0),
        .uuid = arena_strdup(a, db_text(rows, row, "uuid")),
        .name = arena_strdup(a, db_text(rows, row, "name")),
        .model = arena_strdup(a, model ? model : db_text(rows, row, "embedding_model")),
        .has_vectors = model != NULL,
    };
}

/* In the order that the client named them, each once. */
static enum status find_targets(struct request *r, struct search *q, const cJSON *uuids)
{
    scoped(PGresult) *rows = NULL;
    enum status s = search_store_collections(r->sc, r->db, uuid_array(r, uuids), &rows);
    if (s != STATUS_OK)
        return s;
    bool is_taken[MOST_COLLECTIONS] = {false};
    q->targets = arena_array(&r->sc->arena, MOST_COLLECTIONS, sizeof *q->targets);
    for (const cJSON *i = uuids->child; i; i = i->next) {
        int row = 0;
        while (row < PQntuples(rows) && strcasecmp(db_text(rows, row, "uuid"), i->valuestring) != 0)
            row++;
        if (row == PQntuples(rows))
            return fail(r->sc, STATUS_NOT_FOUND, "Collection with ID '%s' not found", i->valuestring);
        if (db_int(rows, row, "owner_id", 0) != r->user.id && !db_bool(rows, row, "is_public"))
            return fail(r->sc, STATUS_FORBIDDEN, "You do not have access to the collection '%s'", i->valuestring);
        if (row >= MOST_COLLECTIONS || is_taken[row])
            continue;
        is_taken[row] = true;
        read_target(r, rows, row, &q->targets[q->target_count++]);
    }
    return STATUS_OK;
}

/* ---- the search itself ---- */

/* Fails without ending the search: a collection whose model no worker has does not hide the results of the others. */
static struct embedded *embed_for(struct request *r, struct search *q, const char *model)
{
    for (size_t i = 0; i < q->embedded_count; i++) {
        if (strcmp(q->embedded[i].model, model) == 0)
            return &q->embedded[i];
    }
    int64_t start = clock_monotonic_us();
    struct embedded *e = &q->embedded[q->embedded_count++];
    e->model = model;
    e->status = embed_query(r->sc, r->db, r->api->settings, model, q->query, &e->vector, &e->dim);
    if (e->status != STATUS_OK) {
        e->problem = r->sc->problem_text;
        scope_forgive(r->sc);
    }
    q->embedding_us += clock_monotonic_us() - start;
    q->has_embedded = true;
    return e;
}

static void note_failure(struct target *t, enum status s, const char *problem)
{
    t->is_failed = true;
    t->error = status_name(s);
    t->error_message = problem && status_http(s) < 500 ? problem : status_text(s);
}

static enum status not_embedded(struct request *r, struct target *t, const struct embedded *e)
{
    note_failure(t, e->status, e->problem);
    if (status_http(e->status) >= 500)
        t->error_message = "The embedding model is not available right now";
    log_info("search_embedding_failed", log_text("trace", r->sc->trace_id), log_text("problem", e->problem));
    return e->status;
}

/* A reindex has replaced the vectors by those of another model since the collections were looked up. */
static enum status look_up_model(struct request *r, struct target *t)
{
    struct generation g;
    scope_forgive(r->sc);
    enum status s = vector_store_active(r->sc, r->db, t->id, &g);
    if (s == STATUS_OK)
        t->model = g.model;
    return s;
}

static enum status search_target(struct request *r, struct search *q, struct target *t, struct vector_hit **out,
                                 size_t *out_count)
{
    enum status s = STATUS_CONFLICT;
    for (int try = 0; s == STATUS_CONFLICT && try < MOST_TRIES; try++) {
        if (try > 0 && look_up_model(r, t) != STATUS_OK)
            break;
        const struct embedded *e = embed_for(r, q, t->model);
        if (e->status != STATUS_OK)
            return not_embedded(r, t, e);
        int64_t start = clock_monotonic_us();
        /* 0 means no threshold: cosines below it are as good as any others of a small collection. */
        s = vector_store_search_of_model(r->sc, r->db, t->id, t->model, e->vector, e->dim, q->k,
                                         q->threshold > 0 ? q->threshold : -2, out, out_count);
        q->search_us += clock_monotonic_us() - start;
    }
    if (s == STATUS_OK)
        return s;
    log_info("search_failed", log_text("trace", r->sc->trace_id), log_text("collection", t->uuid),
             log_text("problem", r->sc->problem_text));
    note_failure(t, s, r->sc->problem_text);
    scope_forgive(r->sc);
    return s;
}

static int by_score(const void *a, const void *b)
{
    const struct hit *x = a, *y = b;
    if (x->vector.score != y->vector.score)
        return x->vector.score > y->vector.score ? -1 : 1;
    return x->vector.chunk_id < y->vector.chunk_id ? -1 : x->vector.chunk_id > y->vector.chunk_id;
}

static enum status all_failed(struct request *r, enum status s, const char *problem)
{
    if (status_http(s) == 503) {
        reply_header(r, "Retry-After", "2");
        return fail(
            r->sc, s,
            "Searching is not possible right now: no worker that can embed the query answers; try again shortly");
    }
    return fail(r->sc, s, "%s", problem && status_http(s) < 500 ? problem : "The search failed");
}

static enum status run_search(struct request *r, struct search *q)
{
    size_t failed = 0, asked = 0;
    enum status last = STATUS_OK;
    const char *problem = NULL;
    q->hits = arena_array(&r->sc->arena, q->target_count * (size_t)q->k + 1, sizeof *q->hits);
    for (size_t i = 0; i < q->target_count; i++) {
        struct target *t = &q->targets[i];
        struct vector_hit *found = NULL;
        size_t count = 0;
        if (!t->has_vectors)
            continue;
        asked++;
        enum status s = search_target(r, q, t, &found, &count);
        if (s != STATUS_OK) {
            failed++;
            last = s;
            problem = t->error_message;
        }
        for (size_t n = 0; s == STATUS_OK && n < count && n < (size_t)q->k; n++)
            q->hits[q->hit_count++] = (struct hit){found[n], t};
    }
    if (asked > 0 && failed == asked)
        return all_failed(r, last, problem);
    qsort(q->hits, q->hit_count, sizeof *q->hits, by_score);
    if (q->hit_count > (size_t)q->k)
        q->hit_count = (size_t)q->k;
    return STATUS_OK;
}

/* ---- the answer ---- */

static void write_result(struct text *t, const struct hit *h, const PGresult *rows, int row)
{
    char chunk_id[24];
    snprintf(chunk_id, sizeof chunk_id, "%lld", (long long)h->vector.chunk_id);
    const char *metadata = db_text(rows, row, "chunk_metadata");
    if (!metadata)
        metadata = db_text(rows, row, "document_metadata");
    json_open(t, NULL, '{');
    json_text(t, "document_id", db_text(rows, row, "document_id"));
    json_text(t, "chunk_id", chunk_id);
    json_real(t, "score", h->vector.score);
    json_real(t, "original_score", h->vector.score);
    json_null(t, "reranked_score");
    json_text(t, "text", db_text(rows, row, "content"));
    json_raw(t, "metadata", metadata && *metadata == '{' ? metadata : "{}");
    json_text(t, "file_name", db_text(rows, row, "file_name"));
    json_text(t, "file_path", db_text(rows, row, "file_path"));
    json_text(t, "collection_id", h->target->uuid);
    json_text(t, "collection_name", h->target->name);
    json_text(t, "embedding_model", h->target->model);
    json_int(t, "chunk_index", db_int(rows, row, "ordinal", 0));
    json_int(t, "total_chunks", db_int(rows, row, "chunk_count", 0));
    json_close(t, '}');
}

static int write_results(struct text *t, struct search *q, const PGresult *rows)
{
    json_open(t, "results", '[');
    for (int row = 0; row < PQntuples(rows); row++) {
        const struct hit *h = &q->hits[db_int(rows, row, "place", 1) - 1];
        for (size_t i = 0; i < q->target_count; i++)
            q->targets[i].result_count += h->target == &q->targets[i];
        write_result(t, h, rows, row);
    }
    json_close(t, ']');
    return PQntuples(rows);
}

static void write_targets(struct text *t, const struct search *q)
{
    size_t failed = 0;
    json_open(t, "collections_searched", '[');
    for (size_t i = 0; i < q->target_count; i++) {
        failed += q->targets[i].is_failed;
        json_open(t, NULL, '{');
        json_text(t, "id", q->targets[i].uuid);
        json_text(t, "name", q->targets[i].name);
        json_int(t, "result_count", q->targets[i].result_count);
        json_close(t, '}');
    }
    json_close(t, ']');
    json_bool(t, "partial_failure", failed > 0);
    if (failed == 0) {
        json_null(t, "failed_collections");
        return;
    }
    json_open(t, "failed_collections", '[');
    for (size_t i = 0; i < q->target_count; i++) {
        if (!q->targets[i].is_failed)
            continue;
        json_open(t, NULL, '{');
        json_text(t, "collection_id", q->targets[i].uuid);
        json_text(t, "collection_name", q->targets[i].name);
        json_text(t, "error", q->targets[i].error);
        json_text(t, "error_message", q->targets[i].error_message);
        json_close(t, '}');
    }
    json_close(t, ']');
}

static void write_timings(struct text *t, const struct search *q, int64_t total_us)
{
    if (q->has_embedded)
        json_real(t, "embedding_time_ms", (double)q->embedding_us / 1000);
    else
        json_null(t, "embedding_time_ms");
    json_real(t, "search_time_ms", (double)q->search_us / 1000);
    json_null(t, "reranking_time_ms");
    json_real(t, "total_time_ms", (double)total_us / 1000);
}

static void write_answer(struct text *t, struct search *q, const PGresult *rows, int64_t started_us)
{
    json_open(t, NULL, '{');
    json_text(t, "query", q->query);
    json_int(t, "total_results", write_results(t, q, rows));
    write_targets(t, q);
    json_text(t, "search_type", q->search_type);
    json_text(t, "search_mode_used", "dense");
    json_open(t, "warnings", '[');
    for (size_t i = 0; i < q->warning_count; i++)
        json_text(t, NULL, q->warnings[i]);
    json_close(t, ']');
    json_bool(t, "reranking_used", false);
    json_null(t, "reranker_model");
    write_timings(t, q, clock_monotonic_us() - started_us);
    json_bool(t, "hyde_used", false);
    json_null(t, "hyde_info");
    json_text(t, "api_version", "2.0");
    json_close(t, '}');
}

static enum status answer_search(struct request *r, const cJSON *uuids)
{
    int64_t started = clock_monotonic_us();
    struct search q = {0};
    scoped(PGresult) *rows = NULL;
    enum status s = read_search(r, &q);
    if (s == STATUS_OK)
        s = find_targets(r, &q, uuids);
    if (s == STATUS_OK)
        s = run_search(r, &q);
    if (s != STATUS_OK)
        return s;
    int64_t start = clock_monotonic_us();
    struct search_key *keys = arena_array(&r->sc->arena, q.hit_count + 1, sizeof *keys);
    for (size_t i = 0; i < q.hit_count; i++)
        keys[i] = (struct search_key){q.hits[i].target->id, q.hits[i].vector.chunk_id};
    s = search_store_chunks(r->sc, r->db, keys, q.hit_count, q.with_content, &rows);
    q.search_us += clock_monotonic_us() - start;
    if (s != STATUS_OK)
        return s;
    write_answer(reply_json(r, 200), &q, rows, started);
    metrics_observe(METRIC_SEARCH_SECONDS, "embed", NULL, (double)q.embedding_us / 1e6);
    metrics_observe(METRIC_SEARCH_SECONDS, "store", NULL, (double)q.search_us / 1e6);
    metrics_observe(METRIC_SEARCH_SECONDS, "total", NULL, (double)(clock_monotonic_us() - started) / 1e6);
    return STATUS_OK;
}

enum status search_many(struct request *r)
{
    return answer_search(r, cJSON_GetObjectItemCaseSensitive(r->json, "collection_uuids"));
}

enum status search_single(struct request *r)
{
    scoped(cJSON) *uuids = cJSON_CreateArray();
    cJSON_AddItemToArray(uuids, cJSON_CreateString(json_get_text(r->json, "collection_id", "")));
    return answer_search(r, uuids);
}
