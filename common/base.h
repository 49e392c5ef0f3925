/* The few macros that everyone needs. */
#pragma once

#include <stddef.h>
#include <stdlib.h>

#define array_len(a) (sizeof(a) / sizeof((a)[0]))

#define must_check __attribute__((warn_unused_result))
#define printf_like(text, first) __attribute__((format(printf, text, first)))

/* A variable declared `scoped(PGresult) *rows` is released by the function that DEFINE_SCOPED named when it
 * goes out of scope. Set it to NULL to give it away. */
#define DEFINE_SCOPED(type, free_one)                                                                                  \
    static inline void free_scoped_##type(type **p)                                                                    \
    {                                                                                                                  \
        if (*p)                                                                                                        \
            free_one(*p);                                                                                              \
    }
#define scoped(type) __attribute__((cleanup(free_scoped_##type))) type

/* Same for plain heap memory and for file descriptors (-1 = none). */
static inline void free_scoped_memory(void *p)
{
    free(*(void **)p);
}
#define scoped_memory __attribute__((cleanup(free_scoped_memory)))

void close_scoped_fd(int *fd);
#define scoped_fd __attribute__((cleanup(close_scoped_fd)))
