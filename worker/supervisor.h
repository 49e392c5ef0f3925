/* The worker: pops, claims, hands to children, reaps, settles, cancels, limits, drains. */
#pragma once

#include "common/config.h"

/* Runs until SIGTERM or SIGINT; returns the exit status. */
int supervisor_run(const struct settings *settings);
