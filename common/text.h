/* Strings that grow, and UTF-8. */
#pragma once

#include "common/base.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

/* Zeroed struct = empty text without a bound. `data` is NUL-terminated whenever it is not NULL. */
struct text {
    char *data;
    size_t len;
    size_t capacity;
    size_t max_len; /* 0 = none; what would grow past it is dropped and `is_cut` set */
    bool is_cut;
};

void text_append(struct text *t, const void *bytes, size_t len);
void text_puts(struct text *t, const char *s);
void text_putc(struct text *t, char c);
void text_printf(struct text *t, const char *format, ...) printf_like(2, 3);
/* Keeps the memory. */
void text_clear(struct text *t);
void text_free(struct text *t);
/* Gives the string away ("" if empty; caller frees) and empties the text. */
char *text_take(struct text *t);
/* `data`, or "" when nothing was ever appended. */
const char *text_str(const struct text *t);

#define scoped_text __attribute__((cleanup(text_free))) struct text

/* Lower-case hexadecimal with a NUL: out has room for 2 * len + 1. */
void hex_encode(const void *bytes, size_t len, char *out);

/* Reads one code point at s[0..len). Returns its length in bytes (1–4), 0 when `len` is 0 or the bytes there are not
 * valid UTF-8 (overlong, surrogate, above U+10FFFF, cut). */
size_t utf8_next(const char *s, size_t len, uint32_t *out_code_point);
/* Writes 1–4 bytes to `out`, returns how many; U+FFFD for what is no scalar value. */
size_t utf8_put(char out[4], uint32_t code_point);
bool utf8_is_valid(const char *s, size_t len);
/* The largest n <= at that does not lie inside a code point of valid UTF-8 s[0..len). */
size_t utf8_floor(const char *s, size_t len, size_t at);
/* Appends bytes with every invalid sequence replaced by U+FFFD and NUL dropped. */
void text_append_repaired(struct text *t, const char *s, size_t len);
/* Appends a path or other byte string as shown to people: valid UTF-8 stays, other bytes become \xNN. */
void text_append_escaped(struct text *t, const char *bytes, size_t len);
