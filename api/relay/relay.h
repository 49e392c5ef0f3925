/* The WebSocket relay: every operation's events from Redis to the clients that may see them. One thread, one libuv
 * loop, one lws_context. No other part of the program includes libwebsockets. */
#pragma once

#include "api/api.h"
#include "api/relay/stream.h"

/* Starts the loop's thread, its Redis subscription and the threads that look things up in PostgreSQL and Redis. `api`
 * outlives it. */
enum status relay_start(struct scope *sc, struct api *api, struct relay **out) must_check;
/* Takes over a TCP connection whose request head (up to and with the empty line, and whatever bytes followed) was read
 * already. Any thread; the socket is the relay's from now on, whatever happens. `head` is copied. `refusal`: it is
 * accepted only to be closed with 1008 and this constant sentence; NULL = it is welcome. */
void relay_adopt(struct relay *relay, int fd, const char *head, size_t head_len, const char *refusal);
/* Takes over an HTTP request for events, see stream.h. Any thread. */
void relay_attach(struct relay *relay, struct stream *stream, const struct stream_http *http);
/* NULL when the subscription lives; else a constant sentence ("Redis is away"), for /readyz. */
const char *relay_trouble(const struct relay *relay);
/* Connections open now. */
int relay_connections(const struct relay *relay);
/* Lets the clients go (contract, sections 0.6 and 12: cut without a close frame, spread over `spread_ms`; 1012 for
 * those that speak resume), then returns. */
void relay_drain(struct relay *relay, int spread_ms);
/* Cuts what is left and ends the threads; relay_trouble still answers. */
void relay_stop(struct relay *relay);
void relay_free(struct relay *relay);
