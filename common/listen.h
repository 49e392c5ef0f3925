/* Listening sockets. */
#pragma once

#include "common/scope.h"

enum { LISTEN_MAX = 8 };

/* Binds and listens on every address that `host` means (a name, IPv4, IPv6; "::" takes IPv4 too), all on one port; port
 * 0 = any free one. Fills out_fds (non-blocking, close-on-exec). STATUS_UNAVAILABLE with a sentence. */
enum status listen_open(struct scope *sc, const char *host, int64_t port, int out_fds[LISTEN_MAX], int *out_count,
                        int *out_port) must_check;
/* The same on the first address that `host` means, for a server that takes one socket. */
enum status listen_one(struct scope *sc, const char *host, int64_t port, int *out_fd, int *out_port) must_check;
