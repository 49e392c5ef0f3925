/* The way to the embedder process: texts in, vectors out, over a Unix socket with back-pressure. Used by task children
 * and by the worker's internal HTTP. Reconnects and sends a batch again when the embedder restarts. Not for two threads
 * at once. */
#pragma once

#include "common/scope.h"

#include <stdint.h>

struct embed_client;

enum embed_mode { EMBED_PASSAGE, EMBED_QUERY }; /* queries go first */

struct embed_text {
    const char *bytes;
    size_t len;
};

struct embed_answer {
    const char *model; /* its canonical name */
    int dim;
    int64_t tokens;
    const float *vectors; /* [count][dim] */
};

struct token_ids {
    const int32_t *ids;
    size_t count;
};

/* Copies the path; connects at the first request. */
struct embed_client *embed_client_new(const char *socket_path);
void embed_client_free(struct embed_client *client);
/* Asked every 100 ms while waiting (at most a thousand times a call); true = give up with STATUS_CANCELLED. */
void embed_client_on_wait(struct embed_client *client, bool (*should_stop)(void *context), void *context);
/* Vectors of `count` texts (1 … WIRE_MAX_TEXTS) in the arena. `model` NULL = the embedder's default. `group` =
 * operation id for fairness, NULL for queries. STATUS_NOT_FOUND: no such model here; STATUS_INVALID: a text was
 * refused, *out_bad (may be NULL) is its index; STATUS_UNAVAILABLE: no answer within timeout_ms; STATUS_NO_SPACE: out
 * of device memory; STATUS_CANCELLED. */
enum status embed_client_run(struct scope *sc, struct embed_client *client, const char *model, enum embed_mode mode,
                             const char *group, const struct embed_text *texts, size_t count, int timeout_ms,
                             struct embed_answer *out, size_t *out_bad) must_check;
/* Token ids with the special ones; cut at the model's limit unless `is_uncut`. */
enum status embed_client_tokenize(struct scope *sc, struct embed_client *client, const char *model, bool is_uncut,
                                  const struct embed_text *texts, size_t count, int timeout_ms,
                                  struct token_ids **out) must_check;
/* JSON: {"models":[…],"default":…,"dim":…,"device":…,"backend":…,"ready":true}. */
enum status embed_client_info(struct scope *sc, struct embed_client *client, int timeout_ms,
                              const char **out_json) must_check;
