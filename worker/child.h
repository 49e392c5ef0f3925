/* The process that runs tasks: waits for orders on SPAWN_FD, one task after another, until the supervisor closes its
 * end. */
#pragma once

#include "common/config.h"

int child_main(const struct settings *settings, const char *embedder_socket);
