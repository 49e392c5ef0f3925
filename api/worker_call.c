#include "api/worker_call.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/text.h"

#include <curl/curl.h>
#include <pthread.h>
#include <string.h>

enum { TRIES = 2, CONNECT_MS = 500, MOST_URLS = 4 };

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

/* ---- one try ---- */

static size_t on_bytes(char *bytes, size_t size, size_t count, void *context)
{
    struct text *answer = context;
    text_append(answer, bytes, size * count);
    return answer->is_cut ? 0 : size * count;
}

static enum status post(struct scope *sc, const char *url, const char *key, const char *body, int timeout_ms,
                        struct text *answer, long *out_http)
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
    *out_http = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, out_http);
    curl_slist_free_all(headers);
    if (code != CURLE_OK)
        return fail(sc, STATUS_UNAVAILABLE, "the embedding worker did not answer: %s", curl_easy_strerror(code));
    return STATUS_OK;
}

static const char *endpoint(struct scope *sc, const char *base, const char *path)
{
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    return arena_printf(&sc->arena, "%.*s%s", (int)len, base, path);
}

static enum status find_urls(struct scope *sc, struct db *db, const struct settings *settings, const char *model,
                             const char *path, const char **urls, int *out_count)
{
    if (settings->embed_url && *settings->embed_url) {
        urls[0] = endpoint(sc, settings->embed_url, path);
        *out_count = 1;
        return STATUS_OK;
    }
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_WORKERS_WITH_MODEL, &rows, model);
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows) < MOST_URLS ? PQntuples(rows) : MOST_URLS;
    for (int i = 0; i < n; i++)
        urls[i] = endpoint(sc, db_text(rows, i, "url"), path);
    *out_count = n;
    return n ? STATUS_OK
             : fail(sc, STATUS_UNAVAILABLE, "no worker that has the model %s is running; try again shortly", model);
}

/* ---- all tries ---- */

enum status worker_call(struct scope *sc, struct db *db, const struct settings *settings,
                        const struct worker_call *call)
{
    int64_t until = clock_monotonic_ms() + call->whole_ms;
    if (sc->deadline_ms > 0 && until > sc->deadline_ms)
        until = sc->deadline_ms;
    const char *urls[MOST_URLS] = {NULL};
    int count = 0;
    enum status s = find_urls(sc, db, settings, call->model, call->path, urls, &count);
    if (s != STATUS_OK)
        return s;
    for (int try = 0; try < TRIES; try++) {
        int64_t left = until - clock_monotonic_ms();
        if (left <= 0)
            return s == STATUS_OK ? fail(sc, STATUS_UNAVAILABLE, "no worker answered in time") : s;
        if (try > 0)
            scope_forgive(sc);
        scoped_text answer = {.max_len = call->most_answer_bytes};
        int timeout_ms = try == 0 && left > call->first_ms ? call->first_ms : (int)left;
        long http = 0;
        s = post(sc, urls[try % count], settings->internal_api_key, call->body, timeout_ms, &answer, &http);
        if (s == STATUS_OK)
            s = call->use(sc, (int)http, &answer, call->context);
        if (s != STATUS_UNAVAILABLE)
            return s;
    }
    return s;
}
