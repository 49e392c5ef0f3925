/* Any text by any strategy: chunks in order, within size, whole code points; by a simple tokenizer or the model's, for
 * which the tokens of a chunk by itself are counted again. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const strategies[] = {"character", "recursive", "markdown", "other"};
    if (size < 4)
        return 0;
    scoped_text text = {0};
    text_append_repaired(&text, (const char *)data + 4, size - 4);
    size_t most = (size_t)data[3] + 1, count = 0;
    struct scope sc;
    scope_init(&sc, NULL);
    bool is_model = data[0] & 4;
    struct token_counter counter = {is_model ? model_spans : spans_of, &most};
    struct chunk_options options = {
        .strategy = strategies[data[0] % 4], .size = (size_t)data[1] + 1, .overlap = data[2]};
    struct chunk *chunks;
    const char *note;
    if (chunk_text(&sc, &options, &counter, text_str(&text), text.len, &chunks, &count, &note) != STATUS_OK)
        abort();
    for (size_t i = 0; i < count; i++) {
        const struct chunk *c = &chunks[i];
        bool is_good = c->start < c->end && c->end <= text.len && c->tokens > 0 && c->tokens <= options.size &&
                       utf8_is_valid(text.data + c->start, c->end - c->start) &&
                       (i == 0 || (c->start > chunks[i - 1].start && c->end > chunks[i - 1].end));
        if (!is_good)
            abort();
        if (is_model)
            check_by_model(text.data + c->start, c->end - c->start, c->tokens, options.size);
    }
    scope_done(&sc);
    return 0;
}
