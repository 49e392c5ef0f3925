/* The relay's inside: what the loop owns. One thread; nothing here is locked. relay.c moves the bytes (libwebsockets),
 * client.c decides what a connection gets, hub.c is what they share. */
#pragma once

#include "api/relay/channel.h"
#include "api/relay/history.h"
#include "api/relay/lookup.h"
#include "api/relay/registry.h"
#include "api/relay/upgrade.h"
#include "api/relay/wheel.h"

enum {
    WRITE_BYTES = 64 << 10,   /* given to the socket at a time */
    MESSAGE_BYTES = 64 << 10, /* largest message taken from a client */
    CLOSE_MS = 5000,          /* to say goodbye */
};

enum client_state {
    CLIENT_OPENING,     /* who is it, may it? */
    CLIENT_SUBSCRIBING, /* waits for its channel */
    CLIENT_OPEN,
    CLIENT_CLOSING,
    CLIENT_GONE,
};

struct scan;
struct access_rounds;

struct open_answer {
    enum status status;
    char reason[124];
    int64_t user_id, api_key_id, expires_at; /* api_key_id 0 = it came with a signed token */
    bool is_superuser, is_registered, has_position;
    struct event_id position;
    char collection_id[37]; /* of the operation; "" = none */
};
struct client {
    struct hub *hub;
    void *wire;                  /* relay.c's; NULL = not yet, or gone */
    int fd;                      /* until there is a wire; -1 = none */
    struct text early;           /* what came with the head */
    struct client *next, **link; /* all clients */
    struct client *next_dirty;
    int refs; /* the wire, jobs, the dirty list */
    enum client_state state;
    struct scope head_scope; /* until it is open */
    struct ws_head head;
    const char *refusal; /* constant; NULL = none so far */
    enum ws_kind kind;
    bool is_flat, speaks_resume, is_dirty, is_registered, is_counted, is_superuser;
    bool needs_state;               /* current_state goes before the next page */
    bool was_truncated;             /* history_truncated goes before that */
    bool is_page_asked, wants_page; /* one is on its way, whether it is still wanted or not; another is needed */
    bool is_explicit;               /* the position was named by the client */
    bool is_position_known;
    bool is_ignoring; /* the rest of a binary message */
    struct open_answer answer;
    char target[65];
    int64_t user_id, api_key_id, expires_at;
    struct registration registration;
    struct listener listener;
    struct replay replay;
    struct frame **queue; /* a ring */
    int queue_first, queue_count, queue_capacity;
    size_t pending_bytes;
    int64_t heard_ms, next_ping_ms, cut_at_ms;
    struct wheel_entry timer;
    struct text message; /* of several fragments */
    size_t message_bytes;
    struct scan *scan;
    unsigned access_round; /* in which its rights were looked at */
    bool needs_look;       /* they may have changed */
    bool is_refreshing;
    int64_t next_refresh_ms;
};

struct counter {
    struct table_node node;
    int64_t count;
};

struct hub {
    struct api *api;
    const struct settings *settings;
    uv_loop_t *loop;
    struct redis *names; /* never connects: prefix and address */
    struct subscriber *subscriber;
    struct channels channels;
    struct lookup *lookup, *scans;
    struct wheel wheel;
    struct client *clients, *dirty;
    struct table counters;
    int client_count;
    int64_t next_number;
    struct frame *heartbeat, *pong;
    unsigned char *scratch; /* WRITE_BYTES */
    uv_timer_t tick;
    uv_check_t check;
    int64_t next_second_ms, next_renew_ms;
    bool is_draining, is_stopping, has_failed_pages;
    _Atomic bool is_subscribed;
    struct access_rounds *access;
    struct scan *scan_list; /* those that clients wait for */
};

/* relay.c: the wire. Nothing is written while it is busy. */
/* Shakes hands; client_established or client_gone follows at once. */
void wire_open(struct client *c);
/* Closes the socket of a client that has no wire yet. */
void wire_drop(struct client *c);
bool wire_is_busy(const struct client *c);
bool wire_write(struct client *c, const unsigned char *bytes, size_t len);
void wire_want_write(struct client *c);
/* Closes without a close frame, soon; `is_hard`: what the kernel still holds is thrown away. */
void wire_cut(struct client *c, bool is_hard);

/* client.c */
struct client *client_new(struct hub *hub);
void client_ref(struct client *c);
void client_unref(struct client *c);
/* Asks who it is; the handshake waits for the answer, so that nothing published after it is missed. */
void client_begin(struct client *c);
void client_established(struct client *c);
void client_writeable(struct client *c);
void client_receive(struct client *c, const char *bytes, size_t len, bool is_first, bool is_final, bool is_binary);
void client_heard(struct client *c);
void client_gone(struct client *c);
/* Says goodbye with a code, and is cut when the client does not answer in time. */
void client_close(struct client *c, int code, const char *reason);
void client_flush(struct client *c);
/* Puts a frame on its queue; an event that came live goes through client_deliver. */
void client_send(struct client *c, struct frame *f);
/* True when it was sent (put on the queue). */
bool client_deliver(struct client *c, struct frame *f);
/* Its channel is subscribed. */
void client_subscribed(struct client *c);
/* The subscription was lost: hold what comes until the gap is closed. */
void client_suspend(struct client *c);
/* The stream's end was looked at. */
void client_checked(struct client *c, const struct event_id *end, bool is_final_check);
/* Asks for the next page of its history if it waits for one. */
void client_page_on(struct client *c);
void client_timer(struct wheel_entry *e, void *hub);
/* Lets it go, now. */
void client_dismiss(struct client *c);

/* lookups.c: what is asked of PostgreSQL and Redis for a client; each ends in one of the functions below. False = too
 * much at once. */
bool lookup_open(struct client *c);
bool lookup_page(struct client *c);
bool lookup_last_word(struct client *c);
void lookup_leave(struct client *c);
void lookup_renew(struct hub *hub);
void lookup_pulse(struct hub *hub, const char *channel);
bool lookup_check(struct hub *hub, struct channel *channel);
/* On a look-up thread: STATUS_FORBIDDEN when this user, or the API key it came with, has no right to be here any more.
 */
enum status lookup_may_stay(struct scope *sc, struct db *db, int64_t user_id, int64_t api_key_id) must_check;

void client_opened(struct client *c, const struct open_answer *a);
/* `state` may be NULL. The page's frames are the caller's. */
void client_paged(struct client *c, enum status status, unsigned generation, const struct history_page *page,
                  struct frame *state);

/* access.c: who loses the right to be here is let go (1008) as soon as that is announced, by looking at all connections
 * concerned at once, and within 30 s where nobody announced it. */
void access_start(struct hub *hub);
void access_done(struct hub *hub);
/* The subscription is there (again): asks for the announcements, and looks at everyone, as some may have been missed.
 */
void access_up(struct hub *hub);
/* True when the message was an announcement. */
bool access_message(struct hub *hub, const char *channel, const char *bytes, size_t len);
void access_tick(struct hub *hub, int64_t now_ms);
unsigned access_round(const struct hub *hub);
/* It is open: whatever was announced since its rights were looked at is looked at now. */
void access_opened(struct client *c);

/* refresh.c: {"type":"refresh","token":…} lengthens the life of a connection. */
void refresh_message(struct client *c, const char *token);

/* scan.c: /ws/scan/{id} */
void scan_message(struct client *c, const char *json, size_t len);
/* Its client goes: nothing more is told. */
void scan_abandon(struct client *c);
/* The instance goes: the scan ends with a word about that, which is to be sent yet. False when none was running. */
bool scan_dismiss(struct client *c);
/* What it has found goes on where the client reads. */
void scan_writeable(struct client *c);
/* Once a second: scans that wait or hang for too long. */
void scan_tick(struct hub *hub, int64_t now_ms);

/* hub.c */
enum status hub_init(struct scope *sc, struct hub *hub, uv_loop_t *loop, struct api *api) must_check;
void hub_mark_dirty(struct client *c);
/* Cuts everyone, spread over the time. */
void hub_drain(struct hub *hub, int spread_ms);
void hub_stop(struct hub *hub);
void hub_done(struct hub *hub);
/* Name of the channel or stream of a client, with prefix, in the arena; NULL if its kind has none. */
const char *hub_channel_name(struct scope *sc, const struct client *c);
const char *hub_stream_name(struct scope *sc, const struct client *c);
/* Counts of this instance: false when the count is at `most` already. */
bool hub_count_up(struct hub *hub, const char *name, int64_t most);
void hub_count_down(struct hub *hub, const char *name);
