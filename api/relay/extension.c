#include "api/relay/extension.h"

#include "api/relay/deflate.h"
#include "common/base.h"

#include <stdbool.h>
#include <string.h>

#define NAME "permessage-deflate"
#define BY_MESSAGE NAME "; server_no_context_takeover; client_no_context_takeover"

enum { SMALLEST_BITS = 8, LARGEST_BITS = 15, NO_VALUE = -1, BAD_VALUE = -2 };

struct cursor {
    const char *at, *end;
};

struct word {
    const char *at;
    size_t len;
};

struct offer {
    bool is_deflate, is_acceptable, limits_server;
    unsigned seen; /* a bit for each parameter */
};

static void skip_blanks(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
}

/* True when the next character that is no blank is `wanted`, and was taken. */
static bool take(struct cursor *c, char wanted)
{
    skip_blanks(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool take_token(struct cursor *c, struct word *out)
{
    skip_blanks(c);
    out->at = c->at;
    while (c->at < c->end && (unsigned char)*c->at > ' ' && (unsigned char)*c->at < 0x7F &&
           !strchr("()<>@,;:\\\"/[]?={}", *c->at))
        c->at++;
    out->len = (size_t)(c->at - out->at);
    return out->len > 0;
}

static bool word_is(struct word w, const char *s)
{
    return w.len == strlen(s) && memcmp(w.at, s, w.len) == 0;
}

/* "a decimal integer value without leading zeroes between 8 to 15" */
static int bits_of(struct word w)
{
    int n = 0;
    if (w.len < 1 || w.len > 2 || *w.at == '0')
        return BAD_VALUE;
    for (size_t i = 0; i < w.len; i++) {
        if (w.at[i] < '0' || w.at[i] > '9')
            return BAD_VALUE;
        n = n * 10 + (w.at[i] - '0');
    }
    return n >= SMALLEST_BITS && n <= LARGEST_BITS ? n : BAD_VALUE;
}

/* A quoted value means what it means without the quotes. */
static bool take_quoted(struct cursor *c, int *out_bits)
{
    char value[3];
    size_t len = 0;
    for (c->at++; c->at < c->end && *c->at != '"'; c->at++) {
        if (*c->at == '\\' && ++c->at == c->end)
            return false;
        if ((unsigned char)*c->at < ' ' && *c->at != '\t')
            return false;
        if (len < sizeof value)
            value[len++] = *c->at;
    }
    if (c->at == c->end)
        return false;
    c->at++;
    *out_bits = bits_of((struct word){value, len});
    return true;
}

static bool take_value(struct cursor *c, int *out_bits)
{
    struct word w;
    *out_bits = NO_VALUE;
    if (!take(c, '='))
        return true;
    skip_blanks(c);
    if (c->at < c->end && *c->at == '"')
        return take_quoted(c, out_bits);
    if (!take_token(c, &w))
        return false;
    *out_bits = bits_of(w);
    return true;
}

/* What is not known, comes twice or has a wrong value makes an offer one to decline. */
static bool is_parameter_good(struct offer *o, struct word name, int bits)
{
    static const char *const names[] = {"server_no_context_takeover", "client_no_context_takeover",
                                        "server_max_window_bits", "client_max_window_bits"};
    for (unsigned i = 0; i < array_len(names); i++) {
        if (!word_is(name, names[i]))
            continue;
        if (o->seen & 1u << i)
            return false;
        o->seen |= 1u << i;
        if (i < 2)
            return bits == NO_VALUE;
        if (i == 3)
            return bits != BAD_VALUE; /* a hint: what a client sends may have any window */
        o->limits_server = true;
        return bits >= DEFLATE_WINDOW_BITS;
    }
    return false;
}

/* False when it is no offer at all. */
static bool take_offer(struct cursor *c, struct offer *out)
{
    struct word name;
    if (!take_token(c, &name))
        return false;
    *out = (struct offer){.is_deflate = word_is(name, NAME), .is_acceptable = true};
    while (take(c, ';')) {
        int bits;
        if (!take_token(c, &name) || !take_value(c, &bits))
            return false;
        out->is_acceptable = is_parameter_good(out, name, bits) && out->is_acceptable;
    }
    return true;
}

const char *extension_answer(const char *offers, size_t len)
{
    struct cursor c = {offers, offers + len};
    const char *answer = NULL;
    for (;;) {
        struct offer o;
        while (take(&c, ',')) /* a list may have empty elements */
            continue;
        if (c.at == c.end)
            return answer;
        if (!take_offer(&c, &o))
            return NULL;
        if (!answer && o.is_deflate && o.is_acceptable)
            answer = o.limits_server ? BY_MESSAGE "; server_max_window_bits=" DEFLATE_WINDOW_TEXT : BY_MESSAGE;
        skip_blanks(&c);
        if (c.at < c.end && *c.at != ',')
            return NULL;
    }
}
