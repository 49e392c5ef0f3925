#include "worker/tasks/reading.h"

#include "common/fault.h"
#include "common/source/directory.h"
#include "worker/embed/model.h"
#include "worker/extract/extract.h"

#include <string.h>

/* ---- what all documents need ---- */

/* Chunks never exceed what the model reads: the rest of a longer one would not be found by any search. */
static void choose_sizes(struct reading *r, int chunk_size, int chunk_overlap)
{
    const struct settings *s = r->task->settings;
    size_t size = (size_t)(chunk_size > 0 ? chunk_size : s->default_chunk_size);
    size_t overlap = (size_t)(chunk_overlap >= 0 ? chunk_overlap : s->default_chunk_overlap);
    if (chunk_fit((size_t)r->model->max_tokens - 2, &size, &overlap))
        r->note = "chunk_size was larger than what the model reads; its limit was used, and the overlap in proportion";
    r->chunking.size = size;
    r->chunking.overlap = overlap;
}

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
                         const char *strategy, int chunk_size, int chunk_overlap)
{
    char error[256];
    *r = (struct reading){.task = task, .chunking = {.strategy = strategy ? strategy : "recursive"}};
    const char *folder = arena_printf(&sc->arena, "%s/%s", task->settings->model_dir, model);
    r->model = embed_model_open(folder, error, sizeof error);
    if (!r->model)
        return fail(sc, STATUS_INVALID, "the model %s cannot be used: %s", model, error);
    choose_sizes(r, chunk_size, chunk_overlap);
    r->extractor = make_extractor(task);
    extractor_on_wait(r->extractor, task_has_to_stop, task);
    return STATUS_OK;
}

void reading_close(struct reading *r)
{
    extractor_free(r->extractor);
    embed_model_close(r->model);
}

void reading_share(struct reading *r, const struct reading *of, bool (*should_stop)(void *context), void *context)
{
    *r = *of;
    r->note = NULL;
    r->extractor = make_extractor(of->task);
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
    d->count = 0;
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

static size_t model_spans(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out)
{
    const struct embed_model *model = context;
    struct token_span *spans = NULL;
    size_t count = 0;
    tokenizer_encode_spans(model->tokenizer, text, len, &spans, &count);
    struct token_span *kept = arena_array(&sc->arena, count + 1, sizeof *kept);
    if (count > 0)
        memcpy(kept, spans, count * sizeof *kept);
    free(spans);
    *out = kept;
    return count;
}

enum status reading_cut(struct scope *sc, struct scope *own, struct reading *r, struct ready_document *d)
{
    struct token_counter counter = {.spans = model_spans, .context = r->model};
    const char *note = NULL;
    enum status s = chunk_text(own, &r->chunking, &counter, d->text, d->text_len, &d->chunks, &d->count, &note);
    if (s != STATUS_OK)
        return s;
    if (note && !r->note)
        r->note = arena_strdup(&sc->arena, note); /* it outlives the document */
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
