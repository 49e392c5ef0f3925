/* Re-indexing a collection: what is wanted is worked out against what it has, so that the operation says both in full.
 */
#include "api/accept.h"
#include "api/chunking_check.h"
#include "api/router.h"
#include "common/store/collection_store.h"

#include <string.h>

/* Settings as an operation's config holds them; strings in the arena, NULL and -1 = the default. */
struct wanted {
    const char *model, *quantization, *strategy;
    int64_t chunk_size, chunk_overlap;
    const char *chunking_json;
};

static const char *kept(struct request *r, const PGresult *rows, const char *column)
{
    return arena_strdup(&r->sc->arena, db_text(rows, 0, column));
}

static struct wanted settings_of(struct request *r, const PGresult *rows)
{
    return (struct wanted){
        .model = kept(r, rows, "embedding_model"),
        .quantization = kept(r, rows, "quantization"),
        .strategy = kept(r, rows, "chunking_strategy"),
        .chunk_size = db_int(rows, 0, "chunk_size", -1),
        .chunk_overlap = db_int(rows, 0, "chunk_overlap", -1),
        .chunking_json = kept(r, rows, "chunking_config"),
    };
}

static enum status read_quantization(struct request *r, struct wanted *w)
{
    static const char *const valid[] = {"float32", "float16", "int8"};
    const char *given = json_get_text(r->json, "quantization", w->quantization);
    for (size_t i = 0; i < array_len(valid); i++) {
        if (strcmp(valid[i], given) == 0) {
            w->quantization = valid[i];
            return STATUS_OK;
        }
    }
    return request_invalid(r, "body", "quantization", "value_error",
                           "quantization must be one of: float32, float16, int8");
}

/* Sizes and options that are not given stay, but options belong to the strategy they were made for. */
static enum status read_chunking(struct request *r, struct wanted *w)
{
    const char *strategy = json_get_text(r->json, "chunking_strategy", w->strategy);
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(r->json, "chunking_config");
    bool is_other = strcmp(strategy ? strategy : "recursive", w->strategy ? w->strategy : "recursive") != 0;
    int64_t size = json_get_int(r->json, "chunk_size", -1), overlap = json_get_int(r->json, "chunk_overlap", -1);
    if (cJSON_IsObject(config) && !strategy)
        return fail(r->sc, STATUS_INVALID, "chunking_config needs a chunking_strategy: one of %s",
                    chunking_names(r->sc));
    enum status s = chunking_check(r, strategy, config, &size, &overlap);
    if (s != STATUS_OK)
        return s;
    w->strategy = strategy;
    w->chunk_size = size >= 0 ? size : w->chunk_size;
    w->chunk_overlap = overlap >= 0 ? overlap : w->chunk_overlap;
    if (cJSON_IsObject(config))
        w->chunking_json = body_json(r, "chunking_config");
    else if (is_other)
        w->chunking_json = NULL;
    if (w->chunk_size > 0 && w->chunk_overlap >= w->chunk_size)
        return fail(r->sc, STATUS_INVALID,
                    "chunk_overlap (%lld) must be smaller than chunk_size (%lld); what is not given stays as it is",
                    (long long)w->chunk_overlap, (long long)w->chunk_size);
    return STATUS_OK;
}

static enum status read_wanted(struct request *r, struct wanted *w)
{
    const char *model = json_get_text(r->json, "embedding_model", NULL);
    enum status s = STATUS_OK;
    if (model)
        s = collection_store_model(r->sc, r->db, r->api->settings->default_model, model, &w->model);
    if (s == STATUS_OK)
        s = read_quantization(r, w);
    return s == STATUS_OK ? read_chunking(r, w) : s;
}

static void put_number(struct text *t, const char *key, int64_t n)
{
    if (n >= 0)
        json_int(t, key, n);
    else
        json_null(t, key);
}

static void put_settings(struct text *t, const char *key, const struct wanted *w)
{
    json_open(t, key, '{');
    json_text(t, "embedding_model", w->model);
    json_text(t, "quantization", w->quantization);
    put_number(t, "chunk_size", w->chunk_size);
    put_number(t, "chunk_overlap", w->chunk_overlap);
    json_text(t, "chunking_strategy", w->strategy);
    json_raw(t, "chunking_config", w->chunking_json);
    json_close(t, '}');
}

static const char *config_of(struct request *r, const struct wanted *before, const struct wanted *after)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    put_settings(&t, "previous_config", before);
    put_settings(&t, "new_config", after);
    json_bool(&t, "blue_green", true);
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

enum status collections_reindex(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    bool is_replay;
    enum status s = guard_owned(r, r->params[0], &c, &rows);
    if (s != STATUS_OK)
        return s;
    const struct wanted before = settings_of(r, rows);
    struct wanted after = before;
    s = read_wanted(r, &after);
    if (s != STATUS_OK)
        return s;
    const struct acceptance a = {.collection = &c,
                                 .type = OPERATION_REINDEX,
                                 .config_json = config_of(r, &before, &after),
                                 .what = "Cannot re-index the collection"};
    return accept_operation(r, &a, NULL, &is_replay);
}
