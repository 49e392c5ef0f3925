/* What a client sends. */
#include "api/relay/hub.h"

#include "api/relay/deflate.h"
#include "api/relay/flood.h"
#include "common/clock.h"
#include "common/json.h"

#include <string.h>

enum { RESUME_COST = 5 /* a resume reads a history */, BYTES_A_COUNT = 2048 };

void client_heard(struct client *c)
{
    c->heard_ms = clock_monotonic_ms();
}

void client_ponged(struct client *c)
{
    c->has_ponged = true;
    client_heard(c);
    (void)flood_count(c, 1);
}

static void answer_ping(struct client *c)
{
    if (c->pending_bytes < (size_t)c->hub->settings->ws_send_buffer_bytes / 2)
        client_send(c, c->hub->pong);
}

static void resume(struct client *c, const char *last_id)
{
    if (!flood_count(c, RESUME_COST))
        return;
    c->speaks_resume = true;
    bool is_there = c->state == CLIENT_OPEN || c->state == CLIENT_SUBSCRIBING;
    if (!is_there || (c->kind != WS_OPERATION && c->kind != WS_OPERATIONS) || !last_id || !*last_id)
        return;
    bool needs_state = c->needs_state;
    struct open_answer nowhere = {0};
    c->was_truncated = false; /* a word that is due about another position is not due about this one */
    client_choose_position(c, &nowhere, last_id);
    c->needs_state = needs_state;
    client_page_on(c);
}

static void take_message(struct client *c, const char *text, size_t len)
{
    if (!utf8_is_valid(text, len)) {
        client_close(c, CLOSE_BAD_TEXT, "this is not UTF-8");
        return;
    }
    while (len && strchr(" \t\r\n", text[len - 1]))
        len--;
    if (len == 4 && memcmp(text, "ping", 4) == 0) {
        answer_ping(c);
        return;
    }
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *json = NULL;
    if (json_parse(&sc, text, len, &json) == STATUS_OK && cJSON_IsObject(json)) {
        const char *type = json_get_text(json, "type", "");
        if (strcmp(type, "ping") == 0)
            answer_ping(c);
        else if (strcmp(type, "resume") == 0)
            resume(c, json_get_text(json, "last_id", NULL));
        else if (strcmp(type, "refresh") == 0)
            refresh_message(c, json_get_text(json, "token", ""));
        else if (c->kind == WS_SCAN && c->state == CLIENT_OPEN)
            scan_message(c, text, len);
    }
    scope_done(&sc);
}

static void too_big(struct client *c)
{
    client_close(c, CLOSE_TOO_BIG, "at most 64 KiB a message");
    text_free(&c->message);
}

static void take_whole(struct client *c, const char *bytes, size_t len)
{
    if (!c->is_packed) {
        take_message(c, bytes, len);
        return;
    }
    /* What little blocks cost to unpack goes by the bytes that were sent, not by those that come out. */
    if (!flood_count(c, 1 + (int)(len / BYTES_A_COUNT)))
        return;
    scoped_text text = {0};
    switch (deflate_unpack(&text, bytes, len, MESSAGE_BYTES)) {
    case DEFLATE_OK:
        take_message(c, text_str(&text), text.len);
        break;
    case DEFLATE_BROKEN:
        client_close(c, CLOSE_BAD_TEXT, "this message cannot be decompressed");
        break;
    case DEFLATE_TOO_LARGE:
        too_big(c);
        break;
    }
}

void client_receive(struct client *c, const char *bytes, size_t len, bool is_first, bool is_final, bool is_binary)
{
    client_heard(c);
    if (c->state == CLIENT_CLOSING)
        return;
    if (is_final && !flood_count(c, 1))
        return;
    if (is_first) {
        text_clear(&c->message);
        c->message_bytes = 0;
        c->is_ignoring = is_binary;
    }
    c->message_bytes += len;
    if (c->message_bytes > MESSAGE_BYTES) {
        too_big(c);
        return;
    }
    if (c->is_ignoring)
        return;
    if (is_first && is_final) {
        take_whole(c, bytes, len);
        return;
    }
    text_append(&c->message, bytes, len);
    if (is_final) {
        take_whole(c, text_str(&c->message), c->message.len);
        text_free(&c->message);
    }
}
