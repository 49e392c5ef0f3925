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
    CUT_FOUND,   /* from here to 255: places that a strategy measured, the better the higher */
    CUT_BEST = UINT8_MAX,
};

struct chunker {
    struct scope *sc; /* the caller's */
    const struct chunk_options *options;
    const struct chunk_embedder *embedder; /* NULL = none */
    const char *note;                      /* NULL = none */
    const char *text;
    size_t len;
    size_t size, overlap, most_bytes;
    struct atom *atoms; /* count + 1: the last one only holds the sum */
    size_t count;
    unsigned char *levels; /* enum cut_level per atom */
    uint32_t *blocks; /* per atom: the first atom after the block it lies in that should stay whole; NULL = no blocks */
    const char *how;  /* what chunks that are added get */
    struct chunk *chunks;
    size_t chunk_count, chunk_capacity;
};

size_t chunker_tokens(const struct chunker *c, size_t from, size_t to);
/* First atom that does not begin before byte `at`. */
size_t chunker_atom_at(const struct chunker *c, size_t at);
/* Fills `levels` by blank lines, line ends and sentences. */
void chunker_find_levels(struct chunker *c);
/* The most bytes of a chunk of so many tokens: it may hold much that is no token. */
size_t chunker_most_bytes(size_t size);
/* Atoms [from, to) as one chunk. */
void chunker_add(struct chunker *c, size_t from, size_t to, const char *heading);
/* Cuts atoms [from, to) into chunks. */
void chunker_cut(struct chunker *c, size_t from, size_t to, const char *heading);
/* The same where the meaning changes; needs levels and an embedder. */
enum status chunker_cut_by_meaning(struct chunker *c, size_t from, size_t to, const char *heading) must_check;

/* How a section of a document is cut, atoms [from, to). */
typedef enum status section_function(struct chunker *c, size_t from, size_t to, const char *heading);
/* Cuts each section of a text with headings by `cut`; fences of code and tables become blocks. `min_tokens`: smaller
 * sections are joined with the next. */
enum status chunker_cut_sections(struct chunker *c, section_function *cut, size_t min_tokens) must_check;

/* Cuts the whole text. One file each. */
typedef enum status chunk_strategy(struct chunker *c);
#define STRATEGY(name, title, what, when) chunk_strategy chunk_##name;
#include "common/chunking.def"
