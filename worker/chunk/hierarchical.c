#include "worker/chunk/strategy.h"

enum { PARENT_SIZES = 4 };

/* Parents first, of several times the size and without overlap; then each is cut by itself, so that a chunk lies in one
 * parent. Parents are not embedded, so they may be longer than what the model reads. */
enum status chunk_hierarchical(struct chunker *c)
{
    int64_t asked = c->options->config.parent_chunk_size;
    size_t size = c->size, overlap = c->overlap, most_bytes = c->most_bytes;
    chunker_find_levels(c);
    c->size = asked > (int64_t)size ? (size_t)asked : size * PARENT_SIZES;
    c->most_bytes = chunker_most_bytes(c->size);
    c->overlap = 0;
    chunker_cut(c, 0, c->count, NULL);
    struct chunk *parents = c->chunks;
    size_t count = c->chunk_count;
    c->chunks = NULL;
    c->chunk_count = c->chunk_capacity = 0;
    c->size = size;
    c->most_bytes = most_bytes;
    c->overlap = overlap;
    for (size_t i = 0, from = 0, to; i < count; i++, from = to) {
        to = i + 1 < count ? chunker_atom_at(c, parents[i + 1].start) : c->count;
        chunker_add(c, from, to, NULL);
        c->chunks[c->chunk_count - 1].is_parent = true;
        chunker_cut(c, from, to, NULL);
    }
    free(parents);
    return STATUS_OK;
}
