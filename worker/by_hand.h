/* `opstream-worker --task UUID`: one operation in the foreground, with a worker row and lease of its own, e.g. below a
 * debugger. */
#pragma once

#include "common/config.h"

/* Returns the exit status: 0 = completed. */
int by_hand_run(const struct settings *settings, const char *uuid);
