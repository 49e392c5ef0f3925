/* HTTP by libmicrohttpd: requests in, replies out, handler threads between. Only the files of server_state.h include
 * its header.
 *
 * The library's thread reads connections and never waits: a complete request is suspended, put into a bounded queue,
 * run by one of API_THREADS handler threads, each with its own PostgreSQL and Redis connections, and resumed with its
 * answer. */
#pragma once

#include "api/request.h"

#include <sys/socket.h>

struct server_connection;

enum status server_start(struct scope *sc, struct api *api, struct server **out) must_check;
/* Takes over an accepted connection of which nothing was read yet. Any thread; `fd` is the server's from now on,
 * whatever happens. */
void server_adopt(struct server *server, int fd, const struct sockaddr *address, socklen_t address_len);
/* Requests whose answer has not been sent yet. */
int server_in_flight(const struct server *server);
/* Waits until no request is in flight; false when `timeout_ms` passed first. New requests are still answered; their
 * connections close afterwards while api->is_draining. */
bool server_drain(const struct server *server, int timeout_ms);
/* Ends the threads; requests still in the queue are answered 503. */
void server_free(struct server *server);
/* NULL when absent. For request_header(). */
const char *server_header(struct server_connection *c, const char *name);

/* Prometheus' port: GET /metrics in its text format. `out_port` is the one that was bound. */
struct metrics_server;
enum status metrics_server_start(struct scope *sc, const struct settings *settings, struct metrics_server **out,
                                 int *out_port) must_check;
void metrics_server_free(struct metrics_server *m);
