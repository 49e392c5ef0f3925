#include "api/dispatch.h"

#include "api/limit.h"
#include "api/schema.h"
#include "common/fault.h"
#include "common/log.h"

#include <string.h>
#include <strings.h>

/* What follows "Bearer " in Authorization; NULL when there is none. */
static const char *bearer_token(struct request *r)
{
    const char *value = request_header(r, "Authorization");
    if (!value || strncasecmp(value, "Bearer", 6) != 0 || (value[6] != ' ' && value[6] != '\t'))
        return NULL;
    value += 6 + strspn(value + 6, " \t");
    return *value ? value : NULL;
}

/* What was found out for a request that shows the same token a moment ago. */
static bool is_known_user(struct request *r, const struct request *known, const char *token)
{
    const char *other = known ? bearer_token((struct request *)known) : NULL;
    if (!other || strcmp(other, token) != 0)
        return false;
    r->user = known->user;
    r->user.username = arena_strdup(&r->sc->arena, known->user.username);
    return true;
}

static enum status check_access(struct request *r, const struct request *known)
{
    if (r->route->access == ACCESS_ANYONE || r->route->access == ACCESS_PROBE)
        return STATUS_OK;
    const char *token = bearer_token(r);
    if (!token && r->route->access == ACCESS_STREAM && header_accepts(request_header(r, "Accept"), "text/event-stream"))
        token = request_query(r, "token");
    if (!token || !*token)
        return fail(r->sc, STATUS_UNAUTHENTICATED, "Not authenticated");
    enum status s = STATUS_OK;
    if (!is_known_user(r, known, token))
        s = auth_check(r->sc, r->api->settings, r->db, token, &r->user);
    if (s == STATUS_OK && r->route->access == ACCESS_SUPERUSER && !r->user.is_superuser)
        return fail(r->sc, STATUS_FORBIDDEN, "Only a superuser may do this");
    return s;
}

enum status dispatch_admit(struct request *r, const struct request *known)
{
    (void)FAULT(REQUEST_READ, r->path);
    enum status s = check_access(r, known);
    if (s == STATUS_OK)
        s = limit_check(r);
    if (s == STATUS_OK && r->route->request_schema)
        s = schema_read_body(r, r->route->request_schema, &r->parsed);
    r->is_admitted = s == STATUS_OK;
    return s;
}

static void log_fault(const struct request *r, enum status s)
{
    int http = status_http(s);
    if (http == 500)
        log_error("request_failed", log_text("correlation_id", r->sc->trace_id), log_text("route", r->route->path),
                  log_text("status", status_name(s)), log_text("problem", r->sc->problem_text));
    else if (http > 500)
        log_warning("request_failed", log_text("correlation_id", r->sc->trace_id), log_text("route", r->route->path),
                    log_text("status", status_name(s)), log_text("problem", r->sc->problem_text));
}

void dispatch_finish(struct request *r, enum status s)
{
    (void)FAULT(BEFORE_ANSWER, r->path);
    cJSON_Delete(r->parsed);
    r->parsed = NULL;
    r->json = NULL;
    if (s != STATUS_OK) {
        log_fault(r, s);
        if (r->reply.http != status_http(s))
            reply_error(r, s);
    } else if (r->reply.http == 0 && !r->stream) {
        s = fail(r->sc, STATUS_INTERNAL, "the handler left the reply empty");
        log_fault(r, s);
        reply_error(r, s);
    }
    if ((r->reply.http >= 400 && r->reply.http < 500) || r->reply.http == 507)
        limit_give_back(r);
}

void dispatch(struct request *r)
{
    enum status s = r->is_admitted ? STATUS_OK : dispatch_admit(r, NULL);
    if (s == STATUS_OK)
        s = r->route->handler(r);
    if (r->db)
        db_rollback(r->db); /* whatever the handler left open */
    dispatch_finish(r, s);
}
