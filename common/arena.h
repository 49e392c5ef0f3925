/* Memory that is freed all at once, at the end of a request or task. Running out of memory ends the process: the
 * supervisor (or Kubernetes) starts it anew and nothing that was accepted is lost. */
#pragma once

#include "common/base.h"

#include <stdarg.h>

struct arena_block;

struct arena {
    struct arena_block *newest; /* zeroed struct = empty arena */
    size_t used_bytes;          /* handed out since the last reset */
};

/* Aligned for any type; `arena_alloc` leaves the bytes unset, `arena_zalloc` zeroes them. Never NULL. */
void *arena_alloc(struct arena *a, size_t bytes) __attribute__((malloc, returns_nonnull));
void *arena_zalloc(struct arena *a, size_t bytes) __attribute__((malloc, returns_nonnull));
/* Zeroed array; ends the process if count * bytes overflows. */
void *arena_array(struct arena *a, size_t count, size_t bytes) __attribute__((malloc, returns_nonnull));
/* Copies; NULL in, NULL out. */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t len);
char *arena_printf(struct arena *a, const char *format, ...) printf_like(2, 3);
char *arena_vprintf(struct arena *a, const char *format, va_list args) printf_like(2, 0);
/* Frees everything; the arena is empty and can be used again. */
void arena_reset(struct arena *a);

/* malloc/realloc/strdup that end the process instead of returning NULL. */
void *must_malloc(size_t bytes) __attribute__((malloc, returns_nonnull));
void *must_calloc(size_t count, size_t bytes) __attribute__((malloc, returns_nonnull));
void *must_realloc(void *p, size_t bytes) __attribute__((returns_nonnull));
char *must_strdup(const char *s) __attribute__((malloc, returns_nonnull));
