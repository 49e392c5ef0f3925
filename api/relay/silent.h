/* When a user is at the limit, are all of those connections still alive? A laptop that lost its network leaves ten dead
 * ones behind, which heartbeats find after two intervals and a half; its user is back within seconds and must not be
 * refused for them. So the newcomer's handshake is held for HELD_MS, the user's connections are asked with a ping (on
 * every instance, through the registry), and those that give no sign of life are cut.
 *
 * No sign of life: the client's end has not acknowledged the bytes of the ping (its network is gone), or it had
 * answered such pings before and does not answer this one (a proxy acknowledges in its place). A client that never
 * answers pings is believed as long as its kernel does. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hub;
struct client;

enum { SILENT_AFTER_MS = 1500, HELD_MS = 2500, MOST_HELD = 256, MOST_ASKED = 32 };

/* Users that are to be asked at the next tick. More than MOST_ASKED at a time wait for their next try. */
struct silence {
    int64_t asked[MOST_ASKED];
    int asked_count;
    int64_t check_until_ms; /* 0 = nobody was asked */
    int held_count;
};

void silent_ask(struct hub *hub, int64_t user_id);
void silent_tick(struct hub *hub, int64_t now_ms);
/* Holds a client that was refused because its user is at the limit: it opens again in HELD_MS. At most once for each,
 * and MOST_HELD at a time: false then. */
bool silent_hold(struct client *c);
/* Its time has come. */
void silent_end_hold(struct client *c);
