/* What a parser that was taken over by its file may tell the helper. */
#include "worker/extract/helper.c" /* its functions are its own */

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct extract_limits limits = {.max_file_bytes = 1000, .max_text_bytes = 1000, .seconds = 1, .memory_mb = 100};
    struct job job = {.limits = &limits};
    struct harvest h = {0};
    text_append(&h.out, data, size);
    struct outcome o = {0};
    scope_init(&o.sc, NULL);
    bool is_pdf = false;
    if (read_answer(&job, &h, &o, &is_pdf) == STATUS_OK && !is_pdf &&
        (!utf8_is_valid(text_str(&o.text), o.text.len) || strlen(text_str(&o.text)) != o.text.len || o.text.len > 3000))
        abort();
    text_free(&o.text);
    harvest_free(&h);
    scope_done(&o.sc);
    return 0;
}
