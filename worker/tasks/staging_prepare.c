/* What becomes of one document in a generation that is built. A reindex changes how a document is cut and embedded,
 * never what is in it: its file is read again only where it is the one that was read then, else the text is put
 * together from the chunks that are stored. */
#include "common/source/directory.h"
#include "worker/embed/model.h"
#include "worker/tasks/staging_document.h"

#include <stdlib.h>
#include <string.h>

/* ---- the text ---- */

/* STATUS_OK without anything in d->text: it cannot be taken from the file. The hash is looked at before, so that
 * nothing else is parsed, and after, as the file may have been replaced meanwhile. */
static bool has_hash(struct scope *own, const struct staging *st, const struct pending_document *p)
{
    char hash[65] = "";
    scoped_fd int fd = -1;
    enum status s = source_open_file(own, st->task->settings->source_roots, p->path.bytes, p->path.len, &fd);
    if (s == STATUS_OK)
        s = source_hash_fd(own, fd, hash);
    scope_forgive(own);
    return s == STATUS_OK && strcmp(hash, p->hash) == 0;
}

static enum status cut_file(struct scope *sc, struct scope *own, struct staging *st, struct staging_item *item,
                            bool *out_done)
{
    const struct pending_document *p = &item->from->document;
    *out_done = false;
    if (!item->from->is_settled || !has_hash(own, st, p))
        return STATUS_OK;
    item->ready = (struct ready_document){.from = p};
    enum status s = reading_document(sc, own, &st->reading, &item->ready);
    *out_done = s == STATUS_OK && !item->ready.problem && has_hash(own, st, p);
    item->source = "file";
    return s;
}

/* As it was, as far as chunks cover it; what no chunk holds was white space: one byte of it was a space or the end of a
 * line, more were the end of a paragraph. Chunks that are no ranges of one text are put one after the other. */
static void join_chunks(struct scope *own, const struct stored_chunk *stored, size_t count, const char **out,
                        size_t *out_len)
{
    size_t len = 0, sum = 0;
    bool are_ranges = true;
    for (size_t i = 0; i < count; i++) {
        are_ranges = are_ranges && stored[i].start <= stored[i].end &&
                     stored[i].end - stored[i].start == stored[i].content_len;
        len = stored[i].end > len ? stored[i].end : len;
        sum += stored[i].content_len + 2;
    }
    char *text = arena_alloc(&own->arena, (are_ranges ? len : sum) + 1);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t start = are_ranges ? stored[i].start : at ? at + 2 : 0;
        if (start > at)
            memset(text + at, start - at == 1 ? ' ' : '\n', start - at);
        memcpy(text + start, stored[i].content, stored[i].content_len);
        at = start + stored[i].content_len > at ? start + stored[i].content_len : at;
    }
    text[at] = '\0';
    *out = text;
    *out_len = at;
}

static enum status cut_stored(struct scope *sc, struct scope *own, struct staging *st, struct staging_item *item,
                              const struct stored_chunk *stored, size_t count)
{
    item->ready = (struct ready_document){.from = &item->from->document};
    item->source = "chunks";
    join_chunks(own, stored, count, &item->ready.text, &item->ready.text_len);
    return reading_cut(sc, own, &st->reading, &item->ready);
}

/* ---- the pieces ---- */

static bool same_chunks(const struct staging_item *item, const struct stored_chunk *stored, size_t count)
{
    const struct ready_document *d = &item->ready;
    if (d->count != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct chunk *c = &d->chunks[i];
        if (c->end - c->start != stored[i].content_len ||
            memcmp(d->text + c->start, stored[i].content, stored[i].content_len) != 0)
            return false;
    }
    return true;
}

static int by_content(const void *a, const void *b)
{
    const struct stored_chunk *x = *(const struct stored_chunk *const *)a;
    const struct stored_chunk *y = *(const struct stored_chunk *const *)b;
    if (x->content_len != y->content_len)
        return x->content_len < y->content_len ? -1 : 1;
    return memcmp(x->content, y->content, x->content_len);
}

/* Which stored chunks have a vector, in the order of by_content(). */
static const struct stored_chunk **with_vector(struct scope *own, const struct stored_chunk *stored, size_t count,
                                               size_t *out_count)
{
    const struct stored_chunk **list = arena_array(&own->arena, count + 1, sizeof *list);
    *out_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (stored[i].has_vector)
            list[(*out_count)++] = &stored[i];
    }
    qsort(list, *out_count, sizeof *list, by_content);
    return list;
}

static int64_t same_text(const struct stored_chunk *const *sorted, size_t count, const char *text, size_t len)
{
    const struct stored_chunk wanted = {.content = text, .content_len = len}, *key = &wanted;
    const struct stored_chunk *const *found = bsearch(&key, sorted, count, sizeof(void *), by_content);
    return found ? (*found)->id : 0;
}

static void pieces_of_cut(struct scope *own, const struct staging *st, struct staging_item *item,
                          const struct stored_chunk *stored, size_t count)
{
    const struct ready_document *d = &item->ready;
    size_t sorted_count = 0;
    const struct stored_chunk **sorted = with_vector(own, stored, count, &sorted_count);
    item->way = STAGING_CUT;
    item->count = d->count;
    item->chunks = (int)d->count;
    item->pieces = arena_array(&own->arena, d->count + 1, sizeof *item->pieces);
    for (size_t i = 0; i < d->count; i++) {
        const char *text = d->text + d->chunks[i].start;
        size_t len = d->chunks[i].end - d->chunks[i].start;
        item->pieces[i] = (struct piece){
            .of = item,
            .text = text,
            .len = len,
            .has_vector = true,
            .reused_id = st->can_copy ? same_text(sorted, sorted_count, text, len) : 0,
        };
    }
}

static void pieces_of_stored(struct scope *own, const struct staging *st, struct staging_item *item,
                             const struct stored_chunk *stored, size_t count)
{
    item->source = "unchanged";
    item->chunks = item->from->document.chunk_count;
    item->way = st->can_copy ? STAGING_COPY : STAGING_EMBED;
    if (st->can_copy)
        return;
    item->pieces = arena_array(&own->arena, count + 1, sizeof *item->pieces);
    for (size_t i = 0; i < count; i++) {
        if (stored[i].has_vector)
            item->pieces[item->count++] = (struct piece){.of = item,
                                                         .text = stored[i].content,
                                                         .len = stored[i].content_len,
                                                         .chunk_id = stored[i].id,
                                                         .has_vector = true};
    }
}

/* Whether the model reads all these chunks to their end; another model may have other tokens, and a lower limit. */
static bool all_fit(const struct staging *st, const struct stored_chunk *stored, size_t count)
{
    const struct embed_model *model = st->reading.model;
    for (size_t i = 0; i < count; i++) {
        struct token_span *spans = NULL;
        size_t tokens = 0;
        if (!stored[i].has_vector)
            continue;
        tokenizer_encode_spans(model->tokenizer, stored[i].content, stored[i].content_len, &spans, &tokens);
        free(spans);
        if (tokens + 2 > (size_t)model->max_tokens)
            return false;
    }
    return true;
}

enum status staging_item_prepare(struct scope *sc, struct scope *own, struct staging *st, struct staging_item *item)
{
    const struct pending_document *p = &item->from->document;
    struct stored_chunk *stored;
    size_t count = 0;
    bool is_read = false;
    if (!st->is_cut_anew && st->can_copy) {
        pieces_of_stored(own, st, item, NULL, 0);
        return STATUS_OK;
    }
    enum status s = staging_store_chunks(own, st->task->db, st->has_live ? &st->live : NULL, st->task->collection_id,
                                         p->id, p->live_version, &stored, &count);
    if (s != STATUS_OK)
        return fail(sc, s, "%s", own->problem_text ? own->problem_text : status_text(s));
    if (!st->is_cut_anew && all_fit(st, stored, count)) {
        pieces_of_stored(own, st, item, stored, count);
        return STATUS_OK;
    }
    s = cut_file(sc, own, st, item, &is_read);
    if (s == STATUS_OK && !is_read)
        s = cut_stored(sc, own, st, item, stored, count);
    if (s != STATUS_OK)
        return fail(sc, s, "%s", own->problem_text ? own->problem_text : status_text(s));
    if (item->ready.problem) {
        item->way = STAGING_LOST;
        item->source = "lost";
        item->problem = item->ready.problem;
    } else if (same_chunks(item, stored, count)) {
        pieces_of_stored(own, st, item, stored, count);
    } else {
        pieces_of_cut(own, st, item, stored, count);
    }
    return STATUS_OK;
}
