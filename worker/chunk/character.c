#include "worker/chunk/strategy.h"

#include <string.h>

/* As many words as fit, wherever that ends. */
void chunk_by_character(struct chunker *c, struct arena *a)
{
    (void)a;
    memset(c->levels, CUT_WORD, c->count + 1);
    chunker_cut(c, 0, c->count, NULL);
}
