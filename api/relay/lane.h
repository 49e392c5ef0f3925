/* One of the relay's loops: a thread, a libuv loop, an lws_context and a hub. A connection stays on the lane that took
 * it. No other part of the program includes libwebsockets. */
#pragma once

#include "api/relay/hub.h"

struct lane;
struct stream;
struct stream_http;

/* Makes the loop; nothing runs yet. A start that fails ends the process: what it left is not taken apart. */
enum status lane_new(struct scope *sc, struct api *api, struct shared *shared, int number,
                     struct lane **out) must_check;
uv_loop_t *lane_loop(struct lane *lane);
/* Once the feed is there. The first lane first, so that the first port is its. */
enum status lane_prepare(struct scope *sc, struct lane *lane) must_check;
enum status lane_start(struct scope *sc, struct lane *lane) must_check;
/* relay_adopt. Any thread. */
void lane_adopt(struct lane *lane, int fd, const char *head, size_t head_len, const char *refusal);
/* relay_attach. Any thread. */
void lane_attach(struct lane *lane, struct stream *stream, const struct stream_http *http);
/* Connections that are its, those on their way to it included. */
int lane_connections(const struct lane *lane);
/* Begins to let all clients go over the time. Any thread. */
void lane_drain(struct lane *lane, int spread_ms);
/* Cuts what is left and ends the thread. */
void lane_stop(struct lane *lane);
void lane_free(struct lane *lane);
