#include "common/source/glob.h"

#include "common/text.h"

#include <string.h>

/* A run of bytes: a pattern, a path, or one name of them. */
struct piece {
    const char *at, *end;
};

/* One character: a code point, or a byte where the name is not UTF-8. */
static uint32_t next_character(struct piece *p)
{
    uint32_t c = 0;
    size_t n = utf8_next(p->at, (size_t)(p->end - p->at), &c);
    if (n == 0) {
        c = 0x110000u + (unsigned char)*p->at; /* no code point has this number */
        n = 1;
    }
    p->at += n;
    return c;
}

/* After '['. False when there is no closing bracket: then '[' stands for itself. */
static bool match_set(struct piece *pattern, uint32_t c, bool *out_is_in)
{
    struct piece p = *pattern;
    bool is_in = false, is_negated = p.at < p.end && (*p.at == '!' || *p.at == '^');
    if (is_negated)
        p.at++;
    for (bool is_first = true; p.at < p.end; is_first = false) {
        if (*p.at == ']' && !is_first) {
            pattern->at = p.at + 1;
            *out_is_in = is_in != is_negated;
            return true;
        }
        uint32_t low = next_character(&p), high = low;
        if (p.end - p.at >= 2 && *p.at == '-' && p.at[1] != ']') {
            p.at++;
            high = next_character(&p);
        }
        is_in = is_in || (c >= low && c <= high);
    }
    return false;
}

/* Takes one pattern item other than '*' and one character. */
static bool match_one(struct piece *pattern, struct piece *name)
{
    if (pattern->at == pattern->end || name->at == name->end)
        return false;
    uint32_t c = next_character(name);
    char kind = *pattern->at;
    if (kind == '?') {
        pattern->at++;
        return true;
    }
    if (kind == '[') {
        struct piece set = {pattern->at + 1, pattern->end};
        bool is_in;
        if (match_set(&set, c, &is_in)) {
            pattern->at = set.at;
            return is_in;
        }
    }
    if (kind == '\\' && pattern->end - pattern->at > 1)
        pattern->at++;
    return next_character(pattern) == c;
}

/* Only the last '*' is ever tried again, so this is quadratic at worst. */
static bool match_name(struct piece pattern, struct piece name)
{
    struct piece after_star = {NULL, NULL}, resume = {NULL, NULL};
    while (name.at < name.end || pattern.at < pattern.end) {
        if (pattern.at < pattern.end && *pattern.at == '*') {
            pattern.at++;
            after_star = pattern;
            resume = name;
            continue;
        }
        if (match_one(&pattern, &name))
            continue;
        if (!after_star.at || resume.at == resume.end)
            return false;
        next_character(&resume);
        pattern = after_star;
        name = resume;
    }
    return true;
}

static struct piece first_name(struct piece path)
{
    const char *slash = memchr(path.at, '/', (size_t)(path.end - path.at));
    return (struct piece){path.at, slash ? slash : path.end};
}

static void skip_name(struct piece *path)
{
    path->at = first_name(*path).end;
    while (path->at < path->end && *path->at == '/')
        path->at++;
}

static bool is_any_depth(struct piece name)
{
    return name.end - name.at == 2 && memcmp(name.at, "**", 2) == 0;
}

/* The same scheme, over names instead of characters. */
static bool match_path(struct piece pattern, struct piece path)
{
    struct piece after_star = {NULL, NULL}, resume = {NULL, NULL};
    while (path.at < path.end || pattern.at < pattern.end) {
        if (pattern.at < pattern.end && is_any_depth(first_name(pattern))) {
            skip_name(&pattern);
            after_star = pattern;
            resume = path;
            if (pattern.at == pattern.end)
                return path.at < path.end; /* what lies below a directory, not it itself */
            continue;
        }
        if (pattern.at < pattern.end && path.at < path.end && match_name(first_name(pattern), first_name(path))) {
            skip_name(&pattern);
            skip_name(&path);
            continue;
        }
        if (!after_star.at || resume.at == resume.end)
            return false;
        skip_name(&resume);
        pattern = after_star;
        path = resume;
    }
    return true;
}

bool glob_matches(const char *pattern, const char *path, size_t path_len)
{
    struct piece p = {pattern, pattern + strlen(pattern)}, whole = {path, path + path_len};
    while (p.end - p.at >= 2 && memcmp(p.at, "./", 2) == 0)
        p.at += 2;
    while (p.end > p.at + 1 && p.end[-1] == '/') /* "build/": the directory */
        p.end--;
    if (p.at == p.end)
        return false;
    if (memchr(p.at, '/', (size_t)(p.end - p.at)) || is_any_depth(p)) {
        while (p.at < p.end && *p.at == '/')
            p.at++;
        return match_path(p, whole);
    }
    const char *slash = memrchr(path, '/', path_len);
    return match_name(p, (struct piece){slash ? slash + 1 : path, whole.end});
}
