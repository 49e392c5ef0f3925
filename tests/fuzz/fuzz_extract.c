/* All parsers of documents, by content and by the names of each kind. */
#include "tests/fuzz/fuzz.h"
#include "worker/extract/format.h"
#include "worker/extract/pdf.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"a.txt", "a.html", "a.docx", "a", "a.md", "a.json"};
    static bool is_loaded;
    if (!is_loaded && !formats_load())
        abort();
    is_loaded = true;
    if (size < 1)
        return 0;
    struct scope sc;
    scope_init(&sc, NULL);
    struct extraction x = {.name = names[data[0] % array_len(names)], .max_text_bytes = 1 << 16};
    char *bytes = must_malloc(size); /* of just this size, so that a step beyond its end is seen */
    memcpy(bytes, data + 1, size - 1);
    x.bytes = bytes;
    x.len = size - 1;
    bool is_pdf;
    enum status s = format_extract(&sc, &x, &is_pdf);
    if (s == STATUS_OK && !is_pdf &&
        (!utf8_is_valid(x.text.data, x.text.len) || strlen(x.text.data) != x.text.len || x.text.len > x.max_text_bytes))
        abort();
    pdf_tidy(&x.text);
    text_free(&x.text);
    text_free(&x.title);
    free(bytes);
    scope_done(&sc);
    return 0;
}
