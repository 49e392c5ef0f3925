/* Starts this program again as one of its own helpers: fork + exec, a process group of its own, a scrubbed environment,
 * and death with the parent. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum { SPAWN_FD = 3 }; /* where a helper finds the descriptor that it was given */

/* `keep_fd` (-1 = none) becomes SPAWN_FD, every other descriptor but stdout and stderr is closed. `needs_stores`: the
 * URLs of PostgreSQL and Redis go along; without it no secret does. Returns the pid, -1 when it cannot be started. Call
 * it from the main thread only: the helper dies with the thread that started it. */
pid_t spawn_self(const char *const *argv, int keep_fd, bool needs_stores);
