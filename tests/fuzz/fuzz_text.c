#include "tests/fuzz/fuzz.h"
#include "worker/extract/format.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_loaded;
    if (!is_loaded && !formats_load())
        abort();
    is_loaded = true;
    struct scope sc;
    scope_init(&sc, NULL);
    char *bytes = must_malloc(size); /* of just this size, so that a step beyond its end is seen */
    memcpy(bytes, data, size);
    struct extraction x = {
        .name = "a", .bytes = bytes, .len = size, .max_text_bytes = 1 << 16, .text = {.max_len = 1 << 16}};
    if (extract_text(&sc, &x) == STATUS_OK) {
        clean_text(&x.text);
        clean_title(&x.title);
        if (!utf8_is_valid(text_str(&x.text), x.text.len) || strlen(text_str(&x.text)) != x.text.len)
            abort();
    }
    text_free(&x.text);
    text_free(&x.title);
    free(bytes);
    scope_done(&sc);
    return 0;
}
