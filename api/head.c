#include "api/head.h"

#include <string.h>
#include <strings.h>

enum { LONGEST_METHOD = 32, EMPTY_LINES = 4 };

static bool is_token_char(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Clients of long ago send an empty line after a body. */
static size_t skip_empty_lines(const char *bytes, size_t len)
{
    size_t at = 0;
    for (int i = 0; i < EMPTY_LINES; i++) {
        if (at < len && bytes[at] == '\n')
            at++;
        else if (at + 1 < len && bytes[at] == '\r' && bytes[at + 1] == '\n')
            at += 2;
        else
            break;
    }
    return at;
}

/* The version at the end of a whole request line. */
static bool has_version(const char *line, size_t len)
{
    if (len && line[len - 1] == '\r')
        len--;
    return len > 9 && strncmp(line + len - 9, " HTTP/1.", 8) == 0 && line[len - 1] >= '0' && line[len - 1] <= '9';
}

/* What has come of a request line must look like one so far: TLS, another protocol or noise is told at its first bytes.
 */
static bool may_be_request_line(const char *line, size_t len, bool is_whole)
{
    size_t method = 0;
    while (method < len && is_token_char(line[method]))
        method++;
    if (method > LONGEST_METHOD || (method == 0 && len > 0))
        return false;
    if (method == len)
        return !is_whole;
    if (line[method] != ' ')
        return false;
    for (size_t i = method + 1; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if ((c < ' ' && !(c == '\r' && i + 1 == len)) || c == 0x7F)
            return false;
    }
    if (len > method + 1 && (line[method + 1] == ' ' || line[method + 1] == '\r'))
        return false;
    return !is_whole || has_version(line, len);
}

/* Length up to and with the empty line; 0 when it has not come yet. */
static size_t find_end(const char *bytes, size_t len, size_t start)
{
    for (const char *p = bytes + start; (p = memchr(p, '\n', len - (size_t)(p - bytes))); p++) {
        size_t after = (size_t)(p - bytes) + 1;
        if (after < len && bytes[after] == '\n')
            return after + 1;
        if (after + 1 < len && bytes[after] == '\r' && bytes[after + 1] == '\n')
            return after + 2;
    }
    return 0;
}

const char *head_field(const char *bytes, const struct head *head, const char *name, int n, size_t *out_len)
{
    size_t name_len = strlen(name);
    const char *end = bytes + head->len;
    const char *line = memchr(bytes + head->start, '\n', head->len - head->start);
    while (line && ++line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((stop ? stop : end) - line);
        if (len > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0 && n-- == 0) {
            const char *value = line + name_len + 1;
            len -= name_len + 1;
            while (len && strchr(" \t\r", value[len - 1]))
                len--;
            while (len && (*value == ' ' || *value == '\t'))
                value++, len--;
            *out_len = len;
            return value;
        }
        line = stop;
    }
    return NULL;
}

/* The path of "GET <target>", absolute URLs included. */
static bool is_websocket_path(const char *line, size_t len)
{
    static const char get[] = "GET ", ws[] = "/ws/";
    if (len < sizeof get - 1 || memcmp(line, get, sizeof get - 1) != 0)
        return false;
    const char *target = line + sizeof get - 1, *end = line + len;
    if (target < end && *target != '/') {
        const char *scheme = memmem(target, (size_t)(end - target), "://", 3);
        target = scheme ? memchr(scheme + 3, '/', (size_t)(end - scheme) - 3) : NULL;
    }
    return target && (size_t)(end - target) >= sizeof ws - 1 && memcmp(target, ws, sizeof ws - 1) == 0;
}

static bool asks_for_websocket(const char *bytes, const struct head *head)
{
    size_t len = 0;
    for (int n = 0;; n++) {
        const char *value = head_field(bytes, head, "Upgrade", n, &len);
        if (!value)
            return false;
        for (size_t i = 0; i + 9 <= len; i++) {
            if (strncasecmp(value + i, "websocket", 9) == 0)
                return true;
        }
    }
}

static bool is_header_line(const char *line, size_t len)
{
    size_t name = 0;
    while (name < len && is_token_char(line[name]))
        name++;
    if (name == 0 || name == len || line[name] != ':')
        return false; /* also a line that goes on from the one before: nobody needs those any more */
    for (size_t i = name; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if ((c < ' ' && c != '\t') || c == 0x7F)
            return false;
    }
    return true;
}

static bool has_good_lines(const char *bytes, const struct head *head)
{
    const char *end = bytes + head->len;
    const char *line = memchr(bytes + head->start, '\n', head->len - head->start);
    while (line && ++line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((stop ? stop : end) - line);
        if (len && line[len - 1] == '\r')
            len--;
        if (len == 0)
            return true;
        if (!is_header_line(line, len))
            return false;
        line = stop;
    }
    return true;
}

/* One length or one coding: two of them are how requests are smuggled. */
static bool has_one_framing(const char *bytes, const struct head *head)
{
    size_t len = 0, coding_len = 0, ignored = 0;
    const char *length = head_field(bytes, head, "Content-Length", 0, &len);
    const char *coding = head_field(bytes, head, "Transfer-Encoding", 0, &coding_len);
    if (head_field(bytes, head, "Content-Length", 1, &ignored) ||
        head_field(bytes, head, "Transfer-Encoding", 1, &ignored))
        return false;
    if (coding && (coding_len != 7 || strncasecmp(coding, "chunked", 7) != 0))
        return false;
    if (length && (coding || len == 0 || len > 18))
        return false;
    for (size_t i = 0; length && i < len; i++) {
        if (length[i] < '0' || length[i] > '9')
            return false;
    }
    return true;
}

static bool has_host(const char *bytes, const struct head *head, const char *line, size_t line_len)
{
    size_t len = 0;
    if (line_len && line[line_len - 1] == '\r')
        line_len--;
    bool is_old = line[line_len - 1] == '0'; /* HTTP/1.0 */
    return head_field(bytes, head, "Host", 0, &len) ? !head_field(bytes, head, "Host", 1, &len) : is_old;
}

enum head_kind head_parse(const char *bytes, size_t len, struct head *out)
{
    struct head head = {.start = skip_empty_lines(bytes, len)};
    const char *line = bytes + head.start;
    const char *line_end = memchr(line, '\n', len - head.start);
    size_t line_len = line_end ? (size_t)(line_end - line) : len - head.start;
    if (head.start == 0 && len == 1 && *bytes == '\r')
        return HEAD_INCOMPLETE;
    if (!may_be_request_line(line, line_len, line_end != NULL))
        return HEAD_BAD;
    head.len = line_end ? find_end(bytes, len, head.start) : 0;
    if (head.len == 0)
        return len >= HEAD_MAX_BYTES ? HEAD_TOO_LARGE : HEAD_INCOMPLETE;
    if (head.len > HEAD_MAX_BYTES)
        return HEAD_TOO_LARGE;
    if (!has_good_lines(bytes, &head) || !has_one_framing(bytes, &head) || !has_host(bytes, &head, line, line_len))
        return HEAD_BAD;
    *out = head;
    return is_websocket_path(line, line_len) && asks_for_websocket(bytes, &head) ? HEAD_WEBSOCKET : HEAD_REST;
}
