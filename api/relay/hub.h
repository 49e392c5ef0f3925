/* The relay's inside: what one loop owns. One thread; nothing here is locked but what is `shared`. relay.c moves the
 * bytes (libwebsockets), client*.c decides what a connection gets, hub.c is what they share. */
#pragma once

#include "api/relay/channel.h"
#include "api/relay/history.h"
#include "api/relay/lookup.h"
#include "api/relay/registry.h"
#include "api/relay/relay_metrics.h"
#include "api/relay/silent.h"
#include "api/relay/upgrade.h"
#include "api/relay/wheel.h"

#include <pthread.h>

enum { CLOSE_PROTOCOL = 1002, CLOSE_BAD_TEXT = 1007 }; /* what a client does wrong */
enum { CLOSE_POLICY = 1008, CLOSE_TOO_BIG = 1009, CLOSE_FAULT = 1011, CLOSE_RESTART = 1012 };

enum {
    WRITE_BYTES = 64 << 10,       /* given to the socket at a time */
    MESSAGE_BYTES = 64 << 10,     /* largest message taken from a client */
    CLOSE_MS = 5000,              /* to say goodbye */
    LEAST_TAKEN_BYTES = 16 << 10, /* in WS_SLOW_SECONDS, by a reader for whom frames wait */
};

enum client_state {
    CLIENT_OPENING,     /* who is it, may it? */
    CLIENT_SUBSCRIBING, /* waits for its channel */
    CLIENT_OPEN,
    CLIENT_CLOSING,
    CLIENT_GONE,
};

struct openings;
struct scan;
struct access_rounds;
struct streams;
struct client;

struct open_answer {
    enum status status;
    const char *why;                         /* a label of websocket_refusals_total; constant */
    const char *operation_type;              /* constant; NULL = it is on no operation */
    struct frame *state;                     /* current_state, read before any page; NULL = none. The client's */
    int64_t user_id, api_key_id, expires_at; /* api_key_id 0 = it came with a signed token */
    bool is_superuser, is_registered, has_position;
    char collection_id[37]; /* of the operation; "" = none */
    struct event_id position;
    bool is_announced; /* an operation whose last event was published: no other one follows */
};
/* What moves a client's bytes: a WebSocket (relay.c) is one kind of wire. All on the loop. */
struct wire_ops {
    /* Begins to talk: client_established or client_gone follows at once. */
    void (*open)(struct client *c);
    /* Ends the connection of a client that has no wire yet; it is gone after that. */
    void (*drop)(struct client *c);
    /* True while nothing more can be written; client_writeable follows when want_write was called. */
    bool (*is_busy)(const struct client *c);
    bool (*write)(struct client *c, const unsigned char *bytes, size_t len);
    void (*want_write)(struct client *c);
    /* Closes without a goodbye, soon; `is_hard`: what the kernel still holds is thrown away. */
    void (*cut)(struct client *c, bool is_hard);
    /* Bytes received so far, by the kernel's word. NULL = not known. */
    int64_t (*received)(const struct client *c);
    /* Bytes that the other end has taken in all, -1 = not known just now. NULL = never known. */
    int64_t (*taken)(const struct client *c);
    /* True when the other end has acknowledged nothing of what was sent for so long: its network is gone. NULL = not
     * known. */
    bool (*is_unheard)(const struct client *c, int64_t for_ms);
    /* The last thing that is written; what comes after is the wire's. */
    struct frame *(*goodbye)(int code, const char *reason);
    /* NULL = does not matter. A page of history could not be read, or (STATUS_OK) all of them are through. */
    void (*settled)(struct client *c, enum status s);
    /* Only where answer_at_ms is set: it is that late. */
    void (*due)(struct client *c);
};

/* What is of use only until a connection is open: ten thousand of them need not keep it. */
struct arrival {
    struct scope scope; /* owns what `head` points to */
    struct ws_head head;
    struct text early; /* what came with the head */
    char reason[124];  /* of a refusal */
};

struct client {
    struct hub *hub;
    const struct wire_ops *ops;
    void *wire;                  /* the ops' own; NULL = not yet, or gone */
    int fd;                      /* until there is a wire; -1 = none */
    struct client *next, **link; /* all clients */
    struct client *next_dirty;
    int refs; /* the wire, jobs, the dirty list */
    enum client_state state;
    struct arrival *arrival; /* NULL once it is open */
    const char *refusal;     /* constant; NULL = none so far */
    enum ws_kind kind;
    enum frame_format format;
    bool speaks_resume, is_dirty, is_registered, is_counted, is_superuser;
    bool needs_state;               /* current_state goes before the next page */
    bool was_truncated;             /* history_truncated goes before that */
    bool is_page_asked, wants_page; /* one is on its way, whether it is still wanted or not; another is needed */
    bool is_explicit;               /* the position was named by the client */
    bool is_position_known;
    bool has_last_word;     /* of a directory scan */
    bool waits_for_recent;  /* recent.h */
    bool is_ignoring;       /* the rest of a binary message */
    bool is_held, was_held; /* silent.h */
    bool has_ponged;        /* it answers pings of the protocol */
    bool is_packed;         /* the message is compressed */
    bool is_in_frame;       /* more of the frame is to come */
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
    int64_t opened_ms, blocked_ms; /* 0 = what was sent has left */
    int64_t asked_ms;              /* 0 = not (silent.h) */
    int64_t message_tat_us;        /* flood.h */
    int64_t received_bytes, received_ms;
    int64_t answer_at_ms;                  /* of a long poll; 0 = of nobody else */
    int64_t stalled_since_ms, taken_bytes; /* 0 = nothing waits; what the other end had taken then */
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

/* What the loops of an instance share. */
struct shared {
    struct feed *feed;
    struct redis *names; /* never connects: prefix and address */
    char *own_channel;   /* this instance's */
    int lane_count;
    _Atomic int client_count;
    _Atomic int64_t last_number; /* of the connections */
    pthread_mutex_t lock;        /* guards what follows, and client_count's falling to 0 */
    pthread_cond_t is_empty;
    struct table counters; /* of the limits of this instance */
};

struct hub {
    struct api *api;
    const struct settings *settings;
    uv_loop_t *loop;
    struct shared *shared;
    int lane; /* 0 = the first, which does what an instance does once */
    struct port *port;
    struct channels channels;
    struct lookup *lookup, *scans;
    struct openings *openings;
    struct silence silence;
    struct tally tally;
    struct access_rounds *access;
    struct scan *scan_list; /* those that clients wait for */
    struct wheel wheel;
    int64_t last_recent;       /* number given out */
    int64_t seconds;           /* that this loop has counted */
    size_t recent_bytes;       /* of all that is kept for newcomers */
    int renewals;              /* on their way to the registry */
    struct registration *left; /* meanwhile: once more when they are through */
    int left_count, left_capacity;
    struct streams *streams;
    void (*let_go)(struct client *c); /* client_gone, and what else counts it */
    struct client *clients, *dirty;
    struct channel *full; /* with a batch to be delivered */
    int client_count;
    struct frame *heartbeats[FRAME_FORMATS], *pong;
    unsigned char *scratch; /* WRITE_BYTES */
    uv_timer_t tick;
    uv_check_t check;
    int64_t next_second_ms, next_renew_ms;
    int64_t used_ms; /* flood.h: processor time of this loop */
    bool is_draining, is_stopping, has_failed_pages;
};

static inline struct client *client_of(struct listener *l)
{
    return (struct client *)((char *)l - offsetof(struct client, listener));
}

/* It gets one answer and is gone. */
static inline bool client_is_poll(const struct client *c)
{
    return c->format == FRAME_LINE;
}

static inline void wire_open(struct client *c)
{
    c->ops->open(c);
}

static inline void wire_drop(struct client *c)
{
    c->ops->drop(c);
}

static inline bool wire_is_busy(const struct client *c)
{
    return !c->wire || c->ops->is_busy(c);
}

static inline bool wire_write(struct client *c, const unsigned char *bytes, size_t len)
{
    return c->ops->write(c, bytes, len);
}

static inline void wire_want_write(struct client *c)
{
    if (c->wire)
        c->ops->want_write(c);
}

static inline void wire_cut(struct client *c, bool is_hard)
{
    if (c->wire)
        c->ops->cut(c, is_hard);
}

static inline bool wire_is_unheard(const struct client *c, int64_t for_ms)
{
    return c->wire && c->ops->is_unheard && c->ops->is_unheard(c, for_ms);
}

static inline int64_t wire_taken(const struct client *c)
{
    return c->wire && c->ops->taken ? c->ops->taken(c) : -1;
}

static inline int64_t wire_received(const struct client *c)
{
    return c->wire && c->ops->received ? c->ops->received(c) : 0;
}

/* client.c */
struct client *client_new(struct hub *hub, const struct wire_ops *ops);
void client_ref(struct client *c);
void client_unref(struct client *c);
void client_drop_arrival(struct client *c);
/* Counts it for the limits of this instance alone, which hold when Redis is away too. NULL, or why it is one too many.
 */
const char *client_count(struct client *c);
/* Says goodbye with a code, and is cut when the client does not answer in time. */
void client_close(struct client *c, int code, const char *reason);
/* It counts no more, here and in the registry, though its end of the connection may not be closed yet. */
void client_uncount(struct client *c);
/* Of its operation, or of its kind of socket: a label. */
const char *client_type(const struct client *c);
/* Lets it go, now. */
void client_dismiss(struct client *c);
void client_gone(struct client *c);
void client_start_timer(struct client *c);
void client_timer(struct wheel_entry *e, void *hub);

/* client_open.c */
/* Asks who it is; the handshake waits for the answer, so that nothing published after it is missed. */
void client_begin(struct client *c);
void client_established(struct client *c);
/* Where it wants to begin; `last_id` NULL or "" = it did not say. */
void client_choose_position(struct client *c, const struct open_answer *a, const char *last_id);
/* `reason`: why not, if it may not. */
void client_opened(struct client *c, const struct open_answer *a, const char *reason);
bool client_is_server_fault(enum status s);

/* client_send.c */
void client_drop_queue(struct client *c);
/* Puts a frame on its queue without asking whether there is room: for what is bounded otherwise. */
void client_push(struct client *c, struct frame *f);
/* Puts a frame on its queue; an event that came live goes through client_deliver. */
void client_send(struct client *c, struct frame *f);
void client_flush(struct client *c);
/* Once a second: who lets frames wait and takes (nearly) nothing is cut, however few they are. */
void client_look_slow(struct client *c, int64_t now_ms);
/* At once, when nothing waits before it and the wire is not busy. */
void client_write(struct client *c, const unsigned char *bytes, size_t len);

/* client_history.c */
void client_writeable(struct client *c);
/* Asks for the next page of its history if it waits for one. */
void client_page_on(struct client *c);
/* Its channel is subscribed. */
void client_subscribed(struct client *c);
/* The subscription was lost: hold what comes until the gap is closed. */
void client_suspend(struct client *c);
/* True when it was sent (put on the queue). */
bool client_deliver(struct client *c, struct frame *f);
/* True when it lacks all events from `first` to `last` and nothing before them, and nothing hinders them: its position
 * is moved, and they must be written. */
bool client_takes_run(struct client *c, const struct event_id *first, const struct event_id *last);
/* `state` may be NULL. The page's frames are the caller's. */
void client_paged(struct client *c, enum status status, unsigned generation, const struct history_page *page,
                  struct frame *state);
/* The stream's end was looked at. */
void client_checked(struct client *c, const struct event_id *end, bool is_final_check);

/* client_says.c */
void client_receive(struct client *c, const char *bytes, size_t len, bool is_first, bool is_final, bool is_binary);
void client_heard(struct client *c);
/* A pong of the protocol. */
void client_ponged(struct client *c);

/* opening.c: who is it, and may it? Ends in client_opened(). False = too many wait. */
bool lookup_open(struct client *c);
struct openings *openings_new(void);
/* Ends those that wait; after the look-up threads have ended. */
void openings_close(struct openings *o);
void openings_free(struct openings *o);

/* streams.c */
struct stream;
struct stream_http;
/* relay_attach. Any thread. */
void stream_attach(struct streams *streams, struct stream *stream, const struct stream_http *http);
enum status streams_new(struct scope *sc, struct hub *hub) must_check;
/* Ends those that are left; the loop must run once more before streams_free. */
void streams_stop(struct streams *streams);
void streams_free(struct streams *streams);

/* lookups.c: what is asked of PostgreSQL and Redis for a client; each ends in one of the functions below. False = too
 * much at once. */
bool lookup_page(struct client *c);
bool lookup_last_word(struct client *c);
void lookup_leave(struct client *c);
void lookup_renew(struct hub *hub);
void lookup_pulse(struct hub *hub, const char *channel);
bool lookup_check(struct hub *hub, struct channel *channel);
/* Of a row of SQL_RELAY_OPEN: STATUS_NOT_FOUND or STATUS_FORBIDDEN with a sentence when its user may not watch the
 * operation. */
enum status lookup_may_watch(struct scope *sc, const PGresult *rows, int row, const char *uuid) must_check;
/* current_state of such a row. */
struct frame *lookup_state_frame(const PGresult *rows, int row);

/* access.c: who loses the right to be here is let go (1008) as soon as that is announced, by looking at all connections
 * concerned at once, and within 30 s where nobody announced it. */
void access_start(struct hub *hub);
void access_done(struct hub *hub);
/* The subscription is there (again): asks for the announcements, and looks at everyone, as some may have been missed.
 */
void access_up(struct hub *hub);
/* True for the channel of the announcements. */
bool access_listens(const struct hub *hub, const char *channel);
/* True when the message was an announcement. */
bool access_message(struct hub *hub, const char *channel, const char *bytes, size_t len);
void access_tick(struct hub *hub, int64_t now_ms);
unsigned access_round(const struct hub *hub);
/* On a look-up thread: STATUS_FORBIDDEN when this user, or the API key it came with (0 = none), has no right to be here
 * any more. */
enum status access_user(struct scope *sc, struct db *db, int64_t user_id, int64_t api_key_id,
                        bool *out_is_superuser) must_check;
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
/* `api`, `settings`, `loop`, `shared` and `lane` are set. */
enum status hub_init(struct scope *sc, struct hub *hub) must_check;
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
