/* Documents of every kind in one collection. A text is taken by its sections, as `markdown` finds them: a text without
 * headings is one section, and small sections are joined with the next one. Fences of code and tables stay whole where
 * they fit into a chunk. A section with much prose (`semantic_from` tokens outside of code and tables) is cut where its
 * meaning changes, all others by size at the best place. Each chunk tells how it was cut. */
#include "worker/chunk/strategy.h"

enum { SEMANTIC_SIZES = 2, LEAST_PART = 5 };

static size_t prose_of(const struct chunker *c, size_t from, size_t to)
{
    size_t tokens = 0;
    for (size_t i = from; i < to; i++)
        tokens += c->blocks[i] ? 0 : chunker_tokens(c, i, i + 1);
    return tokens;
}

static enum status cut_section(struct chunker *c, size_t from, size_t to, const char *heading)
{
    int64_t asked = c->options->config.semantic_from;
    size_t least = asked > 0 ? (size_t)asked : c->size * SEMANTIC_SIZES;
    if (prose_of(c, from, to) >= least && c->embedder) {
        c->how = "semantic";
        return chunker_cut_by_meaning(c, from, to, heading);
    }
    c->how = heading ? "markdown" : "recursive";
    chunker_cut(c, from, to, heading);
    return STATUS_OK;
}

enum status chunk_hybrid(struct chunker *c)
{
    int64_t least = c->options->config.min_chunk_size;
    if (!c->embedder)
        c->note = "there is no embedder to cut long prose by meaning; it was cut by size";
    return chunker_cut_sections(c, cut_section, least >= 0 ? (size_t)least : c->size / LEAST_PART);
}
