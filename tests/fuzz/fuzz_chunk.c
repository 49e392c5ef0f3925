/* Any text by any strategy: chunks in order, within size, whole code points. */
#include "common/text.h"
#include "tests/fuzz/fuzz.h"
#include "worker/chunk/chunk.h"

#include <string.h>

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
    struct token_counter counter = {spans_of, &most};
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
    }
    scope_done(&sc);
    return 0;
}
