/* What users may take: their limits, estimates, and what the system has. */
#include "api/estimates.h"
#include "api/resources.h"
#include "api/router.h"
#include "api/views.h"
#include "build/queries.h"
#include "common/machine.h"
#include "common/store/audit_store.h"
#include "common/store/user_store.h"

#include <string.h>

/* ---- limits ---- */

static void write_number(struct text *t, const char *key, int64_t n)
{
    if (n < 0)
        json_null(t, key);
    else
        json_int(t, key, n);
}

static void write_use(struct text *t, int64_t user_id, const struct resource_use *use)
{
    json_open(t, NULL, '{');
    json_int(t, "user_id", user_id);
    for (int i = 0; i < RESOURCES; i++) {
        int64_t limit = use->of[i].limit, used = use->of[i].used;
        json_open(t, resource_name((enum resource)i), '{');
        write_number(t, "limit", limit);
        json_int(t, "used", used);
        write_number(t, "left", limit < 0 ? -1 : limit > used ? limit - used : 0);
        json_text(t, "set_by", use->of[i].is_own ? "superuser" : "default");
        json_close(t, '}');
    }
    json_text(t, "updated_at", use->updated_at);
    json_close(t, '}');
}

static enum status reply_use(struct request *r, int64_t user_id)
{
    struct resource_use use;
    enum status s = resource_store_use(r->sc, r->db, r->api->settings, user_id, &use);
    if (s == STATUS_OK)
        write_use(reply_json(r, 200), user_id, &use);
    return s;
}

enum status limits_mine(struct request *r)
{
    return reply_use(r, r->user.id);
}

static enum status find_user(struct request *r, int64_t *out_id)
{
    struct user_row user;
    int64_t id = strtoll(r->params[0], NULL, 10);
    enum status s = id > 0 ? user_store_get(r->sc, r->db, id, NULL, &user) : STATUS_NOT_FOUND;
    if (s == STATUS_NOT_FOUND) {
        scope_forgive(r->sc);
        return fail(r->sc, s, "User with ID '%s' not found", r->params[0]);
    }
    *out_id = id;
    return s;
}

enum status limits_show(struct request *r)
{
    int64_t user_id = 0;
    enum status s = find_user(r, &user_id);
    return s == STATUS_OK ? reply_use(r, user_id) : s;
}

static const char *const fields[RESOURCES] = {"max_collections", "max_documents", "max_bytes",
                                              "max_concurrent_operations"};

/* What is absent stays, null is the default, -1 unlimited. */
static void read_limits(const cJSON *body, const struct resource_use *now, int64_t out[RESOURCES])
{
    for (int i = 0; i < RESOURCES; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, fields[i]);
        out[i] = cJSON_IsNumber(item) ? json_get_int(body, fields[i], RESOURCE_DEFAULT)
                 : cJSON_IsNull(item) ? RESOURCE_DEFAULT
                 : now->of[i].is_own  ? now->of[i].limit
                                      : RESOURCE_DEFAULT;
    }
}

/* Nothing is deleted by a limit: below what is used it only keeps more from coming. So it is set only by those who mean
 * it. */
static enum status refuse_below_use(struct request *r, const struct resource_use *now, const int64_t wanted[RESOURCES])
{
    scoped_text list = {0};
    json_open(&list, NULL, '[');
    int count = 0;
    for (int i = 0; i < RESOURCES; i++) {
        if (wanted[i] < 0 || wanted[i] >= now->of[i].used)
            continue;
        json_open(&list, NULL, '{');
        json_text(&list, "resource", resource_name((enum resource)i));
        json_int(&list, "limit", wanted[i]);
        json_int(&list, "used", now->of[i].used);
        json_close(&list, '}');
        count++;
    }
    json_close(&list, ']');
    if (count == 0 || json_get_bool(r->json, "force", false))
        return STATUS_OK;
    struct text *t = reply_json(r, 409);
    json_open(t, NULL, '{');
    json_text(t, "detail",
              "The user has more than that already; nothing was changed. Send \"force\": true to set it all the same: "
              "what is there stays, more is refused");
    json_text(t, "error", "limits_below_use");
    json_raw(t, "conflicts", text_str(&list));
    json_close(t, '}');
    return fail(r->sc, STATUS_CONFLICT, "limits below use");
}

static const char *change_of(struct request *r, int64_t user_id, const struct resource_use *before,
                             const int64_t after[RESOURCES])
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_int(&t, "of_user", user_id);
    for (int i = 0; i < RESOURCES; i++) {
        json_open(&t, fields[i], '{');
        if (before->of[i].is_own)
            json_int(&t, "from", before->of[i].limit);
        else
            json_text(&t, "from", "default");
        if (after && after[i] != RESOURCE_DEFAULT)
            json_int(&t, "to", after[i]);
        else
            json_text(&t, "to", "default");
        json_close(&t, '}');
    }
    if (after)
        json_bool(&t, "forced", json_get_bool(r->json, "force", false));
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

static enum status change_in_transaction(struct request *r, int64_t user_id, bool is_reset)
{
    struct resource_use before;
    int64_t wanted[RESOURCES];
    enum status s = resource_store_lock(r->sc, r->db, user_id);
    if (s == STATUS_OK)
        s = resource_store_use(r->sc, r->db, r->api->settings, user_id, &before);
    if (s != STATUS_OK)
        return s;
    if (is_reset) {
        s = resource_store_forget(r->sc, r->db, user_id);
    } else {
        read_limits(r->json, &before, wanted);
        s = refuse_below_use(r, &before, wanted);
        if (s == STATUS_OK)
            s = resource_store_set(r->sc, r->db, user_id, wanted);
    }
    if (s != STATUS_OK)
        return s;
    return audit_store_add(r->sc, r->db, r->user.id, is_reset ? "limits_reset" : "limits_changed", NULL, NULL,
                           change_of(r, user_id, &before, is_reset ? NULL : wanted));
}

static enum status change(struct request *r, bool is_reset)
{
    int64_t user_id = 0;
    enum status s = find_user(r, &user_id);
    if (s == STATUS_OK)
        s = db_begin(r->sc, r->db);
    if (s != STATUS_OK)
        return s;
    s = change_in_transaction(r, user_id, is_reset);
    if (s == STATUS_OK)
        s = db_commit(r->sc, r->db);
    else
        db_rollback(r->db);
    return s == STATUS_OK ? reply_use(r, user_id) : s;
}

enum status limits_set(struct request *r)
{
    return change(r, false);
}

enum status limits_reset(struct request *r)
{
    return change(r, true);
}

/* ---- estimates ---- */

/* Whether the caller's limits leave room for it. */
static enum status write_fit(struct request *r, struct text *t, const struct estimate *e, bool reads_source)
{
    struct resource_use use;
    const int64_t wanted[RESOURCES] = {[RESOURCE_DOCUMENTS] = reads_source ? e->documents : 0,
                                       [RESOURCE_BYTES] = reads_source ? e->bytes : 0,
                                       [RESOURCE_OPERATIONS] = 1};
    enum status s = resource_store_use(r->sc, r->db, r->api->settings, r->user.id, &use);
    if (s != STATUS_OK)
        return s;
    bool fits = true;
    json_open(t, "exceeds", '[');
    for (int i = 0; i < RESOURCES; i++) {
        int64_t limit = use.of[i].limit, used = use.of[i].used;
        if (limit < 0 || wanted[i] == 0 || (used < limit && wanted[i] <= limit - used))
            continue;
        fits = false;
        json_text(t, NULL, resource_name((enum resource)i));
    }
    json_close(t, ']');
    json_bool(t, "fits", fits);
    return STATUS_OK;
}

enum status collections_estimate(struct request *r)
{
    struct collection c;
    struct estimate e;
    const char *type = json_get_text(r->json, "type", "");
    bool is_reindex = strcmp(type, "reindex") == 0, is_sync = strcmp(type, "sync") == 0;
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s != STATUS_OK)
        return s;
    if (is_reindex)
        s = estimate_reindex(r, &c, r->json, &e);
    else if (is_sync)
        s = estimate_sync(r, &c, &e);
    else if (strcmp(type, "append") == 0 || strcmp(type, "index") == 0)
        s = estimate_append(r, &c, &e);
    else
        return request_invalid(r, "body", "type", "value_error", "type must be one of: append, index, reindex, sync");
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "type", type);
    estimate_write(t, &e);
    s = write_fit(r, t, &e, !is_reindex);
    json_close(t, '}');
    return s;
}

/* ---- the system ---- */

static void write_machine(struct text *t)
{
    struct machine m;
    machine_look("/tmp", &m);
    json_open(t, "machine", '{'); /* of this instance */
    write_number(t, "memory_total_bytes", m.memory_total);
    write_number(t, "memory_free_bytes", m.memory_free);
    write_number(t, "disk_total_bytes", m.disk_total);
    write_number(t, "disk_free_bytes", m.disk_free);
    json_close(t, '}');
}

static void write_rows(struct text *t, const char *key, const struct schema *object, const PGresult *rows)
{
    json_open(t, key, '[');
    for (int i = 0; i < PQntuples(rows); i++) {
        json_open(t, NULL, '{');
        view_fields_with(t, object, rows, i, NULL, NULL);
        json_close(t, '}');
    }
    json_close(t, ']');
}

enum status system_resources(struct request *r)
{
    struct resource_space space;
    scoped(PGresult) *workers = NULL;
    scoped(PGresult) *reservations = NULL;
    int64_t limit = r->api->settings->max_database_bytes;
    enum status s = resource_store_space(r->sc, r->db, &space);
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_RESOURCE_WORKERS, &workers);
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_RESERVATIONS_LIVE, &reservations);
    if (s != STATUS_OK)
        return s;
    int64_t taken = space.database_bytes + space.reserved_bytes;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    write_machine(t);
    json_open(t, "database", '{');
    json_int(t, "bytes", space.database_bytes);
    json_int(t, "reserved_bytes", space.reserved_bytes);
    write_number(t, "limit_bytes", limit);
    write_number(t, "left_bytes", limit < 0 ? -1 : limit > taken ? limit - taken : 0);
    json_close(t, '}');
    write_rows(t, "reservations", &schema_RESERVATION, reservations);
    write_rows(t, "workers", &schema_LIVE_WORKER, workers);
    json_close(t, '}');
    return STATUS_OK;
}
