#include "worker/extract/format.h"

#include <string.h>
#include <utf8proc.h>

enum { MOST_TITLE_BYTES = 500, MOST_NEWLINES = 3 };

/* What one code point becomes: itself, '\n', '\f' for a page break, or 0 for nothing. */
static uint32_t cleaned(uint32_t cp)
{
    switch (cp) {
    case '\n':
    case '\t':
    case '\f':
        return cp;
    case '\v':
    case 0x85:   /* next line */
    case 0x2028: /* line separator */
        return '\n';
    case 0x2029: /* paragraph separator */
        return '\f';
    case 0xAD: /* a place where a word may be hyphenated: in its midst it keeps the word from being found */
    case 0xFEFF:
        return 0;
    default:
        return cp < 0x20 || (cp >= 0x7F && cp < 0xA0) ? 0 : cp;
    }
}

struct cleaner {
    char *to;
    size_t len, newlines; /* in a row at the end */
};

static void put(struct cleaner *c, uint32_t cp)
{
    if (cp == '\f') { /* a page's end is a paragraph's */
        while (c->newlines < 2 && c->len > 0) {
            c->to[c->len++] = '\n';
            c->newlines++;
        }
        return;
    }
    if (cp == '\n' && ++c->newlines > MOST_NEWLINES)
        return;
    if (cp != '\n' && cp != ' ' && cp != '\t')
        c->newlines = 0;
    char bytes[4];
    size_t n = utf8_put(bytes, cp);
    memcpy(c->to + c->len, bytes, n);
    c->len += n;
}

void clean_text(struct text *t)
{
    if (t->len == 0)
        return;
    if (!utf8_is_valid(t->data, t->len)) {
        struct text repaired = {.max_len = t->max_len, .is_cut = t->is_cut};
        text_append_repaired(&repaired, t->data, t->len);
        text_free(t);
        *t = repaired;
    }
    struct text out = {.max_len = t->max_len, .is_cut = t->is_cut};
    struct cleaner c = {.to = must_malloc(t->len * 2 + 1)}; /* a page break of one byte becomes two */
    uint32_t cp = 0;
    for (size_t at = 0, n; at < t->len; at += n) {
        n = utf8_next(t->data + at, t->len - at, &cp);
        if (n == 0) /* cut by the bound in the midst of a code point */
            break;
        if (cp == '\r') {
            if (at + 1 < t->len && t->data[at + 1] == '\n')
                continue;
            cp = '\n';
        }
        cp = cleaned(cp);
        if (cp)
            put(&c, cp);
    }
    while (c.len > 0 && (c.to[c.len - 1] == '\n' || c.to[c.len - 1] == ' ' || c.to[c.len - 1] == '\t'))
        c.len--;
    c.to[c.len] = '\0';
    out.data = c.to;
    out.len = c.len;
    out.capacity = t->len * 2 + 1;
    text_free(t);
    *t = out;
}

void clean_title(struct text *t)
{
    clean_text(t);
    struct text out = {0};
    bool has_gap = false;
    for (size_t i = 0; i < t->len; i++) {
        bool is_blank = t->data[i] == ' ' || t->data[i] == '\n' || t->data[i] == '\t';
        if (is_blank) {
            has_gap = out.len > 0;
            continue;
        }
        if (has_gap)
            text_putc(&out, ' ');
        has_gap = false;
        text_putc(&out, t->data[i]);
    }
    if (out.len > MOST_TITLE_BYTES) {
        out.len = utf8_floor(out.data, out.len, MOST_TITLE_BYTES);
        out.data[out.len] = '\0';
    }
    text_free(t);
    *t = out;
}

static bool has_content(const struct text *t)
{
    uint32_t cp = 0;
    for (size_t at = 0, n; at < t->len; at += n) {
        n = utf8_next(t->data + at, t->len - at, &cp);
        if (n == 0)
            n = 1;
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)cp);
        if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO)
            return true;
    }
    return false;
}

enum status check_text(struct scope *sc, const struct text *t, uint64_t max_text_bytes)
{
    if (t->is_cut || t->len > max_text_bytes)
        return fail(sc, STATUS_TOO_LARGE, "its text has more than MAX_TEXT_BYTES (%llu)",
                    (unsigned long long)max_text_bytes);
    if (!has_content(t))
        return fail(sc, STATUS_UNPROCESSABLE, "there is no text in it");
    return STATUS_OK;
}
