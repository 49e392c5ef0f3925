/* What the machine has to have left before an attempt begins. */
#pragma once

#include "common/config.h"
#include "common/scope.h"

/* STATUS_BUSY, which gives the operation back for a minute, when less than MIN_FREE_MEMORY_MB of memory is left to the
 * worker (its container's limit or the machine's) or less than MIN_FREE_DISK_MB for temporary files. What cannot be
 * told is taken to be enough. */
enum status resources_check(struct scope *sc, const struct settings *settings) must_check;
