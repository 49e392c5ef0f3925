/* Replay, then live. A connection that opens (or fell behind) reads the kept events of its stream page by page; what
 * arrives live meanwhile is held, and sent after the last page unless a page had it. Because an event is in its stream
 * before it is published, nothing is lost between the two, and because a connection only ever moves its position
 * forward nothing is sent twice. The bookkeeping is pure; pages are read by the look-up threads. */
#pragma once

#include "api/relay/frame.h"
#include "common/db.h"

enum { HISTORY_PAGE_EVENTS = 200, HISTORY_HELD_BYTES = 64 << 10 };

/* One piece of a stream. */
struct history_page {
    char epoch[17];      /* of the Redis data set now; "" = none yet */
    bool is_there;       /* the stream exists */
    bool is_more;        /* the page was full */
    bool is_trimmed;     /* the stream does not hold its beginning any more */
    bool is_truncated;   /* what follows `after` is not all there any more */
    struct event_id end; /* the stream's last id; zero = none */
    struct frame *frames[HISTORY_PAGE_EVENTS];
    int count;
};

/* Reads what follows `after`. An epoch "" in `after` means any epoch; ms = seq = 0 from the beginning. `is_explicit`:
 * the client named the position, so it must hear of a gap. A changed epoch or a trimmed position: is_truncated, and the
 * page starts at the beginning of what is kept. */
enum status history_read(struct scope *sc, struct redis *events, const char *stream, const struct event_id *after,
                         bool is_explicit, struct history_page *out) must_check;
/* Only epoch and end. */
enum status history_end(struct scope *sc, struct redis *events, const char *stream,
                        struct history_page *out) must_check;
void history_page_done(struct history_page *page);

/* Where one connection stands. */
struct replay {
    bool is_live;             /* nothing to catch up with: events go straight out */
    bool has_lost_held;       /* too much was held: dropped, the stream has it */
    unsigned generation;      /* pages that were asked for before the last start are stale */
    struct event_id position; /* the last event sent, or where to begin */
    struct frame **held;
    int held_count, held_capacity;
    size_t held_bytes;
};

enum replay_advice { REPLAY_SKIP, REPLAY_SEND, REPLAY_HOLD, REPLAY_RESTART };

/* What to do with an event that came live. REPLAY_HOLD: it was taken into `held`. REPLAY_RESTART: its epoch is another
 * than the position's: the stream was lost. REPLAY_SEND has moved the position. */
enum replay_advice replay_live(struct replay *r, struct frame *event);
/* Begins (again) at `position`; what was held is forgotten, as the stream has it. Returns the generation for the page's
 * request. */
unsigned replay_start(struct replay *r, const struct event_id *position);
/* Before each further page: what was held since the last request stays unless too much of it was dropped.
 * `is_subscribed`: what is published from now on is heard; if not, another page is needed after this one. */
void replay_next(struct replay *r, bool is_subscribed);
/* True when the event of a page is news; moves the position. */
bool replay_page_event(struct replay *r, const struct frame *event);
/* After a page was sent: true = all of it is there, is_live is set and `held` is to be passed through replay_live() and
 * freed by replay_release(). */
bool replay_page_end(struct replay *r, const struct history_page *page);
void replay_release(struct replay *r);
