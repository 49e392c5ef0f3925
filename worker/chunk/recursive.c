#include "worker/chunk/strategy.h"

#include <string.h>

/* Between two atoms that the separator lies between; a place has the level of the best separator that ends there. */
static void raise_levels(struct chunker *c, const char *separator, unsigned char level)
{
    size_t len = strlen(separator);
    for (size_t at = 0; at + len <= c->len;) {
        const char *found = memmem(c->text + at, c->len - at, separator, len);
        if (!found)
            return;
        at = (size_t)(found - c->text) + len;
        size_t atom = chunker_atom_at(c, at);
        if (atom < c->count && c->levels[atom] < level)
            c->levels[atom] = level;
    }
}

/* Between paragraphs where that leaves chunks of a good size, else between lines, sentences, words; with `separators`
 * behind these instead, the first of them before the others. */
enum status chunk_recursive(struct chunker *c)
{
    const struct chunking_list *separators = &c->options->config.separators;
    if (separators->count == 0)
        chunker_find_levels(c);
    else
        memset(c->levels, CUT_WORD, c->count + 1);
    for (size_t i = 0; i < separators->count; i++)
        raise_levels(c, separators->items[i], (unsigned char)(CUT_BEST - i));
    chunker_cut(c, 0, c->count, NULL);
    return STATUS_OK;
}
