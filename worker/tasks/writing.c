#include "worker/tasks/writing.h"

#include "common/fault.h"
#include "worker/embed/client.h"

#include <string.h>

enum { EMBED_TIMEOUT_MS = 120000 };

void writing_open(struct writing *w, struct task *task, const char *model, const char *quantization)
{
    *w = (struct writing){.task = task, .model = model, .quantization = quantization};
    w->embedder = embed_client_new(task->embedder_socket);
    embed_client_on_wait(w->embedder, task_has_to_stop, task);
}

void writing_close(struct writing *w)
{
    embed_client_free(w->embedder);
}

/* ---- embedding ---- */

/* Asks for some texts at a time, so that an answer is not late because much was asked for. *out_bad: the text that was
 * refused, counted from `from`; SIZE_MAX = none. */
static enum status embed_all(struct scope *sc, struct writing *w, const struct ready_document *d, size_t from,
                             size_t count, struct embed_answer *out, size_t *out_bad)
{
    size_t step = w->task->settings->embedding_batch_size > 0 ? (size_t)w->task->settings->embedding_batch_size : 1;
    float *vectors = NULL;
    *out_bad = SIZE_MAX;
    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < step ? count - done : step;
        struct embed_text *texts = arena_array(&sc->arena, n, sizeof *texts);
        for (size_t i = 0; i < n; i++) {
            const struct chunk *c = &d->chunks[from + done + i];
            texts[i] = (struct embed_text){d->text + c->start, c->end - c->start};
        }
        struct embed_answer part;
        size_t bad = SIZE_MAX;
        (void)FAULT(BEFORE_EMBEDDING, d->from->name);
        enum status s = embed_client_run(sc, w->embedder, w->model, EMBED_PASSAGE, w->task->operation_id, texts, n,
                                         EMBED_TIMEOUT_MS, &part, &bad);
        if (s != STATUS_OK) {
            *out_bad = bad == SIZE_MAX ? SIZE_MAX : done + bad;
            return s;
        }
        (void)FAULT(AFTER_EMBEDDING, d->from->name);
        if (!vectors)
            vectors = arena_array(&sc->arena, count * (size_t)part.dim, sizeof *vectors);
        memcpy(vectors + done * (size_t)part.dim, part.vectors, n * (size_t)part.dim * sizeof *vectors);
        w->tokens_embedded += part.tokens;
        w->task->tokens += part.tokens;
        w->chunks_embedded += (int64_t)n;
        *out = part;
    }
    out->vectors = vectors;
    return STATUS_OK;
}

enum status writing_embed(struct scope *sc, struct writing *w, struct ready_document *d, size_t from, size_t count,
                          struct embed_answer *out)
{
    size_t bad;
    enum status s = embed_all(sc, w, d, from, count, out, &bad);
    if (s != STATUS_INVALID || bad == SIZE_MAX)
        return s;
    reading_give_up(d, arena_strdup(&sc->arena, sc->problem_text ? sc->problem_text : status_text(s)), "permanent");
    scope_forgive(sc);
    return STATUS_OK;
}

/* ---- rows ---- */

static const char *chunk_metadata(struct scope *sc, const struct chunk *c)
{
    if (!c->heading || !*c->heading)
        return NULL;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "heading", c->heading);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

enum status writing_chunk_rows(struct scope *sc, struct writing *w, const struct ready_document *d, int version,
                               size_t from, size_t count, int64_t *out_ids)
{
    struct chunk_row *rows = arena_array(&sc->arena, count, sizeof *rows);
    enum status s = document_store_reserve(sc, w->task->db, count, out_ids);
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < count; i++) {
        const struct chunk *c = &d->chunks[from + i];
        rows[i] = (struct chunk_row){.id = out_ids[i],
                                     .document_id = d->from->id,
                                     .version = version,
                                     .ordinal = (int)(from + i),
                                     .tokens = (int)c->tokens,
                                     .start = (uint32_t)c->start,
                                     .end = (uint32_t)c->end,
                                     .content = d->text + c->start,
                                     .content_len = c->end - c->start,
                                     .metadata_json = chunk_metadata(sc, c)};
    }
    s = document_store_write_chunks(sc, w->task->db, w->task->collection_id, rows, count);
    (void)FAULT(CHUNKS_WRITTEN, d->from->name);
    return s;
}

enum status writing_rows(struct scope *sc, struct writing *w, const struct ready_document *d, int version, size_t from,
                         size_t count, const float *vectors, int dim)
{
    int64_t *ids = arena_array(&sc->arena, count, sizeof *ids);
    struct vector_row *embeddings = arena_array(&sc->arena, count, sizeof *embeddings);
    enum status s = writing_chunk_rows(sc, w, d, version, from, count, ids);
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < count; i++)
        embeddings[i] = (struct vector_row){ids[i], d->from->id, version, vectors + i * (size_t)dim};
    s = vector_store_write(sc, w->task->db, &w->generation, embeddings, count);
    if (s == STATUS_OK)
        w->task->chunks += (int64_t)count;
    return s;
}
