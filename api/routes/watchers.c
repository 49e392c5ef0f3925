/* Who watches an operation now, on all instances.
 *
 * Names of users are told to the operation's creator, its collection's owner and superusers. Readers of a public
 * collection are strangers to each other: they are told how many connections there are, and of themselves. */
#include "api/relay/registry.h"
#include "api/router.h"
#include "build/queries.h"
#include "common/clock.h"

enum { MOST_CONNECTIONS = 1000 };

static enum status check_access(struct request *r, bool *out_sees_all)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(r->sc, r->db, SQL_WATCHERS_ACCESS, &rows, r->params[0], db_number(r->sc, r->user.id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(r->sc, STATUS_NOT_FOUND, "Operation '%s' not found", r->params[0]);
    *out_sees_all = r->user.is_superuser || db_bool(rows, 0, "is_own");
    if (!*out_sees_all && !db_bool(rows, 0, "is_public"))
        return fail(r->sc, STATUS_FORBIDDEN, "You do not have access to this operation");
    return STATUS_OK;
}

static enum status find_names(struct request *r, const struct watcher *list, int count, PGresult **out)
{
    scoped_text ids = {0};
    for (int i = 0; i < count; i++)
        db_array_put(&ids, db_number(r->sc, list[i].user_id));
    return db_run(r->sc, r->db, SQL_WATCHERS_NAMES, out, db_array_end(&ids));
}

/* NULL when the user is gone. */
static const char *name_of(const PGresult *rows, int64_t user_id)
{
    for (int i = 0; i < PQntuples(rows); i++) {
        if (db_int(rows, i, "id", 0) == user_id)
            return db_text(rows, i, "username");
    }
    return NULL;
}

static void write_watcher(struct text *t, const struct watcher *w, const char *username)
{
    char since[32];
    clock_iso_of_ns(w->since * 1000000000, since);
    json_open(t, NULL, '{');
    json_int(t, "user_id", w->user_id);
    json_text(t, "username", username);
    json_int(t, "connections", w->connections);
    json_text(t, "since", since);
    json_close(t, '}');
}

enum status operations_watchers(struct request *r)
{
    bool sees_all = false;
    int count = 0;
    int64_t total = 0;
    scoped(PGresult) *names = NULL;
    struct watcher *list = arena_array(&r->sc->arena, MOST_CONNECTIONS, sizeof *list);
    enum status s = check_access(r, &sees_all);
    if (s == STATUS_OK)
        s = registry_watchers(r->sc, r->events, request_id_param(r, 0), MOST_CONNECTIONS, list, &count, &total);
    if (s == STATUS_OK)
        s = find_names(r, list, count, &names);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_open(t, "watchers", '[');
    for (int i = 0; i < count; i++) {
        const char *name = sees_all || list[i].user_id == r->user.id ? name_of(names, list[i].user_id) : NULL;
        if (name)
            write_watcher(t, &list[i], name);
    }
    json_close(t, ']');
    json_int(t, "total_connections", total);
    json_close(t, '}');
    return STATUS_OK;
}
