#include "worker/chunk/strategy.h"

#include <string.h>

/* As many words as fit, wherever that ends. */
enum status chunk_character(struct chunker *c)
{
    memset(c->levels, CUT_WORD, c->count + 1);
    chunker_cut(c, 0, c->count, NULL);
    return STATUS_OK;
}
