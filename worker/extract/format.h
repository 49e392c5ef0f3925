/* The parsers. They run in a locked-down process, get the whole file in memory, and may crash without harm. */
#pragma once

#include "common/scope.h"
#include "common/text.h"

#include <stdint.h>

struct extraction {
    const char *name; /* of the file */
    const char *bytes;
    size_t len;
    uint64_t max_text_bytes;
    const char *mime; /* constant or in the scope's arena; NULL = not known yet */
    struct text title, text;
};

enum format { FORMAT_UNREADABLE, FORMAT_TEXT, FORMAT_HTML, FORMAT_DOCX, FORMAT_PDF };

/* Loads libmagic's database and the converters of character sets, before anything is forked or locked down. False when
 * that fails. */
bool formats_load(void);
void formats_unload(void);
/* Recognises and parses all kinds but PDF (FORMAT_PDF: *out_is_pdf, nothing else is done). Cleans the text. */
enum status format_extract(struct scope *sc, struct extraction *x, bool *out_is_pdf) must_check;

enum status extract_text(struct scope *sc, struct extraction *x) must_check;
enum status extract_html(struct scope *sc, struct extraction *x) must_check;
enum status extract_docx(struct scope *sc, struct extraction *x) must_check;

/* Appends bytes of an unknown character set as UTF-8. `declared` may be NULL. `max_len` of `out` counts. */
void charset_convert(const char *declared, const char *bytes, size_t len, struct text *out);
bool charset_load(void);
void charset_unload(void);
/* Whether bytes look like text in some character set. */
bool charset_is_text(const char *bytes, size_t len);

/* Valid UTF-8; line ends become "\n", page breaks and runs of blank lines at most two blank lines; other control
 * characters go. */
void clean_text(struct text *t);
/* One line, white space collapsed, at most 500 bytes. */
void clean_title(struct text *t);
/* STATUS_TOO_LARGE for a text that grew past its bound, STATUS_UNPROCESSABLE for one without any letter or digit. */
enum status check_text(struct scope *sc, const struct text *t, uint64_t max_text_bytes) must_check;
