#include "worker/chunk_preview.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/source/directory.h"
#include "worker/chunk/plan.h"
#include "worker/embed/client.h"
#include "worker/embed/model.h"
#include "worker/extract/extract.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { MOST_MODELS = 8, DEFAULT_CHUNKS = 100, MOST_CHUNKS = 1000, MOST_PATH_BYTES = 4096, EMBED_TIMEOUT_MS = 30000 };

struct chunk_preview {
    const struct settings *settings;
    char *embedder_socket;
    bool (*should_stop)(void *context);
    void *context;
    pthread_mutex_t lock; /* guards the models, which stay open: only their tokenizers are used */
    struct embed_model *models[MOST_MODELS];
    int model_count;
};

struct chunk_preview *chunk_preview_new(const struct settings *settings, const char *embedder_socket)
{
    struct chunk_preview *p = must_calloc(1, sizeof *p);
    p->settings = settings;
    p->embedder_socket = must_strdup(embedder_socket);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void chunk_preview_free(struct chunk_preview *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->model_count; i++)
        embed_model_close(p->models[i]);
    pthread_mutex_destroy(&p->lock);
    free(p->embedder_socket);
    free(p);
}

void chunk_preview_on_wait(struct chunk_preview *p, bool (*should_stop)(void *context), void *context)
{
    p->should_stop = should_stop;
    p->context = context;
}

/* ---- the model ---- */

/* A model's folder is a name, never a path. */
static bool is_folder_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/');
}

/* What is wrong with it tells of the server's folders. */
static enum status cannot_use(struct scope *sc, const char *name, const char *why)
{
    log_warning("model_not_usable", log_text("model", name), log_text("problem", why));
    return fail(sc, STATUS_NOT_FOUND, "the model %s cannot be used by this worker", name);
}

static enum status open_model(struct chunk_preview *p, struct scope *sc, const char *name, struct embed_model **out)
{
    char error[256];
    for (int i = 0; i < p->model_count; i++) {
        if (strcmp(p->models[i]->name, name) == 0) {
            *out = p->models[i];
            return STATUS_OK;
        }
    }
    if (!is_folder_name(name) || p->model_count == MOST_MODELS)
        return fail(sc, STATUS_NOT_FOUND, "the model '%.60s' is not available for previews", name);
    const char *folder = arena_printf(&sc->arena, "%s/%s", p->settings->model_dir, name);
    *out = embed_model_open(folder, error, sizeof error);
    if (!*out)
        return cannot_use(sc, name, error);
    p->models[p->model_count++] = *out;
    return STATUS_OK;
}

static enum status find_model(struct chunk_preview *p, struct scope *sc, const char *name, struct embed_model **out)
{
    pthread_mutex_lock(&p->lock);
    enum status s = open_model(p, sc, name ? name : p->settings->default_model, out);
    pthread_mutex_unlock(&p->lock);
    return s;
}

/* ---- the text ---- */

struct source_text {
    const char *bytes;
    size_t len;
    const char *note; /* NULL = it is whole */
};

static enum status decode_path(struct scope *sc, const char *hex, char **out, size_t *out_len)
{
    size_t len = strlen(hex) / 2;
    if (len == 0 || len > MOST_PATH_BYTES || strlen(hex) % 2 || strspn(hex, "0123456789abcdef") != strlen(hex))
        return fail(sc, STATUS_UNPROCESSABLE, "path_hex is not the path of a document");
    char *path = arena_alloc(&sc->arena, len + 1);
    for (size_t i = 0; i < len; i++) {
        const char digits[3] = {hex[i * 2], hex[i * 2 + 1], '\0'};
        path[i] = (char)strtoul(digits, NULL, 16);
    }
    path[len] = '\0';
    *out = path;
    *out_len = len;
    return STATUS_OK;
}

static enum status read_file(const struct chunk_preview *p, struct scope *sc, const char *path_hex, const char *name,
                             struct source_text *out)
{
    char *path = NULL;
    size_t len = 0;
    scoped_fd int fd = -1;
    enum status s = decode_path(sc, path_hex, &path, &len);
    if (s == STATUS_OK)
        s = source_open_file(sc, p->settings->source_roots, path, len, &fd);
    if (s != STATUS_OK)
        return s;
    struct extract_limits limits = {
        .max_file_bytes = (uint64_t)p->settings->max_file_bytes,
        .max_text_bytes = (uint64_t)p->settings->max_text_bytes,
        .seconds = (int)p->settings->extract_seconds,
        .memory_mb = (int)p->settings->extract_memory_mb,
    };
    struct extractor *extractor = extractor_new(&limits, "/proc/self/exe");
    extractor_on_wait(extractor, p->should_stop, p->context);
    struct extract_result result = {0};
    s = extractor_run(sc, extractor, fd, name, &result);
    extractor_free(extractor);
    out->bytes = result.text;
    out->len = result.text_len;
    return s;
}

static enum status read_text(const struct chunk_preview *p, struct scope *sc, const cJSON *request,
                             struct source_text *out)
{
    const char *text = json_get_text(request, "text", NULL), *path = json_get_text(request, "path_hex", NULL);
    *out = (struct source_text){.bytes = text, .len = text ? strlen(text) : 0};
    enum status s = text   ? STATUS_OK
                    : path ? read_file(p, sc, path, json_get_text(request, "name", ""), out)
                           : fail(sc, STATUS_UNPROCESSABLE, "a text or a document is needed");
    bool is_slow = chunk_asks_embedder(json_get_text(request, "strategy", NULL));
    size_t most = is_slow ? PREVIEW_MOST_EMBEDDED_BYTES : PREVIEW_MOST_BYTES;
    if (s == STATUS_OK && out->len > most) {
        out->len = utf8_floor(out->bytes, out->len, most);
        out->note = is_slow ? "only the first 64 KiB of the text were cut, as this strategy embeds all of it"
                            : "only the first MiB of the text was cut";
    }
    return s;
}

/* ---- cutting ---- */

struct embedding {
    struct embed_client *client;
    const char *model;
};

static enum status embed(void *context, struct scope *sc, const struct embed_text *texts, size_t count,
                         const float **out, int *out_dim)
{
    const struct embedding *e = context;
    struct embed_answer answer;
    enum status s = embed_client_run(sc, e->client, e->model, EMBED_PASSAGE, "chunk-preview", texts, count,
                                     EMBED_TIMEOUT_MS, &answer, NULL);
    if (s != STATUS_OK)
        return s;
    *out = answer.vectors;
    *out_dim = answer.dim;
    return STATUS_OK;
}

struct cut_text {
    struct source_text text;
    struct chunk_plan plan;
    struct chunk *chunks;
    size_t count;
    const char *note;
};

static enum status cut(const struct chunk_preview *p, struct scope *sc, struct embed_model *model, struct cut_text *c)
{
    struct embedding embedding = {embed_client_new(p->embedder_socket), model->name};
    embed_client_on_wait(embedding.client, p->should_stop, p->context);
    int64_t at_a_time = p->settings->embedding_batch_size;
    struct chunk_embedder embedder = {embed, &embedding, at_a_time > 0 ? (size_t)at_a_time : 1};
    struct token_counter counter = chunk_counter(model);
    enum status s = chunk_text(sc, &c->plan.options, &counter, &embedder, c->text.bytes, c->text.len, &c->chunks,
                               &c->count, &c->note);
    embed_client_free(embedding.client);
    return s;
}

/* ---- the answer ---- */

static void write_chunk(struct text *t, const struct cut_text *c, const struct chunk *k)
{
    json_open(t, NULL, '{');
    json_int(t, "index", k->is_parent ? -1 - k->ordinal : k->ordinal);
    json_text_n(t, "text", c->text.bytes + k->start, k->end - k->start);
    json_int(t, "tokens", (int64_t)k->tokens);
    json_int(t, "start", (int64_t)k->start);
    json_int(t, "end", (int64_t)k->end);
    if (!k->is_parent) {
        json_text(t, "heading", k->heading);
        if (k->parent != 0)
            json_int(t, "parent_index", -1 - k->parent);
        else
            json_null(t, "parent_index");
        json_text(t, "chunking", k->how ? k->how : c->plan.options.strategy);
    }
    json_close(t, '}');
}

/* The first `most` chunks, or the parents of those. */
static void write_chunks(struct text *t, const struct cut_text *c, const char *key, bool is_parent, size_t most)
{
    size_t written = 0;
    json_open(t, key, '[');
    for (size_t i = 0; i < c->count && written < most; i++) {
        written += !c->chunks[i].is_parent;
        if (c->chunks[i].is_parent == is_parent)
            write_chunk(t, c, &c->chunks[i]);
    }
    json_close(t, ']');
}

static void write_statistics(struct text *t, const struct cut_text *c)
{
    size_t count = 0, parents = 0, total = 0, least = 0, most = 0;
    for (size_t i = 0; i < c->count; i++) {
        const struct chunk *k = &c->chunks[i];
        parents += k->is_parent;
        if (k->is_parent)
            continue;
        least = count == 0 || k->tokens < least ? k->tokens : least;
        most = k->tokens > most ? k->tokens : most;
        total += k->tokens;
        count++;
    }
    json_open(t, "statistics", '{');
    json_int(t, "count", (int64_t)count);
    json_int(t, "parents", (int64_t)parents);
    json_open(t, "tokens", '{');
    json_int(t, "min", (int64_t)least);
    json_real(t, "avg", count ? (double)total / (double)count : 0);
    json_int(t, "max", (int64_t)most);
    json_int(t, "total", (int64_t)total);
    json_close(t, '}');
    json_close(t, '}');
    json_int(t, "total_chunks", (int64_t)count);
}

static const char *all_notes(struct scope *sc, const struct cut_text *c)
{
    const char *const notes[] = {c->text.note, c->plan.note, c->note};
    const char *all = NULL;
    for (size_t i = 0; i < array_len(notes); i++) {
        if (notes[i])
            all = all ? arena_printf(&sc->arena, "%s; %s", all, notes[i]) : notes[i];
    }
    return all;
}

static void write_answer(struct scope *sc, struct text *t, const struct cut_text *c, const char *model, int64_t most,
                         int64_t started_us)
{
    json_open(t, NULL, '{');
    json_text(t, "strategy", c->plan.options.strategy);
    json_text(t, "embedding_model", model);
    json_int(t, "chunk_size", (int64_t)c->plan.options.size);
    json_int(t, "chunk_overlap", (int64_t)c->plan.options.overlap);
    write_chunks(t, c, "chunks", false, (size_t)most);
    write_chunks(t, c, "parents", true, (size_t)most);
    write_statistics(t, c);
    json_text(t, "note", all_notes(sc, c));
    json_real(t, "processing_time_ms", (double)(clock_monotonic_us() - started_us) / 1000);
    json_close(t, '}');
}

enum status chunk_preview_run(struct chunk_preview *p, struct scope *sc, const struct text *body, struct text *out)
{
    int64_t started_us = clock_monotonic_us();
    scoped(cJSON) *request = NULL;
    struct embed_model *model = NULL;
    struct cut_text c = {0};
    enum status s = p->should_stop && p->should_stop(p->context)
                        ? fail(sc, STATUS_CANCELLED, "the worker is about to end")
                        : json_parse(sc, text_str(body), body->len, &request);
    if (s == STATUS_OK)
        s = find_model(p, sc, json_get_text(request, "model", NULL), &model);
    if (s == STATUS_OK)
        s = read_text(p, sc, request, &c.text);
    if (s != STATUS_OK || !model)
        return s;
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(request, "config");
    scoped_memory char *config_json = cJSON_IsObject(config) ? cJSON_PrintUnformatted(config) : NULL;
    const struct chunk_wishes wishes = {json_get_text(request, "strategy", NULL),
                                        json_get_int(request, "chunk_size", 0),
                                        json_get_int(request, "chunk_overlap", -1), config_json};
    int64_t most = json_get_int(request, "max_chunks", DEFAULT_CHUNKS);
    most = most < 1 ? 1 : most > MOST_CHUNKS ? MOST_CHUNKS : most;
    chunk_plan_make(sc, &wishes, p->settings, model, &c.plan);
    s = cut(p, sc, model, &c);
    if (s == STATUS_OK)
        write_answer(sc, out, &c, model->name, most, started_us);
    chunk_plan_done(&c.plan);
    return s;
}
