/* Cutting a text into the pieces that are embedded. Sizes and overlaps are counted in the model's tokens. A chunk is a
 * range of the text: text[start..end), cut between words wherever a word fits, never inside a code point. */
#pragma once

#include "common/chunking.h"
#include "common/scope.h"
#include "worker/embed/client.h"
#include "worker/embed/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

struct chunk {
    size_t start, end; /* bytes of the text */
    size_t tokens; /* at most what the model makes of it, special tokens aside; never more than the size asked for */
    const char *heading; /* "Manual > Set-up" of the section it lies in, in the scope's arena; NULL = none known */
    const char *how; /* the strategy that cut it, where one strategy chose among several; NULL = the one asked for */
    bool is_parent;  /* holds the chunks that follow it up to the next one of its kind; not to be embedded */
    int ordinal;     /* its place among its document's chunks, from 0; parents are counted by themselves, -1, -2, … */
    int parent;      /* the ordinal of the parent it lies in; 0 = none */
};

/* Tells the tokens of a text, in order, with the bytes that each stands for; *out in the scope's arena. */
struct token_counter {
    size_t (*spans)(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out);
    void *context;
};

/* Turns texts into vectors, one each, of the same length all; *out [count][*out_dim] in the scope's arena. `at_a_time`:
 * at most so many texts a call. What it returns other than STATUS_OK ends chunk_text() with it; STATUS_INVALID: one of
 * the texts cannot be embedded. */
struct chunk_embedder {
    enum status (*embed)(void *context, struct scope *sc, const struct embed_text *texts, size_t count,
                         const float **out, int *out_dim);
    void *context;
    size_t at_a_time;
};

struct chunk_options {
    const char *strategy;          /* of common/chunking.def; NULL = recursive */
    size_t size, overlap;          /* tokens; an overlap of more than half the size is cut down to that */
    struct chunking_config config; /* of its keys; chunk_size and chunk_overlap are not looked at */
};

/* Brings a size down to what a model reads at a time, and the overlap in proportion, so that a setting made for larger
 * chunks does not embed everything several times. False: nothing was changed. */
bool chunk_fit(size_t most_tokens, size_t *size, size_t *overlap);

/* Whether a strategy asks the embedder, which takes a thousand times as long as the rest. */
bool chunk_asks_embedder(const char *strategy);

/* Chunks in the order of the text, in the scope's arena, a parent before its own; none for a text without tokens. Two
 * neighbours share at most `overlap` tokens. The time is linear in the text's length, but for the sorting of distances
 * and for what the embedder takes. `text` is valid UTF-8 of less than 4 GiB. `embedder` NULL: what asks for one cuts by
 * `recursive`. *out_note: a sentence on what was done instead of what was asked for, or why; else untouched.
 * STATUS_INVALID: a size of 0, or a text that the embedder refuses; else the embedder's failure. Nothing is kept
 * between calls, so threads may call it side by side with counters and embedders of their own. */
enum status chunk_text(struct scope *sc, const struct chunk_options *options, const struct token_counter *counter,
                       const struct chunk_embedder *embedder, const char *text, size_t len, struct chunk **out,
                       size_t *out_count, const char **out_note) must_check;
