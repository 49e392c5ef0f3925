#include "common/text.h"

#include "common/arena.h"

#include <stdio.h>
#include <string.h>

static void reserve(struct text *t, size_t extra)
{
    size_t wanted = t->len + extra + 1;
    if (wanted <= t->capacity)
        return;
    size_t capacity = t->capacity ? t->capacity : 64;
    while (capacity < wanted)
        capacity *= 2;
    t->data = must_realloc(t->data, capacity);
    t->capacity = capacity;
}

void text_append(struct text *t, const void *bytes, size_t len)
{
    if (t->max_len && t->len + len > t->max_len) {
        t->is_cut = true;
        len = t->max_len > t->len ? t->max_len - t->len : 0;
    }
    reserve(t, len);
    if (len)
        memcpy(t->data + t->len, bytes, len);
    t->len += len;
    t->data[t->len] = '\0';
}

void text_puts(struct text *t, const char *s)
{
    text_append(t, s, strlen(s));
}

void text_putc(struct text *t, char c)
{
    text_append(t, &c, 1);
}

static void append_formatted(struct text *t, const char *format, va_list args) printf_like(2, 0);
static void append_formatted(struct text *t, const char *format, va_list args)
{
    char small[256];
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(small, sizeof small, format, args);
    if (len >= 0 && (size_t)len < sizeof small) {
        text_append(t, small, (size_t)len);
    } else if (len >= 0) {
        char *large = must_malloc((size_t)len + 1);
        vsnprintf(large, (size_t)len + 1, format, again);
        text_append(t, large, (size_t)len);
        free(large);
    }
    va_end(again);
}

void text_printf(struct text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    append_formatted(t, format, args);
    va_end(args);
}

void text_clear(struct text *t)
{
    t->len = 0;
    t->is_cut = false;
    if (t->data)
        t->data[0] = '\0';
}

void text_free(struct text *t)
{
    free(t->data);
    memset(t, 0, sizeof *t);
}

char *text_take(struct text *t)
{
    char *taken = t->data ? t->data : must_strdup("");
    memset(t, 0, sizeof *t);
    return taken;
}

const char *text_str(const struct text *t)
{
    return t->data ? t->data : "";
}

void hex_encode(const void *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = bytes;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[b[i] >> 4];
        *out++ = digits[b[i] & 15];
    }
    *out = '\0';
}

size_t utf8_next(const char *s, size_t len, uint32_t *out_code_point)
{
    if (len == 0)
        return 0;
    const unsigned char *b = (const unsigned char *)s;
    if (b[0] < 0x80) {
        *out_code_point = b[0];
        return 1;
    }
    size_t need = b[0] >= 0xF0 ? 4 : b[0] >= 0xE0 ? 3 : 2;
    if (b[0] < 0xC2 || b[0] > 0xF4 || len < need)
        return 0;
    uint32_t cp = b[0] & (0x7Fu >> need);
    for (size_t i = 1; i < need; i++) {
        if ((b[i] & 0xC0) != 0x80)
            return 0;
        cp = cp << 6 | (b[i] & 0x3Fu);
    }
    if ((need == 3 && cp < 0x800) || (need == 4 && cp < 0x10000) || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
        return 0;
    *out_code_point = cp;
    return need;
}

size_t utf8_put(char out[4], uint32_t cp)
{
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
        cp = 0xFFFD;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool utf8_is_valid(const char *s, size_t len)
{
    uint32_t cp;
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (len - i >= sizeof eight) { /* most of what is looked at is ASCII */
            memcpy(&eight, s + i, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        size_t n = utf8_next(s + i, len - i, &cp);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

size_t utf8_floor(const char *s, size_t len, size_t at)
{
    if (at >= len)
        return len;
    while (at > 0 && ((unsigned char)s[at] & 0xC0) == 0x80)
        at--;
    return at;
}

void text_append_repaired(struct text *t, const char *s, size_t len)
{
    uint32_t cp;
    size_t start = 0;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_next(s + i, len - i, &cp);
        if (n && cp != 0) {
            i += n;
            continue;
        }
        text_append(t, s + start, i - start);
        if (n == 0)
            text_append(t, "\xEF\xBF\xBD", 3);
        i += 1;
        start = i;
    }
    text_append(t, s + start, len - start);
}

void text_append_escaped(struct text *t, const char *bytes, size_t len)
{
    uint32_t cp;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_next(bytes + i, len - i, &cp);
        if (n && cp >= 0x20 && cp != 0x7F)
            text_append(t, bytes + i, n);
        else
            text_printf(t, "\\x%02X", (unsigned char)bytes[i]);
        i += n && cp >= 0x20 && cp != 0x7F ? n : 1;
    }
}
