/* Any text by any strategy, with any keys: chunks in order, within size, whole code points, within their parents; by a
 * simple tokenizer or the model's, for which the tokens of a chunk by itself are counted again; by an embedder that
 * makes vectors of bytes. */
#include "common/text.h"
#include "tests/fuzz/fuzz.h"
#include "worker/chunk/chunk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tokenizer *model_tokenizer(void)
{
    static struct tokenizer *t;
    const char *models = getenv("OPSTREAM_MODEL_DIR");
    char path[512], error[256];
    snprintf(path, sizeof path, "%s/all-MiniLM-L6-v2/tokenizer.json", models ? models : "build/models");
    if (!t)
        t = tokenizer_open(path, error, sizeof error);
    if (!t)
        abort();
    return t;
}

static size_t model_spans(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out)
{
    (void)context;
    struct token_span *spans = NULL;
    size_t count = 0;
    tokenizer_encode_spans(model_tokenizer(), text, len, &spans, &count);
    *out = arena_array(&sc->arena, count + 1, sizeof **out);
    if (count > 0)
        memcpy(*out, spans, count * sizeof **out);
    free(spans);
    return count;
}

static void check_by_model(const char *bytes, size_t len, size_t tokens, size_t size)
{
    struct token_list ids = {0};
    tokenizer_encode(model_tokenizer(), bytes, len, 0, &ids);
    if (ids.count - 2 > tokens && size > 3) /* below that a single syllable is too much */
        abort();
    token_list_free(&ids);
}

static size_t spans_of(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out)
{
    struct token_span *spans = arena_array(&sc->arena, len + 1, sizeof *spans);
    size_t count = 0, most = *(const size_t *)context;
    uint32_t cp;
    for (size_t at = 0, n, in_token = 0; at < len; at += n) {
        n = utf8_next(text + at, len - at, &cp);
        if (cp <= ' ') {
            in_token = 0;
        } else if (in_token > 0 && in_token < most) {
            spans[count - 1].end = (uint32_t)(at + n);
            in_token++;
        } else {
            spans[count++] = (struct token_span){1, (uint32_t)at, (uint32_t)(at + n)};
            in_token = 1;
        }
    }
    *out = spans;
    return count;
}

enum { DIM = 4 };

static enum status embed_bytes(void *context, struct scope *sc, const struct embed_text *texts, size_t count,
                               const float **out, int *out_dim)
{
    (void)context;
    float *vectors = arena_array(&sc->arena, count * DIM, sizeof *vectors);
    for (size_t i = 0; i < count; i++) {
        if (texts[i].len == 0)
            abort();
        for (size_t b = 0; b < texts[i].len; b++)
            vectors[i * DIM + ((unsigned char)texts[i].bytes[b] >> 3) % DIM] += 1;
    }
    *out = vectors;
    *out_dim = DIM;
    return STATUS_OK;
}

/* Keys of all kinds, from one byte. */
static void choose_keys(struct chunking_config *c, uint8_t byte)
{
    static const char *const types[] = {"percentile", "standard_deviation", "interquartile"};
    static const char *const separators[] = {"\n", "; "};
    c->min_chunk_size = byte & 1 ? byte / 4 : CHUNKING_UNSET;
    c->heading_levels = 1 + byte % 6;
    c->breakpoint_type = types[byte % 3];
    c->breakpoint_percentile = 1 + byte % 99;
    c->breakpoint_factor = byte / 100.0;
    c->buffer_size = 1 + byte % 10;
    c->parent_chunk_size = byte & 2 ? byte * 4 : CHUNKING_UNSET;
    c->semantic_from = byte & 4 ? byte / 8 + 1 : CHUNKING_UNSET;
    if (byte & 8)
        c->separators = (struct chunking_list){separators, 2};
}

static bool is_good(const struct chunk *c, const char *text, size_t len)
{
    return c->start < c->end && c->end <= len && c->tokens > 0 && utf8_is_valid(text + c->start, c->end - c->start);
}

static void check(const struct chunk *chunks, size_t count, const char *text, size_t len, size_t size, bool is_model)
{
    const struct chunk *before = NULL, *parent = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct chunk *c = &chunks[i];
        if (!is_good(c, text, len))
            abort();
        if (c->is_parent) {
            if (parent && c->start < parent->end)
                abort();
            parent = c;
            continue;
        }
        bool fits = c->tokens <= size && (!before || (c->start > before->start && c->end > before->end)) &&
                    (!parent || (c->start >= parent->start && c->end <= parent->end));
        if (!fits)
            abort();
        if (is_model)
            check_by_model(text + c->start, c->end - c->start, c->tokens, size);
        before = c;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t strategy_count;
    const struct chunking_strategy *strategies = chunking_strategies(&strategy_count);
    if (size < 5)
        return 0;
    scoped_text text = {0};
    text_append_repaired(&text, (const char *)data + 5, size - 5);
    size_t most = (size_t)data[3] + 1, count = 0, which = data[0] / 8 % (strategy_count + 1);
    struct scope sc;
    scope_init(&sc, NULL);
    bool is_model = data[0] & 4;
    struct token_counter counter = {is_model ? model_spans : spans_of, &most};
    struct chunk_embedder embedder = {embed_bytes, NULL, 1 + data[0] % 4};
    struct chunk_options options = {.strategy = which < strategy_count ? strategies[which].name : "other",
                                    .size = (size_t)data[1] + 1,
                                    .overlap = data[2]};
    choose_keys(&options.config, data[4]);
    struct chunk *chunks;
    const char *note;
    if (chunk_text(&sc, &options, &counter, &embedder, text_str(&text), text.len, &chunks, &count, &note) != STATUS_OK)
        abort();
    check(chunks, count, text_str(&text), text.len, options.size, is_model);
    scope_done(&sc);
    return 0;
}
