#include "api/together.h"

#include "api/dispatch.h"
#include "api/guard.h"
#include "api/router.h"
#include "api/source_request.h"
#include "api/views.h"
#include "common/fault.h"
#include "common/store/resource_store.h"

#include <string.h>
#include <strings.h>

bool together_may(struct request *r)
{
    const char *key = request_header(r, "Idempotency-Key");
    /* A key is stored in a transaction of its own; a grant is looked up; limits are counted one by one. */
    return r->route->handler == sources_add && !(key && *key) &&
           strcmp(r->api->settings->source_roots_for, "granted") != 0 && !resource_store_limits_all(r->api->settings);
}

/* One operation at a time on a collection: its next request finds out alone. */
static bool is_asked_already(const struct source_addition *all, size_t count, const char *uuid)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].collection_uuid && strcasecmp(all[i].collection_uuid, uuid) == 0)
            return true;
    }
    return false;
}

/* What the request asks for; a request that is to be refused is left to be refused alone. */
static bool read_addition(struct request *r, struct source_addition *out)
{
    struct source_request source;
    if (source_request_read(r, &source) != STATUS_OK) {
        scope_forgive(r->sc);
        text_clear(&r->reply.invalid);
        return false;
    }
    *out = (struct source_addition){
        .collection_uuid = r->params[0],
        .user_id = r->user.id,
        .type = source.type,
        .path = source.path,
        .config_json = source.config_json,
        .additional_json = source.additional_json,
        .default_retries = (int)r->api->settings->default_max_retries,
    };
    return true;
}

static void answer(struct together *t, struct request *const *list, const PGresult *rows, bool *is_done)
{
    for (int row = 0; row < PQntuples(rows); row++) {
        int64_t n = db_int(rows, row, "n", 0);
        struct request *r = list[n];
        view_write(reply_json(r, 202), NULL, &schema_OPERATION, rows, row);
        dispatch_finish(r, STATUS_OK);
        t->accepted[t->count] = operation_store_ref(&t->sc, rows, row);
        guard_note_accepted(r, &t->accepted[t->count++]);
        is_done[n] = true;
    }
}

/* Admits each; those whom that ends have their reply. Who asks with the same token is looked up once: all of them were
 * here before. */
static void admit(struct request *const *list, size_t count, struct source_addition *asked, bool *is_done)
{
    const struct request *known = NULL;
    for (size_t i = 0; i < count; i++) {
        enum status s = dispatch_admit(list[i], known);
        is_done[i] = s != STATUS_OK;
        if (is_done[i]) {
            dispatch_finish(list[i], s);
            continue;
        }
        known = list[i];
        if (!is_asked_already(asked, i, list[i]->params[0]))
            (void)read_addition(list[i], &asked[i]);
    }
}

void together_run(struct together *t, struct request *const *list, size_t count, bool *is_done)
{
    struct source_addition asked[TOGETHER_MOST] = {{0}};
    scope_init(&t->sc, NULL);
    t->count = 0;
    t->sc.deadline_ms = list[0]->sc->deadline_ms;
    admit(list, count, asked, is_done);
    scoped(PGresult) *rows = NULL;
    bool is_settled = true;
    (void)FAULT(BEFORE_SOURCE_ADDED, list[0]->path);
    enum status s = operation_store_add_sources(&t->sc, list[0]->db, asked, count, &rows, &is_settled);
    if (s == STATUS_OK && rows)
        answer(t, list, rows, is_done);
    for (size_t i = 0; i < count && !is_settled; i++) {
        if (is_done[i] || !asked[i].collection_uuid)
            continue;
        dispatch_finish(list[i], fail(list[i]->sc, s, "%s", t->sc.problem_text));
        is_done[i] = true;
    }
}

void together_push(struct together *t, struct redis *queue)
{
    operation_store_push_all(&t->sc, queue, t->accepted, t->count);
    scope_done(&t->sc);
}
