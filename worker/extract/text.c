#include "worker/extract/format.h"

/* Plain text, Markdown, source code, CSV, JSON: as they are, in UTF-8. */
enum status extract_text(struct scope *sc, struct extraction *x)
{
    (void)sc;
    charset_convert(NULL, x->bytes, x->len, &x->text);
    return STATUS_OK;
}
