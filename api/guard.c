#include "api/guard.h"

#include "common/log.h"
#include "common/metrics.h"

#include <string.h>

enum status guard_readable(struct request *r, const char *uuid, struct collection *out, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    struct collection c = {0};
    enum status s = collection_store_find(r->sc, r->db, uuid, &c, &rows);
    if (s != STATUS_OK)
        return s;
    if (c.owner_id != r->user.id && !c.is_public)
        return fail(r->sc, STATUS_FORBIDDEN, "You do not have access to this collection");
    *out = c;
    if (out_rows) {
        *out_rows = rows;
        rows = NULL;
    }
    return STATUS_OK;
}

enum status guard_owned(struct request *r, const char *uuid, struct collection *out, PGresult **out_rows)
{
    scoped(PGresult) *rows = NULL;
    struct collection c = {0};
    enum status s = guard_readable(r, uuid, &c, &rows);
    if (s != STATUS_OK)
        return s;
    if (c.owner_id != r->user.id)
        return fail(r->sc, STATUS_FORBIDDEN, "Only the owner of a collection may change it");
    *out = c;
    if (out_rows) {
        *out_rows = rows;
        rows = NULL;
    }
    return STATUS_OK;
}

enum status guard_busy(struct request *r, const struct collection *c, const char *what)
{
    scope_forgive(r->sc);
    const char *uuid = NULL;
    enum status s = operation_store_active(r->sc, r->db, c->id, &uuid);
    if (s != STATUS_OK && s != STATUS_NOT_FOUND)
        return s;
    scope_forgive(r->sc);
    if (s == STATUS_OK)
        return fail(r->sc, STATUS_CONFLICT, "%s: operation %s is in progress on this collection", what, uuid);
    struct collection now;
    s = collection_store_find(r->sc, r->db, c->uuid, &now, NULL);
    if (s != STATUS_OK)
        return s;
    if (strcmp(now.status, "error") == 0)
        return fail(r->sc, STATUS_CONFLICT, "%s: the collection is in the state 'error'; delete it and create it anew",
                    what);
    return fail(r->sc, STATUS_CONFLICT, "%s: another operation was in progress on this collection; try again", what);
}

void guard_note_accepted(const struct request *r, const struct operation_ref *o)
{
    metrics_add(METRIC_OPERATIONS, o->type, "accepted", 1);
    log_info("operation_accepted", log_text("operation", o->uuid), log_text("type", o->type),
             log_text("queue", o->queue), log_text("collection", *o->collection_uuid ? o->collection_uuid : NULL),
             log_int("user", r->user.id), log_text("correlation_id", r->sc->trace_id));
}

void guard_accepted(struct request *r, const struct operation_ref *o)
{
    guard_note_accepted(r, o);
    operation_store_push(r->sc, r->queue, o);
}

static bool is_listed(const char *const *valid, const char *word)
{
    for (; *valid; valid++) {
        if (strcmp(*valid, word) == 0)
            return true;
    }
    return false;
}

enum status guard_filter(struct request *r, const char *value, const char *what, const char *const *valid,
                         const char **out_array)
{
    size_t count = 0;
    char **words = value ? settings_list(&r->sc->arena, value, ',', &count) : NULL;
    if (count == 0) {
        *out_array = NULL;
        return STATUS_OK;
    }
    scoped_text array = {0};
    for (size_t i = 0; i < count; i++) {
        if (!is_listed(valid, words[i])) {
            scoped_text all = {0};
            for (const char *const *v = valid; *v; v++)
                text_printf(&all, "%s%s", v == valid ? "" : ", ", *v);
            return fail(r->sc, STATUS_INVALID, "Invalid %s: '%s'. Valid values are: %s", what, words[i],
                        text_str(&all));
        }
        text_printf(&array, "%c%s", i ? ',' : '{', words[i]);
    }
    text_putc(&array, '}');
    *out_array = arena_strdup(&r->sc->arena, text_str(&array));
    return STATUS_OK;
}

const char *json_printed(struct request *r, const cJSON *item)
{
    if (!item || cJSON_IsNull(item))
        return NULL;
    scoped_memory char *printed = cJSON_PrintUnformatted(item);
    return printed ? arena_strdup(&r->sc->arena, printed) : NULL;
}

const char *body_json(struct request *r, const char *field)
{
    return json_printed(r, cJSON_GetObjectItemCaseSensitive(r->json, field));
}
