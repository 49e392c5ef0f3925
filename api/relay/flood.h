/* Clients that send more than anybody honest would. Messages are counted one by one; pings of the protocol, which
 * libwebsockets answers without telling, show in the bytes that the kernel has received, which are looked at only while
 * the loop is busy: else they do no harm. Off with RATE_LIMITS=off. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hub;
struct client;

/* One more message, of this cost. False: it was one too many, and the client is being closed. */
bool flood_count(struct client *c, int cost);
/* Once a second, on the loop's thread. */
void flood_tick(struct hub *hub, int64_t now_ms);
