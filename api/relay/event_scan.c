#include "api/relay/event_scan.h"

#include "common/text.h"

#include <stdint.h>
#include <string.h>

enum { DEEPEST = 16 };

struct reader {
    const char *at, *end;
};

static bool take(struct reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n'))
        r->at++;
}

/* Moves over bytes that are nothing special in a string, eight at a time: no quote, no backslash, no control character.
 * https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord */
static void skip_plain(struct reader *r)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t eight;
    for (; r->end - r->at >= (ptrdiff_t)sizeof eight; r->at += sizeof eight) {
        memcpy(&eight, r->at, sizeof eight);
        uint64_t quotes = eight ^ ones * '"', backslashes = eight ^ ones * '\\';
        uint64_t special = ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes) |
                           ((eight - ones * 0x20) & ~eight);
        if (special & highs)
            return;
    }
}

/* After its first quote; `out` (may be NULL) without quotes. */
static bool read_string(struct reader *r, struct event_field *out, bool *out_has_escapes)
{
    const char *start = r->at;
    *out_has_escapes = false;
    for (skip_plain(r); r->at < r->end; r->at++) {
        unsigned char c = (unsigned char)*r->at;
        if (c == '"') {
            if (out)
                *out = (struct event_field){start, (size_t)(r->at - start)};
            r->at++;
            return true;
        }
        if (c < 0x20)
            return false;
        if (c != '\\')
            continue;
        *out_has_escapes = true;
        r->at++;
        if (r->at == r->end || *r->at == '\0' || !strchr("\"\\/bfnrt", *r->at))
            return false;
    }
    return false;
}

static size_t skip_digits(struct reader *r)
{
    const char *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return (size_t)(r->at - start);
}

static bool read_number(struct reader *r)
{
    (void)take(r, '-');
    const char *start = r->at;
    size_t digits = skip_digits(r);
    if (digits == 0 || digits > 17 || (*start == '0' && digits > 1))
        return false;
    if (take(r, '.') && skip_digits(r) == 0)
        return false;
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (!take(r, '-'))
            (void)take(r, '+');
        return skip_digits(r) > 0;
    }
    return true;
}

static bool read_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

static struct event_field *wanted(struct event_fields *out, const struct event_field *name)
{
    static const char id[] = "id", type[] = "type", operation_id[] = "operation_id";
    if (name->len == sizeof id - 1 && memcmp(name->at, id, name->len) == 0)
        return &out->id;
    if (name->len == sizeof type - 1 && memcmp(name->at, type, name->len) == 0)
        return &out->type;
    if (name->len == sizeof operation_id - 1 && memcmp(name->at, operation_id, name->len) == 0)
        return &out->operation_id;
    return NULL;
}

struct seen {
    bool id, type, operation_id;
};

static bool read_value(struct reader *r, int depth);

/* The name and the colon of a member. */
static bool read_name(struct reader *r, struct event_field *out)
{
    bool has_escapes;
    skip_space(r);
    if (!take(r, '"') || !read_string(r, out, &has_escapes) || has_escapes)
        return false;
    skip_space(r);
    if (!take(r, ':'))
        return false;
    skip_space(r);
    return true;
}

/* After its brace. */
static bool read_object(struct reader *r, int depth)
{
    struct event_field name;
    skip_space(r);
    if (take(r, '}'))
        return true;
    do {
        if (!read_name(r, &name) || !read_value(r, depth))
            return false;
        skip_space(r);
    } while (take(r, ','));
    return take(r, '}');
}

static bool read_list(struct reader *r, int depth)
{
    skip_space(r);
    if (take(r, ']'))
        return true;
    do {
        skip_space(r);
        if (!read_value(r, depth))
            return false;
        skip_space(r);
    } while (take(r, ','));
    return take(r, ']');
}

static bool read_value(struct reader *r, int depth)
{
    bool has_escapes;
    if (r->at == r->end)
        return false;
    switch (*r->at) {
    case '"':
        r->at++;
        return read_string(r, NULL, &has_escapes);
    case '{':
        r->at++;
        return depth < DEEPEST && read_object(r, depth + 1);
    case '[':
        r->at++;
        return depth < DEEPEST && read_list(r, depth + 1);
    case 't':
        return read_word(r, "true");
    case 'f':
        return read_word(r, "false");
    case 'n':
        return read_word(r, "null");
    default:
        return read_number(r);
    }
}

static bool read_member(struct reader *r, struct event_fields *out, struct seen *seen)
{
    struct event_field name;
    bool has_escapes = false;
    if (!read_name(r, &name))
        return false;
    struct event_field *field = wanted(out, &name);
    if (!field)
        return read_value(r, 1);
    bool *was_seen = field == &out->id ? &seen->id : field == &out->type ? &seen->type : &seen->operation_id;
    if (*was_seen)
        return read_value(r, 1); /* the first one counts, as cJSON has it */
    *was_seen = true;
    if (!take(r, '"'))
        return read_value(r, 1);
    return read_string(r, field, &has_escapes) && !has_escapes;
}

bool event_scan(const char *json, size_t len, struct event_fields *out)
{
    struct reader r = {json, json + len};
    struct seen seen = {0};
    *out = (struct event_fields){0};
    if (!utf8_is_valid(json, len) || !take(&r, '{'))
        return false;
    do {
        if (!read_member(&r, out, &seen))
            return false;
        skip_space(&r);
    } while (take(&r, ','));
    if (!take(&r, '}'))
        return false;
    skip_space(&r);
    return r.at == r.end;
}
