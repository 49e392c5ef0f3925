/* Chunks on their way out: embedded, and written as rows with their vectors into a generation, in the caller's
 * transaction and under a version that nobody sees yet. */
#pragma once

#include "worker/tasks/reading.h"

struct embed_client;
struct embed_answer;

struct writing {
    struct task *task;
    struct embed_client *embedder;
    const char *model;        /* canonical name */
    const char *quantization; /* float32, float16, int8 */
    bool has_generation;
    struct generation generation; /* that is written to, when it exists */
    int64_t tokens_embedded, chunks_embedded;
};

void writing_open(struct writing *w, struct task *task, const char *model, const char *quantization);
void writing_close(struct writing *w);
/* Vectors of d->chunks[from .. from + count) in the scope's arena. A text that the embedder refuses makes its document
 * fail (d->problem) and none else. */
enum status writing_embed(struct scope *sc, struct writing *w, struct ready_document *d, size_t from, size_t count,
                          struct embed_answer *out) must_check;
/* Rows of those chunks and their vectors [count][dim], as `version` of the document. */
enum status writing_rows(struct scope *sc, struct writing *w, const struct ready_document *d, int version, size_t from,
                         size_t count, const float *vectors, int dim) must_check;
/* The rows of the chunks alone, for those who bring their vectors by other ways; their ids in out_ids[count]. */
enum status writing_chunk_rows(struct scope *sc, struct writing *w, const struct ready_document *d, int version,
                               size_t from, size_t count, int64_t *out_ids) must_check;
