/* A stream's inside: streams.c hands connections over, event_stream.c and poll.c are the two wires. On the loop, but
 * for what streams.c says. */
#pragma once

#include "api/relay/hub.h"
#include "api/relay/poll_answer.h"
#include "api/relay/stream.h"

enum post { POST_ATTACHED, POST_FLOWS, POST_LEFT };

struct stream {
    struct streams *streams;
    struct stream_http http;
    bool is_poll, is_superuser;
    int64_t wait_ms, user_id, api_key_id, expires_at;
    char operation_id[37]; /* "" = all of the user's */
    char *after;           /* until it is attached */
    /* from the HTTP server's threads to the loop */
    struct stream *next_posted;
    enum post post;
    /* from the loop to them */
    enum stream_answer answer;
    enum stream_end end;
    enum status refusal;
    char reason[124];
    int64_t most; /* the limit that `reason` speaks of; 0 = of none */
    struct text body;
    /* the loop's own */
    struct client *client; /* NULL = the relay is done with it */
    struct stream *next_ready, **ready_link;
    bool is_ours; /* the connection */
    bool is_begun, is_greeted, is_watched, awaits_room;
    bool has_hung_up, is_cut, is_hard, is_counted;
    struct text rest; /* of a write that the socket did not take */
    struct event_id start;
    bool is_start_known;
    /* of a poll */
    struct poll_answer gathered;
    int64_t due_ms;
    enum status trouble; /* its history could not be read */
};

extern const struct wire_ops event_wire, poll_wire;

static inline struct stream *stream_of(const struct client *c)
{
    return c->wire;
}

/* Has stream_turn() called by the loop, soon. */
void stream_ready(struct stream *s);
/* Looks whether the client is still there, and whether the socket takes more. */
void stream_watch(struct stream *s, bool awaits_room);
void stream_unwatch(struct stream *s);
/* It is let in: counted as open from now on. */
void stream_count(struct stream *s);
/* Gives the connection back to begin with. */
void stream_begin(struct stream *s);
/* These give the connection back, and the client is gone: neither it nor the stream may be touched after them. */
void stream_refuse(struct stream *s, enum status status, const char *reason);
void stream_reply(struct stream *s);
void stream_finish(struct stream *s, enum stream_end end);
/* What client_established() refused. */
void stream_refuse_client(struct stream *s, const struct client *c);

/* What there is to do, after everything that happened since. */
void event_turn(struct stream *s);
void poll_turn(struct stream *s);
