#include "api/address.h"

#include "common/config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { FORWARDED_MOST_BYTES = 4096 };

/* IPv4 is kept as ::ffff:a.b.c.d, so that one comparison does for both. */
struct network {
    struct in6_addr address;
    int bits;
};

struct proxies {
    size_t count;
    struct network networks[];
};

static bool parse_address(const char *s, struct in6_addr *out, bool *out_is_v4)
{
    struct in_addr v4;
    *out_is_v4 = inet_pton(AF_INET, s, &v4) == 1;
    if (!*out_is_v4)
        return inet_pton(AF_INET6, s, out) == 1;
    memset(out, 0, sizeof *out);
    out->s6_addr[10] = out->s6_addr[11] = 0xFF;
    memcpy(&out->s6_addr[12], &v4, 4);
    return true;
}

static bool parse_network(const char *s, struct network *out)
{
    char address[64];
    size_t len = strcspn(s, "/");
    if (len >= sizeof address)
        return false;
    memcpy(address, s, len);
    address[len] = '\0';
    bool is_v4;
    if (!parse_address(address, &out->address, &is_v4))
        return false;
    int most = is_v4 ? 32 : 128, bits = most;
    char *end = NULL;
    if (s[len] == '/') {
        bits = (int)strtol(s + len + 1, &end, 10);
        if (end == s + len + 1 || *end || bits < 0 || bits > most)
            return false;
    }
    out->bits = is_v4 ? bits + 96 : bits;
    return true;
}

enum status proxies_parse(struct scope *sc, const char *list, const struct proxies **out)
{
    size_t count = 0;
    char **items = settings_list(&sc->arena, list, ',', &count);
    struct proxies *p = arena_zalloc(&sc->arena, sizeof *p + count * sizeof p->networks[0]);
    for (; p->count < count; p->count++) {
        if (!parse_network(items[p->count], &p->networks[p->count]))
            return fail(sc, STATUS_INVALID, "TRUSTED_PROXIES: `%s` is neither an address nor a network",
                        items[p->count]);
    }
    *out = p;
    return STATUS_OK;
}

static bool is_within(const struct network *n, const struct in6_addr *address)
{
    int bytes = n->bits / 8, rest = n->bits % 8;
    if (memcmp(&n->address, address, (size_t)bytes) != 0)
        return false;
    return rest == 0 || ((n->address.s6_addr[bytes] ^ address->s6_addr[bytes]) & (0xFF00 >> rest) & 0xFF) == 0;
}

static bool is_trusted(const struct proxies *p, const char *address)
{
    struct in6_addr binary;
    bool is_v4;
    if (!p || p->count == 0 || !parse_address(address, &binary, &is_v4))
        return false;
    for (size_t i = 0; i < p->count; i++) {
        if (is_within(&p->networks[i], &binary))
            return true;
    }
    return false;
}

static void write_address(const struct in6_addr *v6, char out[64])
{
    if (IN6_IS_ADDR_V4MAPPED(v6))
        inet_ntop(AF_INET, &v6->s6_addr[12], out, 64);
    else
        inet_ntop(AF_INET6, v6, out, 64);
}

void address_text(const struct sockaddr *address, char out[64])
{
    out[0] = '\0';
    if (address && address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, out, 64);
    else if (address && address->sa_family == AF_INET6)
        write_address(&((const struct sockaddr_in6 *)address)->sin6_addr, out);
}

/* "[2001:db8::1]:443", "203.0.113.7:99" and the plain forms -> the address; NULL when it is none. One client is always
 * written the same, "::ffff:203.0.113.7" too: it is counted by that. */
static const char *without_port(struct arena *a, const char *item)
{
    struct in6_addr binary;
    bool is_v4;
    const char *bracket = *item == '[' ? strchr(item, ']') : NULL;
    const char *colon = strchr(item, ':');
    if (bracket)
        item = arena_strndup(a, item + 1, (size_t)(bracket - item - 1));
    else if (colon && !strchr(colon + 1, ':'))
        item = arena_strndup(a, item, (size_t)(colon - item));
    if (!parse_address(item, &binary, &is_v4))
        return NULL;
    char text[64];
    write_address(&binary, text);
    return arena_strdup(a, text);
}

void address_join_forwarded(struct text *joined, const char *value, size_t len)
{
    text_puts(joined, joined->len ? "," : "");
    text_append(joined, value, len);
}

/* What is cut goes at the front, and with it the address that the cut went through; "" when that was the last. */
static const char *end_of(const char *forwarded_for)
{
    size_t len = strlen(forwarded_for);
    if (len <= FORWARDED_MOST_BYTES)
        return forwarded_for;
    const char *comma = strchr(forwarded_for + len - FORWARDED_MOST_BYTES, ',');
    return comma ? comma + 1 : "";
}

const char *address_of_client(struct arena *a, const struct proxies *trusted, const char *peer,
                              const char *forwarded_for)
{
    const char *client = arena_strdup(a, peer);
    if (!forwarded_for || !is_trusted(trusted, peer))
        return client;
    size_t count = 0;
    char **hops = settings_list(a, end_of(forwarded_for), ',', &count);
    while (count > 0) {
        const char *hop = without_port(a, hops[--count]);
        if (!hop)
            break; /* nothing further left of it can be believed */
        client = hop;
        if (!is_trusted(trusted, hop))
            break;
    }
    return client;
}
