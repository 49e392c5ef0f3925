#include "common/chunking.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const struct chunking_strategy strategies_list[] = {
#define STRATEGY(name, title, what, when) {#name, title, what, when},
#include "common/chunking.def"
};

#define AT(key) offsetof(struct chunking_config, key)
static const struct chunking_key keys_list[] = {
#define INT_KEY(key, least, most, fallback, strategies, meaning)                                                       \
    {#key, CHUNKING_INT, least, most, 0, NULL, fallback, NULL, strategies, meaning, AT(key)},
#define REAL_KEY(key, least, most, fallback, strategies, meaning)                                                      \
    {#key, CHUNKING_REAL, least, most, 0, NULL, fallback, NULL, strategies, meaning, AT(key)},
#define WORD_KEY(key, words, fallback, strategies, meaning)                                                            \
    {#key, CHUNKING_WORD, 0, 0, 0, words, 0, fallback, strategies, meaning, AT(key)},
#define LIST_KEY(key, most_items, most_bytes, strategies, meaning)                                                     \
    {#key, CHUNKING_LIST, 1, most_items, most_bytes, NULL, 0, NULL, strategies, meaning, AT(key)},
#include "common/chunking.def"
};

const struct chunking_strategy *chunking_strategies(size_t *out_count)
{
    *out_count = array_len(strategies_list);
    return strategies_list;
}

const struct chunking_key *chunking_keys(size_t *out_count)
{
    *out_count = array_len(keys_list);
    return keys_list;
}

bool chunking_is_known(const char *strategy)
{
    for (size_t i = 0; strategy && i < array_len(strategies_list); i++) {
        if (strcmp(strategies_list[i].name, strategy) == 0)
            return true;
    }
    return false;
}

/* `word` among words that are separated by single spaces. */
static const char *find_word(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = words; at && *at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL) {
        if (len > 0 && strncmp(at, word, len) == 0 && (at[len] == ' ' || at[len] == '\0'))
            return at;
    }
    return NULL;
}

bool chunking_key_is_of(const struct chunking_key *key, const char *strategy)
{
    return find_word(key->strategies, strategy) != NULL;
}

const char *chunking_names(struct scope *sc)
{
    scoped_text t = {0};
    for (size_t i = 0; i < array_len(strategies_list); i++)
        text_printf(&t, "%s%s", i ? ", " : "", strategies_list[i].name);
    return arena_strdup(&sc->arena, text_str(&t));
}

/* ---- reading ---- */

static void *field_of(struct chunking_config *c, const struct chunking_key *key)
{
    return (char *)c + key->offset;
}

static void set_default(struct chunking_config *c, const struct chunking_key *key)
{
    if (key->kind == CHUNKING_INT)
        *(int64_t *)field_of(c, key) = (int64_t)key->fallback;
    else if (key->kind == CHUNKING_REAL)
        *(double *)field_of(c, key) = key->fallback;
    else if (key->kind == CHUNKING_WORD)
        *(const char **)field_of(c, key) = key->fallback_word;
    else
        *(struct chunking_list *)field_of(c, key) = (struct chunking_list){0};
}

static enum status read_number(struct scope *sc, const struct chunking_key *key, const cJSON *item,
                               struct chunking_config *c)
{
    bool is_whole = key->kind == CHUNKING_INT;
    double n = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    if (!(n >= key->least && n <= key->most) || (is_whole && n != floor(n)))
        return fail(sc, STATUS_INVALID, "chunking_config.%s must be a %snumber from %.10g to %.10g", key->name,
                    is_whole ? "whole " : "", key->least, key->most);
    if (is_whole)
        *(int64_t *)field_of(c, key) = (int64_t)n;
    else
        *(double *)field_of(c, key) = n;
    return STATUS_OK;
}

static enum status read_word(struct scope *sc, const struct chunking_key *key, const cJSON *item,
                             struct chunking_config *c)
{
    const char *word = cJSON_IsString(item) ? item->valuestring : "";
    if (strchr(word, ' ') || !find_word(key->words, word))
        return fail(sc, STATUS_INVALID, "chunking_config.%s must be one of: %s", key->name, key->words);
    *(const char **)field_of(c, key) = word;
    return STATUS_OK;
}

static enum status read_list(struct scope *sc, const struct chunking_key *key, const cJSON *list,
                             struct chunking_config *c)
{
    size_t count = cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 0;
    bool is_good = count >= 1 && count <= (size_t)key->most;
    const char **items = arena_array(&sc->arena, (size_t)key->most + 1, sizeof *items);
    size_t n = 0;
    for (const cJSON *i = is_good ? list->child : NULL; i && is_good; i = i->next) {
        is_good = cJSON_IsString(i) && *i->valuestring && strlen(i->valuestring) <= key->most_bytes;
        items[n++] = i->valuestring;
    }
    if (!is_good)
        return fail(sc, STATUS_INVALID, "chunking_config.%s must be a list of 1 to %.0f texts of 1 to %zu bytes",
                    key->name, key->most, key->most_bytes);
    *(struct chunking_list *)field_of(c, key) = (struct chunking_list){items, n};
    return STATUS_OK;
}

static enum status read_key(struct scope *sc, const struct chunking_key *key, const cJSON *item,
                            struct chunking_config *out)
{
    switch (key->kind) {
    case CHUNKING_INT:
    case CHUNKING_REAL:
        return read_number(sc, key, item, out);
    case CHUNKING_WORD:
        return read_word(sc, key, item, out);
    case CHUNKING_LIST:
        return read_list(sc, key, item, out);
    }
    return STATUS_INTERNAL;
}

enum status chunking_read(struct scope *sc, const char *strategy, const cJSON *config, struct chunking_config *out)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < array_len(keys_list); i++) {
        const struct chunking_key *key = &keys_list[i];
        set_default(out, key);
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, key->name);
        if (!item || cJSON_IsNull(item) || !chunking_key_is_of(key, strategy ? strategy : "recursive"))
            continue;
        enum status one = read_key(sc, key, item, out);
        s = s == STATUS_OK ? one : s;
    }
    return s;
}

enum status chunking_check_sizes(struct scope *sc, const struct chunking_config *c, int64_t size, int64_t overlap)
{
    if (overlap >= size)
        return fail(sc, STATUS_INVALID, "chunk_overlap (%lld) must be smaller than chunk_size (%lld)",
                    (long long)overlap, (long long)size);
    if (c->min_chunk_size > size)
        return fail(sc, STATUS_INVALID, "chunking_config.min_chunk_size (%lld) must not be more than chunk_size (%lld)",
                    (long long)c->min_chunk_size, (long long)size);
    if (c->parent_chunk_size != CHUNKING_UNSET && c->parent_chunk_size <= size)
        return fail(sc, STATUS_INVALID, "chunking_config.parent_chunk_size (%lld) must be more than chunk_size (%lld)",
                    (long long)c->parent_chunk_size, (long long)size);
    return STATUS_OK;
}

/* ---- telling ---- */

static void write_words(struct text *t, const char *key, const char *words)
{
    json_open(t, key, '[');
    for (size_t n; words && *words; words += n + (words[n] == ' ')) {
        n = strcspn(words, " ");
        json_text_n(t, NULL, words, n);
    }
    json_close(t, ']');
}

static void write_key(struct text *t, const struct chunking_key *key)
{
    static const char *const kinds[] = {"integer", "number", "string", "array"};
    json_open(t, NULL, '{');
    json_text(t, "name", key->name);
    json_text(t, "type", kinds[key->kind]);
    if (key->kind == CHUNKING_WORD) {
        write_words(t, "values", key->words);
        json_text(t, "default", key->fallback_word);
    } else {
        json_real(t, "minimum", key->least);
        json_real(t, "maximum", key->most);
        if (key->kind == CHUNKING_LIST || (key->kind == CHUNKING_INT && key->fallback == CHUNKING_UNSET))
            json_null(t, "default");
        else
            json_real(t, "default", key->fallback);
    }
    json_text(t, "description", key->meaning);
    json_close(t, '}');
}

void chunking_write_strategies(struct text *t, const char *name)
{
    json_open(t, name, '[');
    for (size_t i = 0; i < array_len(strategies_list); i++) {
        const struct chunking_strategy *s = &strategies_list[i];
        json_open(t, NULL, '{');
        json_text(t, "name", s->name);
        json_text(t, "display_name", s->title);
        json_text(t, "description", s->summary);
        json_text(t, "best_for", s->use);
        json_open(t, "config", '[');
        for (size_t k = 0; k < array_len(keys_list); k++) {
            if (chunking_key_is_of(&keys_list[k], s->name))
                write_key(t, &keys_list[k]);
        }
        json_close(t, ']');
        json_close(t, '}');
    }
    json_close(t, ']');
}
