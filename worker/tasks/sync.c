/* SYNC: follows all sources of a collection. Each is walked and compared by size, time of change and content, as APPEND
 * does; documents that no walk met are removed, in fenced batches, but only of sources whose walk came to its end, and
 * not below a directory that could not be read. A source that is away, or was emptied, fails alone: nothing of it is
 * removed. What changed is read at the end. */
#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/store/document_removal.h"
#include "common/store/sync_store.h"
#include "worker/tasks/graph.h"
#include "worker/tasks/in_hand.h"
#include "worker/tasks/ingest.h"
#include "worker/tasks/seen.h"

#include <string.h>

enum { IDS_A_PAGE = 5000, DEFAULT_BATCH = 100, MOST_IN_BATCH = 1000 };

struct followed {
    struct ingest_source source;
    bool is_followed;    /* its walk came to its end */
    enum status status;  /* else why not */
    const char *problem; /* NULL = none */
};

struct sync {
    struct task *task;
    struct ingest in;
    struct seen seen;
    struct followed *sources;
    size_t count;
    int64_t started_ms, removed;
    struct sync_outcome outcome;
    struct sync_counts counts;
};

/* ---- the sources ---- */

static enum status list_sources(struct scope *sc, struct sync *y)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, y->task->db, SQL_SYNC_SOURCES, &rows, db_number(sc, y->task->collection_id));
    if (s != STATUS_OK)
        return s;
    y->count = (size_t)PQntuples(rows);
    y->sources = arena_array(&sc->arena, y->count + 1, sizeof *y->sources);
    for (int r = 0; r < PQntuples(rows); r++)
        y->sources[r].source = (struct ingest_source){
            .id = db_int(rows, r, "id", 0),
            .type = arena_strdup(&sc->arena, db_text(rows, r, "source_type")),
            .path = arena_strdup(&sc->arena, db_text(rows, r, "source_path")),
            .config_json = arena_strdup(&sc->arena, db_text(rows, r, "source_config")),
        };
    return y->count > 0 ? STATUS_OK : fail(sc, STATUS_INVALID, "the collection has no sources");
}

static enum status note_begun(struct scope *sc, struct sync *y, const struct followed *f)
{
    struct task *task = y->task;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = document_store_source_run(sc, task->db, f->source.id, "running", NULL);
    return task_commit_note(sc, task, s);
}

/* An emptied mount point looks like a directory whose files were all deleted. */
static enum status doubt_emptiness(struct scope *sc, struct sync *y, const struct ingest_source *source)
{
    int64_t documents = 0;
    scoped(cJSON) *config = NULL;
    enum status s = json_parse(sc, source->config_json, strlen(source->config_json), &config);
    if (s == STATUS_OK && json_get_bool(config, "allow_empty", false))
        return STATUS_OK;
    if (s == STATUS_OK)
        s = document_removal_count(sc, y->task->db, source->id, &documents);
    if (s != STATUS_OK || documents == 0)
        return s;
    y->in.is_source_away = true;
    return fail(
        sc, STATUS_UNAVAILABLE,
        "the source is empty and held %lld documents before; if that is meant, set \"allow_empty\": true in its "
        "source_config, or remove the source",
        (long long)documents);
}

/* STATUS_OK also when the source cannot be followed now: that is noted in *f. */
static enum status follow(struct scope *sc, struct sync *y, struct followed *f)
{
    struct scope own;
    int64_t found = y->in.found;
    scope_init(&own, sc->trace_id);
    y->in.source = f->source;
    enum status s = note_begun(&own, y, f);
    y->in.is_source_away = false;
    if (s == STATUS_OK)
        s = ingest_walk(&own, &y->in);
    if (s == STATUS_OK && y->in.found == found)
        s = doubt_emptiness(&own, y, &f->source);
    f->is_followed = s == STATUS_OK;
    if (s != STATUS_OK && y->in.is_source_away) {
        f->status = s;
        f->problem = arena_strdup(&sc->arena, own.problem_text ? own.problem_text : status_text(s));
        log_warning("source_not_followed", log_text("operation", y->task->operation_id),
                    log_text("source", f->source.path), log_text("problem", f->problem));
        s = STATUS_OK;
    } else if (s != STATUS_OK) {
        s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
    }
    scope_done(&own);
    return s;
}

static enum status follow_all(struct scope *sc, struct sync *y)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < y->count && s == STATUS_OK; i++)
        s = follow(sc, y, &y->sources[i]);
    return s;
}

/* ---- what is gone ---- */

static void report_removed(struct scope *sc, const struct sync *y)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "status", "scanning");
    json_text(&t, "stage", "removing");
    json_int(&t, "files_found", y->in.found);
    json_int(&t, "documents_removed", y->removed);
    json_close(&t, '}');
    task_event(sc, y->task, "scanning_documents", 0, NULL, text_str(&t), 0);
}

/* Lock order: documents, operations, collections. */
static enum status commit_removal(struct scope *sc, struct sync *y, const struct removal_batch *b)
{
    struct task *task = y->task;
    enum status s = task_fence(sc, task);
    if (s == STATUS_OK)
        s = sync_store_count(sc, task->db, task->operation_id, &(struct sync_counts){.deleted = b->documents});
    if (s == STATUS_OK)
        s = document_store_count(sc, task->db, task->collection_id, -b->visible, -b->vectors, -b->visible_bytes,
                                 -b->failed, &y->in.stats);
    (void)FAULT(BEFORE_UNSEEN_REMOVED, task->operation_id);
    return s == STATUS_OK ? task_commit(sc, task) : s;
}

static enum status remove_ids(struct scope *sc, struct sync *y, const int64_t *ids, size_t count)
{
    struct task *task = y->task;
    struct removal_batch b = {0};
    enum status s = task_check(sc, task);
    if (s == STATUS_OK)
        s = db_begin(sc, task->db);
    if (s != STATUS_OK)
        return s;
    s = document_removal_ids(sc, task->db, y->in.writing.has_generation ? &y->in.writing.generation : NULL,
                             task->collection_id, ids, count, &b);
    if (s == STATUS_OK)
        s = commit_removal(sc, y, &b);
    if (s != STATUS_OK) {
        db_rollback(task->db);
        return s;
    }
    (void)FAULT(AFTER_UNSEEN_REMOVED, task->operation_id);
    y->removed += b.documents;
    report_removed(sc, y);
    return STATUS_OK;
}

/* Leaves out what lies below a directory that could not be read. */
static enum status keep_hidden(struct scope *sc, struct sync *y, int64_t *ids, size_t *io_count)
{
    scoped(PGresult) *rows = NULL;
    scoped_text list = {0};
    if (y->seen.unreadable_count == 0)
        return STATUS_OK;
    for (size_t i = 0; i < *io_count; i++)
        db_array_put(&list, db_number(sc, ids[i]));
    enum status s = db_run(sc, y->task->db, SQL_SYNC_PATHS, &rows, db_array_end(&list));
    if (s != STATUS_OK)
        return s;
    *io_count = 0;
    for (int r = 0; r < PQntuples(rows); r++) {
        struct path_bytes path = document_store_path(sc, db_text(rows, r, "path"));
        if (!seen_is_hidden(&y->seen, path.bytes, path.len))
            ids[(*io_count)++] = db_int(rows, r, "id", 0);
    }
    return STATUS_OK;
}

static enum status remove_some(struct scope *sc, struct sync *y, int64_t *ids, size_t count)
{
    struct scope own;
    scope_init(&own, sc->trace_id);
    enum status s = keep_hidden(&own, y, ids, &count);
    if (s == STATUS_OK && count > 0)
        s = remove_ids(&own, y, ids, count);
    if (s != STATUS_OK)
        s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
    scope_done(&own);
    return s;
}

/* A page of a source's documents; *io_after is 0 after the last. */
static enum status remove_unseen_of_page(struct scope *sc, struct sync *y, int64_t source_id, int64_t *io_after)
{
    struct task *task = y->task;
    int64_t ids[MOST_IN_BATCH], wanted = task->settings->removal_batch_size;
    size_t most = wanted < 1 ? DEFAULT_BATCH : wanted > MOST_IN_BATCH ? MOST_IN_BATCH : (size_t)wanted, count = 0;
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, task->db, SQL_SYNC_DOCUMENTS, &rows, db_number(sc, source_id), db_number(sc, *io_after),
                           db_number(sc, IDS_A_PAGE));
    int found = s == STATUS_OK ? PQntuples(rows) : 0;
    task_heartbeat(task);
    for (int r = 0; r < found && s == STATUS_OK; r++) {
        int64_t id = db_int(rows, r, "id", 0);
        if (!seen_has(&y->seen, id))
            ids[count++] = id;
        if (count == most || (count > 0 && r + 1 == found)) {
            s = remove_some(sc, y, ids, count);
            count = 0;
        }
    }
    *io_after = found == IDS_A_PAGE ? db_int(rows, found - 1, "id", 0) : 0;
    return s;
}

static enum status remove_unseen(struct scope *sc, struct sync *y)
{
    for (size_t i = 0; i < y->count; i++) {
        int64_t after = 0;
        if (!y->sources[i].is_followed)
            continue;
        do {
            struct scope own;
            scope_init(&own, sc->trace_id);
            enum status s = remove_unseen_of_page(&own, y, y->sources[i].source.id, &after);
            if (s != STATUS_OK)
                s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
            scope_done(&own);
            if (s != STATUS_OK)
                return s;
        } while (after > 0);
    }
    return STATUS_OK;
}

/* ---- how it went ---- */

static struct followed *source_of(struct sync *y, int64_t id)
{
    for (size_t i = 0; i < y->count; i++) {
        if (y->sources[i].source.id == id)
            return &y->sources[i];
    }
    return NULL;
}

static enum status count_failures(struct scope *sc, struct sync *y)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, y->task->db, SQL_SYNC_FAILED, &rows, db_number(sc, y->task->collection_id),
                           y->task->operation_id);
    y->outcome = (struct sync_outcome){.found = y->in.found};
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        struct followed *f = source_of(y, db_int(rows, r, "source_id", 0));
        int64_t failed = db_int(rows, r, "failed", 0);
        y->outcome.failed += failed;
        if (f && !f->problem)
            f->problem = arena_printf(&sc->arena, "%lld of its documents could not be read%s%s", (long long)failed,
                                      y->in.first_problem ? "; the first one of all: " : "",
                                      y->in.first_problem ? y->in.first_problem : "");
    }
    for (size_t i = 0; i < y->count; i++) {
        y->outcome.failed_sources += !y->sources[i].is_followed;
        y->outcome.partial_sources += y->sources[i].is_followed && y->sources[i].problem;
        y->outcome.completed_sources += y->sources[i].is_followed && !y->sources[i].problem;
    }
    return s;
}

static enum status write_outcome(struct scope *sc, struct sync *y, bool is_end)
{
    struct task *task = y->task;
    enum status s = count_failures(sc, y);
    for (size_t i = 0; is_end && i < y->count && s == STATUS_OK; i++) {
        const struct followed *f = &y->sources[i];
        s = document_store_source_run(sc, task->db, f->source.id,
                                      !f->is_followed ? "failed"
                                      : f->problem    ? "partial"
                                                      : "success",
                                      f->problem);
    }
    if (s == STATUS_OK)
        s = is_end ? ingest_recount(sc, &y->in) : task_fence(sc, task);
    if (s == STATUS_OK)
        s = sync_store_outcome(sc, task->db, task->operation_id, &y->outcome, &y->counts);
    return s;
}

/* At the end the sources and the collection are brought up to date, too. */
static enum status note_outcome(struct scope *sc, struct sync *y, bool is_end)
{
    struct task *task = y->task;
    enum status s = db_begin(sc, task->db);
    if (s == STATUS_OK)
        s = write_outcome(sc, y, is_end);
    (void)FAULT(BEFORE_SYNC_NOTED, task->operation_id);
    return task_commit_note(sc, task, s);
}

/* No source could be followed: as one that is away. It is permanent when every single one says so. */
static enum status give_up(struct scope *sc, struct sync *y)
{
    const struct followed *why = &y->sources[0];
    for (size_t i = 0; i < y->count; i++) {
        if (status_class(y->sources[i].status) != ERROR_PERMANENT) {
            why = &y->sources[i];
            break;
        }
    }
    enum status s = note_outcome(sc, y, true);
    if (s != STATUS_OK)
        return s;
    if (y->count == 1)
        return fail(sc, why->status, "%s", why->problem);
    return fail(sc, why->status, "none of the %zu sources could be followed; %s: %s", y->count, why->source.path,
                why->problem);
}

static bool is_any_followed(const struct sync *y)
{
    for (size_t i = 0; i < y->count; i++) {
        if (y->sources[i].is_followed)
            return true;
    }
    return false;
}

static void announce_scan(struct scope *sc, const struct sync *y, int64_t pending)
{
    const struct ingest *in = &y->in;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "status", "processing");
    ingest_scan_counts(&t, in);
    json_int(&t, "errors_count", in->scan_errors);
    json_int(&t, "documents_to_process", pending);
    json_int(&t, "added", y->counts.added);
    json_int(&t, "modified", y->counts.modified);
    json_int(&t, "deleted", y->counts.deleted);
    json_int(&t, "unchanged", y->counts.unchanged);
    json_real(&t, "scan_duration", (double)(clock_monotonic_ms() - y->started_ms) / 1000);
    json_close(&t, '}');
    task_event(sc, y->task, "scanning_completed", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

static const char *first_problem(const struct sync *y)
{
    for (size_t i = 0; i < y->count; i++) {
        if (y->sources[i].problem)
            return y->sources[i].problem;
    }
    return NULL;
}

/* `sync_status` and `error_summary` are what the trigger that ends the run reads. */
static const char *summary(struct scope *sc, const struct sync *y)
{
    const struct sync_outcome *o = &y->outcome;
    bool is_whole = o->failed_sources == 0 && o->partial_sources == 0 && o->failed == 0;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "sync_status", is_whole ? "success" : "partial");
    json_text(&t, "error_summary", first_problem(y));
    json_int(&t, "expected_sources", (int64_t)y->count);
    json_int(&t, "completed_sources", o->completed_sources);
    json_int(&t, "failed_sources", o->failed_sources);
    json_int(&t, "partial_sources", o->partial_sources);
    json_int(&t, "documents_added", y->counts.added);
    json_int(&t, "documents_modified", y->counts.modified);
    json_int(&t, "documents_deleted", y->counts.deleted);
    json_int(&t, "documents_unchanged", y->counts.unchanged);
    json_int(&t, "documents_failed", o->failed);
    json_int(&t, "documents_processed", y->task->processed);
    json_int(&t, "chunks_created", y->in.chunks_written);
    json_int(&t, "tokens_embedded", y->in.writing.tokens_embedded);
    if (y->in.reading.note)
        json_text(&t, "note", y->in.reading.note);
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

/* ---- all of it ---- */

static enum status scan(struct scope *sc, struct sync *y)
{
    struct task *task = y->task;
    int64_t pending = 0;
    enum status s = follow_all(sc, y);
    if (s == STATUS_OK && !is_any_followed(y))
        return give_up(sc, y);
    if (s == STATUS_OK)
        s = remove_unseen(sc, y);
    if (s == STATUS_OK)
        s = ingest_revive_duplicates(sc, &y->in);
    if (s == STATUS_OK)
        s = note_outcome(sc, y, false); /* for whoever looks meanwhile, and for the numbers of the event */
    if (s == STATUS_OK)
        s = document_store_pending_count(sc, task->db, task->collection_id, &pending);
    if (s != STATUS_OK)
        return s;
    task->processed = task->earlier_processed + y->in.scan_errors;
    task->failed = task->earlier_failed + y->in.scan_errors;
    task->total = pending + task->processed;
    announce_scan(sc, y, pending);
    return STATUS_OK;
}

static enum status finish(struct scope *sc, struct sync *y)
{
    struct task *task = y->task;
    enum status s = y->in.writing.has_generation ? graph_build(sc, task, &y->in.writing.generation, y->in.stats.vectors)
                                                 : STATUS_OK;
    if (s == STATUS_OK)
        s = note_outcome(sc, y, true);
    if (s != STATUS_OK)
        return s;
    task->result_json = summary(sc, y);
    task->collection_status = "ready";
    task->collection_message = first_problem(y) ? "Synchronised with errors" : NULL;
    task_event(sc, task, "sync_completed", 100, NULL, task->result_json, TASK_EVENT_ALWAYS);
    return STATUS_OK;
}

enum status sync_sources(struct scope *sc, struct task *task)
{
    struct sync y = {.task = task, .in = {.task = task}, .started_ms = clock_monotonic_ms()};
    y.in.seen = &y.seen;
    enum status s = ingest_open(sc, &y.in, 0);
    if (s == STATUS_OK)
        s = list_sources(sc, &y);
    if (s == STATUS_OK)
        s = document_store_remove_leftovers(sc, task->db, task->collection_id, task->task_id);
    if (s == STATUS_OK)
        s = in_hand_suspect(sc, &y.in);
    if (s == STATUS_OK)
        s = scan(sc, &y);
    y.in.source = (struct ingest_source){0}; /* what is read now is of all of them */
    if (s == STATUS_OK)
        s = ingest_write(sc, &y.in);
    if (s == STATUS_OK)
        s = finish(sc, &y);
    in_hand_forget(sc, task);
    ingest_close(&y.in);
    seen_done(&y.seen);
    return s;
}
