#include "common/ir/lines.h"

#include "common/text.h"

#include <string.h>

bool ir_next_line(struct ir_lines *lines, struct ir_span *out)
{
    if (lines->at >= lines->end)
        return false;
    size_t left = (size_t)(lines->end - lines->at);
    const char *newline = memchr(lines->at, '\n', left);
    size_t len = newline ? (size_t)(newline - lines->at) : left;
    *out = (struct ir_span){lines->at, len > 0 && lines->at[len - 1] == '\r' ? len - 1 : len};
    lines->at += newline ? len + 1 : len;
    lines->number++;
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct ir_span ir_next_field(struct ir_span *line)
{
    size_t from = 0, to;
    while (from < line->len && is_blank(line->bytes[from]))
        from++;
    for (to = from; to < line->len && !is_blank(line->bytes[to]); to++)
        ;
    struct ir_span field = {line->bytes + from, to - from};
    *line = (struct ir_span){line->bytes + to, line->len - to};
    return field;
}

struct ir_span ir_trimmed(struct ir_span s)
{
    while (s.len > 0 && is_blank(s.bytes[0]))
        s = (struct ir_span){s.bytes + 1, s.len - 1};
    while (s.len > 0 && is_blank(s.bytes[s.len - 1]))
        s.len--;
    return s;
}

enum status ir_check_text(struct scope *sc, const char *what, struct ir_span s, size_t longest)
{
    if (s.len == 0)
        return fail(sc, STATUS_UNPROCESSABLE, "%s is empty", what);
    if (s.len > longest)
        return fail(sc, STATUS_UNPROCESSABLE, "%s is longer than %zu bytes", what, longest);
    if (!utf8_is_valid(s.bytes, s.len))
        return fail(sc, STATUS_UNPROCESSABLE, "%s is not UTF-8", what);
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.bytes[i];
        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F)
            return fail(sc, STATUS_UNPROCESSABLE, "%s holds a control character", what);
    }
    return STATUS_OK;
}
