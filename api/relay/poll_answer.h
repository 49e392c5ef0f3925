/* What a long poll gathers and answers. Pure functions.
 *
 * It reads lines of FRAME_LINE: the event's id (nothing for what is no event), a tab, a dot if the operation's last
 * event is told, a tab, the JSON. A goodbye is '!', a code as WebSockets have them, a space, a reason. */
#pragma once

#include "api/relay/frame.h"

#include <stddef.h>

enum { POLL_EVENTS = 1000 };

struct poll_answer {
    struct text events; /* with commas between */
    int count;
    bool has_ended;   /* the last event is among them */
    char last_id[64]; /* "" = none of them has one */
    int goodbye;      /* its code; 0 = none came */
    char reason[124];
};

/* Whole lines only. */
void poll_answer_take(struct poll_answer *a, const char *lines, size_t len);
/* True when it holds as much as one answer may. */
bool poll_answer_is_full(const struct poll_answer *a, size_t most_bytes);
/* Appends the JSON. `next` is where the next poll goes on. */
void poll_answer_write(const struct poll_answer *a, struct text *out, const char *next);
void poll_answer_done(struct poll_answer *a);

/* As a client names it: "0" = from the beginning. */
void event_id_text(const struct event_id *id, char out[64]);
