#include "api/router.h"

#include "api/schema.h"
#include "common/message.h"

#include <ctype.h>
#include <string.h>

/* NONE in a line of the list becomes NULL: `a NO_SCHEMA_NONE` has a comma, and so shifts what stands second. */
#define NO_SCHEMA_NONE , NULL
#define SECOND(a, b, ...) b
#define NULL_IF_NONE(...) SECOND(__VA_ARGS__)

static const struct route routes[] = {
#define ROUTE(method, path, handler, access, request_schema, reply_schema, limit, summary)                             \
    {#method,                                                                                                          \
     path,                                                                                                             \
     handler,                                                                                                          \
     ACCESS_##access,                                                                                                  \
     NULL_IF_NONE(none NO_SCHEMA_##request_schema, &schema_##request_schema, 0),                                       \
     NULL_IF_NONE(none NO_SCHEMA_##reply_schema, #reply_schema, 0),                                                    \
     limit,                                                                                                            \
     summary},
#include "api/routes.def"
#undef ROUTE
};

const struct route *router_all(size_t *out_count)
{
    *out_count = array_len(routes);
    return routes;
}

/* What stands in a path, when it is looked up by an id, must look like one. */
enum id_kind { ID_UUID, ID_NUMBER };

static const struct {
    const char *segment; /* the one before the parameter */
    const char *type;    /* in the sentence */
    enum id_kind kind;
} ids[] = {
    {"collections", "Collection", ID_UUID},     {"operations", "Operation", ID_UUID},
    {"documents", "Document", ID_UUID},         {"sources", "Source", ID_NUMBER},
    {"projections", "Projection", ID_UUID},     {"benchmarks", "Benchmark", ID_UUID},
    {"benchmark-datasets", "Dataset", ID_UUID},
};

/* The next segment of a path: moves *p behind it, returns its start. Slashes between segments count once each, so that
 * "//" is an empty segment. */
static const char *next_segment(const char **p, size_t *out_len)
{
    if (**p != '/')
        return NULL;
    const char *start = *p + 1;
    *out_len = strcspn(start, "/");
    *p = start + *out_len;
    return start;
}

struct segment {
    const char *start;
    size_t len;
};

enum { MAX_SEGMENTS = 16 };

/* Number of segments without an empty last one (a trailing slash); -1 when there are too many or it does not begin with
 * a slash. */
static int split(const char *path, struct segment out[MAX_SEGMENTS])
{
    int count = 0;
    if (*path != '/')
        return -1;
    for (const char *p = path; *p == '/';) {
        if (count == MAX_SEGMENTS)
            return -1;
        out[count].start = next_segment(&p, &out[count].len);
        count++;
    }
    if (count > 0 && out[count - 1].len == 0)
        count--;
    return count;
}

static bool is_rest(const struct segment *s)
{
    return s->len == 6 && memcmp(s->start, "{path}", 6) == 0;
}

/* Number of parameters, -1 when it does not fit. */
static int fit(const char *pattern, const struct segment *path, int count, struct segment params[ROUTE_MAX_PARAMS],
               struct segment before[ROUTE_MAX_PARAMS])
{
    struct segment wanted[MAX_SEGMENTS] = {{0}};
    int found = 0;
    int wanted_count = split(pattern, wanted);
    bool takes_rest = wanted_count > 0 && is_rest(&wanted[wanted_count - 1]);
    if (takes_rest ? count < wanted_count : count != wanted_count)
        return -1;
    for (int i = 0; i < wanted_count; i++) {
        bool is_param = wanted[i].len > 2 && wanted[i].start[0] == '{';
        if (!is_param) {
            if (wanted[i].len != path[i].len || memcmp(wanted[i].start, path[i].start, path[i].len) != 0)
                return -1;
            continue;
        }
        if (found == ROUTE_MAX_PARAMS || path[i].len == 0)
            return -1;
        before[found] = i > 0 ? wanted[i - 1] : (struct segment){"", 0};
        params[found++] = path[i];
    }
    if (takes_rest)
        params[found - 1].len = (size_t)(path[count - 1].start + path[count - 1].len - params[found - 1].start);
    return found;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

const char *url_decode(struct scope *sc, const char *s, size_t len, bool plus_is_space)
{
    char *out = arena_alloc(&sc->arena, len + 1), *p = out;
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '%') {
            int high = i + 2 < len ? hex_value(s[i + 1]) : -1;
            int low = i + 2 < len ? hex_value(s[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return NULL;
            *p++ = (char)(high * 16 + low);
            i += 2;
        } else {
            *p++ = s[i] == '+' && plus_is_space ? ' ' : s[i];
        }
    }
    *p = '\0';
    return utf8_is_valid(out, (size_t)(p - out)) ? out : NULL;
}

static bool is_number(const char *s)
{
    size_t digits = strspn(s, "0123456789");
    return digits > 0 && digits <= 18 && s[digits] == '\0';
}

static enum status check_id(struct scope *sc, const struct segment *before, const char *value)
{
    for (size_t i = 0; before->len && i < array_len(ids); i++) {
        if (strlen(ids[i].segment) != before->len || memcmp(ids[i].segment, before->start, before->len) != 0)
            continue;
        bool fits = ids[i].kind == ID_UUID ? uuid_is_valid(value) : is_number(value);
        if (!fits)
            return fail(sc, STATUS_NOT_FOUND, "%s with ID '%s' not found", ids[i].type, value);
    }
    return STATUS_OK;
}

/* The page says in words that something is not there. */
static bool is_page(const struct route *route)
{
    return route->handler == web_page;
}

static enum status take_params(struct scope *sc, const struct segment *params, const struct segment *before, int count,
                               struct route_match *out)
{
    for (int i = 0; i < count; i++) {
        out->params[i] = url_decode(sc, params[i].start, params[i].len, false);
        if (!out->params[i])
            return fail(sc, STATUS_NOT_FOUND, "Not Found");
        enum status s = is_page(out->route) ? STATUS_OK : check_id(sc, &before[i], out->params[i]);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static const char *with_method(struct scope *sc, const char *allow, const char *method)
{
    if (!allow)
        return method;
    for (const char *p = allow; (p = strstr(p, method)); p++) {
        char end = p[strlen(method)];
        if (end == '\0' || end == ',')
            return allow;
    }
    return arena_printf(&sc->arena, "%s, %s", allow, method);
}

enum status router_find(struct scope *sc, const char *method, const char *path, struct route_match *out)
{
    struct segment segments[MAX_SEGMENTS] = {{0}};
    struct segment params[ROUTE_MAX_PARAMS] = {{0}}, before[ROUTE_MAX_PARAMS] = {{0}};
    struct segment best_params[ROUTE_MAX_PARAMS] = {{0}}, best_before[ROUTE_MAX_PARAMS] = {{0}};
    int best = ROUTE_MAX_PARAMS + 1;
    memset(out, 0, sizeof *out);
    int count = split(path, segments);
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    for (size_t i = 0; count >= 0 && i < array_len(routes); i++) {
        int found = fit(routes[i].path, segments, count, params, before);
        if (found < 0)
            continue;
        out->allow = with_method(sc, out->allow, routes[i].method);
        if (strcmp(routes[i].method, "GET") == 0)
            out->allow = with_method(sc, out->allow, "HEAD");
        if (strcmp(routes[i].method, wanted) != 0 || found >= best)
            continue; /* of two that fit the one with fewer parameters is meant */
        best = found;
        out->route = &routes[i];
        memcpy(best_params, params, sizeof params);
        memcpy(best_before, before, sizeof before);
    }
    if (!out->allow)
        return fail(sc, STATUS_NOT_FOUND, "Not Found");
    if (!out->route)
        return fail(sc, STATUS_METHOD, "Method Not Allowed");
    return take_params(sc, best_params, best_before, best, out);
}
