/* What the strategies share: a text as words, and the cutting of a run of words. */
#pragma once

#include "worker/chunk/chunk.h"

#include <stdbool.h>

/* What is never divided: a word (with its pieces), a punctuation mark, or one code point of something too long to be a
 * word. */
struct atom {
    uint32_t start, end; /* bytes */
    uint32_t before;     /* tokens of all atoms before this one */
};

/* How good it is to cut before an atom. */
enum cut_level {
    CUT_INSIDE, /* something that should stay whole if it can */
    CUT_WORD,
    CUT_SENTENCE,
    CUT_LINE,
    CUT_PARAGRAPH,
    CUT_HEADING, /* before a line that heads what follows */
};

struct chunker {
    const char *text;
    size_t len;
    size_t size, overlap, most_bytes;
    struct atom *atoms; /* count + 1: the last one only holds the sum */
    size_t count;
    unsigned char *levels; /* enum cut_level per atom */
    uint32_t *blocks; /* per atom: the first atom after the block it lies in that should stay whole; NULL = no blocks */
    struct chunk *chunks;
    size_t chunk_count, chunk_capacity;
};

size_t chunker_tokens(const struct chunker *c, size_t from, size_t to);
/* First atom that does not begin before byte `at`. */
size_t chunker_atom_at(const struct chunker *c, size_t at);
/* Fills `levels` by blank lines, line ends and sentences. */
void chunker_find_levels(struct chunker *c);
/* Cuts atoms [from, to) into chunks. */
void chunker_cut(struct chunker *c, size_t from, size_t to, const char *heading);

typedef void chunk_strategy(struct chunker *c, struct arena *a);
chunk_strategy chunk_by_character, chunk_recursive, chunk_markdown;
