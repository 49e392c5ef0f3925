/* Operations: lists, one of them, cancel. */
#include "api/guard.h"
#include "api/router.h"
#include "api/views.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"
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
    filter.collection_id = s == STATUS_OK ? c.id : 0;
    if (s == STATUS_OK)
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

/* ---- cancel ---- */

/* What a collection says when work on it was cancelled; NULL = nothing. */
static const char *left_as(enum operation_type type)
{
    return type == OPERATION_REINDEX ? "reindex cancelled: the collection is as it was before" : NULL;
}

/* In one transaction: the operation is final and its collection usable again. The worker hears of it afterwards and
 * would find out anyway, as its fence is lost. */
static enum status cancel_in_transaction(struct request *r, struct operation_ref *out, const char **out_worker)
{
    int64_t collection_id = 0;
    enum status s = db_begin(r->sc, r->db);
    if (s == STATUS_OK)
        s = operation_store_cancel(r->sc, r->db, r->params[0], out, out_worker, &collection_id);
    if (s == STATUS_OK)
        s = operation_store_audit(r->sc, r->db, out, "cancelled", NULL);
    enum operation_type type;
    bool is_known = s == STATUS_OK && operation_type_parse(out->type, &type) == STATUS_OK;
    if (is_known && collection_id != 0 && operation_kind(type)->mutates)
        s = operation_store_settle_collection(r->sc, r->db, collection_id, "ready", left_as(type));
    (void)FAULT(BEFORE_CANCEL_COMMIT, r->params[0]);
    if (s == STATUS_OK)
        return db_commit(r->sc, r->db);
    db_rollback(r->db);
    return s;
}

/* Best effort, after the commit: the reconciler announces what could not be announced here. */
static void tell_about_cancel(struct request *r, const struct operation_ref *o, const char *worker)
{
    struct scope sc;
    scope_init(&sc, r->sc->trace_id);
    sc.deadline_ms = r->sc->deadline_ms;
    bool is_untold = FAULT(BEFORE_CANCEL_TOLD, o->uuid);
    if (worker && !is_untold && message_control(&sc, r->events, worker, "cancel", o->uuid) != STATUS_OK)
        log_info("cancel_not_told", log_text("operation", o->uuid), log_text("problem", sc.problem_text));
    scope_forgive(&sc);
    bool is_unannounced = FAULT(BEFORE_CANCEL_ANNOUNCED, o->uuid);
    if (!is_unannounced && operation_store_announce(&sc, r->db, r->events, o->uuid) != STATUS_OK)
        log_info("cancel_not_announced", log_text("operation", o->uuid), log_text("problem", sc.problem_text));
    scope_done(&sc);
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
    struct operation_ref operation;
    const char *worker = NULL;
    scoped(PGresult) *before = NULL;
    scoped(PGresult) *after = NULL;
    enum status s = find_operation(r, false, &before);
    if (s != STATUS_OK)
        return s;
    /* Nobody sees the collection any more: what is left of it must go. */
    if (strcmp(db_text(before, 0, "type"), "delete") == 0)
        return fail(r->sc, STATUS_INVALID, "The deletion of a collection cannot be cancelled");
    s = cancel_in_transaction(r, &operation, &worker);
    if (s == STATUS_CONFLICT)
        return already_final(r);
    if (s != STATUS_OK)
        return s;
    (void)FAULT(AFTER_CANCEL_COMMIT, operation.uuid);
    metrics_add(METRIC_OPERATIONS, operation.type, "cancelled", 1);
    log_info("operation_cancelled", log_text("operation", operation.uuid), log_int("user", r->user.id),
             log_text("was", worker ? "processing" : "pending"), log_text("worker", worker),
             log_int("attempt", operation.attempt), log_text("type", operation.type),
             log_text("correlation_id", r->sc->trace_id));
    tell_about_cancel(r, &operation, worker);
    s = operation_view_find(r->sc, r->db, r->params[0], r->user.is_superuser, &after);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_OPERATION, after, 0);
    return s;
}
