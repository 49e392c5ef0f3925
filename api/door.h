/* The one public port: accepts, looks at the request head without taking it, and hands the connection on: WebSockets to
 * the relay, everything else to the HTTP server. A connection that says nothing costs a descriptor and a few bytes for
 * ten seconds. */
#pragma once

#include "api/api.h"
#include "api/server.h"

/* Binds API_PORT (and WS_PORT) and starts the thread. */
enum status door_open(struct scope *sc, struct api *api, struct server *server, struct door **out) must_check;
int door_port(const struct door *door);
/* 0 = there is none. */
int door_ws_port(const struct door *door);
/* Stops accepting; requests that are here already are handed on, and connections that were live on. */
void door_close(struct door *door);
