/* A worker's internal HTTP: /internal/embed, /internal/tokenize (both with X-Internal-Api-Key), /metrics, /healthz,
 * /readyz. Runs on threads of its own and asks the embedder process; the supervisor only starts and stops it. The one
 * file of the worker that includes libmicrohttpd. */
#pragma once

#include "common/config.h"

struct internal_http;

/* Listens on WORKER_HOST:WORKER_PORT (0 = any free port). `is_ready` (may be NULL) is asked on /readyz beside the
 * embedder, from any thread; it returns NULL when ready, else a constant sentence. STATUS_UNAVAILABLE when the port
 * cannot be had. */
enum status internal_http_start(struct scope *sc, const struct settings *settings, const char *embedder_socket,
                                const char *(*is_ready)(void *context), void *context,
                                struct internal_http **out) must_check;
int internal_http_port(const struct internal_http *http);
/* Waits for requests in flight. */
void internal_http_free(struct internal_http *http);
