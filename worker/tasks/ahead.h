/* Reading ahead: documents are opened, extracted and cut by threads, each with an extractor process of its own, while
 * earlier ones are embedded and written. They come back in the order in which they were given. Bounded by number and,
 * apart from the one that is waited for, by the bytes of what was read and not taken. */
#pragma once

#include "worker/tasks/reading.h"

enum { AHEAD_MOST = 100 }; /* documents given and not taken */

struct ahead;

struct ahead_document {
    struct scope sc; /* owns the rest */
    struct pending_document from;
    struct ready_document ready;
};
void ahead_document_free(struct ahead_document *d);

/* `readers`: at least 1, at most as many as there are cores. `reading` lives longer; a note of a reader goes there,
 * into the arena of `sc`. */
struct ahead *ahead_new(struct scope *sc, struct reading *reading, int readers);
/* Stops the readers, which takes 100 ms, and drops what was not taken. */
void ahead_free(struct ahead *a);
/* Copies it. There is room as long as ahead_count() is less than AHEAD_MOST. */
void ahead_give(struct ahead *a, const struct pending_document *d);
/* Given and not taken. */
size_t ahead_count(const struct ahead *a);
/* The i-th of them, i < ahead_count(). */
const struct pending_document *ahead_given(const struct ahead *a, size_t i);
/* The oldest, read; the caller frees it. Waits, telling the supervisor that the child is alive for as long as a reader
 * is. What task_check() says, when it is not STATUS_OK. */
enum status ahead_take(struct scope *sc, struct ahead *a, struct ahead_document **out) must_check;
