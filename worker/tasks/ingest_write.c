/* Goes through what is pending: pages of documents are read ahead (ahead.h) and written in groups (ingest_group.h);
 * those under suspicion one by one, before the others or, in the last attempt, after them (in_hand.h). */
#include "worker/tasks/ingest_group.h"

#include "common/source/directory.h"
#include "worker/tasks/in_hand.h"

#include <string.h>

enum { DOCUMENTS_AT_A_TIME = GROUP_DOCUMENTS };

static void set_aside(struct ready_document *d, const char *reason)
{
    reading_give_up(d, reason, "permanent");
    d->is_set_aside = true;
}

/* A file that is not there says nothing as long as its source is away. When that is the source that the operation is
 * about, it waits for it; a document of another one has failed for now. `own` owns the document. */
static enum status look_at_missing(struct scope *sc, struct scope *own, const struct ingest *in,
                                   struct ready_document *d)
{
    const char *path = d->from->source_path;
    bool is_own = in->source.path && (!path || strcmp(path, in->source.path) == 0);
    if (!d->is_missing)
        return STATUS_OK;
    if (is_own)
        return ingest_check_source(sc, in);
    if (path && source_check(own, in->task->settings->source_roots, path) != STATUS_OK)
        reading_give_up(d, "its source cannot be reached", "transient");
    scope_forgive(own);
    return STATUS_OK;
}

/* ---- one after the other: documents under suspicion ---- */

static enum status read_document(struct scope *sc, struct ingest *in, struct group *g, struct ready_document *d)
{
    enum status s = reading_document(sc, &g->sc, &in->reading, d);
    return s == STATUS_OK ? look_at_missing(sc, &g->sc, in, d) : s;
}

static enum status write_page(struct scope *sc, struct ingest *in, struct group *g, const struct pending_document *page,
                              size_t count)
{
    enum status s = STATUS_OK;
    group_reset(g, sc->trace_id);
    for (size_t i = 0; i < count && s == STATUS_OK; i++) {
        struct ready_document *d = &g->documents[g->count++];
        *d = (struct ready_document){.from = &page[i]};
        task_heartbeat(in->task);
        s = task_check(sc, in->task);
        const char *verdict = page[i].is_suspected ? in_hand_verdict(&g->sc, in->task, &page[i]) : NULL;
        if (s == STATUS_OK && g->count == 1 && !verdict)
            s = in_hand_note(sc, in, &page[i], page[i].is_suspected ? 1 : count - i);
        if (verdict)
            set_aside(d, verdict);
        else if (s == STATUS_OK)
            s = read_document(sc, in, g, d);
        g->chunks += d->count;
        if (s == STATUS_OK && (group_is_full(in, g) || i + 1 == count)) {
            s = group_write(sc, in, g);
            group_reset(g, sc->trace_id);
        }
    }
    return s;
}

static enum status write_suspects(struct scope *sc, struct ingest *in, struct group *g)
{
    enum status s = STATUS_OK;
    for (int64_t after = 0; s == STATUS_OK;) {
        struct scope page_scope;
        scope_init(&page_scope, sc->trace_id);
        struct pending_document *page;
        size_t count = 0;
        s = document_store_pending(&page_scope, in->task->db, in->task->collection_id, true, after, DOCUMENTS_AT_A_TIME,
                                   &page, &count);
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", page_scope.problem_text ? page_scope.problem_text : status_text(s));
        else if (count > 0)
            s = write_page(sc, in, g, page, count);
        if (count > 0)
            after = page[count - 1].id;
        scope_done(&page_scope);
        if (count == 0)
            break;
    }
    return s;
}

/* Records the suspects that are not read any more. That is progress, and may give the operation its attempts back. */
static enum status write_condemned(struct scope *sc, struct ingest *in, struct group *g)
{
    struct pending_document *page;
    size_t count = 0;
    enum status s = STATUS_OK;
    for (int64_t after = 0; s == STATUS_OK; after = count ? page[count - 1].id : after) {
        s = document_store_pending(sc, in->task->db, in->task->collection_id, true, after, DOCUMENTS_AT_A_TIME, &page,
                                   &count);
        for (size_t i = 0; s == STATUS_OK && i < count; i++) {
            if (in_hand_verdict(sc, in->task, &page[i]))
                s = write_page(sc, in, g, &page[i], 1);
        }
        if (count == 0)
            break;
    }
    return s;
}

/* ---- read ahead: all the others ---- */

/* All that will be in hand: what waits to be written, what is read ahead, and what is about to be. */
static enum status note_window(struct scope *sc, struct ingest *in, const struct group *g, const struct ahead *ahead,
                               const struct pending_document *page, size_t count)
{
    size_t n = 0, given = ahead_count(ahead);
    struct pending_document *all = arena_array(&sc->arena, g->count + given + count, sizeof *all);
    for (size_t i = 0; i < g->count; i++)
        all[n++] = *g->documents[i].from;
    for (size_t i = 0; i < given; i++)
        all[n++] = *ahead_given(ahead, i);
    for (size_t i = 0; i < count; i++)
        all[n++] = page[i];
    return in_hand_note(sc, in, all, n);
}

static enum status give_page(struct scope *sc, struct ingest *in, const struct group *g, struct ahead *ahead,
                             int64_t *io_after, bool *out_is_end)
{
    struct scope own;
    struct pending_document *page;
    size_t count = 0;
    scope_init(&own, sc->trace_id);
    enum status s = document_store_pending(&own, in->task->db, in->task->collection_id, false, *io_after,
                                           DOCUMENTS_AT_A_TIME, &page, &count);
    if (s == STATUS_OK && count > 0)
        s = note_window(&own, in, g, ahead, page, count);
    for (size_t i = 0; s == STATUS_OK && i < count; i++) {
        ahead_give(ahead, &page[i]);
        *io_after = page[i].id;
    }
    *out_is_end = count < DOCUMENTS_AT_A_TIME;
    if (s != STATUS_OK)
        s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
    scope_done(&own);
    return s;
}

static enum status take_document(struct scope *sc, struct ingest *in, struct group *g, struct ahead *ahead)
{
    struct ahead_document *d;
    enum status s = ahead_take(sc, ahead, &d);
    if (s != STATUS_OK)
        return s;
    s = look_at_missing(sc, &d->sc, in, &d->ready);
    g->held[g->count] = d;
    g->documents[g->count++] = d->ready;
    g->held_bytes += d->sc.arena.used_bytes;
    g->chunks += d->ready.count;
    return s;
}

/* At the soft limit what was read is saved before the attempt hands back. */
static enum status save(struct scope *sc, struct ingest *in, struct group *g)
{
    scope_forgive(sc);
    enum status s = g->count > 0 ? group_write(sc, in, g) : STATUS_OK;
    group_reset(g, sc->trace_id);
    return s == STATUS_OK ? task_check(sc, in->task) : s;
}

static enum status write_others(struct scope *sc, struct ingest *in, struct group *g)
{
    struct ahead *ahead = ahead_new(sc, &in->reading, (int)in->task->settings->ingest_processes);
    bool is_end = false;
    enum status s = STATUS_OK;
    group_reset(g, sc->trace_id);
    for (int64_t after = 0; s == STATUS_OK;) {
        if (!is_end && ahead_count(ahead) <= AHEAD_MOST - DOCUMENTS_AT_A_TIME)
            s = give_page(sc, in, g, ahead, &after, &is_end);
        if (s != STATUS_OK || ahead_count(ahead) == 0)
            break;
        task_heartbeat(in->task);
        s = task_check(sc, in->task);
        if (s == STATUS_OK)
            s = take_document(sc, in, g, ahead);
        if (s == STATUS_TIMEOUT)
            s = save(sc, in, g);
        if (s == STATUS_OK && (group_is_full(in, g) || (is_end && ahead_count(ahead) == 0))) {
            s = group_write(sc, in, g);
            group_reset(g, sc->trace_id);
        }
    }
    if (s == STATUS_OK && g->count > 0)
        s = group_write(sc, in, g);
    ahead_free(ahead);
    group_reset(g, sc->trace_id);
    return s;
}

enum status ingest_write(struct scope *sc, struct ingest *in)
{
    struct group *g = must_calloc(1, sizeof *g);
    scope_init(&g->sc, sc->trace_id);
    enum status s = write_condemned(sc, in, g);
    bool come_last = in_hand_is_last_attempt(in->task);
    if (s == STATUS_OK)
        s = come_last ? write_others(sc, in, g) : write_suspects(sc, in, g);
    if (s == STATUS_OK)
        s = come_last ? write_suspects(sc, in, g) : write_others(sc, in, g);
    group_reset(g, NULL);
    scope_done(&g->sc);
    free(g);
    return s;
}
