#include "common/copy.h"

#include <arpa/inet.h>
#include <string.h>

void copy_raw_u16(struct text *t, uint16_t v)
{
    v = htons(v);
    text_append(t, &v, sizeof v);
}

void copy_raw_u32(struct text *t, uint32_t v)
{
    v = htonl(v);
    text_append(t, &v, sizeof v);
}

void copy_length(struct text *t, size_t bytes)
{
    copy_raw_u32(t, (uint32_t)bytes);
}

void copy_begin(struct text *t)
{
    static const char signature[] = "PGCOPY\n\377\r\n"; /* its NUL belongs to it */
    text_append(t, signature, sizeof signature);
    copy_raw_u32(t, 0); /* flags */
    copy_raw_u32(t, 0); /* bytes of header extension */
}

void copy_end(struct text *t)
{
    copy_raw_u16(t, UINT16_MAX);
}

void copy_row(struct text *t, int fields)
{
    copy_raw_u16(t, (uint16_t)fields);
}

void copy_i32(struct text *t, int32_t v)
{
    copy_length(t, sizeof v);
    copy_raw_u32(t, (uint32_t)v);
}

void copy_i64(struct text *t, int64_t v)
{
    copy_length(t, sizeof v);
    copy_raw_u32(t, (uint32_t)((uint64_t)v >> 32));
    copy_raw_u32(t, (uint32_t)v);
}

void copy_bytes(struct text *t, const void *bytes, size_t len)
{
    copy_length(t, len);
    text_append(t, bytes, len);
}

void copy_bool(struct text *t, bool v)
{
    copy_length(t, 1);
    text_putc(t, v ? 1 : 0);
}

void copy_null(struct text *t)
{
    copy_raw_u32(t, UINT32_MAX);
}

void copy_jsonb(struct text *t, const char *json)
{
    if (!json) {
        copy_null(t);
        return;
    }
    size_t len = strlen(json);
    copy_length(t, len + 1);
    text_putc(t, 1); /* version of the format */
    text_append(t, json, len);
}
