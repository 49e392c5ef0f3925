#include "common/estimate.h"

#include "common/json.h"

#include <math.h>
#include <string.h>

/* Guesses for a system that has done nothing yet: English prose, a small model, a few cores. */
#define GUESSED_TOKENS_PER_BYTE 0.25
#define GUESSED_TOKENS_PER_SECOND 3000.0
#define SECONDS_A_DOCUMENT 0.002 /* open, hash, register, commit */
#define BYTES_A_TOKEN 4.0

enum {
    VECTOR_ROW_BYTES = 24 + 4 + 16 + 8 + 4 + 8 + 20, /* header, line pointer, ids, version, varlena, entry of the key */
    GRAPH_NODE_BYTES = 24 + 2 * 16 * 6 + 40, /* of an HNSW graph with m = 16: element, neighbours of the lowest level */
    CHUNK_ROW_BYTES = 24 + 4 + 60 + 48,      /* with entries of two indexes */
};
#define MOST 9e18

static int64_t whole(double n)
{
    return n < 0 || isnan(n) ? 0 : n > MOST ? (int64_t)MOST : (int64_t)llround(n);
}

static double number_bytes(const char *quantization)
{
    return quantization && strcmp(quantization, "float32") == 0 ? 4 : 2;
}

/* Of a BERT-like encoder with this width: its weights in half precision, and what a batch needs beside them. Known
 * sizes: 384 -> 22 to 33 million parameters, 768 -> 110, 1024 -> 335. */
static double model_bytes(double dim, double batch_tokens)
{
    double layers = dim <= 384 ? 12 : dim <= 768 ? 12 : 24;
    double parameters = layers * 12 * dim * dim + 30522 * dim;
    return 2 * parameters + batch_tokens * dim * 2 * 16;
}

void estimate_make(const struct estimate_input *in, struct estimate *out)
{
    double tokens_per_byte = in->tokens_per_byte > 0 ? in->tokens_per_byte : GUESSED_TOKENS_PER_BYTE;
    double rate = in->tokens_per_second > 0 ? in->tokens_per_second : GUESSED_TOKENS_PER_SECOND;
    double size = in->chunk_size > 0 ? (double)in->chunk_size : 1;
    double overlap = in->chunk_overlap > 0 ? (double)in->chunk_overlap : 0;
    double step = size - (overlap > size / 2 ? floor(size / 2) : overlap);
    double read_tokens = (double)in->bytes * tokens_per_byte;
    double chunks = in->chunks >= 0 ? (double)in->chunks : fmax(read_tokens / step, (double)in->documents);
    double tokens_per_chunk = in->tokens_per_chunk > 0 ? fmin(in->tokens_per_chunk, size) : size;
    double tokens = in->chunks >= 0 ? chunks * tokens_per_chunk : fmin(read_tokens * size / step, chunks * size);
    double width = (double)in->dim * number_bytes(in->quantization);
    double row = width + VECTOR_ROW_BYTES;
    if (chunks >= (double)in->graph_from)
        row += width + GRAPH_NODE_BYTES;
    double text = in->keeps_chunks ? 0 : chunks * CHUNK_ROW_BYTES + tokens * BYTES_A_TOKEN * 2; /* text and tsvector */
    *out = (struct estimate){
        .documents = in->documents,
        .bytes = in->bytes,
        .chunks = whole(chunks),
        .tokens = whole(tokens),
        .seconds = fmin(tokens / rate + (double)in->documents * SECONDS_A_DOCUMENT, MOST),
        .vector_bytes = whole(fmin(chunks * row, MOST / 4)),
        .text_bytes = whole(fmin(text, MOST / 4)),
        .gpu_memory_bytes = in->has_gpu ? whole(model_bytes((double)in->dim, (double)in->batch_tokens)) : 0,
    };
}

void estimate_write(struct text *t, const struct estimate *e)
{
    json_int(t, "documents", e->documents);
    json_int(t, "bytes", e->bytes);
    json_int(t, "chunks", e->chunks);
    json_int(t, "tokens", e->tokens);
    json_real(t, "seconds", round(e->seconds * 1000) / 1000);
    json_int(t, "vector_bytes", e->vector_bytes);
    json_int(t, "text_bytes", e->text_bytes);
    json_int(t, "gpu_memory_bytes", e->gpu_memory_bytes);
    json_bool(t, "is_complete", e->is_complete);
    json_text(t, "basis", e->basis);
}
