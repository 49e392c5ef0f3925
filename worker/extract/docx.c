#include "worker/extract/format.h"

#include <archive.h>
#include <archive_entry.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* A small archive can unfold into any size: entries, and the bytes of those that are read, have bounds. */
enum {
    MOST_ENTRIES = 20000,
    MOST_PART_BYTES = 256 << 20,
    SMALL_PART_BYTES = 8 << 20,
    MOST_STYLES = 1000,
    READ_BYTES = 1 << 16
};

struct parts {
    struct text document, styles, core;
};

/* ---- the archive ---- */

static enum status read_part(struct scope *sc, struct archive *a, size_t most, struct text *out)
{
    scoped_memory char *buffer = must_malloc(READ_BYTES);
    text_clear(out);
    for (;;) {
        la_ssize_t n = archive_read_data(a, buffer, READ_BYTES);
        if (n == 0)
            return STATUS_OK;
        if (n < 0)
            return fail(sc, STATUS_UNPROCESSABLE, "the document is damaged: a part of it cannot be unpacked");
        if (out->len + (size_t)n > most)
            return fail(sc, STATUS_TOO_LARGE, "the document unfolds to more than %zu MB", most >> 20);
        text_append(out, buffer, (size_t)n);
    }
}

static struct text *part_of(struct parts *p, const char *name, size_t *out_most)
{
    *out_most = SMALL_PART_BYTES;
    if (strcmp(name, "word/styles.xml") == 0)
        return &p->styles;
    if (strcmp(name, "docProps/core.xml") == 0)
        return &p->core;
    *out_most = MOST_PART_BYTES;
    return strcmp(name, "word/document.xml") == 0 ? &p->document : NULL;
}

static enum status read_parts(struct scope *sc, struct archive *a, struct parts *out)
{
    enum status s = STATUS_OK;
    struct archive_entry *entry;
    for (int i = 0; s == STATUS_OK; i++) {
        int r = archive_read_next_header(a, &entry);
        if (r == ARCHIVE_EOF)
            break;
        if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
            return fail(sc, STATUS_UNPROCESSABLE, "the document is damaged: its table of contents cannot be read");
        if (i == MOST_ENTRIES)
            return fail(sc, STATUS_TOO_LARGE, "the document has more than %d parts", MOST_ENTRIES);
        const char *name = archive_entry_pathname(entry);
        size_t most;
        struct text *part = name ? part_of(out, name, &most) : NULL;
        if (part && archive_entry_is_encrypted(entry))
            return fail(sc, STATUS_UNPROCESSABLE, "the document is encrypted");
        if (part)
            s = read_part(sc, a, most, part);
    }
    return s;
}

static enum status unpack(struct scope *sc, const struct extraction *x, struct parts *out)
{
    struct archive *a = archive_read_new();
    if (!a)
        return fail(sc, STATUS_BUSY, "out of memory");
    archive_read_support_format_zip_seekable(a);
    enum status s;
    if (archive_read_open_memory(a, x->bytes, x->len) == ARCHIVE_OK)
        s = read_parts(sc, a, out);
    else
        s = fail(sc, STATUS_UNPROCESSABLE, "the document is damaged: it is not a whole ZIP archive");
    archive_read_free(a);
    if (s == STATUS_OK && out->document.len == 0)
        s = fail(sc, STATUS_UNPROCESSABLE, "%s is not a kind of document that can be read",
                 x->mime ? x->mime : "application/zip");
    return s;
}

/* ---- XML ---- */

static void on_doctype(void *context, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
    (void)name;
    (void)external;
    (void)system;
    xmlStopParser(*(xmlParserCtxtPtr *)context); /* none of these parts has one; with it would come entities */
}

__attribute__((format(printf, 2, 3))) static void be_silent(void *context, const char *format, ...)
{
    (void)context;
    (void)format;
}

/* `context` begins with a pointer to the parser. False when it is not well-formed. */
static bool parse_xml(const struct text *xml, xmlSAXHandler *sax, void *context)
{
    if (xml->len == 0 || xml->len >= INT_MAX)
        return false;
    xmlSetGenericErrorFunc(NULL, be_silent);
    xmlParserCtxtPtr parser = xmlCreateMemoryParserCtxt(xml->data, (int)xml->len);
    if (!parser)
        return false;
    xmlSAXHandler *own = parser->sax;
    sax->initialized = XML_SAX2_MAGIC;
    sax->internalSubset = on_doctype;
    parser->sax = sax;
    parser->userData = context;
    *(xmlParserCtxtPtr *)context = parser;
    xmlCtxtUseOptions(parser, XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    xmlParseDocument(parser);
    bool is_good = parser->wellFormed && parser->errNo != XML_ERR_USER_STOP;
    parser->sax = own;
    xmlFreeParserCtxt(parser);
    return is_good;
}

/* The value of an attribute as a string in `out`; false when it is absent or too long. */
static bool attribute(const xmlChar **attributes, int count, const char *name, char *out, size_t out_size)
{
    for (int i = 0; i < count; i++) {
        const xmlChar **a = attributes + (size_t)i * 5; /* name, prefix, URI, begin, end */
        size_t len = (size_t)(a[4] - a[3]);
        if (strcmp((const char *)a[0], name) != 0 || len >= out_size)
            continue;
        memcpy(out, a[3], len);
        out[len] = '\0';
        return true;
    }
    return false;
}

/* ---- styles: which of them are headings ---- */

struct style {
    char id[64];
    int level; /* 1 to 6; 0 = text */
};

struct styles {
    xmlParserCtxtPtr parser;
    struct style items[MOST_STYLES];
    size_t count;
    bool is_inside;
};

/* "heading 2" (also the id "Heading2") is 2; "Title" is 1. */
static int level_of_name(const char *name)
{
    if (strcasecmp(name, "title") == 0)
        return 1;
    if (strncasecmp(name, "heading", 7) != 0)
        return 0;
    const char *digit = name[7] == ' ' ? name + 8 : name + 7;
    if (*digit < '1' || *digit > '9' || digit[1])
        return 0;
    return *digit > '6' ? 6 : *digit - '0';
}

static void styles_start(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                         int namespace_count, const xmlChar **namespaces, int count, int defaulted,
                         const xmlChar **attributes)
{
    (void)prefix;
    (void)uri;
    (void)namespace_count;
    (void)namespaces;
    (void)defaulted;
    struct styles *s = context;
    const char *element = (const char *)name;
    char value[64];
    if (strcmp(element, "style") == 0) {
        s->is_inside = s->count < MOST_STYLES && attribute(attributes, count, "styleId", value, sizeof value);
        if (s->is_inside) {
            struct style *style = &s->items[s->count++];
            memcpy(style->id, value, sizeof value);
            style->level = level_of_name(value);
        }
        return;
    }
    if (!s->is_inside || !attribute(attributes, count, "val", value, sizeof value))
        return;
    struct style *style = &s->items[s->count - 1];
    if (strcmp(element, "name") == 0 && level_of_name(value) > 0)
        style->level = level_of_name(value);
    else if (strcmp(element, "outlineLvl") == 0 && value[0] >= '0' && value[0] <= '8' && !value[1])
        style->level = value[0] > '5' ? 6 : value[0] - '0' + 1;
}

/* ---- the text ---- */

struct body {
    xmlParserCtxtPtr parser;
    const struct styles *styles;
    struct text *out;
    int breaks, level; /* before the next word; 1 to 6 = it is a heading */
    bool is_item, is_text, has_cell_gap;
    int tables, skipped;
};

static int level_of_style(const struct styles *s, const char *id)
{
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->items[i].id, id) == 0)
            return s->items[i].level;
    }
    return level_of_name(id);
}

static void begin_words(struct body *b)
{
    if (b->breaks > 0 && b->out->len > 0)
        text_append(b->out, "\n\n", (size_t)b->breaks);
    else if (b->has_cell_gap && b->out->len > 0)
        text_puts(b->out, " | ");
    if (b->breaks > 0 || b->out->len == 0) {
        if (b->level > 0 && b->tables == 0)
            text_printf(b->out, "%.*s ", b->level, "######");
        else if (b->is_item && b->tables == 0)
            text_puts(b->out, "- ");
    }
    b->breaks = b->level = 0;
    b->is_item = b->has_cell_gap = false;
}

static void need_breaks(struct body *b, int breaks)
{
    if (b->breaks < breaks)
        b->breaks = breaks;
}

/* Paragraphs of one cell stay in one line, so that a row stays together. */
static void begin_paragraph(struct body *b)
{
    if (b->tables == 0)
        need_breaks(b, 2);
    else if (b->breaks == 0 && !b->has_cell_gap && b->out->len > 0)
        text_putc(b->out, ' ');
    b->level = 0;
    b->is_item = false;
}

static void body_start(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                       int namespace_count, const xmlChar **namespaces, int count, int defaulted,
                       const xmlChar **attributes)
{
    (void)prefix;
    (void)uri;
    (void)namespace_count;
    (void)namespaces;
    (void)defaulted;
    struct body *b = context;
    const char *element = (const char *)name;
    char value[64];
    if (strcmp(element, "Fallback") == 0) { /* says in an older way what stands beside it */
        b->skipped++;
    } else if (strcmp(element, "p") == 0) {
        begin_paragraph(b);
    } else if (strcmp(element, "pStyle") == 0 && attribute(attributes, count, "val", value, sizeof value)) {
        b->level = level_of_style(b->styles, value);
    } else if (strcmp(element, "numPr") == 0) {
        b->is_item = true;
    } else if (strcmp(element, "t") == 0) {
        b->is_text = true;
    } else if (strcmp(element, "tab") == 0 && b->breaks == 0) {
        text_putc(b->out, '\t');
    } else if (strcmp(element, "br") == 0 || strcmp(element, "cr") == 0) {
        need_breaks(b, 1);
    } else if (strcmp(element, "noBreakHyphen") == 0) {
        begin_words(b);
        text_putc(b->out, '-');
    } else if (strcmp(element, "tbl") == 0) {
        need_breaks(b, 2);
        b->tables++;
    } else if (strcmp(element, "tr") == 0) {
        need_breaks(b, 1);
        b->has_cell_gap = false;
    } else if (strcmp(element, "tc") == 0) {
        b->has_cell_gap = b->breaks == 0;
    }
}

static void body_end(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    (void)prefix;
    (void)uri;
    struct body *b = context;
    const char *element = (const char *)name;
    if (strcmp(element, "t") == 0) {
        b->is_text = false;
    } else if (strcmp(element, "Fallback") == 0 && b->skipped > 0) {
        b->skipped--;
    } else if (strcmp(element, "tbl") == 0 && b->tables > 0) {
        b->tables--;
        need_breaks(b, 2);
    }
}

static void body_characters(void *context, const xmlChar *bytes, int len)
{
    struct body *b = context;
    if (!b->is_text || b->skipped || len <= 0)
        return;
    begin_words(b);
    text_append(b->out, bytes, (size_t)len);
    if (b->out->is_cut)
        xmlStopParser(b->parser);
}

/* ---- the title ---- */

struct core {
    xmlParserCtxtPtr parser;
    struct text *title;
    bool is_title;
};

static void core_start(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                       int namespace_count, const xmlChar **namespaces, int count, int defaulted,
                       const xmlChar **attributes)
{
    (void)prefix;
    (void)uri;
    (void)namespace_count;
    (void)namespaces;
    (void)count;
    (void)defaulted;
    (void)attributes;
    ((struct core *)context)->is_title = strcmp((const char *)name, "title") == 0;
}

static void core_end(void *context, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    (void)name;
    (void)prefix;
    (void)uri;
    ((struct core *)context)->is_title = false;
}

static void core_characters(void *context, const xmlChar *bytes, int len)
{
    struct core *c = context;
    if (c->is_title && len > 0)
        text_append(c->title, bytes, (size_t)len);
}

static enum status read_body(struct scope *sc, const struct parts *parts, struct extraction *x)
{
    struct styles *styles = arena_zalloc(&sc->arena, sizeof *styles);
    xmlSAXHandler styles_sax = {.startElementNs = styles_start};
    parse_xml(&parts->styles, &styles_sax, styles); /* without styles there are no headings, that is all */
    struct core core = {.title = &x->title};
    xmlSAXHandler core_sax = {.startElementNs = core_start, .endElementNs = core_end, .characters = core_characters};
    parse_xml(&parts->core, &core_sax, &core);
    struct body body = {.styles = styles, .out = &x->text};
    xmlSAXHandler body_sax = {.startElementNs = body_start, .endElementNs = body_end, .characters = body_characters};
    if (!parse_xml(&parts->document, &body_sax, &body) && !x->text.is_cut)
        return fail(sc, STATUS_UNPROCESSABLE, "the document is damaged: its text is not well-formed XML");
    return STATUS_OK;
}

enum status extract_docx(struct scope *sc, struct extraction *x)
{
    struct parts parts = {0};
    enum status s = unpack(sc, x, &parts);
    if (s == STATUS_OK)
        s = read_body(sc, &parts, x);
    text_free(&parts.document);
    text_free(&parts.styles);
    text_free(&parts.core);
    return s;
}
