#include "api/cancel.h"

#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "common/metrics.h"

/* What a collection says when work on it was cancelled; NULL = nothing. */
static const char *left_as(enum operation_type type)
{
    return type == OPERATION_REINDEX ? "reindex cancelled: the collection is as it was before" : NULL;
}

enum status cancel_write(struct request *r, const char *uuid, struct cancelled *out)
{
    struct operation_ref *o = &out->operation;
    int64_t collection_id = 0;
    enum operation_type type;
    out->worker = NULL;
    enum status s = operation_store_cancel(r->sc, r->db, uuid, o, &out->worker, &collection_id);
    if (s == STATUS_OK)
        s = operation_store_audit_cancel(r->sc, r->db, o, r->user.id, out->worker ? "processing" : "pending");
    bool is_known = s == STATUS_OK && operation_type_parse(o->type, &type) == STATUS_OK;
    if (is_known && collection_id != 0 && operation_kind(type)->mutates)
        s = operation_store_settle_collection(r->sc, r->db, collection_id, "ready", left_as(type));
    return s;
}

void cancel_tell(struct request *r, const struct cancelled *c)
{
    const struct operation_ref *o = &c->operation;
    struct scope sc;
    (void)FAULT(AFTER_CANCEL_COMMIT, o->uuid);
    metrics_add(METRIC_OPERATIONS, o->type, "cancelled", 1);
    log_info("operation_cancelled", log_text("operation", o->uuid), log_int("user", r->user.id),
             log_text("was", c->worker ? "processing" : "pending"), log_text("worker", c->worker),
             log_int("attempt", o->attempt), log_text("type", o->type), log_text("correlation_id", r->sc->trace_id));
    scope_init(&sc, r->sc->trace_id);
    sc.deadline_ms = r->sc->deadline_ms;
    bool is_untold = FAULT(BEFORE_CANCEL_TOLD, o->uuid);
    if (c->worker && !is_untold && message_control(&sc, r->events, c->worker, "cancel", o->uuid) != STATUS_OK)
        log_info("cancel_not_told", log_text("operation", o->uuid), log_text("problem", sc.problem_text));
    scope_forgive(&sc);
    bool is_unannounced = FAULT(BEFORE_CANCEL_ANNOUNCED, o->uuid);
    if (!is_unannounced && operation_store_announce(&sc, r->db, r->events, o->uuid) != STATUS_OK)
        log_info("cancel_not_announced", log_text("operation", o->uuid), log_text("problem", sc.problem_text));
    scope_done(&sc);
}
