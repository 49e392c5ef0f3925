/* Cutting a text into the pieces that are embedded. Sizes and overlaps are counted in the model's tokens. A chunk is a
 * range of the text: text[start..end), cut between words wherever a word fits, never inside a code point. */
#pragma once

#include "common/scope.h"
#include "worker/embed/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

struct chunk {
    size_t start, end; /* bytes of the text */
    size_t tokens; /* at most what the model makes of it, special tokens aside; never more than the size asked for */
    const char *heading; /* "Manual > Set-up" of the section it lies in, in the scope's arena; NULL = none known */
};

/* Tells the tokens of a text, in order, with the bytes that each stands for; *out in the scope's arena. */
struct token_counter {
    size_t (*spans)(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out);
    void *context;
};

struct chunk_options {
    const char *strategy; /* "character", "recursive", "markdown"; NULL = recursive */
    size_t size, overlap; /* tokens; an overlap of more than half the size is cut down to that */
};

/* Brings a size down to what a model reads at a time, and the overlap in proportion, so that a setting made for larger
 * chunks does not embed everything several times. False: nothing was changed. */
bool chunk_fit(size_t most_tokens, size_t *size, size_t *overlap);

/* Chunks in the order of the text, in the scope's arena; none for a text without tokens. Two neighbours share at most
 * `overlap` tokens. The time is linear in the text's length. `text` is valid UTF-8 of less than 4 GiB. *out_note: a
 * sentence on what was done instead of what was asked for, else untouched. STATUS_INVALID: a size of 0. */
enum status chunk_text(struct scope *sc, const struct chunk_options *options, const struct token_counter *counter,
                       const char *text, size_t len, struct chunk **out, size_t *out_count,
                       const char **out_note) must_check;
