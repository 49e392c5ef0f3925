/* Any bytes through the tokenizer of the model that set-up fetched: ids in range, spans in order. */
#include "tests/fuzz/fuzz.h"
#include "worker/embed/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *t;
    if (!t) {
        const char *models = getenv("OPSTREAM_MODEL_DIR");
        char path[512], error[256];
        snprintf(path, sizeof path, "%s/all-MiniLM-L6-v2/tokenizer.json", models ? models : "build/models");
        t = tokenizer_open(path, error, sizeof error);
        if (!t)
            abort();
    }
    struct token_span *spans = NULL;
    size_t count = 0;
    tokenizer_encode_spans(t, (const char *)data, size, &spans, &count);
    for (size_t i = 0; i < count; i++) {
        if (spans[i].id < 0 || spans[i].id >= tokenizer_vocab_size(t) || spans[i].start >= spans[i].end ||
            spans[i].end > size || (i > 0 && spans[i].start < spans[i - 1].start))
            abort();
    }
    struct token_list ids = {0};
    tokenizer_encode(t, (const char *)data, size, 0, &ids);
    if (ids.count != count + 2)
        abort();
    token_list_free(&ids);
    free(spans);
    return 0;
}
