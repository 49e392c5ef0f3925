#include "worker/tasks/reading.h"

#include "common/fault.h"
#include "common/source/directory.h"
#include "worker/embed/client.h"
#include "worker/embed/model.h"
#include "worker/extract/extract.h"

#include <string.h>

enum { EMBED_TIMEOUT_MS = 120000 };

/* ---- what all documents need ---- */

static struct extractor *make_extractor(const struct task *task)
{
    const struct settings *settings = task->settings;
    struct extract_limits limits = {
        .max_file_bytes = (uint64_t)settings->max_file_bytes,
        .max_text_bytes = (uint64_t)settings->max_text_bytes,
        .seconds = (int)settings->extract_seconds,
        .memory_mb = (int)settings->extract_memory_mb,
    };
    return extractor_new(&limits, task->executable);
}

enum status reading_open(struct scope *sc, struct reading *r, struct task *task, const char *model,
                         const struct chunk_wishes *wishes)
{
    char error[256];
    *r = (struct reading){.task = task};
    const char *folder = arena_printf(&sc->arena, "%s/%s", task->settings->model_dir, model);
    r->model = embed_model_open(folder, error, sizeof error);
    if (!r->model)
        return fail(sc, STATUS_INVALID, "the model %s cannot be used: %s", model, error);
    chunk_plan_make(sc, wishes, task->settings, r->model, &r->plan);
    r->note = r->plan.note;
    r->extractor = make_extractor(task);
    r->should_stop = task_has_to_stop;
    r->stop_context = task;
    extractor_on_wait(r->extractor, task_has_to_stop, task);
    return STATUS_OK;
}

void reading_close(struct reading *r)
{
    extractor_free(r->extractor);
    embed_model_close(r->model);
    chunk_plan_done(&r->plan);
}

void reading_share(struct reading *r, const struct reading *of, bool (*should_stop)(void *context), void *context)
{
    *r = *of;
    r->note = NULL;
    r->extractor = make_extractor(of->task);
    r->should_stop = should_stop;
    r->stop_context = context;
    extractor_on_wait(r->extractor, should_stop, context);
}

void reading_unshare(struct reading *r)
{
    extractor_free(r->extractor);
}

/* ---- one document ---- */

void reading_give_up(struct ready_document *d, const char *problem, const char *category)
{
    d->problem = problem;
    d->category = category;
    d->count = d->vector_count = 0;
}

static const char *category_of(enum error_class class)
{
    return class == ERROR_TRANSIENT || class == ERROR_RESOURCE ? "transient"
           : class == ERROR_PERMANENT                          ? "permanent"
                                                               : "unknown";
}

static const char *metadata_of(struct scope *sc, const struct extract_result *r)
{
    if (!r->title || !*r->title)
        return NULL;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "title", r->title);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

/* Of one document: documents may be cut side by side, and a client is for one thread. */
struct cutting {
    const struct reading *r;
    struct embed_client *client;
};

static enum status embed_for_cutting(void *context, struct scope *sc, const struct embed_text *texts, size_t count,
                                     const float **out, int *out_dim)
{
    const struct cutting *c = context;
    struct embed_answer answer;
    enum status s = embed_client_run(sc, c->client, c->r->model->name, EMBED_PASSAGE, c->r->task->operation_id, texts,
                                     count, EMBED_TIMEOUT_MS, &answer, NULL);
    if (s != STATUS_OK)
        return s;
    *out = answer.vectors;
    *out_dim = answer.dim;
    return STATUS_OK;
}

static enum status cut_text(struct scope *own, const struct reading *r, struct ready_document *d, const char **out_note)
{
    struct task *task = r->task;
    struct cutting cutting = {.r = r, .client = embed_client_new(task->embedder_socket)};
    embed_client_on_wait(cutting.client, r->should_stop, r->stop_context);
    int64_t at_a_time = task->settings->embedding_batch_size;
    struct token_counter counter = chunk_counter(r->model);
    struct chunk_embedder embedder = {embed_for_cutting, &cutting, at_a_time > 0 ? (size_t)at_a_time : 1};
    enum status s = chunk_text(own, &r->plan.options, &counter, &embedder, d->text, d->text_len, &d->chunks, &d->count,
                               out_note);
    embed_client_free(cutting.client);
    return s;
}

enum status reading_cut(struct scope *sc, struct scope *own, struct reading *r, struct ready_document *d)
{
    const char *note = NULL;
    enum status s = cut_text(own, r, d, &note);
    if (s == STATUS_INVALID) { /* a text that the embedder refuses */
        reading_give_up(d, own->problem_text, "permanent");
        scope_forgive(own);
        return STATUS_OK;
    }
    if (s != STATUS_OK)
        return fail(sc, s, "%s", own->problem_text ? own->problem_text : status_text(s));
    if (note && !r->note)
        r->note = arena_strdup(&sc->arena, note); /* it outlives the document */
    d->vector_count = 0;
    for (size_t i = 0; i < d->count; i++)
        d->vector_count += !d->chunks[i].is_parent;
    if (d->count == 0)
        reading_give_up(d, "there is no text in it", "permanent");
    return STATUS_OK;
}

/* A file that could not be read when it was found has none. Without one it is compared by size and time alone. */
static void hash_file(struct scope *own, int fd, struct ready_document *d)
{
    char *hash = arena_alloc(&own->arena, 65);
    if (source_hash_fd(own, fd, hash) == STATUS_OK)
        d->hash = hash;
    else
        scope_forgive(own);
}

enum status reading_document(struct scope *sc, struct scope *own, struct reading *r, struct ready_document *d)
{
    const struct settings *settings = r->task->settings;
    struct path_bytes path = d->from->path;
    scoped_fd int fd = -1;
    enum status s = source_open_file(own, settings->source_roots, path.bytes, path.len, &fd);
    if (s != STATUS_OK) {
        reading_give_up(d, own->problem_text, category_of(status_class(s)));
        d->is_missing = s == STATUS_NOT_FOUND || s == STATUS_UNAVAILABLE;
        scope_forgive(own);
        return STATUS_OK;
    }
    (void)FAULT(DOCUMENT_OPENED, d->from->name);
    if (!*d->from->hash)
        hash_file(own, fd, d);
    struct extract_result result = {0};
    s = extractor_run(own, r->extractor, fd, d->from->name, &result);
    if (s != STATUS_OK) {
        const char *problem = own->problem_text ? own->problem_text : status_text(s);
        scope_forgive(own);
        if (s == STATUS_CANCELLED)
            return fail(sc, s, "%s", problem);
        reading_give_up(d, problem, category_of(status_class(s)));
        d->mime_type = result.mime_type;
        return STATUS_OK;
    }
    (void)FAULT(DOCUMENT_EXTRACTED, d->from->name);
    d->mime_type = result.mime_type;
    d->metadata_json = metadata_of(own, &result);
    d->text = result.text;
    d->text_len = result.text_len;
    s = reading_cut(sc, own, r, d);
    if (s == STATUS_OK)
        (void)FAULT(MID_DOCUMENT, d->from->name);
    return s;
}
