/* The way to the embedder process: texts in, vectors out, over a Unix socket with back-pressure. Used by task children and by the
 * worker's internal HTTP. Reconnects and sends a batch again when the embedder restarts. Not for two threads at once. */
#pragma once

#include "common/scope.h"

#include <stdint.h>

struct embed_client;

enum embed_mode { EMBED_PASSAGE, EMBED_QUERY }; /* queries go first */

struct embed_text {
    const char *bytes;
    size_t len;
};

/* Copies the path; connects at the first request. */
struct embed_client *embed_client_new(const char *socket_path);
void embed_client_free(struct embed_client *client);
/* A descriptor that, when readable, means "give up" (the task was told to stop); -1 = none. */
void embed_client_set_cancel_fd(struct embed_client *client, int fd);
/* `model` NULL = the embedder's default. `group` = operation id for fairness ("" for queries). *out_vectors is [count][*out_dim] in the
 * arena. STATUS_NOT_FOUND: no such model here; STATUS_INVALID: a text that the embedder rejects, its index in *out_bad (may be NULL);
 * STATUS_UNAVAILABLE: no answer within timeout_ms; STATUS_CANCELLED. */
enum status embed_client_run(struct scope *sc, struct embed_client *client, const char *model, enum embed_mode mode,
                             const char *group, const struct embed_text *texts, size_t count, int timeout_ms,
                             float **out_vectors, int *out_dim, int64_t *out_tokens, size_t *out_bad) must_check;
