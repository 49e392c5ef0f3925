#include "common/store/operation_store.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"

#include <stdio.h>
#include <string.h>

enum {
    PAGE = 2000,          /* due operations that a round of the reconciler looks at */
    ANNOUNCEMENTS = 1000, /* at most, a round */
    QUEUE_PIECE = 10000,  /* entries of a queue read at a time */
    QUEUE_OVERLAP = 1000, /* of two pieces, since others push and pop meanwhile */
    PUSHED_AT_ONCE = 500,
};

static void copy_uuid(char out[37], const char *uuid)
{
    snprintf(out, 37, "%s", uuid ? uuid : "");
}

static struct operation_ref ref_of(struct scope *sc, const PGresult *rows, int row)
{
    struct operation_ref o = {
        .user_id = db_int(rows, row, "user_id", 0),
        .type = arena_strdup(&sc->arena, db_text(rows, row, "type")),
        .status = arena_strdup(&sc->arena, db_text(rows, row, "status")),
        .queue = arena_strdup(&sc->arena, db_text(rows, row, "queue")),
        .attempt = (int)db_int(rows, row, "attempt", 0),
    };
    copy_uuid(o.uuid, db_text(rows, row, "uuid"));
    copy_uuid(o.collection_uuid, db_text(rows, row, "collection_uuid"));
    return o;
}

struct operation_ref operation_store_ref(struct scope *sc, const PGresult *rows, int row)
{
    return ref_of(sc, rows, row);
}

/* ---- accept ---- */

/* Model: accept. */
enum status operation_store_insert(struct scope *sc, struct db *db, const struct operation_new *o,
                                   struct operation_ref *out)
{
    const struct operation_kind *kind = operation_kind(o->type);
    int retries = kind->retries >= 0 ? kind->retries : o->default_retries;
    int attempts = o->max_attempts > 0 ? o->max_attempts : 1 + retries;
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_OPERATION_INSERT, &rows,
                           o->collection_id ? db_number(sc, o->collection_id) : NULL, db_number(sc, o->user_id),
                           kind->name, kind->mutates ? "true" : "false", o->queue ? o->queue : kind->queue,
                           o->config_json, db_number(sc, attempts));
    if (s == STATUS_OK)
        *out = ref_of(sc, rows, 0);
    return s;
}

static bool is_beaten(const struct db *db, enum status s)
{
    return s == STATUS_CONFLICT || s == STATUS_LOST || strcmp(db_sqlstate(db), "23503") == 0; /* the row went away */
}

enum status operation_store_add_source(struct scope *sc, struct db *db, const struct source_addition *a,
                                       struct operation_ref *out, PGresult **out_rows)
{
    const struct operation_kind *kind = operation_kind(OPERATION_APPEND);
    int retries = kind->retries >= 0 ? kind->retries : a->default_retries;
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, db, SQL_SOURCE_ADD, &rows, a->collection_uuid, db_number(sc, a->user_id), a->type,
                                a->path, a->config_json, a->additional_json, db_number(sc, 1 + retries), kind->queue,
                                a->is_admitted ? "true" : "false");
    if (s != STATUS_OK && is_beaten(db, s)) {
        scope_forgive(sc);
        s = STATUS_CONFLICT;
    }
    if (s == STATUS_OK && PQntuples(rows) == 0)
        s = STATUS_CONFLICT;
    if (s == STATUS_CONFLICT)
        return fail(sc, s, "the collection cannot take a source now");
    if (s != STATUS_OK)
        return s;
    *out = ref_of(sc, rows, 0);
    *out_rows = rows;
    rows = NULL;
    return STATUS_OK;
}

static size_t write_additions(struct text *t, const struct source_addition *all, size_t count)
{
    size_t written = 0;
    json_open(t, NULL, '[');
    for (size_t i = 0; i < count; i++) {
        if (!all[i].collection_uuid)
            continue;
        json_open(t, NULL, '{');
        json_int(t, "n", (int64_t)i);
        json_text(t, "collection", all[i].collection_uuid);
        json_int(t, "user_id", all[i].user_id);
        json_text(t, "source_type", all[i].type);
        json_text(t, "source_path", all[i].path);
        json_raw(t, "source_config", all[i].config_json);
        json_raw(t, "additional_config", all[i].additional_json ? all[i].additional_json : "{}");
        json_close(t, '}');
        written++;
    }
    json_close(t, ']');
    return written;
}

/* The server said no and lives on: its transaction is undone. */
static bool is_undone(const struct db *db)
{
    const char *state = db_sqlstate(db);
    return *state && strncmp(state, "57P", 3) != 0 && strncmp(state, "08", 2) != 0;
}

enum status operation_store_add_sources(struct scope *sc, struct db *db, const struct source_addition *all,
                                        size_t count, PGresult **out_rows, bool *out_is_settled)
{
    const struct operation_kind *kind = operation_kind(OPERATION_APPEND);
    scoped_text list = {0};
    *out_is_settled = true;
    if (write_additions(&list, all, count) == 0)
        return STATUS_OK;
    int retries = kind->retries >= 0 ? kind->retries : all[0].default_retries;
    enum status s = db_run_kept(sc, db, SQL_SOURCE_ADD_MANY, out_rows, list.data, db_number(sc, 1 + retries),
                                kind->queue);
    *out_is_settled = s == STATUS_OK || is_undone(db);
    return s;
}

enum status operation_store_active(struct scope *sc, struct db *db, int64_t collection_id, const char **out_uuid)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_OPERATION_ACTIVE, &rows, db_number(sc, collection_id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return STATUS_NOT_FOUND;
    *out_uuid = arena_strdup(&sc->arena, db_text(rows, 0, "uuid"));
    return STATUS_OK;
}

void operation_store_push(struct scope *sc, struct redis *queue_redis, const struct operation_ref *o)
{
    if (FAULT(AFTER_COMMIT_BEFORE_PUSH, o->uuid))
        return;
    struct scope own; /* a failure here is no problem of the caller's */
    scope_init(&own, sc->trace_id);
    if (redis_push(&own, queue_redis, o->queue, o->uuid) == STATUS_OK) {
        log_info("operation_pushed", log_text("operation", o->uuid), log_text("queue", o->queue));
    } else {
        metrics_add(METRIC_PUSH_FAILURES, NULL, NULL, 1);
        log_warning("operation_not_pushed", log_text("operation", o->uuid), log_text("queue", o->queue),
                    log_text("problem", own.problem_text));
    }
    (void)FAULT(AFTER_PUSH, o->uuid);
    scope_done(&own);
}

void operation_store_push_all(struct scope *sc, struct redis *queue_redis, const struct operation_ref *all,
                              size_t count)
{
    const char *argv[2 + PUSHED_AT_ONCE];
    for (size_t from = 0, next; from < count; from = next) {
        int argc = 0;
        argv[argc++] = "LPUSH";
        argv[argc++] = redis_key(sc, queue_redis, "queue:%s", all[from].queue);
        for (next = from; next < count && argc < (int)array_len(argv) && strcmp(all[next].queue, all[from].queue) == 0;
             next++)
            argv[argc++] = all[next].uuid;
        bool is_pushed = !FAULT(AFTER_COMMIT_BEFORE_PUSH, all[from].uuid) &&
                         redis_run_argv(sc, queue_redis, NULL, argc, argv, NULL) == STATUS_OK;
        if (!is_pushed)
            metrics_add(METRIC_PUSH_FAILURES, NULL, NULL, (int)(next - from));
        for (size_t i = from; i < next; i++)
            log_at(is_pushed ? LOG_INFO : LOG_WARNING, is_pushed ? "operation_pushed" : "operation_not_pushed",
                   log_text("operation", all[i].uuid), log_text("queue", all[i].queue),
                   log_text("problem", is_pushed ? NULL : sc->problem_text));
        (void)FAULT(AFTER_PUSH, all[from].uuid);
    }
}

/* ---- cancel, settle, audit ---- */

/* Model: cancel. */
enum status operation_store_cancel(struct scope *sc, struct db *db, const char *uuid, struct operation_ref *out,
                                   const char **out_worker_id, int64_t *out_collection_id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_OPERATION_CANCEL, &rows, uuid);
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_CONFLICT, "the operation is finished already");
    *out = ref_of(sc, rows, 0);
    *out_worker_id = arena_strdup(&sc->arena, db_text(rows, 0, "worker_id"));
    *out_collection_id = db_int(rows, 0, "collection_id", 0);
    return STATUS_OK;
}

enum status operation_store_settle_collection(struct scope *sc, struct db *db, int64_t collection_id,
                                              const char *status, const char *message)
{
    return db_run(sc, db, SQL_COLLECTION_AFTER_OPERATION, NULL, db_number(sc, collection_id), status, message);
}

enum status operation_store_audit(struct scope *sc, struct db *db, const struct operation_ref *o, const char *status,
                                  const char *details_json)
{
    const char *action = arena_printf(&sc->arena, "operation_%s_%s", o->type, status);
    return db_run(sc, db, SQL_OPERATION_AUDIT, NULL, db_number(sc, o->user_id),
                  *o->collection_uuid ? o->collection_uuid : NULL, o->uuid, action, details_json);
}

enum status operation_store_audit_cancel(struct scope *sc, struct db *db, const struct operation_ref *o,
                                         int64_t user_id, const char *was)
{
    return db_run(sc, db, SQL_OPERATION_CANCEL_AUDIT, NULL, o->uuid, db_number(sc, user_id), was);
}

/* ---- announce ---- */

/* The categories that clients know. */
static const char *category_of(const char *error_class)
{
    if (strcmp(error_class, "resource") == 0)
        return "transient";
    return strcmp(error_class, "internal") == 0 ? "unknown" : error_class;
}

/* One that holds its collection works on its documents. */
static bool works_on_documents(const char *name)
{
    enum operation_type type;
    return operation_type_parse(name, &type) == STATUS_OK && operation_kind(type)->mutates;
}

/* What stays of a cancelled operation. */
static const char *what_stays(const PGresult *rows, int row)
{
    if (db_int(rows, row, "attempt", 0) == 0)
        return "Cancelled before it began; nothing was changed";
    return works_on_documents(db_text(rows, row, "type"))
               ? "Cancelled; the documents that were finished by then stay as they are, nothing else of it does"
               : "Cancelled; nothing of it stays";
}

static void put_last_data(struct text *out, const PGresult *rows, int row)
{
    const char *error_class = db_text(rows, row, "error_class");
    const char *total = db_text(rows, row, "total");
    bool is_completed = strcmp(db_text(rows, row, "status"), "completed") == 0;
    json_open(out, NULL, '{');
    json_text(out, "status", db_text(rows, row, "status"));
    json_text(out, "operation_type", db_text(rows, row, "type"));
    json_int(out, "processed", db_int(rows, row, "processed", 0));
    json_int(out, "failed", db_int(rows, row, "failed", 0));
    json_raw(out, "total", total);
    if (is_completed) {
        const char *result = db_text(rows, row, "result");
        json_raw(out, "result", result ? result : "{}");
    } else {
        if (strcmp(db_text(rows, row, "status"), "cancelled") == 0)
            json_text(out, "message", what_stays(rows, row));
        json_text(out, "error_message", db_text(rows, row, "error_message"));
        json_text(out, "error_class", error_class);
        json_text(out, "error_category", error_class ? category_of(error_class) : NULL);
    }
    json_close(out, '}');
}

static struct event last_event(struct scope *sc, const PGresult *rows, int row)
{
    scoped_text data = {0};
    put_last_data(&data, rows, row);
    const char *status = db_text(rows, row, "status");
    return (struct event){
        .type = arena_printf(&sc->arena, "operation_%s", status),
        .operation_id = db_text(rows, row, "uuid"),
        .collection_id = db_text(rows, row, "collection_uuid"),
        .user_id = db_int(rows, row, "user_id", 0),
        .status = status,
        .progress = db_real(rows, row, "percent", 0),
        .attempt = (int)db_int(rows, row, "attempt", 0),
        .is_last = true,
        .data_json = arena_strdup(&sc->arena, data.data),
    };
}

/* That the script refused it means that the last event is out already: nobody else closes a stream. One that cannot be
 * announced for a reason of its own does not keep the others waiting. */
enum status operation_store_announce_rows(struct scope *sc, struct db *db, struct redis *events, const PGresult *rows,
                                          const struct event *before, size_t before_count)
{
    size_t count = (size_t)PQntuples(rows), n = 0;
    struct event *all = arena_array(&sc->arena, count + before_count + 1, sizeof *all);
    enum status *each = arena_array(&sc->arena, count + before_count + 1, sizeof *each);
    scoped_text list = {0};
    for (size_t r = 0; r < count; r++) {
        const struct event last = last_event(sc, rows, (int)r);
        for (size_t i = 0; i < before_count; i++) {
            if (strcmp(before[i].operation_id, last.operation_id) == 0)
                all[n++] = before[i];
        }
        all[n++] = last;
    }
    (void)FAULT(BEFORE_LAST_EVENT, count > 0 ? db_text(rows, 0, "uuid") : NULL);
    enum status s = message_publish_many(sc, events, all, n, each);
    for (size_t i = 0; i < n; i++) {
        if (s == STATUS_OK)
            s = each[i];
        if (!all[i].is_last || each[i] != STATUS_OK)
            continue;
        db_array_put(&list, all[i].operation_id);
        log_info("operation_announced", log_text("operation", all[i].operation_id), log_int("attempt", all[i].attempt),
                 log_text("status", all[i].status));
    }
    if (!list.len || FAULT(AFTER_LAST_EVENT, list.data))
        return list.len ? STATUS_UNAVAILABLE : s;
    enum status noted = db_run(sc, db, SQL_OPERATIONS_ANNOUNCED, NULL, db_array_end(&list));
    return s == STATUS_OK ? noted : s;
}

enum status operation_store_announce(struct scope *sc, struct db *db, struct redis *events, const char *uuid)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_OPERATION_FINAL, &rows, uuid);
    if (s != STATUS_OK || PQntuples(rows) == 0)
        return s;
    return operation_store_announce_rows(sc, db, events, rows, NULL, 0);
}

static enum status announce_all(struct scope *sc, struct db *db, struct redis *events)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_OPERATIONS_UNANNOUNCED, &rows, db_number(sc, ANNOUNCEMENTS));
    if (s != STATUS_OK || PQntuples(rows) == 0)
        return s;
    s = operation_store_announce_rows(sc, db, events, rows, NULL, 0);
    if (s == STATUS_OK)
        metrics_add(METRIC_ANNOUNCED_LATE, NULL, NULL, PQntuples(rows));
    return s;
}

/* ---- reconcile ---- */

struct candidate {
    char uuid[37];
    const char *queue;
    bool was_missing; /* in the last round */
    bool is_queued;
};

static int by_queue_and_uuid(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    int order = strcmp(x->queue, y->queue);
    return order ? order : strcmp(x->uuid, y->uuid);
}

static int by_uuid(const void *a, const void *b)
{
    return strcmp(((const struct candidate *)a)->uuid, ((const struct candidate *)b)->uuid);
}

static void add_candidates(struct scope *sc, struct candidate *list, size_t *count, const PGresult *rows,
                           bool was_missing)
{
    for (int r = 0; r < PQntuples(rows); r++) {
        struct candidate *c = &list[(*count)++];
        *c = (struct candidate){.queue = arena_strdup(&sc->arena, db_text(rows, r, "queue")),
                                .was_missing = was_missing};
        copy_uuid(c->uuid, db_text(rows, r, "uuid"));
    }
}

/* What was missing comes twice when the pages have started again. */
static size_t without_duplicates(struct candidate *list, size_t count)
{
    size_t kept = 0;
    qsort(list, count, sizeof *list, by_queue_and_uuid);
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && strcmp(list[kept - 1].uuid, list[i].uuid) == 0)
            list[kept - 1].was_missing |= list[i].was_missing;
        else
            list[kept++] = list[i];
    }
    return kept;
}

static enum status still_missing(struct scope *sc, struct db *db, const struct operation_reconciler *memory,
                                 PGresult **out)
{
    scoped_text list = {0};
    for (size_t i = 0; i < memory->missing_count; i++)
        db_array_put(&list, memory->missing[i]);
    return db_run(sc, db, SQL_OPERATIONS_STILL_DUE, out, db_array_end(&list));
}

static enum status next_page(struct scope *sc, struct db *db, struct operation_reconciler *memory, PGresult **out)
{
    bool is_start = !*memory->after_time;
    enum status s = db_run(sc, db, SQL_OPERATIONS_DUE_AFTER, out, db_number(sc, PAGE),
                           is_start ? NULL : memory->after_time, db_number(sc, memory->after_id));
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(*out);
    memory->after_time[0] = '\0';
    if (n == PAGE) {
        snprintf(memory->after_time, sizeof memory->after_time, "%s", db_text(*out, n - 1, "not_before"));
        memory->after_id = db_int(*out, n - 1, "id", 0);
    }
    return STATUS_OK;
}

/* In the order of their queues. */
static enum status find_candidates(struct scope *sc, struct db *db, struct operation_reconciler *memory,
                                   struct candidate **out, size_t *out_count)
{
    scoped(PGresult) *again = NULL;
    scoped(PGresult) *page = NULL;
    enum status s = still_missing(sc, db, memory, &again);
    if (s == STATUS_OK)
        s = next_page(sc, db, memory, &page);
    if (s != STATUS_OK)
        return s;
    struct candidate *list = arena_array(&sc->arena, (size_t)PQntuples(again) + (size_t)PQntuples(page), sizeof *list);
    size_t count = 0;
    add_candidates(sc, list, &count, again, true);
    add_candidates(sc, list, &count, page, false);
    *out_count = without_duplicates(list, count);
    *out = list;
    return STATUS_OK;
}

static size_t mark_queued(struct candidate *list, size_t count, const redisReply *entries)
{
    size_t found = 0;
    for (size_t i = 0; entries->type == REDIS_REPLY_ARRAY && i < entries->elements; i++) {
        struct candidate key;
        if (entries->element[i]->type != REDIS_REPLY_STRING)
            continue;
        copy_uuid(key.uuid, entries->element[i]->str);
        struct candidate *c = bsearch(&key, list, count, sizeof *list, by_uuid);
        found += c && !c->is_queued;
        if (c)
            c->is_queued = true;
    }
    return found;
}

/* Marks which of one queue's candidates it holds, from the end where the oldest are until all are found: a long backlog
 * is not read wholly. An entry that slips through between two pieces would have to do so in two rounds, and then be in
 * the queue twice, which does no harm. */
static enum status search_queue(struct scope *sc, struct redis *queue, struct candidate *list, size_t count)
{
    const char *key = redis_key(sc, queue, "queue:%s", list[0].queue);
    size_t found = 0;
    for (long long end = -1; found < count; end -= QUEUE_PIECE - QUEUE_OVERLAP) {
        scoped(redisReply) *entries = NULL;
        enum status s = redis_run(sc, queue, &entries, "LRANGE %s %lld %lld", key, end - QUEUE_PIECE + 1, end);
        if (s != STATUS_OK)
            return s;
        found += mark_queued(list, count, entries);
        if (entries->type != REDIS_REPLY_ARRAY || entries->elements < QUEUE_PIECE)
            break;
    }
    return STATUS_OK;
}

static size_t same_queue(const struct candidate *list, size_t count)
{
    size_t n = 1;
    while (n < count && strcmp(list[n].queue, list[0].queue) == 0)
        n++;
    return n;
}

static void note_pushed(const char *queue, const char *const *uuids, int count)
{
    metrics_add(METRIC_RECONCILER_PUSHES, NULL, NULL, count);
    for (int i = 0; i < count; i++)
        log_info("operation_pushed_again", log_text("operation", uuids[i]), log_text("queue", queue),
                 log_text("reason", "it was due and in no queue"));
}

/* Of one queue. */
static enum status push_missing(struct scope *sc, struct redis *queue, const struct candidate *list, size_t count)
{
    const char *argv[2 + PUSHED_AT_ONCE] = {"LPUSH", redis_key(sc, queue, "queue:%s", list[0].queue)};
    int argc = 2;
    for (size_t i = 0; i < count; i++) {
        if (!list[i].is_queued && list[i].was_missing)
            argv[argc++] = list[i].uuid;
        if (argc == (int)array_len(argv) || (i + 1 == count && argc > 2)) {
            (void)FAULT(BEFORE_RECONCILE_PUSH, argv[2]);
            enum status s = redis_run_argv(sc, queue, NULL, argc, argv, NULL);
            (void)FAULT(AFTER_RECONCILE_PUSH, argv[2]);
            if (s != STATUS_OK)
                return s;
            note_pushed(list[0].queue, argv + 2, argc - 2);
            argc = 2;
        }
    }
    return STATUS_OK;
}

static void remember_missing(struct operation_reconciler *memory, const struct candidate *list, size_t count)
{
    memory->missing = must_realloc(memory->missing, (count + 1) * sizeof *memory->missing);
    memory->missing_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!list[i].is_queued && !list[i].was_missing)
            memcpy(memory->missing[memory->missing_count++], list[i].uuid, sizeof list[i].uuid);
    }
}

static enum status push_forgotten(struct scope *sc, struct db *db, struct redis *queue,
                                  struct operation_reconciler *memory)
{
    struct candidate *list = NULL;
    size_t count = 0;
    enum status s = find_candidates(sc, db, memory, &list, &count);
    memory->missing_count = s == STATUS_OK ? memory->missing_count : 0;
    for (size_t i = 0, n; s == STATUS_OK && i < count; i += n) {
        n = same_queue(list + i, count - i);
        s = search_queue(sc, queue, list + i, n);
        if (s == STATUS_OK)
            s = push_missing(sc, queue, list + i, n);
    }
    if (s == STATUS_OK)
        remember_missing(memory, list, count);
    else
        memory->missing_count = 0; /* not seen twice in a row */
    return s;
}

static enum status take_lease(struct scope *sc, struct db *db, struct operation_reconciler *memory, double seconds,
                              bool *out_is_ours)
{
    if (!*memory->holder)
        uuid_make(memory->holder);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_LEASE_TAKE, &rows, "reconciler", memory->holder,
                           arena_printf(&sc->arena, "%.3f", seconds));
    if (s == STATUS_OK)
        *out_is_ours = PQntuples(rows) > 0;
    return s;
}

/* Model: push what is due and absent; announce. */
enum status operation_store_reconcile(struct scope *sc, struct db *db, struct redis *queue, struct redis *events,
                                      struct operation_reconciler *memory, double lease_seconds)
{
    bool is_ours = false;
    enum status s = take_lease(sc, db, memory, lease_seconds, &is_ours);
    if (s != STATUS_OK || !is_ours) {
        memory->missing_count = 0;
        return s;
    }
    (void)FAULT(RECONCILER_CHOSEN, memory->holder);
    s = push_forgotten(sc, db, queue, memory);
    enum status announced = announce_all(sc, db, events);
    return s != STATUS_OK ? s : announced;
}

void operation_reconciler_done(struct operation_reconciler *memory)
{
    free(memory->missing);
    memset(memory, 0, sizeof *memory);
}
