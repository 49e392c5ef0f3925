/* A model's folder as Hugging Face and sentence-transformers lay it out: config.json, modules.json, pooling,
 * tokenizer.json, model.safetensors. What is not understood is refused with a sentence, never guessed. Read-only after
 * opening. */
#pragma once

#include "worker/embed/backend.h"
#include "worker/embed/tokenizer.h"

struct embed_model {
    char *name; /* the folder's */
    int dim;
    int max_tokens;                            /* special ones included */
    const char *query_prefix, *passage_prefix; /* "" = none */
    struct tokenizer *tokenizer;
    struct bert_model bert;
    struct model_memory *memory; /* model.c's own */
};

/* NULL with a sentence in `error`. Weights are mapped; only fp16 and bf16 ones are converted, into memory. */
struct embed_model *embed_model_open(const char *folder, char *error, size_t error_size);
void embed_model_close(struct embed_model *m);
