/* The process that owns a device: one copy of each model, batches put together from all tasks' texts. Started by the
 * supervisor as `opstream-worker --embedder DEVICE`; ends with its parent. */
#pragma once

#include "common/config.h"

/* Serves on the Unix socket until SIGTERM; never returns before. Exit status: 0 after SIGTERM, 2 when the settings or
 * the default model are unusable, 3 when the device was lost (the supervisor starts a new one). */
int embedder_main(const struct settings *settings, int device, const char *socket_path);
