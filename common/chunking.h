/* What can be set about the cutting of texts, read from chunking.def: by the API, which refuses what cannot be, and by
 * the worker, which acts on it. */
#pragma once

#include "common/json.h"

#include <stdbool.h>

#define CHUNKING_UNSET (-1) /* the default depends on something else, see the key's meaning */

struct chunking_list {
    const char *const *items;
    size_t count;
};

/* One member a key, named as it is; strings live as long as the JSON that they were read from. */
struct chunking_config {
#define INT_KEY(key, least, most, fallback, strategies, meaning) int64_t key;
#define REAL_KEY(key, least, most, fallback, strategies, meaning) double key;
#define WORD_KEY(key, words, fallback, strategies, meaning) const char *key;
#define LIST_KEY(key, most_items, most_bytes, strategies, meaning) struct chunking_list key;
#include "common/chunking.def"
};

struct chunking_strategy {
    const char *name, *title, *summary, *use;
};

enum chunking_kind { CHUNKING_INT, CHUNKING_REAL, CHUNKING_WORD, CHUNKING_LIST };

struct chunking_key {
    const char *name;
    enum chunking_kind kind;
    double least, most; /* of a number; most = items of a list */
    size_t most_bytes;  /* of an item of a list */
    const char *words;  /* of CHUNKING_WORD, separated by spaces */
    double fallback;
    const char *fallback_word;
    const char *strategies, *meaning;
    size_t offset; /* in struct chunking_config */
};

/* All of them, in the list's order. */
const struct chunking_strategy *chunking_strategies(size_t *out_count);
const struct chunking_key *chunking_keys(size_t *out_count);
bool chunking_is_known(const char *strategy);
bool chunking_key_is_of(const struct chunking_key *key, const char *strategy);
/* "character, recursive, …", for sentences. In the arena. */
const char *chunking_names(struct scope *sc);

/* The keys of `config` that the strategy knows; defaults for the rest. `config` may be NULL; members that the strategy
 * does not know are left alone. STATUS_INVALID with a sentence: a value that cannot be; *out holds its default then.
 */
enum status chunking_read(struct scope *sc, const char *strategy, const cJSON *config,
                          struct chunking_config *out) must_check;
/* Whether sizes fit each other; `size` and `overlap` are those that will be used, in tokens. STATUS_INVALID. */
enum status chunking_check_sizes(struct scope *sc, const struct chunking_config *config, int64_t size,
                                 int64_t overlap) must_check;
/* A list of strategies with their keys, bounds and defaults. */
void chunking_write_strategies(struct text *t, const char *key);
