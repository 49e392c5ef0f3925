#include "api/relay/hub.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { CLOSE_POLICY = 1008, CLOSE_TOO_BIG = 1009, CLOSE_FAULT = 1011, CLOSE_RESTART = 1012 };

static const char *user_counter(const struct client *c, char out[64])
{
    snprintf(out, 64, "user:%lld", (long long)c->user_id);
    return out;
}

static const char *operation_counter(const struct client *c, char out[96])
{
    snprintf(out, 96, "operation:%s", c->target);
    return out;
}

struct client *client_new(struct hub *hub)
{
    struct client *c = must_calloc(1, sizeof *c);
    c->hub = hub;
    c->refs = 1;
    c->fd = -1;
    scope_init(&c->head_scope, NULL);
    c->next = hub->clients;
    if (c->next)
        c->next->link = &c->next;
    c->link = &hub->clients;
    hub->clients = c;
    hub->client_count++;
    return c;
}

void client_ref(struct client *c)
{
    c->refs++;
}

static void drop_queue(struct client *c)
{
    for (; c->queue_count > 0; c->queue_count--) {
        frame_unref(c->queue[c->queue_first]);
        c->queue_first = (c->queue_first + 1) % c->queue_capacity;
    }
    free(c->queue);
    c->queue = NULL;
    c->queue_first = c->queue_capacity = 0;
    c->pending_bytes = 0;
}

void client_unref(struct client *c)
{
    if (--c->refs > 0)
        return;
    drop_queue(c);
    replay_release(&c->replay);
    text_free(&c->message);
    text_free(&c->early);
    scope_done(&c->head_scope);
    free(c);
}

/* ---- sending ---- */

static void push(struct client *c, struct frame *f)
{
    if (c->queue_count == c->queue_capacity) {
        int capacity = c->queue_capacity ? c->queue_capacity * 2 : 4;
        struct frame **queue = must_malloc((size_t)capacity * sizeof(struct frame *));
        for (int i = 0; i < c->queue_count; i++)
            queue[i] = c->queue[(c->queue_first + i) % c->queue_capacity];
        free(c->queue);
        c->queue = queue;
        c->queue_first = 0;
        c->queue_capacity = capacity;
    }
    c->queue[(c->queue_first + c->queue_count++) % c->queue_capacity] = frame_ref(f);
    c->pending_bytes += f->len;
    hub_mark_dirty(c);
}

static bool is_same_progress(const struct frame *a, const struct frame *b)
{
    return b->is_progress && strcmp(a->type, b->type) == 0 && strcmp(a->operation_id, b->operation_id) == 0;
}

/* Of the snapshots that wait only the newest of each kind is worth sending. What changes a state always stays. */
static void drop_stale_progress(struct client *c)
{
    const struct frame *newest[16];
    int known = 0, kept = 0;
    struct frame **list = must_malloc((size_t)c->queue_capacity * sizeof(struct frame *));
    for (int i = c->queue_count - 1; i >= 0; i--) {
        struct frame *f = c->queue[(c->queue_first + i) % c->queue_capacity];
        bool is_stale = false;
        for (int k = 0; f->is_progress && k < known && !is_stale; k++)
            is_stale = is_same_progress(newest[k], f);
        if (is_stale) {
            c->pending_bytes -= f->len;
            frame_unref(f);
            continue;
        }
        if (f->is_progress && known < (int)array_len(newest))
            newest[known++] = f;
        list[c->queue_capacity - ++kept] = f;
    }
    memmove(list, list + c->queue_capacity - kept, (size_t)kept * sizeof(struct frame *));
    free(c->queue);
    c->queue = list;
    c->queue_first = 0;
    c->queue_count = kept;
}

/* A reader that does not keep up is let go; the others never wait for it. */
static void cut_slow(struct client *c)
{
    log_info("websocket_slow", log_int("user", c->user_id), log_int("pending_bytes", (int64_t)c->pending_bytes));
    metrics_add(METRIC_WS_CONNECTIONS, ws_kind_name(c->kind), "slow", 1);
    if (c->speaks_resume) {
        drop_queue(c);
        client_close(c, CLOSE_RESTART, "too slow: reconnect with last_id");
        return;
    }
    c->state = CLIENT_CLOSING;
    wire_cut(c, true);
}

static bool has_room(struct client *c)
{
    size_t most = (size_t)c->hub->settings->ws_send_buffer_bytes;
    if (c->pending_bytes > most)
        drop_stale_progress(c);
    return c->pending_bytes <= most;
}

void client_send(struct client *c, struct frame *f)
{
    if (c->state >= CLIENT_CLOSING)
        return;
    if (has_room(c))
        push(c, f);
    else
        cut_slow(c);
}

void client_flush(struct client *c)
{
    while (c->wire && c->queue_count > 0 && !wire_is_busy(c)) {
        struct frame *first = c->queue[c->queue_first];
        const unsigned char *bytes = first->bytes;
        size_t len = first->len;
        int count = 1;
        while (count < c->queue_count) {
            const struct frame *f = c->queue[(c->queue_first + count) % c->queue_capacity];
            if (len + f->len > WRITE_BYTES)
                break;
            if (count == 1)
                memcpy(c->hub->scratch, first->bytes, first->len);
            memcpy(c->hub->scratch + len, f->bytes, f->len);
            bytes = c->hub->scratch;
            len += f->len;
            count++;
        }
        bool is_written = wire_write(c, bytes, len);
        for (int i = 0; i < count; i++) {
            struct frame *f = c->queue[c->queue_first];
            c->pending_bytes -= f->len;
            c->queue_first = (c->queue_first + 1) % c->queue_capacity;
            c->queue_count--;
            frame_unref(f);
        }
        if (!is_written) {
            c->state = CLIENT_CLOSING;
            wire_cut(c, true);
            return;
        }
    }
    if (c->queue_count > 0 && c->wire)
        wire_want_write(c);
    else if (c->queue_capacity > 64)
        drop_queue(c); /* it is empty: the memory goes back */
}

void client_close(struct client *c, int code, const char *reason)
{
    if (c->state >= CLIENT_CLOSING)
        return;
    scan_abandon(c);
    c->state = CLIENT_CLOSING;
    struct frame *f = frame_close(code, reason);
    push(c, f);
    frame_unref(f);
    wheel_put(&c->hub->wheel, &c->timer, clock_monotonic_ms() + CLOSE_MS);
}

void client_dismiss(struct client *c)
{
    bool has_last_word = scan_dismiss(c);
    lookup_leave(c); /* it may come to another instance before its end of the connection is closed here */
    if ((c->speaks_resume || has_last_word) && c->state != CLIENT_CLOSING) {
        client_close(c, CLOSE_RESTART, "this server restarts: reconnect with last_id");
        return;
    }
    c->state = CLIENT_CLOSING;
    wire_cut(c, false);
}

/* Asks for the next page once what was sent has left. */
void client_page_on(struct client *c)
{
    if (!c->wants_page || c->is_page_asked || c->state != CLIENT_OPEN)
        return;
    if (!subscriber_is_up(c->hub->subscriber) && !c->needs_state)
        return; /* asked again when the channel is subscribed */
    if (c->queue_count > 0 || wire_is_busy(c)) {
        wire_want_write(c);
        return;
    }
    c->wants_page = false;
    replay_next(&c->replay);
    if (!lookup_page(c)) {
        c->state = CLIENT_CLOSING;
        wire_cut(c, false);
        return;
    }
    c->is_page_asked = true;
}

void client_writeable(struct client *c)
{
    client_flush(c);
    client_page_on(c);
    scan_writeable(c);
}

/* ---- opening ---- */

static void refuse(struct client *c, int code, const char *reason)
{
    metrics_add(METRIC_WS_CONNECTIONS, ws_kind_name(c->kind), "refused", 1);
    client_close(c, code, reason);
}

static int64_t interval_ms(const struct client *c)
{
    int64_t seconds = c->hub->settings->ws_heartbeat_interval;
    return (seconds > 0 ? seconds : 1) * 1000;
}

static void plan_timer(struct client *c)
{
    int64_t due = c->next_ping_ms;
    if (c->expires_at) {
        int64_t left_ms = c->expires_at * 1000 - clock_wall_ms();
        int64_t expiry = clock_monotonic_ms() + left_ms;
        due = expiry < due ? expiry : due;
    }
    if (c->cut_at_ms && c->cut_at_ms < due)
        due = c->cut_at_ms;
    wheel_put(&c->hub->wheel, &c->timer, due);
}

void client_begin(struct client *c)
{
    if (c->refusal)
        wire_open(c);
    else if (!lookup_open(c))
        wire_drop(c); /* too many at once: it comes again */
}

static bool is_server_fault(enum status s)
{
    return s == STATUS_UNAVAILABLE || s == STATUS_TIMEOUT || s == STATUS_BUSY || status_http(s) >= 500;
}

/* The limits of this instance alone, which hold when Redis is away too. */
static const char *count_locally(struct client *c)
{
    char user[64], operation[96];
    const struct settings *s = c->hub->settings;
    if (!hub_count_up(c->hub, user_counter(c, user), s->ws_max_per_user))
        return "too many connections of this user";
    if (c->kind == WS_OPERATION && !hub_count_up(c->hub, operation_counter(c, operation), s->ws_max_per_operation)) {
        hub_count_down(c->hub, user);
        return "too many connections to this operation";
    }
    c->is_counted = true;
    return NULL;
}

static void join_channel(struct client *c)
{
    struct scope sc;
    scope_init(&sc, NULL);
    const char *name = hub_channel_name(&sc, c);
    if (!name) {
        c->state = CLIENT_OPEN;
        c->replay.is_live = true;
    } else {
        c->state = CLIENT_SUBSCRIBING;
        const struct channel *channel = channel_join(&c->hub->channels, name, &c->listener);
        if (channel->state == CHANNEL_LIVE || !subscriber_is_up(c->hub->subscriber))
            client_subscribed(c);
    }
    scope_done(&sc);
}

/* Where the client wants to begin. */
static void choose_position(struct client *c, const struct open_answer *a, const char *last_id)
{
    struct event_id position = {0};
    bool is_named = last_id && *last_id;
    c->speaks_resume = last_id != NULL;
    c->is_position_known = true;
    if (is_named) {
        c->is_explicit = true;
        if (event_id_parse(last_id, &position) != STATUS_OK) {
            position = (struct event_id){0};
            c->was_truncated = true; /* an id that never was: all that is kept, and a word about it */
        }
    } else if (c->kind == WS_OPERATIONS) {
        position = a->position;
        c->is_position_known = a->has_position;
    }
    c->needs_state = c->kind == WS_OPERATION;
    replay_start(&c->replay, &position);
    c->wants_page = c->is_position_known;
    c->replay.is_live = !c->is_position_known; /* Redis was away: what comes from now on */
}

void client_opened(struct client *c, const struct open_answer *a)
{
    c->answer = *a;
    c->user_id = a->user_id;
    c->expires_at = a->expires_at;
    c->is_superuser = a->is_superuser;
    c->api_key_id = a->api_key_id;
    c->is_registered = a->is_registered;
    if (c->hub->is_draining)
        wire_drop(c);
    else
        wire_open(c);
}

static void start_timer(struct client *c)
{
    uint32_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, GRND_NONBLOCK);
    (void)n;
    c->heard_ms = clock_monotonic_ms();
    c->next_ping_ms = c->heard_ms + interval_ms(c) / 2 + random % (uint32_t)(interval_ms(c) / 2 + 1);
    plan_timer(c);
}

static const char *refusal_of(struct client *c, int *out_code)
{
    const struct open_answer *a = &c->answer;
    *out_code = CLOSE_POLICY;
    if (c->refusal)
        return c->refusal;
    if (a->status == STATUS_OK)
        return count_locally(c);
    if (is_server_fault(a->status))
        *out_code = CLOSE_FAULT;
    return a->reason;
}

void client_established(struct client *c)
{
    int code;
    start_timer(c);
    const char *refusal = refusal_of(c, &code);
    if (refusal) {
        refuse(c, code, refusal);
        return;
    }
    metrics_add(METRIC_WS_CONNECTIONS, ws_kind_name(c->kind), "opened", 1);
    metrics_add(METRIC_WS_ACTIVE, ws_kind_name(c->kind), NULL, 1);
    choose_position(c, &c->answer, c->head.last_id);
    scope_done(&c->head_scope); /* neither token nor path is needed any more */
    scope_init(&c->head_scope, NULL);
    memset(&c->head, 0, sizeof c->head);
    join_channel(c);
    access_opened(c);
}

void client_gone(struct client *c)
{
    bool was_open = c->is_counted;
    wheel_take(&c->timer);
    channel_leave(&c->listener, clock_monotonic_ms());
    scan_abandon(c);
    if (was_open) {
        char user[64], operation[96];
        hub_count_down(c->hub, user_counter(c, user));
        if (c->kind == WS_OPERATION)
            hub_count_down(c->hub, operation_counter(c, operation));
        metrics_add(METRIC_WS_ACTIVE, ws_kind_name(c->kind), NULL, -1);
    }
    c->is_counted = false;
    c->state = CLIENT_GONE;
    lookup_leave(c);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    c->hub->client_count--;
    c->wire = NULL;
    drop_queue(c);
    client_unref(c);
}

/* ---- history and live ---- */

void client_subscribed(struct client *c)
{
    if (c->kind == WS_DIRECTORY_SCAN) {
        if (c->state == CLIENT_SUBSCRIBING && !lookup_last_word(c))
            wire_cut(c, false);
        c->replay.is_live = true;
        c->state = c->state == CLIENT_SUBSCRIBING ? CLIENT_OPEN : c->state;
        return;
    }
    if (c->state == CLIENT_SUBSCRIBING)
        c->state = CLIENT_OPEN;
    client_page_on(c);
}

void client_suspend(struct client *c)
{
    if (c->state != CLIENT_OPEN || c->kind == WS_DIRECTORY_SCAN || !c->is_position_known)
        return;
    if (c->replay.is_live || c->is_page_asked || c->wants_page) {
        replay_start(&c->replay, &c->replay.position);
        c->wants_page = true;
    }
}

/* Begins anew at the beginning of what is kept, after a word about it. */
static void begin_anew(struct client *c)
{
    c->was_truncated = true;
    c->needs_state = c->kind == WS_OPERATION;
    c->is_explicit = false;
    replay_start(&c->replay, &(struct event_id){0});
    c->wants_page = true;
    client_page_on(c);
}

static bool send_rendered(struct client *c, struct frame *f)
{
    struct frame *rendered = frame_rendered(f, c->is_flat);
    if (rendered)
        client_send(c, rendered);
    return rendered != NULL;
}

bool client_deliver(struct client *c, struct frame *f)
{
    if (c->state != CLIENT_OPEN && c->state != CLIENT_SUBSCRIBING)
        return false;
    switch (replay_live(&c->replay, f)) {
    case REPLAY_SEND:
        c->is_position_known = true;
        return send_rendered(c, f);
    case REPLAY_RESTART:
        begin_anew(c);
        return false;
    case REPLAY_HOLD:
    case REPLAY_SKIP:
        return false;
    }
    return false;
}

/* What was held while pages were read. */
static void release_held(struct client *c)
{
    struct replay held = c->replay; /* the frames, while begin_anew() may start the client's own */
    c->replay.held = NULL;
    c->replay.held_count = c->replay.held_capacity = 0;
    c->replay.held_bytes = 0;
    for (int i = 0; i < held.held_count && c->state == CLIENT_OPEN; i++) {
        enum replay_advice advice = replay_live(&c->replay, held.held[i]);
        struct frame *rendered = advice == REPLAY_SEND ? frame_rendered(held.held[i], c->is_flat) : NULL;
        if (rendered)
            push(c, rendered); /* bounded like a page */
        if (advice == REPLAY_RESTART)
            begin_anew(c); /* from now on the rest is held again, or in the stream */
    }
    replay_release(&held);
}

static void send_truncated(struct client *c)
{
    char now[28];
    clock_iso(now);
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "timestamp", now);
    json_text(&json, "type", "history_truncated");
    if (c->kind == WS_OPERATION)
        json_text(&json, "operation_id", c->target);
    json_open(&json, "data", '{');
    if (c->kind == WS_OPERATION)
        json_text(&json, "operation_id", c->target);
    json_text(&json, "reason", "events before these are not kept any more");
    json_close(&json, '}');
    json_close(&json, '}');
    struct frame *f = frame_text(json.data, json.len);
    send_rendered(c, f);
    frame_unref(f);
}

/* Without Redis there is no history: the state, and what comes once it is back. */
static void open_without_history(struct client *c)
{
    c->wants_page = true; /* tried again every second, and when the channel is subscribed */
    c->hub->has_failed_pages = true;
}

void client_paged(struct client *c, enum status status, unsigned generation, const struct history_page *page,
                  struct frame *state)
{
    c->is_page_asked = false;
    if (c->state != CLIENT_OPEN)
        return;
    if (generation != c->replay.generation) {
        client_page_on(c); /* it began anew meanwhile, and had to wait: one page at a time is asked for a client */
        return;
    }
    if (c->needs_state && !state && status != STATUS_OK) {
        client_close(c, is_server_fault(status) ? CLOSE_FAULT : CLOSE_POLICY,
                     is_server_fault(status) ? "the database does not answer" : "the operation is gone");
        return;
    }
    bool has_page = status == STATUS_OK;
    bool is_truncated = c->was_truncated || (has_page && page->is_truncated);
    if (is_truncated && has_page) {
        send_truncated(c);
        if (page->is_truncated) {
            c->replay.position = (struct event_id){0};
            c->needs_state = false; /* `state` came with every page that may need it */
        }
    }
    if (state && (c->needs_state || (is_truncated && has_page)))
        send_rendered(c, state);
    if (state)
        c->needs_state = false;
    if (!has_page) {
        open_without_history(c);
        return;
    }
    c->was_truncated = false;
    c->is_explicit = false;
    for (int i = 0; i < page->count && c->state == CLIENT_OPEN; i++) {
        struct frame *f = page->frames[i];
        if (!replay_page_event(&c->replay, f))
            continue;
        struct frame *rendered = frame_rendered(f, c->is_flat);
        if (rendered)
            push(c, rendered); /* a page is bounded, and the next one waits until this one left */
    }
    if (replay_page_end(&c->replay, page)) {
        c->is_position_known = true;
        release_held(c);
    } else {
        c->wants_page = true;
        client_page_on(c);
    }
}

void client_checked(struct client *c, const struct event_id *end, bool is_final_check)
{
    if (c->state != CLIENT_OPEN || c->kind == WS_DIRECTORY_SCAN || !c->replay.is_live)
        return;
    if (!c->is_position_known) {
        c->replay.position = *end;
        c->is_position_known = true;
    }
    if (!end->epoch[0])
        return;
    if (c->replay.position.epoch[0] && strcmp(c->replay.position.epoch, end->epoch) != 0) {
        begin_anew(c);
    } else if (is_final_check && event_id_compare(&c->replay.position, end) < 0) {
        replay_start(&c->replay, &c->replay.position);
        c->wants_page = true;
        client_page_on(c);
    }
}

/* ---- what the client says ---- */

void client_heard(struct client *c)
{
    c->heard_ms = clock_monotonic_ms();
}

static void answer_ping(struct client *c)
{
    if (c->pending_bytes < (size_t)c->hub->settings->ws_send_buffer_bytes / 2)
        client_send(c, c->hub->pong);
}

static void resume(struct client *c, const char *last_id)
{
    c->speaks_resume = true;
    bool is_there = c->state == CLIENT_OPEN || c->state == CLIENT_SUBSCRIBING;
    if (!is_there || (c->kind != WS_OPERATION && c->kind != WS_OPERATIONS) || !last_id || !*last_id)
        return;
    bool needs_state = c->needs_state;
    struct open_answer nowhere = {0};
    choose_position(c, &nowhere, last_id);
    c->needs_state = needs_state;
    client_page_on(c);
}

static void take_message(struct client *c, const char *text, size_t len)
{
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

void client_receive(struct client *c, const char *bytes, size_t len, bool is_first, bool is_final, bool is_binary)
{
    client_heard(c);
    if (c->state == CLIENT_CLOSING)
        return;
    if (is_first) {
        text_clear(&c->message);
        c->message_bytes = 0;
        c->is_ignoring = is_binary;
    }
    c->message_bytes += len;
    if (c->message_bytes > MESSAGE_BYTES) {
        client_close(c, CLOSE_TOO_BIG, "at most 64 KiB a message");
        text_free(&c->message);
        return;
    }
    if (c->is_ignoring)
        return;
    if (is_first && is_final) {
        take_message(c, bytes, len);
        return;
    }
    text_append(&c->message, bytes, len);
    if (is_final) {
        take_message(c, text_str(&c->message), c->message.len);
        text_free(&c->message);
    }
}

/* ---- time ---- */

void client_timer(struct wheel_entry *e, void *unused)
{
    (void)unused;
    struct client *c = (struct client *)((char *)e - offsetof(struct client, timer));
    int64_t now = clock_monotonic_ms();
    if (c->state == CLIENT_CLOSING) {
        wire_cut(c, true);
        return;
    }
    if (c->cut_at_ms && now >= c->cut_at_ms) {
        client_dismiss(c);
        return;
    }
    if (c->expires_at && clock_wall_ms() >= c->expires_at * 1000) {
        client_close(c, CLOSE_POLICY, "token expired");
        return;
    }
    if (now - c->heard_ms > 2 * interval_ms(c) + interval_ms(c) / 2) {
        c->state = CLIENT_CLOSING;
        wire_cut(c, true); /* nobody is there */
        return;
    }
    if (now >= c->next_ping_ms) {
        c->next_ping_ms = now + interval_ms(c);
        if (c->state != CLIENT_OPENING && c->queue_count == 0 && !wire_is_busy(c))
            client_send(c, c->hub->heartbeat);
    }
    plan_timer(c);
}
