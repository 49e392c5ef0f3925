#include "api/embed_query.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/json.h"

#include <curl/curl.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum {
    TRIES = 2,
    WHOLE_MS = 2000,
    FIRST_TRY_MS = 1200,
    CONNECT_MS = 500,
    LARGEST_ANSWER_BYTES = 1 << 20,
    LARGEST_DIM = 16384,
    MOST_URLS = 4,
};

/* ---- one handle a thread, so that its connections stay open ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t handle_key;

static void free_handle(void *handle)
{
    curl_easy_cleanup(handle);
}

static void init_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    pthread_key_create(&handle_key, free_handle);
}

static CURL *handle_of_thread(void)
{
    pthread_once(&once, init_once);
    CURL *handle = pthread_getspecific(handle_key);
    if (!handle) {
        handle = curl_easy_init();
        pthread_setspecific(handle_key, handle);
    }
    return handle;
}

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

static size_t on_bytes(char *bytes, size_t size, size_t count, void *context)
{
    struct text *answer = context;
    text_append(answer, bytes, size * count);
    return answer->is_cut ? 0 : size * count;
}

/* The worker is well, and will not embed this text. */
static enum status refused(struct scope *sc, const struct text *answer)
{
    scoped(cJSON) *json = NULL;
    if (json_parse(sc, text_str(answer), answer->len, &json) != STATUS_OK)
        scope_forgive(sc);
    return fail(sc, STATUS_INVALID, "the query cannot be embedded: %s",
                json_get_text(json, "detail", "the model refuses it"));
}

static enum status post(struct scope *sc, const char *url, const char *key, const char *body, int timeout_ms,
                        struct text *answer)
{
    CURL *handle = handle_of_thread();
    if (!handle)
        return fail(sc, STATUS_NO_SPACE, "no memory for an HTTP handle");
    curl_easy_reset(handle); /* its connections stay */
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, arena_printf(&sc->arena, "X-Internal-Api-Key: %s", key ? key : ""));
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(handle, CURLOPT_URL, url);
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(handle, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, (long)(timeout_ms < CONNECT_MS ? timeout_ms : CONNECT_MS));
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(handle, CURLOPT_PROXY, "");
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
    CURLcode code = curl_easy_perform(handle);
    long http = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &http);
    curl_slist_free_all(headers);
    if (code != CURLE_OK)
        return fail(sc, STATUS_UNAVAILABLE, "the embedding worker did not answer: %s", curl_easy_strerror(code));
    if (http == 400)
        return refused(sc, answer);
    if (http != 200)
        return fail(sc, STATUS_UNAVAILABLE, "the embedding worker answered %ld", http);
    return STATUS_OK;
}

static const char *endpoint(struct scope *sc, const char *base)
{
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    return arena_printf(&sc->arena, "%.*s/internal/embed", (int)len, base);
}

static enum status find_urls(struct scope *sc, struct db *db, const struct settings *settings, const char *model,
                             const char **urls, int *out_count)
{
    if (settings->embed_url && *settings->embed_url) {
        urls[0] = endpoint(sc, settings->embed_url);
        *out_count = 1;
        return STATUS_OK;
    }
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_WORKERS_WITH_MODEL, &rows, model);
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows) < MOST_URLS ? PQntuples(rows) : MOST_URLS;
    for (int i = 0; i < n; i++)
        urls[i] = endpoint(sc, db_text(rows, i, "url"));
    *out_count = n;
    return n ? STATUS_OK
             : fail(sc, STATUS_UNAVAILABLE, "no worker that has the model %s is running; try again shortly", model);
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

enum status embed_query(struct scope *sc, struct db *db, const struct settings *settings, const char *model,
                        const char *query, float **out, int *out_dim)
{
    int64_t until = clock_monotonic_ms() + WHOLE_MS;
    const char *urls[MOST_URLS] = {NULL};
    int count = 0;
    enum status s = find_urls(sc, db, settings, model, urls, &count);
    if (s != STATUS_OK)
        return s;
    const char *body = request_body(sc, model, query);
    for (int try = 0; try < TRIES; try++) {
        int64_t left = until - clock_monotonic_ms();
        if (left <= 0)
            break;
        if (try > 0)
            scope_forgive(sc);
        scoped_text answer = {.max_len = LARGEST_ANSWER_BYTES};
        int timeout_ms = try == 0 && left > FIRST_TRY_MS ? FIRST_TRY_MS : (int)left;
        s = post(sc, urls[try % count], settings->internal_api_key, body, timeout_ms, &answer);
        if (s == STATUS_OK)
            s = embed_query_parse(sc, text_str(&answer), answer.len, out, out_dim);
        if (s == STATUS_OK || s == STATUS_INVALID)
            return s;
    }
    return s;
}
