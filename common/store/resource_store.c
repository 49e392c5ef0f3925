#include "common/store/resource_store.h"

#include "build/queries.h"

static const char *const names[RESOURCES] = {"collections", "documents", "bytes", "concurrent_operations"};
static const struct {
    const char *before, *after;
} sentences[RESOURCES] = {
    {"You have", "collections; delete one, or ask an administrator for more"},
    {"Your collections hold", "documents; remove some, or ask an administrator for more"},
    {"Your collections hold", "bytes of documents; remove some, or ask an administrator for more"},
    {"You have", "operations waiting or running; try again when one has ended"},
};

const char *resource_name(enum resource r)
{
    return names[r];
}

static void read_defaults(const struct settings *s, int64_t out[RESOURCES])
{
    out[RESOURCE_COLLECTIONS] = s->max_collections_per_user;
    out[RESOURCE_DOCUMENTS] = s->max_documents_per_user;
    out[RESOURCE_BYTES] = s->max_bytes_per_user;
    out[RESOURCE_OPERATIONS] = s->max_operations_per_user;
}

bool resource_store_limits_all(const struct settings *settings)
{
    return settings->max_documents_per_user >= 0 || settings->max_bytes_per_user >= 0 ||
           settings->max_operations_per_user >= 0;
}

/* Of collections, or of what operations take. */
static enum status look(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                        bool *out_collections, bool *out_operations)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, db, SQL_RESOURCE_OWN, &rows, db_number(sc, user_id));
    if (s != STATUS_OK)
        return s;
    bool has_own = PQntuples(rows) > 0;
    int64_t collections = settings->max_collections_per_user;
    if (has_own)
        collections = db_int(rows, 0, "max_collections", collections);
    *out_collections = collections >= 0;
    *out_operations = resource_store_limits_all(settings) || (has_own && db_bool(rows, 0, "is_limiting"));
    return STATUS_OK;
}

enum status resource_store_is_limited(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                                      bool *out)
{
    bool collections;
    return look(sc, db, settings, user_id, &collections, out);
}

enum status resource_store_use(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                               struct resource_use *out)
{
    static const struct {
        const char *limit, *own, *used;
    } columns[RESOURCES] = {
        {"max_collections", "own_collections", "collections"},
        {"max_documents", "own_documents", "documents"},
        {"max_bytes", "own_bytes", "bytes"},
        {"max_operations", "own_operations", "operations"},
    };
    int64_t defaults[RESOURCES];
    scoped(PGresult) *rows = NULL;
    read_defaults(settings, defaults);
    enum status s = db_run(sc, db, SQL_RESOURCE_USE, &rows, db_number(sc, user_id),
                           db_number(sc, defaults[RESOURCE_COLLECTIONS]), db_number(sc, defaults[RESOURCE_DOCUMENTS]),
                           db_number(sc, defaults[RESOURCE_BYTES]), db_number(sc, defaults[RESOURCE_OPERATIONS]));
    if (s != STATUS_OK)
        return s;
    for (int i = 0; i < RESOURCES; i++) {
        out->of[i].limit = db_int(rows, 0, columns[i].limit, RESOURCE_UNLIMITED);
        out->of[i].used = db_int(rows, 0, columns[i].used, 0);
        out->of[i].is_own = db_bool(rows, 0, columns[i].own);
    }
    out->updated_at = arena_strdup(&sc->arena, db_text(rows, 0, "updated_at"));
    return STATUS_OK;
}

enum status resource_store_lock(struct scope *sc, struct db *db, int64_t user_id)
{
    return db_run(sc, db, SQL_RESOURCE_LOCK, NULL, arena_printf(&sc->arena, "user %lld", (long long)user_id));
}

/* Limits are up to INT64_MAX, and so may be what a client asks for. */
static bool would_pass(int64_t limit, int64_t used, int64_t wanted)
{
    return limit >= 0 && wanted > 0 && (used >= limit || wanted > limit - used);
}

static enum status judge(struct scope *sc, const struct resource_use *use, const struct resource_wish *wish,
                         struct resource_refusal *out)
{
    for (int i = 0; i < RESOURCES; i++) {
        if (!would_pass(use->of[i].limit, use->of[i].used, wish->amount[i]))
            continue;
        *out = (struct resource_refusal){
            .kind = names[i], .limit = use->of[i].limit, .used = use->of[i].used, .requested = wish->amount[i]};
        return fail(sc, STATUS_RATE_LIMITED, "%s %lld of at most %lld %s", sentences[i].before,
                    (long long)use->of[i].used, (long long)use->of[i].limit, sentences[i].after);
    }
    return STATUS_OK;
}

enum status resource_store_admit(struct scope *sc, struct db *db, const struct settings *settings,
                                 const struct resource_wish *wish, struct resource_refusal *out)
{
    bool limits_collections = false, limits_operations = false;
    struct resource_use use;
    enum status s = look(sc, db, settings, wish->user_id, &limits_collections, &limits_operations);
    bool has_to_count = (limits_collections && wish->amount[RESOURCE_COLLECTIONS] > 0) || limits_operations;
    if (s != STATUS_OK || !has_to_count)
        return s;
    s = resource_store_lock(sc, db, wish->user_id);
    if (s == STATUS_OK)
        s = resource_store_use(sc, db, settings, wish->user_id, &use);
    return s == STATUS_OK ? judge(sc, &use, wish, out) : s;
}

static int64_t left(int64_t limit, int64_t used)
{
    return limit < 0 ? INT64_MAX : limit > used ? limit - used : 0;
}

enum status resource_store_room(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                                struct resource_room *out)
{
    bool is_limited = false;
    struct resource_use use;
    *out = (struct resource_room){INT64_MAX, INT64_MAX, RESOURCE_UNLIMITED, RESOURCE_UNLIMITED};
    enum status s = resource_store_is_limited(sc, db, settings, user_id, &is_limited);
    if (s != STATUS_OK || !is_limited)
        return s;
    s = resource_store_lock(sc, db, user_id);
    if (s == STATUS_OK)
        s = resource_store_use(sc, db, settings, user_id, &use);
    if (s != STATUS_OK)
        return s;
    out->document_limit = use.of[RESOURCE_DOCUMENTS].limit;
    out->byte_limit = use.of[RESOURCE_BYTES].limit;
    out->documents = left(out->document_limit, use.of[RESOURCE_DOCUMENTS].used);
    out->bytes = left(out->byte_limit, use.of[RESOURCE_BYTES].used);
    return STATUS_OK;
}

/* ---- space ---- */

enum status resource_store_space(struct scope *sc, struct db *db, struct resource_space *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_RESOURCE_SPACE, &rows);
    if (s == STATUS_OK)
        *out = (struct resource_space){db_int(rows, 0, "database_bytes", 0), db_int(rows, 0, "reserved_bytes", 0)};
    return s;
}

enum status resource_store_reserve(struct scope *sc, struct db *db, const struct settings *settings,
                                   const char *operation_uuid, int64_t bytes, const char *estimate_json,
                                   struct resource_refusal *out)
{
    int64_t limit = settings->max_database_bytes;
    struct resource_space space = {0};
    enum status s = limit < 0 ? STATUS_OK : db_run(sc, db, SQL_RESOURCE_LOCK, NULL, "database space");
    if (s == STATUS_OK && limit >= 0)
        s = resource_store_space(sc, db, &space);
    if (s != STATUS_OK)
        return s;
    if (would_pass(limit, space.database_bytes + space.reserved_bytes, bytes)) {
        *out = (struct resource_refusal){.kind = "database_space",
                                         .limit = limit,
                                         .used = space.database_bytes,
                                         .reserved = space.reserved_bytes,
                                         .requested = bytes};
        return fail(sc, STATUS_NO_SPACE,
                    "the database holds %lld bytes and running operations have reserved %lld; with the %lld bytes that "
                    "this operation needs it would pass MAX_DATABASE_BYTES (%lld)",
                    (long long)space.database_bytes, (long long)space.reserved_bytes, (long long)bytes,
                    (long long)limit);
    }
    return db_run(sc, db, SQL_RESOURCE_RESERVE, NULL, operation_uuid, db_number(sc, bytes), estimate_json);
}

/* ---- what superusers set ---- */

enum status resource_store_set(struct scope *sc, struct db *db, int64_t user_id, const int64_t limits[RESOURCES])
{
    const char *values[RESOURCES];
    for (int i = 0; i < RESOURCES; i++)
        values[i] = limits[i] == RESOURCE_DEFAULT ? NULL : db_number(sc, limits[i]);
    return db_run(sc, db, SQL_RESOURCE_SET, NULL, db_number(sc, user_id), values[RESOURCE_COLLECTIONS],
                  values[RESOURCE_DOCUMENTS], values[RESOURCE_BYTES], values[RESOURCE_OPERATIONS]);
}

enum status resource_store_forget(struct scope *sc, struct db *db, int64_t user_id)
{
    return db_run(sc, db, SQL_RESOURCE_FORGET, NULL, db_number(sc, user_id));
}
