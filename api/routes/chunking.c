/* Cutting texts: what can be chosen, what comes of it, and how collections were cut. A worker does the cutting, as it
 * has the tokenizer. */
#include "common/chunking.h"
#include "api/chunking_check.h"
#include "api/guard.h"
#include "api/router.h"
#include "api/worker_call.h"
#include "common/store/chunking_store.h"
#include "common/store/document_view.h"

#include <string.h>

enum {
    PREVIEW_MS = 60000,
    LARGEST_ANSWER_BYTES = 64 << 20,
    COMPARED_CHUNKS = 3,
    MOST_COMPARED = 6,
    COUNTED_AT_ONCE = 50000, /* vectors of a collection whose chunks are counted while a client waits */
};

enum status chunking_list(struct request *r)
{
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    chunking_write_strategies(t, "strategies");
    json_text(t, "default_strategy", "recursive");
    json_int(t, "default_chunk_size", r->api->settings->default_chunk_size);
    json_int(t, "default_chunk_overlap", r->api->settings->default_chunk_overlap);
    json_close(t, '}');
    return STATUS_OK;
}

/* ---- what is to be cut, and how ---- */

struct preview {
    const char *text;             /* NULL: the file */
    const char *path_hex, *name;  /* of a document */
    const char *strategy, *model; /* strategy NULL = the default */
    int64_t size, overlap;        /* < 0 = the default */
    const char *config_json;      /* NULL = none */
    int64_t most;                 /* chunks */
};

static int64_t number_of(const PGresult *rows, const char *column)
{
    return rows ? db_int(rows, 0, column, -1) : -1;
}

/* The collection's settings stand in for what the request leaves out; its keys only beside its own strategy. */
static void inherit(struct request *r, struct preview *p, const PGresult *rows)
{
    const char *strategy = arena_strdup(&r->sc->arena, db_text(rows, 0, "chunking_strategy"));
    bool is_same = !p->strategy || (strategy && strcmp(strategy, p->strategy) == 0);
    if (!p->config_json && is_same)
        p->config_json = arena_strdup(&r->sc->arena, db_text(rows, 0, "chunking_config"));
    if (!p->strategy)
        p->strategy = strategy;
    if (p->size < 0)
        p->size = number_of(rows, "chunk_size");
    if (p->overlap < 0)
        p->overlap = number_of(rows, "chunk_overlap");
}

static enum status find_document(struct request *r, struct preview *p, const char *uuid, const struct collection *c)
{
    scoped(PGresult) *rows = NULL;
    enum status s = document_view_find(r->sc, r->db, uuid, &rows);
    if (s != STATUS_OK)
        return s;
    if (db_int(rows, 0, "collection_row_id", 0) != c->id)
        return fail(r->sc, STATUS_FORBIDDEN, "This document belongs to another collection");
    p->path_hex = arena_strdup(&r->sc->arena, db_text(rows, 0, "path_hex"));
    p->name = arena_strdup(&r->sc->arena, db_text(rows, 0, "file_name"));
    return STATUS_OK;
}

/* *out_model: what the request asks for, else the collection's. */
static enum status read_collection(struct request *r, struct preview *p, const char **out_model)
{
    const char *collection = json_get_text(r->json, "collection_id", NULL);
    const char *document = json_get_text(r->json, "document_id", NULL);
    struct collection c;
    scoped(PGresult) *rows = NULL;
    if (!collection)
        return document ? request_invalid(r, "body", "collection_id", "missing", "document_id needs its collection_id")
                        : STATUS_OK;
    enum status s = guard_readable(r, collection, &c, &rows);
    if (s == STATUS_OK && document)
        s = find_document(r, p, document, &c);
    if (s != STATUS_OK)
        return s;
    inherit(r, p, rows);
    if (!*out_model)
        *out_model = c.model;
    return STATUS_OK;
}

static enum status read_preview(struct request *r, struct preview *p)
{
    const char *model = json_get_text(r->json, "embedding_model", NULL);
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(r->json, "config");
    *p = (struct preview){
        .text = json_get_text(r->json, "text", NULL),
        .strategy = json_get_text(r->json, "strategy", NULL),
        .size = json_get_int(r->json, "chunk_size", -1),
        .overlap = json_get_int(r->json, "chunk_overlap", -1),
        .config_json = json_printed(r, config),
        .most = json_get_int(r->json, "max_chunks", -1),
    };
    bool is_document = json_get_text(r->json, "document_id", NULL);
    if ((p->text != NULL) == is_document)
        return request_invalid(r, "body", "text", "value_error", "either text or document_id must be given");
    enum status s = chunking_check(r, p->strategy, config, &p->size, &p->overlap);
    if (s == STATUS_OK)
        s = read_collection(r, p, &model);
    if (s == STATUS_OK) /* once more, with the collection's sizes */
        s = chunking_check(r, p->strategy, config, &p->size, &p->overlap);
    if (s == STATUS_OK)
        s = collection_store_model(r->sc, r->db, r->api->settings->default_model, model, &p->model);
    return s;
}

/* ---- asking a worker ---- */

static const char *asked(struct request *r, const struct preview *p)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "model", p->model);
    json_text(&t, "strategy", p->strategy);
    if (p->size > 0)
        json_int(&t, "chunk_size", p->size);
    if (p->overlap >= 0)
        json_int(&t, "chunk_overlap", p->overlap);
    if (p->config_json)
        json_raw(&t, "config", p->config_json);
    if (p->most > 0)
        json_int(&t, "max_chunks", p->most);
    if (p->text)
        json_text(&t, "text", p->text);
    if (p->path_hex) {
        json_text(&t, "path_hex", p->path_hex);
        json_text(&t, "name", p->name);
    }
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

/* A sentence about the text or the file is for the client; one about the worker is not. */
static enum status refused(struct scope *sc, int http, const struct text *answer)
{
    scoped(cJSON) *json = NULL;
    if (json_parse(sc, text_str(answer), answer->len, &json) != STATUS_OK)
        scope_forgive(sc);
    const char *detail = json_get_text(json, "detail", "");
    bool is_unknown_path = http == 404 && strcmp(detail, "Not Found") == 0; /* an older worker */
    if (is_unknown_path || !*detail || (http != 400 && http != 403 && http != 404 && http != 413 && http != 422))
        return fail(sc, STATUS_UNAVAILABLE, "the worker answered %d", http);
    return fail(sc, http == 404 ? STATUS_NOT_FOUND : STATUS_INVALID, "%s", detail);
}

static enum status use_answer(struct scope *sc, int http, const struct text *answer, void *context)
{
    struct text *out = context;
    if (http != 200)
        return refused(sc, http, answer);
    text_clear(out);
    text_append(out, answer->data, answer->len);
    return STATUS_OK;
}

static enum status ask_worker(struct request *r, const struct preview *p, struct text *out)
{
    const struct worker_call call = {.path = "/internal/chunk",
                                     .model = p->model,
                                     .body = asked(r, p),
                                     .whole_ms = PREVIEW_MS,
                                     .first_ms = PREVIEW_MS,
                                     .most_answer_bytes = LARGEST_ANSWER_BYTES,
                                     .use = use_answer,
                                     .context = out};
    enum status s = worker_call(r->sc, r->db, r->api->settings, &call);
    if (s == STATUS_UNAVAILABLE)
        reply_header(r, "Retry-After", "2");
    return s;
}

enum status chunking_preview(struct request *r)
{
    struct preview p;
    scoped_text answer = {0};
    enum status s = read_preview(r, &p);
    if (s == STATUS_OK)
        s = ask_worker(r, &p, &answer);
    if (s == STATUS_OK)
        json_raw(reply_json(r, 200), NULL, text_str(&answer));
    return s;
}

/* ---- several strategies ---- */

static enum status read_strategies(struct request *r, const char **out, size_t *out_count)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(r->json, "strategies");
    size_t n = 0, count;
    const struct chunking_strategy *all = chunking_strategies(&count);
    for (size_t i = 0; !cJSON_IsArray(list) && i < count && n < MOST_COMPARED; i++)
        out[n++] = all[i].name;
    for (const cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item && n < MOST_COMPARED; item = item->next) {
        if (!cJSON_IsString(item))
            return request_invalid(r, "body", "strategies", "value_error", "strategies must be names of strategies");
        out[n++] = item->valuestring;
    }
    *out_count = n;
    return STATUS_OK;
}

enum status chunking_compare(struct request *r)
{
    const char *names[MOST_COMPARED];
    size_t count = 0;
    struct preview p = {.text = json_get_text(r->json, "text", ""),
                        .size = json_get_int(r->json, "chunk_size", -1),
                        .overlap = json_get_int(r->json, "chunk_overlap", -1),
                        .most = json_get_int(r->json, "max_chunks", COMPARED_CHUNKS)};
    enum status s = read_strategies(r, names, &count);
    for (size_t i = 0; i < count && s == STATUS_OK; i++)
        s = chunking_check(r, names[i], NULL, &p.size, &p.overlap);
    if (s == STATUS_OK)
        s = collection_store_model(r->sc, r->db, r->api->settings->default_model,
                                   json_get_text(r->json, "embedding_model", NULL), &p.model);
    scoped_text all = {0}, one = {0};
    json_open(&all, NULL, '{');
    json_open(&all, "comparisons", '[');
    for (size_t i = 0; i < count && s == STATUS_OK; i++) {
        p.strategy = names[i];
        s = ask_worker(r, &p, &one);
        if (s == STATUS_OK)
            json_raw(&all, NULL, text_str(&one));
    }
    json_close(&all, ']');
    json_close(&all, '}');
    if (s == STATUS_OK)
        json_raw(reply_json(r, 200), NULL, text_str(&all));
    return s;
}

/* ---- how a collection was cut ---- */

enum status chunking_stats(struct request *r)
{
    struct collection c;
    struct chunking_stats stats = {0};
    enum status s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = chunking_store_find(r->sc, r->db, c.id, &stats);
    if (s == STATUS_OK && !stats.is_fresh && stats.vector_count <= COUNTED_AT_ONCE)
        s = chunking_store_compute(r->sc, r->db, c.id, &stats);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "collection_id", c.uuid);
    json_text(t, "strategy", stats.strategy);
    json_int(t, "vector_count", stats.vector_count);
    json_raw(t, "statistics", stats.json);
    json_text(t, "computed_at", stats.computed_at);
    json_bool(t, "is_current", stats.is_fresh);
    json_close(t, '}');
    return STATUS_OK;
}
