#include "api/relay/upgrade.h"

#include "api/relay/extension.h"
#include "common/message.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

#define TOKEN_PROTOCOL "access_token."

struct slice {
    const char *at;
    size_t len;
};

static struct slice trimmed(struct slice s)
{
    while (s.len && (*s.at == ' ' || *s.at == '\t')) {
        s.at++;
        s.len--;
    }
    while (s.len && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t' || s.at[s.len - 1] == '\r'))
        s.len--;
    return s;
}

static bool slice_is(struct slice s, const char *word)
{
    return s.len == strlen(word) && strncasecmp(s.at, word, s.len) == 0;
}

/* Cuts what precedes the next `separator` off `rest`; false at the end. */
static bool next_part(struct slice *rest, char separator, struct slice *out)
{
    if (!rest->at)
        return false;
    const char *end = memchr(rest->at, separator, rest->len);
    out->at = rest->at;
    out->len = end ? (size_t)(end - rest->at) : rest->len;
    rest->len = end ? rest->len - out->len - 1 : 0;
    rest->at = end ? end + 1 : NULL;
    return true;
}

static bool list_has(struct slice list, const char *word)
{
    struct slice part;
    while (next_part(&list, ',', &part)) {
        if (slice_is(trimmed(part), word))
            return true;
    }
    return false;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* NULL when the bytes hold a NUL. */
static const char *percent_decoded(struct scope *sc, struct slice s)
{
    char *out = arena_alloc(&sc->arena, s.len + 1), *p = out;
    for (size_t i = 0; i < s.len; i++) {
        int high = s.at[i] == '%' && i + 2 < s.len ? hex_digit(s.at[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(s.at[i + 2]) : -1;
        if (low >= 0)
            i += 2;
        *p = low >= 0 ? (char)(high * 16 + low) : s.at[i] == '+' ? ' ' : s.at[i];
        if (*p++ == '\0')
            return NULL;
    }
    *p = '\0';
    return out;
}

/* The characters of an HTTP token, so that an echoed value is one word of the answer's line. */
static bool is_protocol_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.at[i];
        if (c <= ' ' || c >= 0x7F || strchr("()<>@,;:\\\"/[]?={}", c))
            return false;
    }
    return s.len > 0 && s.len <= WS_ECHO_MAX;
}

static void take_protocols(struct scope *sc, struct ws_head *out, struct slice list)
{
    struct slice part;
    while (!out->echo && next_part(&list, ',', &part)) {
        part = trimmed(part);
        if (part.len < strlen(TOKEN_PROTOCOL) || strncmp(part.at, TOKEN_PROTOCOL, strlen(TOKEN_PROTOCOL)) != 0 ||
            !is_protocol_name(part))
            continue;
        out->echo = arena_strndup(&sc->arena, part.at, part.len);
        out->token = out->echo + strlen(TOKEN_PROTOCOL);
    }
}

static void take_query(struct scope *sc, struct ws_head *out, struct slice query)
{
    struct slice part;
    while (next_part(&query, '&', &part)) {
        struct slice name;
        if (!next_part(&part, '=', &name))
            continue;
        const char *value = percent_decoded(sc, part.at ? part : (struct slice){"", 0});
        if (!value)
            continue;
        if (slice_is(name, "token") && !out->token)
            out->token = value;
        else if (slice_is(name, "last_id"))
            out->last_id = value;
        else if (slice_is(name, "format"))
            out->is_flat = strcmp(value, "flat") == 0;
    }
}

static bool is_scan_id(const char *s)
{
    size_t len = strlen(s);
    return len > 0 && len <= 64 && strspn(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") == len;
}

static void take_path(struct ws_head *out, char *path)
{
    static const struct {
        const char *prefix;
        enum ws_kind kind;
    } prefixes[] = {
        {"/ws/operations/", WS_OPERATION}, {"/ws/scan/", WS_SCAN}, {"/ws/directory-scan/", WS_DIRECTORY_SCAN}};
    size_t len = strlen(path);
    if (len > 1 && path[len - 1] == '/')
        path[len - 1] = '\0';
    if (strcmp(path, "/ws/operations") == 0)
        out->kind = WS_OPERATIONS;
    for (size_t i = 0; i < array_len(prefixes); i++) {
        if (strncmp(path, prefixes[i].prefix, strlen(prefixes[i].prefix)) != 0)
            continue;
        char *target = path + strlen(prefixes[i].prefix);
        if (prefixes[i].kind == WS_OPERATION) {
            for (char *c = target; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        } else if (!is_scan_id(target)) {
            return;
        }
        out->kind = prefixes[i].kind;
        out->target = target;
    }
}

static enum status take_request_line(struct scope *sc, struct ws_head *out, struct slice line, struct slice *out_query)
{
    struct slice method, uri, version;
    line = trimmed(line);
    if (!next_part(&line, ' ', &method) || !next_part(&line, ' ', &uri) || !next_part(&line, ' ', &version) || line.at)
        return fail(sc, STATUS_INVALID, "not a request line");
    if (method.len != 3 || strncmp(method.at, "GET", 3) != 0)
        return fail(sc, STATUS_INVALID, "a WebSocket is opened by GET");
    if (!slice_is(version, "HTTP/1.1"))
        return fail(sc, STATUS_INVALID, "a WebSocket is opened by HTTP/1.1");
    if (uri.len == 0 || *uri.at != '/')
        return fail(sc, STATUS_INVALID, "not a path");
    struct slice path;
    next_part(&uri, '?', &path);
    *out_query = uri;
    const char *decoded = percent_decoded(sc, path);
    if (decoded)
        take_path(out, arena_strdup(&sc->arena, decoded));
    return STATUS_OK;
}

static bool is_key(struct slice s)
{
    if (s.len != WS_KEY_CHARS || s.at[22] != '=' || s.at[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++) {
        if (!isalnum((unsigned char)s.at[i]) && s.at[i] != '+' && s.at[i] != '/')
            return false;
    }
    return true;
}

struct seen {
    bool has_upgrade, has_connection, has_version;
    int keys;
};

static void take_header(struct scope *sc, struct ws_head *out, struct seen *seen, struct slice name, struct slice value)
{
    if (slice_is(name, "Upgrade"))
        seen->has_upgrade |= list_has(value, "websocket");
    else if (slice_is(name, "Connection"))
        seen->has_connection |= list_has(value, "upgrade");
    else if (slice_is(name, "Sec-WebSocket-Version"))
        seen->has_version = slice_is(value, "13");
    else if (slice_is(name, "Sec-WebSocket-Protocol"))
        take_protocols(sc, out, value);
    else if (slice_is(name, "Sec-WebSocket-Extensions") && !out->extension)
        out->extension = extension_answer(value.at, value.len);
    else if (slice_is(name, "Origin"))
        out->origin = arena_strndup(&sc->arena, value.at, value.len);
    else if (slice_is(name, "Host"))
        out->host = arena_strndup(&sc->arena, value.at, value.len);
    if (slice_is(name, "Sec-WebSocket-Key")) {
        seen->keys += is_key(value) ? 1 : 2;
        if (is_key(value))
            memcpy(out->key, value.at, value.len);
    }
}

enum status ws_head_parse(struct scope *sc, const char *head, size_t len, struct ws_head *out)
{
    *out = (struct ws_head){.target = "", .host = ""};
    const char *end = memmem(head, len, "\r\n\r\n", 4);
    if (!end)
        return fail(sc, STATUS_INVALID, "the request's head has no end");
    out->head_len = (size_t)(end - head) + 4;
    if (memchr(head, '\0', out->head_len))
        return fail(sc, STATUS_INVALID, "the request's head holds a NUL");
    struct slice rest = {head, out->head_len - 4}, line, query = {0};
    next_part(&rest, '\n', &line);
    enum status s = take_request_line(sc, out, line, &query);
    struct seen seen = {0};
    while (s == STATUS_OK && next_part(&rest, '\n', &line)) {
        struct slice name;
        next_part(&line, ':', &name);
        if (line.at)
            take_header(sc, out, &seen, name, trimmed(line));
    }
    if (s != STATUS_OK)
        return s;
    if (!seen.has_upgrade)
        return fail(sc, STATUS_UPGRADE, "this is a WebSocket endpoint");
    if (!seen.has_connection || seen.keys != 1)
        return fail(sc, STATUS_INVALID,
                    "not a WebSocket upgrade: Connection or Sec-WebSocket-Key is missing or malformed");
    if (!seen.has_version)
        return fail(sc, STATUS_INVALID, "only version 13 of the WebSocket protocol is spoken here");
    if (query.at)
        take_query(sc, out, query);
    return STATUS_OK;
}

void ws_head_rewrite(struct text *out, const struct ws_head *head)
{
    text_printf(out,
                "GET /ws HTTP/1.1\r\nHost: opstream\r\nUpgrade: websocket\r\nConnection: "
                "Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: %s\r\n",
                head->key);
    if (head->extension)
        text_printf(out, "Sec-WebSocket-Extensions: %s\r\n", head->extension);
    text_puts(out, "\r\n");
}

/* The host of "host:port" or "[v6]:port" is an address or localhost. */
static bool is_literal(const char *authority)
{
    char host[64];
    bool is_v6 = *authority == '[';
    size_t len = strcspn(authority + is_v6, is_v6 ? "]" : ":");
    if (len == 0 || len >= sizeof host)
        return false;
    memcpy(host, authority + is_v6, len);
    host[len] = '\0';
    struct in6_addr address;
    return inet_pton(is_v6 ? AF_INET6 : AF_INET, host, &address) == 1 || (!is_v6 && strcasecmp(host, "localhost") == 0);
}

/* Length of "host:port" without a port that the scheme implies. */
static size_t authority_len(const char *authority, bool is_https)
{
    size_t len = strlen(authority);
    const char *port = is_https ? ":443" : ":80";
    size_t port_len = strlen(port);
    return len > port_len && strcmp(authority + len - port_len, port) == 0 ? len - port_len : len;
}

bool ws_origin_is_allowed(const char *cors_origins, const char *origin, const char *host)
{
    if (!origin)
        return true;
    struct slice list = {cors_origins ? cors_origins : "", cors_origins ? strlen(cors_origins) : 0}, part;
    while (next_part(&list, ',', &part)) {
        part = trimmed(part);
        if (part.len && part.at[part.len - 1] == '/')
            part.len--;
        if (part.len && (slice_is(part, origin) || slice_is(part, "*")))
            return true;
    }
    bool is_https = strncasecmp(origin, "https://", 8) == 0;
    if (!is_https && strncasecmp(origin, "http://", 7) != 0)
        return false;
    const char *authority = origin + (is_https ? 8 : 7);
    size_t len = authority_len(authority, is_https);
    return is_literal(authority) && len == authority_len(host, is_https) && strncasecmp(authority, host, len) == 0;
}

const char *ws_kind_name(enum ws_kind kind)
{
    static const char *const names[] = {"unknown", "operations", "operation", "scan", "directory_scan"};
    return names[kind];
}
