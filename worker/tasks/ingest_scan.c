#include "worker/tasks/ingest.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/source/directory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FILES_A_BATCH = 200 };

/* Files of one transaction. */
struct batch {
    struct ingest *in;
    struct scope sc; /* owns the paths */
    struct source_file files[FILES_A_BATCH];
    size_t count;
    int64_t hidden, removed; /* documents that are not seen any more, and their vectors */
};

/* What was visible of a file that is something else now, or nothing, goes at once. */
static enum status register_as(struct scope *sc, struct batch *b, const struct new_document *d)
{
    struct ingest *in = b->in;
    int64_t id, removed = 0;
    int live_version;
    enum status s = document_store_register(sc, in->task->db, in->task->collection_id, d, &id, &live_version);
    if (s != STATUS_OK || live_version == 0 || strcmp(d->status, "pending") == 0)
        return s;
    s = document_store_hide(sc, in->task->db, in->has_generation ? &in->generation : NULL, in->task->collection_id, id,
                            live_version, &removed);
    b->hidden++;
    b->removed += removed;
    return s;
}

static enum status register_failed(struct scope *sc, struct batch *b, const struct source_file *f, const char *reason)
{
    struct ingest *in = b->in;
    struct new_document d = {.path = {f->path, f->path_len},
                             .source_id = in->source.id,
                             .size = f->size,
                             .mtime_ns = f->mtime_ns,
                             .hash = "",
                             .status = "failed",
                             .problem = reason,
                             .category = "permanent"};
    in->scan_errors++;
    return register_as(sc, b, &d);
}

static enum status hash_file(struct scope *sc, const struct ingest *in, const struct source_file *f, char out[65])
{
    scoped_fd int fd = -1;
    enum status s = source_open_file(sc, in->task->settings->source_roots, f->path, f->path_len, &fd);
    return s == STATUS_OK ? source_hash_fd(sc, fd, out) : s;
}

/* A new or changed file: pending, or completed at once when the collection has its content already. */
static enum status register_file(struct scope *sc, struct batch *b, const struct source_file *f,
                                 const struct known_document *known)
{
    struct ingest *in = b->in;
    struct task *task = in->task;
    char hash[65];
    enum status s = hash_file(sc, in, f, hash);
    if (s != STATUS_OK) {
        const char *reason = sc->problem_text ? sc->problem_text : status_text(s);
        scope_forgive(sc);
        return register_failed(sc, b, f, reason);
    }
    bool is_same = known->id && known->hash && strcmp(known->hash, hash) == 0 && known->is_good;
    if (is_same && strcmp(known->status, "completed") == 0) {
        in->unchanged++;
        return document_store_touch(sc, task->db, known->id, f->mtime_ns);
    }
    struct new_document d = {.path = {f->path, f->path_len},
                             .source_id = in->source.id,
                             .size = f->size,
                             .mtime_ns = f->mtime_ns,
                             .hash = hash,
                             .status = "pending"};
    s = document_store_original(sc, task->db, task->collection_id, hash, d.path, &d.duplicate_of);
    if (s != STATUS_OK)
        return s;
    if (d.duplicate_of) {
        d.status = "completed";
        in->duplicates++;
    } else if (known->id) {
        in->updated++;
    } else {
        in->registered++;
    }
    return register_as(sc, b, &d);
}

static enum status take_file(struct scope *sc, struct batch *b, const struct source_file *f,
                             const struct known_document *known)
{
    struct ingest *in = b->in;
    if (f->problem)
        return register_failed(sc, b, f, f->problem);
    if (f->size > in->task->settings->max_file_bytes)
        return register_failed(sc, b, f,
                               arena_printf(&sc->arena, "the file has %lld bytes, more than MAX_FILE_BYTES (%lld)",
                                            (long long)f->size, (long long)in->task->settings->max_file_bytes));
    bool is_untouched = known->id && known->size == f->size && known->mtime_ns == f->mtime_ns && known->is_good;
    if (is_untouched && strcmp(known->status, "completed") == 0) {
        in->unchanged++;
        return STATUS_OK;
    }
    return register_file(sc, b, f, known);
}

static enum status commit_batch(struct batch *b)
{
    struct ingest *in = b->in;
    struct task *task = in->task;
    struct path_bytes paths[FILES_A_BATCH];
    for (size_t i = 0; i < b->count; i++)
        paths[i] = (struct path_bytes){b->files[i].path, b->files[i].path_len};
    struct known_document *known;
    enum status s = db_begin(&b->sc, task->db);
    if (s == STATUS_OK)
        s = document_store_known(&b->sc, task->db, task->collection_id, paths, b->count, &known);
    for (size_t i = 0; i < b->count && s == STATUS_OK; i++) {
        task_heartbeat(task);
        s = take_file(&b->sc, b, &b->files[i], &known[i]);
    }
    if (s == STATUS_OK && b->hidden > 0)
        s = ingest_recount(&b->sc, in, -b->removed);
    if (s == STATUS_OK)
        s = task_commit(&b->sc, task);
    else
        db_rollback(task->db);
    return s;
}

static void report(struct scope *sc, struct ingest *in)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
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
    b->hidden = b->removed = 0;
    report(sc, b->in);
    return s == STATUS_OK ? task_check(sc, b->in->task) : s;
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

static void announce(struct scope *sc, struct ingest *in, int64_t pending, int64_t started_ms)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "total_files_found", in->found);
    json_int(&t, "new_documents_registered", in->registered);
    json_int(&t, "documents_updated", in->updated);
    json_int(&t, "unchanged_documents_skipped", in->unchanged);
    json_int(&t, "duplicate_documents_skipped", in->duplicates);
    json_int(&t, "errors_count", in->scan_errors);
    json_int(&t, "documents_to_process", pending);
    json_real(&t, "scan_duration", (double)(clock_monotonic_ms() - started_ms) / 1000);
    json_close(&t, '}');
    task_event(sc, in->task, "scanning_completed", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
    text_clear(&t);
    json_open(&t, NULL, '{');
    json_int(&t, "documents_to_process", pending);
    json_close(&t, '}');
    if (in->task->type == OPERATION_INDEX)
        task_event(sc, in->task, "processing_embeddings", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
}

static enum status revive_duplicates(struct scope *sc, struct ingest *in)
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
    s = source_walk(sc, in->task->settings->source_roots, in->source.path, &options, on_file, b);
    if (s == STATUS_OK)
        s = flush(sc, b);
    scope_done(&b->sc);
    free(b);
    return s;
}

enum status ingest_scan(struct scope *sc, struct ingest *in)
{
    struct task *task = in->task;
    int64_t started_ms = clock_monotonic_ms(), pending = 0;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "stage", "scanning");
    json_text(&t, "source", in->source.path);
    json_close(&t, '}');
    task_event(sc, task, "scanning_documents", 0, NULL, text_str(&t), TASK_EVENT_ALWAYS);
    enum status s = walk(sc, in);
    if (s == STATUS_NOT_FOUND) /* an unmounted or emptied share comes back; it does not mean that all was deleted */
        return fail(sc, STATUS_UNAVAILABLE, "the source cannot be reached: %s", sc->problem_text);
    if (s == STATUS_OK)
        s = revive_duplicates(sc, in);
    if (s == STATUS_OK)
        s = document_store_pending_count(sc, task->db, task->collection_id, &pending);
    if (s != STATUS_OK)
        return s;
    task->processed = in->scan_errors;
    task->failed = in->scan_errors;
    task->total = pending + in->scan_errors;
    announce(sc, in, pending, started_ms);
    return STATUS_OK;
}
