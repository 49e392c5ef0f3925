#include "api/embed_query.h"

#include "api/worker_call.h"
#include "common/json.h"

#include <math.h>
#include <string.h>

enum { WHOLE_MS = 2000, FIRST_TRY_MS = 1200, LARGEST_ANSWER_BYTES = 1 << 20, LARGEST_DIM = 16384 };

/* ---- the answer ---- */

static enum status malformed(struct scope *sc, const char *what)
{
    return fail(sc, STATUS_UNAVAILABLE, "a worker's answer to an embedding request is not usable: %s", what);
}

enum status embed_query_parse(struct scope *sc, const char *bytes, size_t len, float **out, int *out_dim)
{
    scoped(cJSON) *json = NULL;
    if (json_parse(sc, bytes, len, &json) != STATUS_OK) {
        scope_forgive(sc);
        return malformed(sc, "it is not JSON");
    }
    int64_t dim = json_get_int(json, "dim", 0);
    const cJSON *vectors = cJSON_GetObjectItemCaseSensitive(json, "vectors");
    const cJSON *vector = cJSON_IsArray(vectors) ? vectors->child : NULL;
    if (dim < 1 || dim > LARGEST_DIM || !vector || !cJSON_IsArray(vector) || vector->next)
        return malformed(sc, "one vector was expected");
    float *values = arena_array(&sc->arena, (size_t)dim, sizeof *values);
    double squares = 0;
    int n = 0;
    for (const cJSON *v = vector->child; v; v = v->next, n++) {
        if (n >= dim || !cJSON_IsNumber(v) || !isfinite(v->valuedouble))
            return malformed(sc, "the vector is not one of finite numbers of its dimension");
        values[n] = (float)v->valuedouble;
        squares += v->valuedouble * v->valuedouble;
    }
    if (n != dim || !(squares > 1e-12))
        return malformed(sc, "the vector is too short");
    for (int i = 0; i < n; i++) /* scores are inner products: they are cosines only of vectors of length 1 */
        values[i] = (float)(values[i] / sqrt(squares));
    *out = values;
    *out_dim = n;
    return STATUS_OK;
}

/* ---- the call ---- */

/* The worker is well, and will not embed this text. */
static enum status refused(struct scope *sc, const struct text *answer)
{
    scoped(cJSON) *json = NULL;
    if (json_parse(sc, text_str(answer), answer->len, &json) != STATUS_OK)
        scope_forgive(sc);
    return fail(sc, STATUS_INVALID, "the query cannot be embedded: %s",
                json_get_text(json, "detail", "the model refuses it"));
}

static const char *request_body(struct scope *sc, const char *model, const char *query)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_open(&t, "texts", '[');
    json_text(&t, NULL, query);
    json_close(&t, ']');
    json_text(&t, "mode", "query");
    json_text(&t, "model", model);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

struct vector {
    float *values;
    int dim;
};

static enum status use_answer(struct scope *sc, int http, const struct text *answer, void *context)
{
    struct vector *out = context;
    if (http == 400)
        return refused(sc, answer);
    if (http != 200)
        return fail(sc, STATUS_UNAVAILABLE, "the embedding worker answered %d", http);
    return embed_query_parse(sc, text_str(answer), answer->len, &out->values, &out->dim);
}

enum status embed_query(struct scope *sc, struct db *db, const struct settings *settings, const char *model,
                        const char *query, float **out, int *out_dim)
{
    struct vector vector = {0};
    const struct worker_call call = {.path = "/internal/embed",
                                     .model = model,
                                     .body = request_body(sc, model, query),
                                     .whole_ms = WHOLE_MS,
                                     .first_ms = FIRST_TRY_MS,
                                     .most_answer_bytes = LARGEST_ANSWER_BYTES,
                                     .use = use_answer,
                                     .context = &vector};
    enum status s = worker_call(sc, db, settings, &call);
    *out = vector.values;
    *out_dim = vector.dim;
    return s;
}
