/* Who did what: the audit log, one's own part of it, or all for superusers. */
#include "api/router.h"
#include "api/views.h"
#include "common/message.h"
#include "common/store/audit_store.h"

#include <string.h>

enum { LONGEST_ACTION = 64 };
static const int64_t MOST_EXACT = 9007199254740991; /* that every client of JSON can hold */

static enum status read_number(struct request *r, const char *name, int64_t *out)
{
    return request_query_int(r, name, 1, MOST_EXACT, 0, out);
}

static bool is_action(const char *s)
{
    size_t len = strlen(s);
    return len > 0 && len <= LONGEST_ACTION && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == len;
}

static enum status read_action(struct request *r, struct audit_filter *out)
{
    const char *action = request_query(r, "action");
    if (!action || !*action)
        return STATUS_OK;
    if (!is_action(action))
        return request_invalid(r, "query", "action", "value_error",
                               "action is a word of small letters and underscores, such as operation_append_completed");
    out->action = action;
    return STATUS_OK;
}

static enum status read_uuid(struct request *r, const char *name, const char **out)
{
    const char *value = request_query(r, name);
    if (!value || !*value)
        return STATUS_OK;
    if (!uuid_is_valid(value))
        return request_invalid(r, "query", name, "uuid_parsing", "%s must be a UUID", name);
    *out = value;
    return STATUS_OK;
}

/* "2026-11-25", "2026-11-25T13:00:00Z", with a fraction and an offset if need be: by its characters; whether there is
 * such a day the database knows. */
static bool looks_like_time(const char *s)
{
    static const char shape[] = "dddd-dd-dd";
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        bool is_digit = s[i] >= '0' && s[i] <= '9';
        if (!s[i] || (shape[i] == 'd' ? !is_digit : s[i] != '-'))
            return false;
    }
    size_t len = strlen(s);
    return len <= 40 && (len == 10 || strchr("T ", s[10])) && s[10 + strspn(s + 10, "0123456789T:.+-Z ")] == '\0';
}

static enum status read_time(struct request *r, const char *name, const char **out)
{
    const char *value = request_query(r, name);
    if (!value || !*value)
        return STATUS_OK;
    if (!looks_like_time(value))
        return request_invalid(r, "query", name, "datetime_parsing",
                               "%s must be a time in ISO 8601, such as 2026-01-31T12:00:00Z", name);
    /* A `+` of an offset that was not encoded arrives as a blank. */
    char *copy = arena_strdup(&r->sc->arena, value);
    char *blank = strlen(copy) > 11 ? strchr(copy + 11, ' ') : NULL;
    if (blank)
        *blank = '+';
    *out = copy;
    return STATUS_OK;
}

static enum status read_filter(struct request *r, struct audit_filter *out)
{
    enum status s = read_number(r, "user_id", &out->user_id);
    if (s == STATUS_OK)
        s = read_number(r, "before", &out->before_id);
    if (s == STATUS_OK)
        s = read_action(r, out);
    if (s == STATUS_OK)
        s = read_uuid(r, "collection_id", &out->collection_uuid);
    if (s == STATUS_OK)
        s = read_uuid(r, "operation_id", &out->operation_uuid);
    if (s == STATUS_OK)
        s = read_time(r, "from", &out->from);
    if (s == STATUS_OK)
        s = read_time(r, "to", &out->to);
    return s;
}

static enum status restrict_to_own(struct request *r, struct audit_filter *filter)
{
    if (r->user.is_superuser)
        return STATUS_OK;
    if (filter->user_id && filter->user_id != r->user.id)
        return fail(r->sc, STATUS_FORBIDDEN, "Only a superuser may read what others did");
    filter->user_id = r->user.id;
    return STATUS_OK;
}

static void reply_page(struct request *r, const PGresult *rows, int page, int per_page)
{
    int64_t total = view_total(rows), last = 0;
    int count = 0;
    for (int i = 0; i < PQntuples(rows); i++) {
        last = db_int(rows, i, "id", last);
        count += db_text(rows, i, "id") != NULL;
    }
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    view_write_list(t, "entries", &schema_AUDIT_ENTRY, rows);
    json_int(t, "total", total > AUDIT_COUNTED ? AUDIT_COUNTED : total);
    json_bool(t, "total_is_exact", total <= AUDIT_COUNTED);
    json_int(t, "page", page);
    json_int(t, "per_page", per_page);
    if (count == per_page)
        json_int(t, "next_before", last);
    else
        json_null(t, "next_before");
    json_close(t, '}');
}

enum status audit_list(struct request *r)
{
    int page, per_page;
    struct audit_filter filter = {0};
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = read_filter(r, &filter);
    if (s == STATUS_OK)
        s = restrict_to_own(r, &filter);
    if (s == STATUS_OK)
        s = audit_store_list(r->sc, r->db, &filter, per_page, (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_INVALID) { /* all else was looked at: a time that no calendar has */
        scope_forgive(r->sc);
        return request_invalid(
            r, "query", filter.from ? "from" : "to", "datetime_parsing",
            "there is no such time: from and to are times in ISO 8601, such as 2026-01-31T12:00:00Z");
    }
    if (s == STATUS_OK)
        reply_page(r, rows, page, per_page);
    return s;
}
