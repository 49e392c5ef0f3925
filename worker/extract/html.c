#include "worker/extract/format.h"

#include <libxml/HTMLparser.h>
#include <libxml/parserInternals.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { DECLARATION_BYTES = 4096 };

enum element_kind {
    ELEMENT_INLINE,
    ELEMENT_SKIPPED, /* with all that is in it */
    ELEMENT_BLOCK,   /* a blank line around it */
    ELEMENT_LINE,    /* a line of its own */
    ELEMENT_ITEM,    /* a line that begins with a dash */
    ELEMENT_CELL,
    ELEMENT_HEADING,
    ELEMENT_PRE,
    ELEMENT_BREAK,
    ELEMENT_TITLE,
};

static const struct {
    const char *name;
    enum element_kind kind;
} elements[] = {
    {"script", ELEMENT_SKIPPED}, {"style", ELEMENT_SKIPPED},    {"template", ELEMENT_SKIPPED},
    {"svg", ELEMENT_SKIPPED},    {"math", ELEMENT_SKIPPED},     {"iframe", ELEMENT_SKIPPED},
    {"object", ELEMENT_SKIPPED}, {"nav", ELEMENT_SKIPPED},      {"select", ELEMENT_SKIPPED},
    {"noscript", ELEMENT_BLOCK}, {"p", ELEMENT_BLOCK},          {"div", ELEMENT_BLOCK},
    {"section", ELEMENT_BLOCK},  {"article", ELEMENT_BLOCK},    {"header", ELEMENT_BLOCK},
    {"footer", ELEMENT_BLOCK},   {"main", ELEMENT_BLOCK},       {"aside", ELEMENT_BLOCK},
    {"ul", ELEMENT_BLOCK},       {"ol", ELEMENT_BLOCK},         {"dl", ELEMENT_BLOCK},
    {"table", ELEMENT_BLOCK},    {"blockquote", ELEMENT_BLOCK}, {"figure", ELEMENT_BLOCK},
    {"form", ELEMENT_BLOCK},     {"address", ELEMENT_BLOCK},    {"details", ELEMENT_BLOCK},
    {"fieldset", ELEMENT_BLOCK}, {"center", ELEMENT_BLOCK},     {"hr", ELEMENT_BLOCK},
    {"body", ELEMENT_BLOCK},     {"tr", ELEMENT_LINE},          {"dt", ELEMENT_LINE},
    {"dd", ELEMENT_LINE},        {"option", ELEMENT_LINE},      {"summary", ELEMENT_LINE},
    {"caption", ELEMENT_LINE},   {"figcaption", ELEMENT_LINE},  {"legend", ELEMENT_LINE},
    {"li", ELEMENT_ITEM},        {"td", ELEMENT_CELL},          {"th", ELEMENT_CELL},
    {"h1", ELEMENT_HEADING},     {"h2", ELEMENT_HEADING},       {"h3", ELEMENT_HEADING},
    {"h4", ELEMENT_HEADING},     {"h5", ELEMENT_HEADING},       {"h6", ELEMENT_HEADING},
    {"pre", ELEMENT_PRE},        {"textarea", ELEMENT_PRE},     {"br", ELEMENT_BREAK},
    {"title", ELEMENT_TITLE},
};

struct page {
    struct text *text, *title;
    int pre, in_title; /* depths */
    int breaks;        /* line ends that the next word needs before it: 0 to 2 */
    bool has_gap;
    const char *prefix; /* "- ", "## ": before the next word */
    char skipped[16];   /* name of the element that is skipped with all that is in it; "" = none */
    int skipped_depth;  /* elements of this name that are open */
    htmlParserCtxtPtr parser;
};

static enum element_kind kind_of(const char *name)
{
    for (size_t i = 0; i < array_len(elements); i++) {
        if (strcasecmp(name, elements[i].name) == 0)
            return elements[i].kind;
    }
    return ELEMENT_INLINE;
}

static void need_breaks(struct page *p, int breaks)
{
    if (p->breaks < breaks)
        p->breaks = breaks;
    p->has_gap = false;
}

static void begin_word(struct page *p)
{
    if (p->text->len > 0 && p->breaks > 0)
        text_append(p->text, "\n\n", (size_t)p->breaks);
    else if (p->text->len > 0 && p->has_gap)
        text_putc(p->text, ' ');
    if (p->prefix)
        text_puts(p->text, p->prefix);
    p->prefix = NULL;
    p->has_gap = false;
    p->breaks = 0;
}

static bool is_blank(const char *s, size_t left, size_t *out_len)
{
    if (*s == ' ' || *s == '\n' || *s == '\t' || *s == '\r' || *s == '\f') {
        *out_len = 1;
        return true;
    }
    *out_len = 2;
    return left >= 2 && memcmp(s, "\xC2\xA0", 2) == 0; /* no-break space */
}

static void add_flowing(struct page *p, const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n;
        if (is_blank(s + i, len - i, &n)) {
            p->has_gap = true;
            i += n;
            continue;
        }
        size_t from = i;
        while (i < len && !is_blank(s + i, len - i, &n))
            i++;
        begin_word(p);
        text_append(p->text, s + from, i - from);
    }
}

static void on_characters(void *context, const xmlChar *bytes, int len)
{
    struct page *p = context;
    const char *s = (const char *)bytes;
    if (p->skipped_depth > 0 || len <= 0)
        return;
    if (p->in_title) {
        text_append(p->title, s, (size_t)len);
    } else if (p->pre) {
        begin_word(p);
        text_append(p->text, s, (size_t)len);
    } else {
        add_flowing(p, s, (size_t)len);
    }
    if (p->text->is_cut)
        xmlStopParser(p->parser);
}

static void on_heading(struct page *p, const char *name)
{
    static const char *const prefixes[] = {"# ", "## ", "### ", "#### ", "##### ", "###### "};
    need_breaks(p, 2);
    p->prefix = prefixes[(name[1] - '1') % 6];
}

/* Menus, and the signs that documentation tools put behind headings. */
static bool is_beside_the_text(const xmlChar **attributes)
{
    for (size_t i = 0; attributes && attributes[i]; i += 2) {
        const char *name = (const char *)attributes[i], *value = (const char *)attributes[i + 1];
        if (value && ((strcmp(name, "role") == 0 && strcmp(value, "navigation") == 0) ||
                      (strcmp(name, "class") == 0 && strcmp(value, "headerlink") == 0)))
            return true;
    }
    return false;
}

static void on_start(void *context, const xmlChar *element, const xmlChar **attributes)
{
    struct page *p = context;
    const char *name = (const char *)element;
    if (p->skipped_depth > 0) {
        p->skipped_depth += strcmp(name, p->skipped) == 0;
        return;
    }
    enum element_kind kind = kind_of(name);
    if ((kind == ELEMENT_SKIPPED || is_beside_the_text(attributes)) && strlen(name) < sizeof p->skipped) {
        memcpy(p->skipped, name, strlen(name) + 1);
        p->skipped_depth = 1;
        return;
    }
    switch (kind) {
    case ELEMENT_BLOCK:
        need_breaks(p, p->prefix ? 0 : 2); /* "<li><p>": the dash stays with the words */
        break;
    case ELEMENT_LINE:
    case ELEMENT_BREAK:
        need_breaks(p, 1);
        break;
    case ELEMENT_ITEM:
        need_breaks(p, 1);
        p->prefix = "- ";
        break;
    case ELEMENT_CELL:
        p->has_gap = true;
        break;
    case ELEMENT_HEADING:
        on_heading(p, name);
        break;
    case ELEMENT_PRE:
        need_breaks(p, 2);
        p->pre++;
        break;
    case ELEMENT_TITLE:
        p->in_title++;
        break;
    case ELEMENT_INLINE:
    case ELEMENT_SKIPPED: /* dealt with above */
        break;
    }
}

static void leave(int *depth)
{
    if (*depth > 0)
        --*depth;
}

static void on_end(void *context, const xmlChar *element)
{
    struct page *p = context;
    if (p->skipped_depth > 0) {
        p->skipped_depth -= strcmp((const char *)element, p->skipped) == 0;
        return;
    }
    switch (kind_of((const char *)element)) {
    case ELEMENT_SKIPPED: /* its beginning was never seen */
        break;
    case ELEMENT_PRE:
        leave(&p->pre);
        need_breaks(p, 2);
        break;
    case ELEMENT_BLOCK:
        need_breaks(p, p->prefix ? 0 : 2);
        break;
    case ELEMENT_HEADING:
        p->prefix = NULL; /* an empty heading */
        need_breaks(p, 2);
        break;
    case ELEMENT_ITEM:
        p->prefix = NULL;
        need_breaks(p, 1);
        break;
    case ELEMENT_LINE:
        need_breaks(p, 1);
        break;
    case ELEMENT_CELL:
        p->has_gap = true;
        break;
    case ELEMENT_TITLE:
        leave(&p->in_title);
        break;
    case ELEMENT_INLINE:
    case ELEMENT_BREAK:
        break;
    }
}

__attribute__((format(printf, 2, 3))) static void be_silent(void *context, const char *format, ...)
{
    (void)context;
    (void)format;
}

/* The name after "charset=" or "encoding=" near the beginning. */
static const char *declared_charset(const char *bytes, size_t len, char *out, size_t out_size)
{
    static const char *const keys[] = {"charset", "encoding"};
    size_t n = len < DECLARATION_BYTES ? len : DECLARATION_BYTES;
    for (size_t k = 0; k < array_len(keys); k++) {
        size_t key_len = strlen(keys[k]);
        for (size_t i = 0; i + key_len + 2 < n; i++) {
            if (strncasecmp(bytes + i, keys[k], key_len) != 0)
                continue;
            size_t at = i + key_len, used = 0;
            while (at < n && strchr(" =\"'", bytes[at]) && bytes[at])
                at++;
            while (at < n && used + 1 < out_size && bytes[at] && !strchr(" \"'>;/?", bytes[at]))
                out[used++] = bytes[at++];
            out[used] = '\0';
            if (used > 2)
                return out;
        }
    }
    return NULL;
}

enum status extract_html(struct scope *sc, struct extraction *x)
{
    char charset[40];
    scoped_text html = {0};
    charset_convert(declared_charset(x->bytes, x->len, charset, sizeof charset), x->bytes, x->len, &html);
    if (html.len >= INT_MAX)
        return fail(sc, STATUS_TOO_LARGE, "the page is too large");
    xmlSetGenericErrorFunc(NULL, be_silent);
    struct page p = {.text = &x->text, .title = &x->title};
    htmlParserCtxtPtr parser = htmlCreateMemoryParserCtxt(html.len ? html.data : " ", html.len ? (int)html.len : 1);
    if (!parser)
        return fail(sc, STATUS_UNPROCESSABLE, "the page cannot be parsed");
    htmlSAXHandler sax = {.startElement = on_start,
                          .endElement = on_end,
                          .characters = on_characters,
                          .cdataBlock = on_characters,
                          .ignorableWhitespace = on_characters};
    htmlSAXHandler *own = parser->sax;
    p.parser = parser;
    parser->sax = &sax;
    parser->userData = &p;
    htmlCtxtUseOptions(parser, HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING | HTML_PARSE_NONET |
                                   HTML_PARSE_IGNORE_ENC);
    xmlSwitchEncoding(parser, XML_CHAR_ENCODING_UTF8);
    htmlParseDocument(parser);
    parser->sax = own;
    htmlFreeParserCtxt(parser);
    return STATUS_OK;
}
