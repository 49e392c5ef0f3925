/* Starts this program again as one of its own helpers: fork + exec, a process group of its own, a scrubbed environment,
 * and death with the parent. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

enum { SPAWN_FD = 3, MOST_SPAWN_FDS = 2 }; /* where a helper finds the first descriptor that it was given */

/* `fds` become SPAWN_FD and those after it, every other descriptor but stdout and stderr is closed. `needs_stores`: the
 * URLs of PostgreSQL and Redis go along; without it no secret does. Returns the pid, -1 when it cannot be started. Call
 * it from the main thread only: the helper dies with the thread that started it. */
pid_t spawn_self(const char *const *argv, const int *fds, int count, bool needs_stores);
