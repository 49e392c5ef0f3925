/* What a text would be cut into, for people who choose a strategy: the same plan, tokens and embedder that ingestion
 * uses, so that it is what indexing stores. */
#pragma once

#include "common/config.h"
#include "common/scope.h"

struct chunk_preview;

struct chunk_preview *chunk_preview_new(const struct settings *settings, const char *embedder_socket);
void chunk_preview_free(struct chunk_preview *p);
/* Asked every 100 ms while a preview waits; true = give up with STATUS_CANCELLED. */
void chunk_preview_on_wait(struct chunk_preview *p, bool (*should_stop)(void *context), void *context);
/* The body and the answer of POST /internal/chunk; from any thread.
 *
 * In: {"model", "strategy"?, "chunk_size"?, "chunk_overlap"?, "config"?, "max_chunks"?} and either "text" or "path_hex"
 * (of a file below the source roots) with "name". Out: what api/schemas.def calls CHUNKING_PREVIEW. A text is cut off
 * at PREVIEW_MOST_BYTES, or at PREVIEW_MOST_EMBEDDED_BYTES where the strategy embeds, and that is noted.
 * STATUS_NOT_FOUND: no such model or file; STATUS_INVALID, STATUS_UNPROCESSABLE: the text or its file cannot be read,
 * or the request. */
enum status chunk_preview_run(struct chunk_preview *p, struct scope *sc, const struct text *body,
                              struct text *out) must_check;

enum { PREVIEW_MOST_BYTES = 1 << 20, PREVIEW_MOST_EMBEDDED_BYTES = 64 << 10 };
