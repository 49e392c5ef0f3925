#include "common/json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NESTING = 64 };

static void put_quoted(struct text *t, const char *s, size_t len)
{
    text_putc(t, '"');
    size_t start = 0;
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\') {
            i++;
            continue;
        }
        uint32_t cp;
        size_t n = c >= 0x80 ? utf8_next(s + i, len - i, &cp) : 0;
        if (n) {
            i += n;
            continue;
        }
        text_append(t, s + start, i - start);
        if (c == '"' || c == '\\')
            text_printf(t, "\\%c", c);
        else if (c == '\n')
            text_puts(t, "\\n");
        else if (c == '\t')
            text_puts(t, "\\t");
        else if (c == '\r')
            text_puts(t, "\\r");
        else if (c < 0x20 || c == 0x7F)
            text_printf(t, "\\u%04x", c);
        else
            text_puts(t, "\xEF\xBF\xBD");
        start = ++i;
    }
    text_append(t, s + start, len - start);
    text_putc(t, '"');
}

/* A comma is due unless a bracket has just been opened: no state has to be kept beside the text itself. Strings end in
 * a quote, so an opening bracket at the end never is the content of one. */
static void put_key(struct text *t, const char *key)
{
    if (t->len) {
        char last = t->data[t->len - 1];
        if (last != '{' && last != '[' && last != ':')
            text_putc(t, ',');
    }
    if (key) {
        put_quoted(t, key, strlen(key));
        text_putc(t, ':');
    }
}

void json_open(struct text *t, const char *key, char bracket)
{
    put_key(t, key);
    text_putc(t, bracket);
}

void json_close(struct text *t, char bracket)
{
    text_putc(t, bracket);
}

void json_text_n(struct text *t, const char *key, const char *value, size_t len)
{
    if (!value) {
        json_null(t, key);
        return;
    }
    put_key(t, key);
    put_quoted(t, value, len);
}

void json_text(struct text *t, const char *key, const char *value)
{
    json_text_n(t, key, value, value ? strlen(value) : 0);
}

void json_int(struct text *t, const char *key, int64_t value)
{
    put_key(t, key);
    text_printf(t, "%lld", (long long)value);
}

void json_real(struct text *t, const char *key, double value)
{
    if (!isfinite(value)) {
        json_null(t, key);
        return;
    }
    put_key(t, key);
    char digits[32];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_puts(t, digits);
}

void json_bool(struct text *t, const char *key, bool value)
{
    put_key(t, key);
    text_puts(t, value ? "true" : "false");
}

void json_null(struct text *t, const char *key)
{
    put_key(t, key);
    text_puts(t, "null");
}

void json_raw(struct text *t, const char *key, const char *json)
{
    put_key(t, key);
    text_puts(t, json && *json ? json : "null");
}

/* Of the escape whose backslash stands at `s`; cJSON takes four letters that are no number for a NUL, which would end
 * the string. */
static const char *find_escape_fault(const char *s, size_t len)
{
    if (len < 2 || s[1] == '\0')
        return "ends or holds a NUL character inside an escape";
    if (s[1] != 'u')
        return NULL; /* the others cJSON knows */
    for (size_t i = 2; i < 6; i++) {
        if (i >= len || !isxdigit((unsigned char)s[i]))
            return "holds an escape that is none";
    }
    return memcmp(s + 2, "0000", 4) == 0 ? "holds a NUL character" : NULL;
}

/* What cJSON lets pass but a strict reader must not: deep nesting, NUL (raw or escaped), raw control characters in
 * strings, and escapes that are none; escaped surrogates that stand alone it refuses by itself. */
static const char *find_fault(const char *s, size_t len, size_t most_values)
{
    size_t values = 1;
    bool in_string = false;
    int depth = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == 0)
            return "holds a NUL character";
        if (in_string) {
            if (c < 0x20)
                return "holds a control character inside a string";
            if (c == '"')
                in_string = false;
            if (c != '\\')
                continue;
            const char *fault = find_escape_fault(s + i, len - i);
            if (fault)
                return fault;
            i++; /* whatever is escaped, a quote or a backslash among others */
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_NESTING)
                return "is nested too deeply";
            values++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',') {
            values++;
        }
        if (values > most_values)
            return "holds too many values";
    }
    return NULL;
}

enum status json_parse(struct scope *sc, const char *bytes, size_t len, cJSON **out)
{
    return json_parse_bounded(sc, bytes, len, SIZE_MAX, out);
}

enum status json_parse_bounded(struct scope *sc, const char *bytes, size_t len, size_t most_values, cJSON **out)
{
    if (!utf8_is_valid(bytes, len))
        return fail(sc, STATUS_UNPROCESSABLE, "the JSON text is not valid UTF-8");
    const char *fault = find_fault(bytes, len, most_values);
    if (fault)
        return fail(sc, STATUS_UNPROCESSABLE, "the JSON text %s", fault);
    const char *end = NULL;
    scoped(cJSON) *root = len ? cJSON_ParseWithLengthOpts(bytes, len, &end, false) : NULL;
    if (!root)
        return fail(sc, STATUS_UNPROCESSABLE, "this is not valid JSON (near byte %zu)",
                    end && end >= bytes ? (size_t)(end - bytes) : 0);
    for (const char *p = end; p < bytes + len; p++) {
        if (!strchr(" \t\r\n", *p))
            return fail(sc, STATUS_UNPROCESSABLE, "something follows the JSON value (at byte %zu)",
                        (size_t)(p - bytes));
    }
    *out = root;
    root = NULL;
    return STATUS_OK;
}

const char *json_get_text(const cJSON *object, const char *key, const char *fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) && item->valuestring ? item->valuestring : fallback;
}

int64_t json_get_int(const cJSON *object, const char *key, int64_t fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) ||
        fabs(item->valuedouble) > 9007199254740992.0)
        return fallback;
    return (int64_t)item->valuedouble;
}

double json_get_real(const cJSON *object, const char *key, double fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

bool json_get_bool(const cJSON *object, const char *key, bool fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : fallback;
}
