/* Opening what lies below a directory and nowhere else, whatever the path says and whoever moves things meanwhile. */
#pragma once

#include <stdint.h>

/* The kernel resolves `path` below `at` (openat2), so nothing can be swapped for a link between a check and the use of
 * it. `flags` as for open; O_CLOEXEC and, but for O_PATH, O_NOCTTY are added. `more_resolve`: RESOLVE_… beside
 * RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS. A descriptor, or -1 with errno. */
int open_beneath(int at, const char *path, int flags, uint64_t more_resolve);
