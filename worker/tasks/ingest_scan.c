#include "worker/tasks/ingest.h"

#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/source/directory.h"
#include "common/store/sync_store.h"
#include "worker/tasks/seen.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FILES_A_BATCH = 200 };

/* What is to be done about a file, decided before the transaction begins: reading takes its time. */
struct finding {
    enum { FILE_IS_THE_SAME, FILE_WAS_TOUCHED, FILE_IS_NEWS, FILE_IS_BAD, FILE_IS_GONE } what;
    char hash[65];                  /* FILE_IS_NEWS */
    const char *problem, *category; /* FILE_IS_BAD */
};

/* Files of one transaction. */
struct batch {
    struct ingest *in;
    struct scope sc; /* owns the paths */
    struct source_file files[FILES_A_BATCH];
    struct finding findings[FILES_A_BATCH];
    size_t count;
    struct {
        int64_t documents, vectors, bytes, failed;
    } change;                  /* of the collection's counters */
    enum status status;        /* of the last one */
    struct sync_counts counts; /* of the run, when this is one of SYNC */
};

/* ---- looking ---- */

static void is_bad(struct finding *out, const char *problem, const char *category)
{
    out->what = FILE_IS_BAD;
    out->problem = problem;
    out->category = category;
}

static enum status hash_file(struct scope *sc, const struct ingest *in, const struct source_file *f, char out[65])
{
    scoped_fd int fd = -1;
    enum status s = source_open_file(sc, in->task->settings->source_roots, f->path, f->path_len, &fd);
    return s == STATUS_OK ? source_hash_fd(sc, fd, out) : s;
}

static enum status compare(struct scope *sc, const struct ingest *in, const struct source_file *f,
                           const struct known_document *known, struct finding *out)
{
    enum status s = hash_file(sc, in, f, out->hash);
    if (s != STATUS_OK) {
        bool is_transient = status_class(s) == ERROR_TRANSIENT || status_class(s) == ERROR_RESOURCE;
        is_bad(out, sc->problem_text ? sc->problem_text : status_text(s), is_transient ? "transient" : "permanent");
        if (s == STATUS_NOT_FOUND)
            out->what = FILE_IS_GONE; /* removed just now */
        scope_forgive(sc);
        return s == STATUS_NOT_FOUND || s == STATUS_UNAVAILABLE ? ingest_check_source(sc, in) : STATUS_OK;
    }
    bool is_same = known->id && known->hash && strcmp(known->hash, out->hash) == 0 && known->is_good &&
                   strcmp(known->status, "completed") == 0;
    out->what = is_same ? FILE_WAS_TOUCHED : FILE_IS_NEWS;
    return STATUS_OK;
}

/* SYNC reads what failed for good only when it has changed. What never could be read has no hash, and may be readable
 * by now. */
static bool is_left_alone(const struct ingest *in, const struct source_file *f, const struct known_document *known)
{
    bool was_read = known->hash && *known->hash;
    bool is_unreadable = f->problem || f->size > in->task->settings->max_file_bytes;
    return known->is_settled || (in->seen && known->is_permanent && (was_read || is_unreadable));
}

static enum status look_at(struct scope *sc, const struct ingest *in, const struct source_file *f,
                           const struct known_document *known, struct finding *out)
{
    int64_t most = in->task->settings->max_file_bytes;
    bool is_untouched = known->id && known->size == f->size && known->mtime_ns == f->mtime_ns && known->is_good &&
                        strcmp(known->status, "completed") == 0;
    *out = (struct finding){.what = FILE_IS_THE_SAME};
    if (known->size == f->size && known->mtime_ns == f->mtime_ns && is_left_alone(in, f, known))
        return STATUS_OK;
    if (f->problem)
        is_bad(out, f->problem, "permanent");
    else if (f->size > most)
        is_bad(out,
               arena_printf(&sc->arena, "the file has %lld bytes, more than MAX_FILE_BYTES (%lld)", (long long)f->size,
                            (long long)most),
               "permanent");
    else if (!is_untouched)
        return compare(sc, in, f, known, out);
    return STATUS_OK;
}

/* Told to stop, it stops between two files; the soft limit waits until the batch is committed, which is what it asks
 * for. */
static enum status may_go_on(struct scope *sc, struct task *task)
{
    task_heartbeat(task);
    enum status s = task_check(sc, task);
    if (s != STATUS_TIMEOUT)
        return s;
    scope_forgive(sc);
    return STATUS_OK;
}

/* ---- registering ---- */

/* What was visible of a file that is something else now, or nothing, goes at once. */
static enum status register_as(struct scope *sc, struct batch *b, const struct new_document *d,
                               const struct known_document *known)
{
    struct ingest *in = b->in;
    int64_t id, removed = 0;
    int live_version;
    enum status s = document_store_register(sc, in->task->db, in->task->collection_id, d, &id, &live_version);
    if (s != STATUS_OK)
        return s;
    if (in->seen && !known->id)
        seen_add(in->seen, id);
    b->change.failed += strcmp(d->status, "failed") == 0;
    b->change.failed -= known->id && strcmp(known->status, "failed") == 0;
    if (live_version == 0)
        return STATUS_OK;
    if (strcmp(d->status, "pending") == 0) {
        b->change.bytes += d->size - known->size;
        return STATUS_OK;
    }
    s = document_store_hide(sc, in->task->db, in->writing.has_generation ? &in->writing.generation : NULL,
                            in->task->collection_id, id, live_version, &removed);
    b->change.documents--;
    b->change.bytes -= known->size;
    b->change.vectors -= removed;
    return s;
}

static enum status register_failed(struct scope *sc, struct batch *b, const struct source_file *f,
                                   const struct known_document *known, const struct finding *finding)
{
    struct ingest *in = b->in;
    struct new_document d = {.path = {f->path, f->path_len},
                             .source_id = in->source.id,
                             .size = f->size,
                             .mtime_ns = f->mtime_ns,
                             .hash = "",
                             .status = "failed",
                             .problem = finding->problem,
                             .category = finding->category,
                             .operation_id = in->task->operation_id};
    in->scan_errors++;
    return register_as(sc, b, &d, known);
}

/* A new or changed file: pending, or completed at once when the collection has its content already. */
static enum status register_news(struct scope *sc, struct batch *b, const struct source_file *f,
                                 const struct known_document *known, const struct finding *finding)
{
    struct ingest *in = b->in;
    struct task *task = in->task;
    struct new_document d = {.path = {f->path, f->path_len},
                             .source_id = in->source.id,
                             .size = f->size,
                             .mtime_ns = f->mtime_ns,
                             .hash = finding->hash,
                             .status = "pending"};
    enum status s = document_store_original(sc, task->db, task->collection_id, d.hash, d.path, &d.duplicate_of);
    if (s != STATUS_OK)
        return s;
    bool is_counted = known->id && strcmp(known->status, "failed") != 0 && strcmp(known->status, "deleted") != 0;
    if (!d.duplicate_of && !room_take(&in->room, !is_counted, is_counted ? f->size - known->size : f->size))
        return STATUS_OK;
    b->counts.added += !known->id;
    b->counts.modified += known->id && strcmp(known->hash, d.hash) != 0; /* not what is only read again */
    if (d.duplicate_of) {
        d.status = "completed";
        in->duplicates++;
    } else if (known->id) {
        in->updated++;
    } else {
        in->registered++;
    }
    return register_as(sc, b, &d, known);
}

static enum status take_file(struct scope *sc, struct batch *b, size_t i, const struct known_document *known)
{
    struct ingest *in = b->in;
    const struct source_file *f = &b->files[i];
    if (in->seen && known->id && b->findings[i].what != FILE_IS_GONE)
        seen_add(in->seen, known->id);
    if (in->seen && f->problem)
        seen_add_unreadable(in->seen, f->path, f->path_len);
    switch (b->findings[i].what) {
    case FILE_IS_BAD:
        return register_failed(sc, b, f, known, &b->findings[i]);
    case FILE_IS_NEWS:
        return register_news(sc, b, f, known, &b->findings[i]);
    case FILE_WAS_TOUCHED:
        in->unchanged++;
        return document_store_touch(sc, in->task->db, known->id, f->mtime_ns);
    case FILE_IS_THE_SAME:
        in->unchanged++;
        return STATUS_OK;
    case FILE_IS_GONE:
        in->found--;
        return STATUS_OK;
    }
    return STATUS_OK;
}

/* After the fence (lock order: documents, operations, collections). */
static enum status count_changes(struct scope *sc, struct batch *b)
{
    struct ingest *in = b->in;
    bool has_counts = in->seen && (b->counts.added > 0 || b->counts.modified > 0);
    bool has_changes = b->change.documents || b->change.vectors || b->change.bytes || b->change.failed;
    enum status s = has_counts || has_changes ? task_fence(sc, in->task) : STATUS_OK;
    if (s == STATUS_OK && has_counts)
        s = sync_store_count(sc, in->task->db, in->task->operation_id, &b->counts);
    if (s == STATUS_OK && has_changes)
        s = document_store_count(sc, in->task->db, in->task->collection_id, b->change.documents, b->change.vectors,
                                 b->change.bytes, b->change.failed, &in->stats);
    return s;
}

/* Only a source that is away ends it early: a file's own trouble is a finding. */
static enum status look_at_all(struct batch *b, const struct known_document *known, bool *out_is_news)
{
    struct ingest *in = b->in;
    *out_is_news = false;
    for (size_t i = 0; i < b->count; i++) {
        enum status s = may_go_on(&b->sc, in->task);
        if (s != STATUS_OK)
            return s;
        s = look_at(&b->sc, in, &b->files[i], &known[i], &b->findings[i]);
        in->is_source_away = s != STATUS_OK;
        if (s != STATUS_OK)
            return s;
        *out_is_news |= b->findings[i].what != FILE_IS_THE_SAME && b->findings[i].what != FILE_IS_GONE;
    }
    return STATUS_OK;
}

static enum status take_all(struct batch *b, const struct known_document *known)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < b->count && s == STATUS_OK; i++)
        s = take_file(&b->sc, b, i, &known[i]);
    return s;
}

/* Files that are as they were need no transaction. */
static enum status commit_batch(struct batch *b)
{
    struct ingest *in = b->in;
    struct task *task = in->task;
    struct path_bytes paths[FILES_A_BATCH];
    for (size_t i = 0; i < b->count; i++)
        paths[i] = (struct path_bytes){b->files[i].path, b->files[i].path_len};
    struct known_document *known = NULL; /* nobody else changes them while the operation is ours */
    bool is_news = false;
    enum status s = document_store_known(&b->sc, task->db, task->collection_id, task->operation_id, paths, b->count,
                                         &known);
    if (s == STATUS_OK)
        s = look_at_all(b, known, &is_news);
    if (s != STATUS_OK || !is_news)
        return s == STATUS_OK ? take_all(b, known) : s;
    s = db_begin(&b->sc, task->db);
    if (s == STATUS_OK)
        s = room_look(&b->sc, task, &in->room);
    if (s == STATUS_OK)
        s = take_all(b, known);
    if (s == STATUS_OK)
        s = count_changes(&b->sc, b);
    (void)FAULT(BEFORE_SCAN_COMMIT, task->operation_id);
    if (s == STATUS_OK)
        s = task_commit(&b->sc, task);
    else
        db_rollback(task->db);
    (void)FAULT(AFTER_SCAN_COMMIT, task->operation_id);
    return s;
}

static void report(struct scope *sc, struct ingest *in)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "status", "scanning");
    json_text(&t, "stage", "scanning");
    json_int(&t, "files_found", in->found);
    json_close(&t, '}');
    task_event(sc, in->task, "scanning_documents", 0, NULL, text_str(&t), 0);
}

static enum status flush(struct scope *sc, struct batch *b)
{
    if (b->count == 0)
        return STATUS_OK;
    enum status s = commit_batch(b);
    if (s != STATUS_OK)
        s = fail(sc, s, "%s", b->sc.problem_text ? b->sc.problem_text : status_text(s));
    scope_done(&b->sc);
    scope_init(&b->sc, sc->trace_id);
    b->count = 0;
    memset(&b->change, 0, sizeof b->change);
    memset(&b->counts, 0, sizeof b->counts);
    report(sc, b->in);
    b->status = s == STATUS_OK ? task_check(sc, b->in->task) : s;
    return b->status;
}

static enum status on_file(struct scope *sc, void *context, const struct source_file *f)
{
    struct batch *b = context;
    struct source_file *kept = &b->files[b->count++];
    *kept = *f;
    kept->path = arena_strndup(&b->sc.arena, f->path, f->path_len);
    kept->problem = arena_strdup(&b->sc.arena, f->problem);
    b->in->found++;
    return b->count == FILES_A_BATCH ? flush(sc, b) : STATUS_OK;
}

void ingest_scan_counts(struct text *t, const struct ingest *in)
{
    json_int(t, "total_files_found", in->found);
    json_int(t, "new_documents_registered", in->registered);
    json_int(t, "documents_updated", in->updated);
    json_int(t, "unchanged_documents_skipped", in->unchanged);
    json_int(t, "duplicate_documents_skipped", in->duplicates);
}

static void announce(struct scope *sc, struct ingest *in, int64_t pending, int64_t started_ms)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "status", "processing");
    ingest_scan_counts(&t, in);
    json_int(&t, "errors_count", in->scan_errors);
    json_int(&t, "documents_to_process", pending);
    json_real(&t, "scan_duration", (double)(clock_monotonic_ms() - started_ms) / 1000);
    json_close(&t, '}');
    task_event(sc, in->task, "scanning_completed", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
    text_clear(&t);
    json_open(&t, NULL, '{');
    json_text(&t, "status", "processing");
    json_int(&t, "documents_to_process", pending);
    json_close(&t, '}');
    if (in->task->type == OPERATION_INDEX)
        task_event(sc, in->task, "processing_embeddings", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

enum status ingest_revive_duplicates(struct scope *sc, struct ingest *in)
{
    int64_t revived = 0;
    enum status s = db_begin(sc, in->task->db);
    if (s == STATUS_OK)
        s = document_store_revive_duplicates(sc, in->task->db, in->task->collection_id, &revived);
    if (s == STATUS_OK)
        s = task_commit(sc, in->task);
    else
        db_rollback(in->task->db);
    return s;
}

static enum status walk(struct scope *sc, struct ingest *in)
{
    scoped(cJSON) *config = NULL;
    enum status s = json_parse(sc, in->source.config_json, strlen(in->source.config_json), &config);
    if (s != STATUS_OK)
        return s;
    struct source_options options = {.recursive = json_get_bool(config, "recursive", true),
                                     .include = cJSON_GetObjectItemCaseSensitive(config, "include_patterns"),
                                     .exclude = cJSON_GetObjectItemCaseSensitive(config, "exclude_patterns")};
    struct batch *b = must_calloc(1, sizeof *b);
    b->in = in;
    scope_init(&b->sc, sc->trace_id);
    in->is_source_away = false;
    s = source_walk(sc, in->task->settings->source_roots, in->source.path, &options, on_file, b);
    in->is_source_away |= s != STATUS_OK && b->status == STATUS_OK;
    if (s == STATUS_OK)
        s = flush(sc, b);
    scope_done(&b->sc);
    free(b);
    return s;
}

enum status ingest_walk(struct scope *sc, struct ingest *in)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "status", "scanning");
    json_text(&t, "stage", "scanning");
    json_text(&t, "source", in->source.path);
    json_close(&t, '}');
    task_event(sc, in->task, "scanning_documents", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
    enum status s = walk(sc, in);
    if (s == STATUS_NOT_FOUND) /* an unmounted or emptied share comes back; it does not mean that all was deleted */
        return fail(sc, STATUS_UNAVAILABLE, "the source cannot be reached: %s", sc->problem_text);
    return s;
}

enum status ingest_scan(struct scope *sc, struct ingest *in)
{
    struct task *task = in->task;
    int64_t started_ms = clock_monotonic_ms(), pending = 0;
    enum status s = ingest_walk(sc, in);
    if (s == STATUS_OK)
        s = ingest_revive_duplicates(sc, in);
    (void)FAULT(DUPLICATES_REVIVED, task->operation_id);
    if (s == STATUS_OK)
        s = document_store_pending_count(sc, task->db, task->collection_id, &pending);
    if (s != STATUS_OK)
        return s;
    /* Counts are the operation's, not the attempt's. */
    task->processed = task->earlier_processed + in->scan_errors;
    task->failed = task->earlier_failed + in->scan_errors;
    task->total = pending + task->processed;
    announce(sc, in, pending, started_ms);
    return STATUS_OK;
}
