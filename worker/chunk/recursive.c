#include "worker/chunk/strategy.h"

/* Between paragraphs where that leaves chunks of a good size, else between lines, sentences, words. */
void chunk_recursive(struct chunker *c, struct arena *a)
{
    (void)a;
    chunker_find_levels(c);
    chunker_cut(c, 0, c->count, NULL);
}
