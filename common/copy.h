/* Rows for COPY … FROM STDIN BINARY, put into a growing string: copy_begin, for each row copy_row and its fields,
 * copy_end. Ten times faster than text for vectors. */
#pragma once

#include "common/text.h"

void copy_begin(struct text *t);
void copy_end(struct text *t);
/* A row of `fields` fields, which follow. */
void copy_row(struct text *t, int fields);
void copy_i32(struct text *t, int32_t v);
void copy_i64(struct text *t, int64_t v);
void copy_bytes(struct text *t, const void *bytes, size_t len);
void copy_bool(struct text *t, bool v);
void copy_null(struct text *t);
/* NULL is SQL's null. */
void copy_jsonb(struct text *t, const char *json);

/* For a field that the caller writes itself: its length in bytes, then the numbers in network order. */
void copy_length(struct text *t, size_t bytes);
void copy_raw_u16(struct text *t, uint16_t v);
void copy_raw_u32(struct text *t, uint32_t v);
