/* Operations: lists, one of them, cancel. */
#include "api/accept.h"
#include "api/cancel.h"
#include "api/guard.h"
#include "api/router.h"
#include "api/views.h"
#include "common/fault.h"
#include "common/store/operation_view.h"

#include <string.h>

static const char *const states[] = {"pending", "processing", "completed", "failed", "cancelled", NULL};
static const char *const types[] = {
#define OPERATION_TYPE(name, text, queue, retries, delay, mutates, summary) text,
#include "common/operation.def"
#undef OPERATION_TYPE
    NULL};

/* operation_type= as the front end says it, type= as older clients do. */
static enum status read_filter(struct request *r, struct operation_filter *out)
{
    const char *type = request_query(r, "operation_type");
    enum status s = guard_filter(r, request_query(r, "status"), "status", states, &out->states);
    return s == STATUS_OK
               ? guard_filter(r, type ? type : request_query(r, "type"), "operation type", types, &out->types)
               : s;
}

enum status operations_list(struct request *r)
{
    int page, per_page;
    struct operation_filter filter = {.user_id = r->user.id};
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = read_filter(r, &filter);
    if (s == STATUS_OK)
        s = operation_view_list(r->sc, r->db, &filter, per_page, (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_reply_page(r, "operations", &schema_OPERATION, rows, page, per_page);
    return s;
}

/* A bare array, unlike the list above. */
enum status operations_of_collection(struct request *r)
{
    int page, per_page;
    struct collection c;
    struct operation_filter filter = {0};
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = read_filter(r, &filter);
    if (s != STATUS_OK)
        return s;
    filter.collection_id = c.id;
    s = operation_view_list(r->sc, r->db, &filter, per_page, (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_write_list(reply_json(r, 200), NULL, &schema_OPERATION, rows);
    return s;
}

/* Its creator, its collection's owner, and with `may_read_only` everyone if the collection is public. */
static enum status find_operation(struct request *r, bool may_read_only, PGresult **out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = operation_view_find(r->sc, r->db, r->params[0], r->user.is_superuser, &rows);
    if (s != STATUS_OK)
        return s;
    bool is_mine = db_int(rows, 0, "user_id", 0) == r->user.id || db_int(rows, 0, "owner_id", 0) == r->user.id;
    bool is_public = db_bool(rows, 0, "is_public");
    if (!is_mine && !is_public)
        return fail(r->sc, STATUS_FORBIDDEN, "You do not have access to this operation");
    if (!is_mine && !may_read_only)
        return fail(r->sc, STATUS_FORBIDDEN, "Only its creator or the collection's owner may cancel an operation");
    *out = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status operations_show(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = find_operation(r, true, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_OPERATION_DETAIL, rows, 0);
    return s;
}

static void write_totals(struct text *t, const PGresult *rows)
{
    static const char *const counts[] = {"documents_processed", "documents_failed", "chunks", "tokens"};
    static const char *const seconds[] = {"busy_seconds", "cpu_seconds", "elapsed_seconds", "queue_wait_seconds",
                                          "waited_seconds"};
    json_open(t, "totals", '{');
    json_int(t, "attempts", db_int(rows, 0, "attempts_begun", 0));
    int64_t retries = db_int(rows, 0, "attempts_begun", 0) - 1;
    json_int(t, "retries", retries > 0 ? retries : 0);
    for (size_t i = 0; i < array_len(counts); i++)
        json_int(t, counts[i], db_int(rows, 0, counts[i], 0));
    for (size_t i = 0; i < array_len(seconds); i++) {
        if (db_text(rows, 0, seconds[i]))
            json_real(t, seconds[i], db_real(rows, 0, seconds[i], 0));
        else
            json_null(t, seconds[i]); /* has not begun */
    }
    json_raw(t, "memory_peak_bytes", db_text(rows, 0, "memory_peak_bytes"));
    json_text(t, "created_at", db_text(rows, 0, "created_at"));
    json_text(t, "started_at", db_text(rows, 0, "started_at"));
    json_text(t, "completed_at", db_text(rows, 0, "completed_at"));
    json_close(t, '}');
}

enum status operations_metrics(struct request *r)
{
    scoped(PGresult) *known = NULL;
    scoped(PGresult) *rows = NULL;
    enum status s = find_operation(r, true, &known);
    if (s == STATUS_OK)
        s = operation_view_metrics(r->sc, r->db, r->params[0], &rows);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "operation_id", db_text(rows, 0, "operation_id"));
    json_text(t, "type", db_text(rows, 0, "type"));
    json_text(t, "status", db_text(rows, 0, "status"));
    write_totals(t, rows);
    json_raw(t, "attempts", db_text(rows, 0, "attempts"));
    json_raw(t, "estimate", db_text(rows, 0, "estimate"));
    json_close(t, '}');
    return STATUS_OK;
}

/* ---- start ---- */

/* These have endpoints that check what they need; all other kinds are started here. */
static const enum operation_type with_endpoint[] = {
    OPERATION_INDEX,     OPERATION_APPEND,          OPERATION_REINDEX, OPERATION_REMOVE_SOURCE,
    OPERATION_DELETE,    OPERATION_RETRY_DOCUMENTS, OPERATION_SYNC,    OPERATION_PROJECTION_BUILD,
    OPERATION_BENCHMARK, OPERATION_MIGRATE_VECTORS,
};

static bool is_started_here(const struct request *r, enum operation_type type)
{
    for (size_t i = 0; i < array_len(with_endpoint); i++) {
        if (with_endpoint[i] == type)
            return false;
    }
    return type != OPERATION_NOOP || r->api->settings->test_operations;
}

static enum status not_started_here(struct request *r, const char *name)
{
    scoped_text names = {0};
    for (int i = 0; i < OPERATION_TYPES; i++) {
        if (is_started_here(r, (enum operation_type)i))
            text_printf(&names, "%s%s", names.len ? ", " : "", operation_kind((enum operation_type)i)->name);
    }
    return fail(r->sc, STATUS_INVALID, "Operations of type '%s' are not started here; those that are: %s", name,
                names.len ? text_str(&names) : "none");
}

enum status operations_start(struct request *r)
{
    struct collection c;
    enum operation_type type;
    const char *name = json_get_text(r->json, "type", "");
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(r->json, "config");
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s != STATUS_OK)
        return s;
    if (operation_type_parse(name, &type) != STATUS_OK || !is_started_here(r, type))
        return not_started_here(r, name);
    bool is_replay = false;
    const struct acceptance a = {
        .collection = &c,
        .type = type,
        /* A row's config is never empty. */
        .config_json = config && config->child ? json_printed(r, config) : "{\"started\":\"by request\"}",
        .what = "Cannot start the operation",
    };
    return accept_operation(r, &a, NULL, &is_replay);
}

/* ---- cancel ---- */

static enum status cancel_in_transaction(struct request *r, struct cancelled *out)
{
    enum status s = db_begin(r->sc, r->db);
    if (s == STATUS_OK)
        s = cancel_write(r, r->params[0], out);
    (void)FAULT(BEFORE_CANCEL_COMMIT, r->params[0]);
    if (s == STATUS_OK)
        return db_commit(r->sc, r->db);
    db_rollback(r->db);
    return s;
}

static enum status already_final(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    scope_forgive(r->sc);
    enum status s = operation_view_find(r->sc, r->db, r->params[0], r->user.is_superuser, &rows);
    if (s != STATUS_OK)
        return s;
    return fail(r->sc, STATUS_INVALID, "Cannot cancel an operation that is %s", db_text(rows, 0, "status"));
}

enum status operations_cancel(struct request *r)
{
    struct cancelled cancelled;
    scoped(PGresult) *before = NULL;
    scoped(PGresult) *after = NULL;
    enum status s = find_operation(r, false, &before);
    if (s != STATUS_OK)
        return s;
    /* Nobody sees the collection any more: what is left of it must go. */
    if (strcmp(db_text(before, 0, "type"), "delete") == 0)
        return fail(r->sc, STATUS_INVALID, "The deletion of a collection cannot be cancelled");
    s = cancel_in_transaction(r, &cancelled);
    if (s == STATUS_CONFLICT)
        return already_final(r);
    if (s != STATUS_OK)
        return s;
    cancel_tell(r, &cancelled);
    s = operation_view_find(r->sc, r->db, r->params[0], r->user.is_superuser, &after);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_OPERATION, after, 0);
    return s;
}
