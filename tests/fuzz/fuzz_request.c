/* The first look at strangers' bytes, and what is decoded of their paths and queries. */
#include "api/head.h"
#include "api/request.h"
#include "api/router.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_target(const char *bytes, const struct head *head)
{
    struct scope sc;
    struct route_match match;
    scope_init(&sc, NULL);
    const char *target = memchr(bytes + head->start, ' ', head->len - head->start);
    const char *end = target ? memchr(target + 1, ' ', head->len - (size_t)(target + 1 - bytes)) : NULL;
    if (end) {
        char *path = arena_strndup(&sc.arena, target + 1, (size_t)(end - target - 1));
        struct request r = {.sc = &sc};
        char *query = strchr(path, '?');
        if (query)
            *query++ = '\0';
        r.query = query;
        if (router_find(&sc, "GET", path, &match) == STATUS_OK && !match.route)
            __builtin_trap();
        (void)request_query(&r, "page");
    }
    scope_done(&sc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A copy of its exact size, so that every byte read too far is seen. */
    char *bytes = must_malloc(size ? size : 1);
    struct head head = {0};
    size_t len = 0;
    memcpy(bytes, data, size);
    enum head_kind kind = head_parse(bytes, size, &head);
    if (kind == HEAD_REST || kind == HEAD_WEBSOCKET) {
        if (head.len > size || head.start >= head.len || bytes[head.len - 1] != '\n')
            __builtin_trap();
        const char *value = head_field(bytes, &head, "X-Forwarded-For", 0, &len);
        if (value && (value < bytes || value + len > bytes + head.len))
            __builtin_trap();
        look_at_target(bytes, &head);
    }
    free(bytes);
    return 0;
}
