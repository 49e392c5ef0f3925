#include "api/request.h"
#include "api/router.h"
#include "api/server.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *request_id_param(struct request *r, int n)
{
    char *lower = arena_strdup(&r->sc->arena, r->params[n]);
    for (char *p = lower; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return lower;
}

const char *request_query(struct request *r, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *p = r->query; p && *p;) {
        size_t len = strcspn(p, "&");
        size_t key_len = strcspn(p, "&=");
        const char *key = url_decode(r->sc, p, key_len, true);
        if (key && strlen(key) == name_len && memcmp(key, name, name_len) == 0) {
            bool has_value = key_len < len;
            return url_decode(r->sc, has_value ? p + key_len + 1 : "", has_value ? len - key_len - 1 : 0, true);
        }
        p += len + (p[len] == '&');
    }
    return NULL;
}

const char *request_header(struct request *r, const char *name)
{
    return r->connection ? server_header(r->connection, name) : NULL;
}

bool header_accepts(const char *header, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = header; p && (p = strcasestr(p, word)); p += len) {
        const char *rest = p + len + strspn(p + len, " \t");
        bool is_whole = (p == header || strchr(", \t", p[-1])) && (*rest == '\0' || *rest == ',' || *rest == ';');
        const char *q = is_whole && *rest == ';' ? strstr(rest, "q=") : NULL;
        bool is_refused = q && q < rest + strcspn(rest, ",") && strtod(q + 2, NULL) <= 0;
        if (is_whole)
            return !is_refused;
    }
    return false;
}

enum status request_invalid(struct request *r, const char *where, const char *field, const char *type,
                            const char *format, ...)
{
    struct text *t = &r->reply.invalid;
    va_list args;
    va_start(args, format);
    const char *message = arena_vprintf(&r->sc->arena, format, args);
    va_end(args);
    const char *in_query = field && strcmp(where, "query") == 0 ? request_query(r, field) : NULL;
    const cJSON *in_body = field && r->json && strcmp(where, "body") == 0
                               ? cJSON_GetObjectItemCaseSensitive(r->json, field)
                               : NULL;
    json_open(t, NULL, '{');
    json_text(t, "type", type);
    json_open(t, "loc", '[');
    json_text(t, NULL, where);
    if (field)
        json_text(t, NULL, field);
    json_close(t, ']');
    json_text(t, "msg", message);
    if (in_body && cJSON_IsNumber(in_body))
        json_real(t, "input", in_body->valuedouble);
    else
        json_text(t, "input", in_body && cJSON_IsString(in_body) ? in_body->valuestring : in_query);
    json_close(t, '}');
    return fail(r->sc, STATUS_UNPROCESSABLE, "%s", message);
}

enum status request_query_int(struct request *r, const char *name, int64_t least, int64_t most, int64_t fallback,
                              int64_t *out)
{
    const char *value = request_query(r, name);
    if (!value) {
        *out = fallback;
        return STATUS_OK;
    }
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (end == value || *end || strchr(" \t\n\v\f\r", *value))
        return request_invalid(r, "query", name, "int_parsing",
                               "Input should be a valid integer, unable to parse string as an integer");
    if (n < least || (errno == ERANGE && n < 0))
        return request_invalid(r, "query", name, "greater_than_equal", "Input should be greater than or equal to %lld",
                               (long long)least);
    if (n > most || errno == ERANGE)
        return request_invalid(r, "query", name, "less_than_equal", "Input should be less than or equal to %lld",
                               (long long)most);
    *out = n;
    return STATUS_OK;
}

enum status request_page(struct request *r, int *out_page, int *out_per_page)
{
    int64_t page = 1, per_page = 50;
    enum status of_page = request_query_int(r, "page", 1, 10000000, 1, &page);
    enum status of_size = request_query_int(r, "per_page", 1, 100, 50, &per_page);
    if (of_page != STATUS_OK)
        return of_page;
    if (of_size != STATUS_OK)
        return of_size;
    *out_page = (int)page;
    *out_per_page = (int)per_page;
    return STATUS_OK;
}

enum status request_slice(struct request *r, int64_t *out_offset, int64_t *out_limit)
{
    enum status s = request_query_int(r, "offset", 0, INT32_MAX, 0, out_offset);
    return s == STATUS_OK ? request_query_int(r, "limit", 1, 100, 50, out_limit) : s;
}

bool request_query_bool(struct request *r, const char *name, bool fallback)
{
    static const char *const words[2][5] = {{"false", "0", "no", "off", "f"}, {"true", "1", "yes", "on", "t"}};
    const char *value = request_query(r, name);
    for (int truth = 0; value && truth < 2; truth++) {
        for (size_t i = 0; i < array_len(words[truth]); i++) {
            if (strcasecmp(value, words[truth][i]) == 0)
                return truth;
        }
    }
    return fallback;
}
