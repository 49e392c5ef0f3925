#include "worker/extract/format.h"

#include <libxml/parser.h>
#include <magic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DOCX "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

enum { MAGIC_BYTES = 1 << 20, PDF_HEAD_BYTES = 1024 };

/* Of texts, which libmagic tells apart badly. */
static const struct {
    const char *ending, *mime;
} endings[] = {
    {"md", "text/markdown"},
    {"markdown", "text/markdown"},
    {"csv", "text/csv"},
    {"tsv", "text/tab-separated-values"},
    {"json", "application/json"},
    {"jsonl", "application/x-ndjson"},
    {"ndjson", "application/x-ndjson"},
    {"yaml", "application/yaml"},
    {"yml", "application/yaml"},
    {"xml", "application/xml"},
    {"html", "text/html"},
    {"htm", "text/html"},
    {"xhtml", "text/html"},
    {"rst", "text/x-rst"},
    {"css", "text/css"},
    {"js", "text/javascript"},
    {"ts", "text/plain"},
    {"c", "text/x-c"},
    {"h", "text/x-c"},
    {"cpp", "text/x-c++"},
    {"py", "text/x-python"},
    {"sh", "text/x-shellscript"},
    {"sql", "application/sql"},
    {"tex", "text/x-tex"},
};

/* Text only on the outside: drawings and page descriptions. */
static const char *const unreadable_texts[] = {"text/rtf", "application/rtf", "application/postscript", "image/svg+xml",
                                               "application/pgp-encrypted"};

static magic_t magic;

bool formats_load(void)
{
    if (!magic)
        magic = magic_open(MAGIC_MIME_TYPE | MAGIC_NO_CHECK_COMPRESS);
    if (!magic || magic_load(magic, NULL) != 0)
        return false;
    xmlInitParser();
    return charset_load();
}

void formats_unload(void)
{
    if (magic)
        magic_close(magic);
    magic = NULL;
    xmlCleanupParser();
    charset_unload();
}

static const char *ending_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot != name && !strchr(dot, '/') ? dot + 1 : "";
}

static const char *mime_by_ending(const char *name)
{
    for (size_t i = 0; i < array_len(endings); i++) {
        if (strcasecmp(ending_of(name), endings[i].ending) == 0)
            return endings[i].mime;
    }
    return NULL;
}

static bool is_pdf(const struct extraction *x)
{
    return memmem(x->bytes, x->len < PDF_HEAD_BYTES ? x->len : PDF_HEAD_BYTES, "%PDF-", 5) != NULL;
}

static bool is_unreadable_text(const char *mime)
{
    for (size_t i = 0; i < array_len(unreadable_texts); i++) {
        if (strcmp(mime, unreadable_texts[i]) == 0)
            return true;
    }
    return false;
}

static enum format format_of_text(struct scope *sc, struct extraction *x, const char *found)
{
    const char *by_ending = mime_by_ending(x->name);
    if (is_unreadable_text(found)) {
        x->mime = arena_strdup(&sc->arena, found);
        return FORMAT_UNREADABLE;
    }
    bool is_html = by_ending ? strcmp(by_ending, "text/html") == 0 : strcmp(found, "text/html") == 0;
    bool is_named = strncmp(found, "text/", 5) == 0 || strcmp(found, "application/json") == 0;
    x->mime = is_html ? "text/html" : by_ending ? by_ending : is_named ? arena_strdup(&sc->arena, found) : "text/plain";
    return is_html ? FORMAT_HTML : FORMAT_TEXT;
}

static enum format format_of(struct scope *sc, struct extraction *x)
{
    if (is_pdf(x)) {
        x->mime = "application/pdf";
        return FORMAT_PDF;
    }
    const char *found = magic ? magic_buffer(magic, x->bytes, x->len < MAGIC_BYTES ? x->len : MAGIC_BYTES) : NULL;
    if (!found)
        found = "application/octet-stream";
    bool is_zip = x->len >= 4 && memcmp(x->bytes, "PK\3\4", 4) == 0;
    if (is_zip && (strcmp(found, DOCX) == 0 || strcasecmp(ending_of(x->name), "docx") == 0)) {
        x->mime = DOCX;
        return FORMAT_DOCX;
    }
    if (charset_is_text(x->bytes, x->len))
        return format_of_text(sc, x, found);
    x->mime = arena_strdup(&sc->arena, found);
    return FORMAT_UNREADABLE;
}

static enum status refuse(struct scope *sc, const struct extraction *x)
{
    if (strcmp(x->mime, "application/octet-stream") == 0)
        return fail(sc, STATUS_UNPROCESSABLE, "it is not a kind of document that can be read (unknown binary data)");
    return fail(sc, STATUS_UNPROCESSABLE, "%s is not a kind of document that can be read", x->mime);
}

enum status format_extract(struct scope *sc, struct extraction *x, bool *out_is_pdf)
{
    *out_is_pdf = false;
    if (x->len == 0)
        return fail(sc, STATUS_UNPROCESSABLE, "the file is empty");
    enum status s = STATUS_OK;
    x->text.max_len = x->max_text_bytes + 1; /* one more shows that it was too much */
    x->title.max_len = 1 << 16;
    switch (format_of(sc, x)) {
    case FORMAT_UNREADABLE:
        return refuse(sc, x);
    case FORMAT_PDF:
        *out_is_pdf = true;
        return STATUS_OK;
    case FORMAT_TEXT:
        s = extract_text(sc, x);
        break;
    case FORMAT_HTML:
        s = extract_html(sc, x);
        break;
    case FORMAT_DOCX:
        s = extract_docx(sc, x);
        break;
    }
    if (s != STATUS_OK)
        return s;
    clean_text(&x->text);
    clean_title(&x->title);
    return check_text(sc, &x->text, x->max_text_bytes);
}
