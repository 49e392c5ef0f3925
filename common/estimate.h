/* What an operation will take, from what is known before it: arithmetic only, api/estimates.c finds the figures. */
#pragma once

#include "common/text.h"

struct estimate_input {
    int64_t documents, bytes; /* to be read */
    int64_t chunks;           /* known already; -1 = from the bytes */
    bool keeps_chunks;        /* their text stays as it is */
    /* Of past operations; 0 = there were none, and a guess is taken. */
    double tokens_per_byte, tokens_per_chunk, tokens_per_second;
    int64_t chunk_size, chunk_overlap; /* tokens */
    int64_t dim;                       /* of the model's vectors */
    const char *quantization;
    int64_t graph_from; /* so many vectors get a graph */
    bool has_gpu;
    int64_t batch_tokens;
};

struct estimate {
    int64_t documents, bytes, chunks, tokens;
    double seconds;
    int64_t vector_bytes;     /* of their table, with its graph */
    int64_t text_bytes;       /* of the chunks' table, with its index */
    int64_t gpu_memory_bytes; /* 0 without a GPU */
    bool is_complete;         /* everything that is to be read was seen */
    const char *basis;        /* what it rests on; the caller's */
};

/* Sums are bounded, whatever is asked for. is_complete and basis are left to the caller. */
void estimate_make(const struct estimate_input *in, struct estimate *out);
/* The fields, into an object that is open. */
void estimate_write(struct text *t, const struct estimate *e);
