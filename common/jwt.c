#include "common/jwt.h"

#include "common/clock.h"
#include "common/json.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

enum { LONGEST_TOKEN = 4096, MAC_BYTES = 32 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* base64url without padding (RFC 4648 section 5) */
static const char *encode(struct scope *sc, const unsigned char *bytes, size_t len)
{
    char *out = arena_alloc(&sc->arena, (len + 2) / 3 * 4 + 1), *p = out;
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t v = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (left > 2 ? bytes[i + 2] : 0u);
        for (size_t k = 0; k < (left > 2 ? 4 : left + 1); k++)
            *p++ = alphabet[v >> (18 - 6 * k) & 63];
    }
    *p = '\0';
    return out;
}

static bool decode(struct scope *sc, const char *s, size_t len, unsigned char **out, size_t *out_len)
{
    unsigned char *bytes = arena_alloc(&sc->arena, len * 3 / 4 + 4), *p = bytes;
    uint32_t v = 0;
    int bits = 0;
    if (len % 4 == 1)
        return false;
    for (size_t i = 0; i < len; i++) {
        const char *at = s[i] ? strchr(alphabet, s[i]) : NULL;
        if (!at)
            return false;
        v = v << 6 | (uint32_t)(at - alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *p++ = (unsigned char)(v >> bits);
        }
    }
    *p = '\0';
    *out = bytes;
    *out_len = (size_t)(p - bytes);
    return (v & ((1u << bits) - 1)) == 0; /* one spelling a value */
}

static void sign(const char *secret, const char *bytes, size_t len, unsigned char mac[MAC_BYTES])
{
    unsigned n = MAC_BYTES;
    if (!HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)bytes, len, mac, &n))
        abort();
}

const char *jwt_sign(struct scope *sc, const char *secret, const struct jwt_claims *c)
{
    static const char header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    scoped_text payload = {0}, token = {0};
    json_open(&payload, NULL, '{');
    json_text(&payload, "sub", c->subject);
    json_int(&payload, "user_id", c->user_id);
    json_int(&payload, "exp", c->expires_at);
    json_text(&payload, "type", c->type);
    if (c->jti)
        json_text(&payload, "jti", c->jti);
    json_close(&payload, '}');
    text_puts(&token, encode(sc, (const unsigned char *)header, sizeof header - 1));
    text_putc(&token, '.');
    text_puts(&token, encode(sc, (const unsigned char *)payload.data, payload.len));
    unsigned char mac[MAC_BYTES];
    sign(secret, token.data, token.len, mac);
    text_putc(&token, '.');
    text_puts(&token, encode(sc, mac, sizeof mac));
    return arena_strdup(&sc->arena, token.data);
}

static cJSON *parse_part(struct scope *sc, const char *s, size_t len)
{
    unsigned char *bytes;
    size_t n;
    cJSON *json = NULL;
    struct scope quiet;
    if (!decode(sc, s, len, &bytes, &n))
        return NULL;
    scope_init(&quiet, NULL); /* the reason why a token is bad is nobody's business */
    if (json_parse(&quiet, (const char *)bytes, n, &json) != STATUS_OK)
        json = NULL;
    scope_done(&quiet);
    return json;
}

static enum status refuse(struct scope *sc)
{
    return fail(sc, STATUS_UNAUTHENTICATED, "Invalid authentication credentials");
}

enum status jwt_verify(struct scope *sc, const char *secret, const char *token, const char *type,
                       struct jwt_claims *out)
{
    const char *dot = strchr(token, '.'), *second = dot ? strchr(dot + 1, '.') : NULL;
    if (!second || strchr(second + 1, '.') || strlen(token) > LONGEST_TOKEN)
        return refuse(sc);
    unsigned char expected[MAC_BYTES], *mac;
    size_t mac_len;
    sign(secret, token, (size_t)(second - token), expected);
    if (!decode(sc, second + 1, strlen(second + 1), &mac, &mac_len) || mac_len != MAC_BYTES ||
        CRYPTO_memcmp(mac, expected, MAC_BYTES) != 0)
        return refuse(sc);
    scoped(cJSON) *header = parse_part(sc, token, (size_t)(dot - token));
    scoped(cJSON) *payload = parse_part(sc, dot + 1, (size_t)(second - dot - 1));
    if (!cJSON_IsObject(payload) || strcmp(json_get_text(header, "alg", ""), "HS256") != 0)
        return refuse(sc);
    int64_t expires_at = json_get_int(payload, "exp", 0);
    const char *subject = json_get_text(payload, "sub", NULL);
    if (!subject || expires_at <= clock_wall_ms() / 1000 || strcmp(json_get_text(payload, "type", ""), type) != 0)
        return refuse(sc);
    *out = (struct jwt_claims){
        .subject = arena_strdup(&sc->arena, subject),
        .user_id = json_get_int(payload, "user_id", 0),
        .expires_at = expires_at,
        .type = type,
        .jti = arena_strdup(&sc->arena, json_get_text(payload, "jti", NULL)),
    };
    return STATUS_OK;
}
