#include "worker/tasks/validation.h"

#include "worker/embed/client.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_QUERIES = 1000, MOST_K = 100, QUERY_TIMEOUT_MS = 120000 };

/* ---- settings ---- */

/* Shares are written as 0.8. */
static enum status share_of(struct scope *sc, const char *name, const char *value, double *out)
{
    char *end;
    double share = strtod(value, &end);
    if (end == value || *end || !(share >= 0 && share <= 1))
        return fail(sc, STATUS_INVALID, "%s is '%s', which is no number from 0 to 1", name, value);
    *out = share;
    return STATUS_OK;
}

struct limits {
    double tolerance, min_found, min_overlap;
    int queries, k;
};

static int within(int64_t n, int least, int most)
{
    return n < least ? least : n > most ? most : (int)n;
}

static enum status read_limits(struct scope *sc, const struct settings *settings, struct limits *out)
{
    *out = (struct limits){.queries = within(settings->reindex_queries, 0, MOST_QUERIES),
                           .k = within(settings->reindex_top_k, 1, MOST_K)};
    enum status s = share_of(sc, "REINDEX_COUNT_TOLERANCE", settings->reindex_tolerance, &out->tolerance);
    if (s == STATUS_OK)
        s = share_of(sc, "REINDEX_MIN_SELF_RETRIEVAL", settings->reindex_min_found, &out->min_found);
    if (s == STATUS_OK)
        s = share_of(sc, "REINDEX_MIN_OVERLAP", settings->reindex_min_overlap, &out->min_overlap);
    return s;
}

/* ---- counts ---- */

static bool is_too_few(int64_t there, int64_t expected, double tolerance)
{
    return (double)there < (double)expected * (1 - tolerance);
}

/* What the notes say is expected of the table; what the collection shows is expected of the notes. */
static enum status check_counts(struct scope *sc, struct staging *st, const struct limits *limits, struct validation *v)
{
    struct task *task = st->task;
    enum status s = staging_store_counts(sc, task->db, task->collection_id, st->generation.id, &st->counts);
    if (s == STATUS_OK)
        s = staging_store_count_vectors(sc, task->db, &st->generation, &v->vectors, &v->stray_vectors);
    if (s != STATUS_OK)
        return s;
    const struct staged_counts *n = &st->counts;
    v->documents_expected = n->documents_total;
    v->documents = n->staged - n->lost - n->skipped;
    v->vectors_expected = n->vectors;
    if (is_too_few(v->documents, v->documents_expected, limits->tolerance))
        return fail(sc, STATUS_INVALID, "validation: %lld of %lld documents are in the new vectors%s%s",
                    (long long)v->documents, (long long)v->documents_expected,
                    n->problem ? "; the first other one: " : "", n->problem ? n->problem : "");
    if (is_too_few(v->vectors, v->vectors_expected, limits->tolerance) || v->stray_vectors > 0)
        return fail(sc, STATUS_INVALID,
                    "validation: %lld of %lld vectors were written, and %lld that belong to nothing",
                    (long long)v->vectors, (long long)v->vectors_expected, (long long)v->stray_vectors);
    return STATUS_OK;
}

/* ---- searches ---- */

struct results {
    struct vector_hit *hits;
    size_t count;
};

static bool has_document(const struct results *r, int64_t document_id)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->hits[i].document_id == document_id)
            return true;
    }
    return false;
}

/* The same text in another document is as good: nothing tells them apart. */
static enum status is_found(struct scope *sc, struct staging *st, const struct sampled_chunk *c,
                            const struct results *r, bool *out)
{
    *out = has_document(r, c->document_id);
    if (*out || r->count == 0)
        return STATUS_OK;
    int64_t same = 0;
    int64_t *ids = arena_array(&sc->arena, r->count, sizeof *ids);
    for (size_t i = 0; i < r->count; i++)
        ids[i] = r->hits[i].chunk_id;
    enum status s = staging_store_same_text(sc, st->task->db, st->task->collection_id, ids, r->count, c->content,
                                            &same);
    *out = same > 0;
    return s;
}

/* Share of the old results' documents that are among the new ones. */
static double shared(const struct results *old, const struct results *new)
{
    size_t documents = 0, both = 0;
    for (size_t i = 0; i < old->count; i++) {
        const struct results before = {old->hits, i};
        if (has_document(&before, old->hits[i].document_id))
            continue;
        documents++;
        both += has_document(new, old->hits[i].document_id);
    }
    return documents ? (double)both / (double)documents : 1;
}

/* The queries as the old vectors' model embeds them; none when it is away, which is no fault of the new ones. */
static enum status embed_before(struct scope *sc, struct staging *st, const struct embed_text *texts, size_t count,
                                const float *new_vectors, const float **out)
{
    *out = NULL;
    if (!st->has_live || count == 0)
        return STATUS_OK;
    if (strcmp(st->live.model, st->wanted.model) == 0) {
        *out = new_vectors;
        return STATUS_OK;
    }
    struct scope own;
    struct embed_answer answer;
    scope_init(&own, sc->trace_id);
    enum status s = embed_client_run(&own, st->writing.embedder, st->live.model, EMBED_QUERY, st->task->operation_id,
                                     texts, count, QUERY_TIMEOUT_MS, &answer, NULL);
    if (s == STATUS_OK && answer.dim == st->live.dim) {
        float *kept = arena_array(&sc->arena, count * (size_t)answer.dim, sizeof *kept);
        memcpy(kept, answer.vectors, count * (size_t)answer.dim * sizeof *kept);
        *out = kept;
    }
    scope_done(&own);
    return task_check(sc, st->task);
}

static enum status search_both(struct scope *sc, struct staging *st, const struct sampled_chunk *c, const float *query,
                               const float *old_query, struct validation *v)
{
    struct results new = {0}, old = {0};
    bool found = false;
    struct db *db = st->task->db;
    enum status s = vector_store_search_generation(sc, db, &st->generation, true, query, st->generation.dim, v->k, -2,
                                                   &new.hits, &new.count);
    if (s == STATUS_OK)
        s = is_found(sc, st, c, &new, &found);
    v->found += found;
    if (s != STATUS_OK || !old_query)
        return s;
    s = vector_store_search_generation(sc, db, &st->live, false, old_query, st->live.dim, v->k, -2, &old.hits,
                                       &old.count);
    v->overlap += shared(&old, &new);
    return s;
}

static enum status search_all(struct scope *sc, struct staging *st, const struct limits *limits, struct validation *v)
{
    struct sampled_chunk *sample;
    size_t count = 0;
    const float *vectors = NULL, *old_vectors = NULL;
    int dim = 0;
    enum status s = staging_store_sample(sc, st->task->db, &st->generation, st->task->operation_id, limits->queries,
                                         &sample, &count);
    if (s != STATUS_OK)
        return s;
    struct embed_text *texts = arena_array(&sc->arena, count + 1, sizeof *texts);
    for (size_t i = 0; i < count; i++)
        texts[i] = (struct embed_text){sample[i].content, sample[i].content_len};
    if (count > 0)
        s = staging_embed_queries(sc, st, texts, count, &vectors, &dim);
    if (s == STATUS_OK)
        s = embed_before(sc, st, texts, count, vectors, &old_vectors);
    v->queries = count;
    v->has_overlap = old_vectors != NULL;
    for (size_t i = 0; s == STATUS_OK && i < count; i++) {
        task_heartbeat(st->task);
        s = task_check(sc, st->task);
        const float *old = old_vectors ? old_vectors + i * (size_t)st->live.dim : NULL;
        if (s == STATUS_OK)
            s = search_both(sc, st, &sample[i], vectors + i * (size_t)dim, old, v);
    }
    if (count > 0)
        v->overlap /= (double)count;
    v->self_retrieval = count ? (double)v->found / (double)count : 1;
    return s;
}

enum status validate_staging(struct scope *sc, struct staging *st, struct validation *out)
{
    struct limits limits;
    *out = (struct validation){.self_retrieval = 1};
    enum status s = read_limits(sc, st->task->settings, &limits);
    if (s == STATUS_OK)
        s = check_counts(sc, st, &limits, out);
    out->k = limits.k;
    if (s == STATUS_OK)
        s = search_all(sc, st, &limits, out);
    if (s != STATUS_OK)
        return s;
    if (out->self_retrieval < limits.min_found)
        return fail(sc, STATUS_INVALID,
                    "validation: %zu of %zu texts of the collection are found by a search for them in the new vectors; "
                    "REINDEX_MIN_SELF_RETRIEVAL asks for %.3g of them",
                    out->found, out->queries, limits.min_found);
    if (out->has_overlap && out->overlap < limits.min_overlap)
        return fail(sc, STATUS_INVALID,
                    "validation: new results have %.3g of the old ones' documents on average; REINDEX_MIN_OVERLAP asks "
                    "for %.3g",
                    out->overlap, limits.min_overlap);
    return STATUS_OK;
}

void validation_json(struct text *t, const char *key, const struct validation *v)
{
    json_open(t, key, '{');
    json_int(t, "documents_expected", v->documents_expected);
    json_int(t, "documents", v->documents);
    json_int(t, "vectors_expected", v->vectors_expected);
    json_int(t, "vectors", v->vectors);
    json_int(t, "queries", (int64_t)v->queries);
    json_int(t, "found", (int64_t)v->found);
    json_int(t, "k", v->k);
    json_real(t, "self_retrieval", v->self_retrieval);
    if (v->has_overlap)
        json_real(t, "overlap", v->overlap);
    else
        json_null(t, "overlap");
    json_close(t, '}');
}
