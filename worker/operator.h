/* What an operator asks of a running system, by hand: --status, --requeue, --drain, --check-integrity. Each connects,
 * does the one thing, prints sentences on stdout (problems on stderr) and returns the process' exit status: 0 done, 1
 * not done. PostgreSQL is the truth and needed; Redis makes things faster and may be away. */
#pragma once

#include "common/config.h"

int operator_status(const struct settings *settings, bool is_json);
/* `is_forced`: takes the operation from an attempt that runs. */
int operator_requeue(const struct settings *settings, const char *uuid, bool is_forced);
/* `worker`: an id, or "all". Waits until they have ended unless told not to. */
int operator_drain(const struct settings *settings, const char *worker, bool is_not_awaited);
/* What runs by the clock, each task's last run and its next. */
int operator_schedule(const struct settings *settings, bool is_json);
/* Runs one of it now, in the foreground. */
int operator_run_scheduled(const struct settings *settings, const char *name);
/* Exit status: 0 all fits together or was repaired, 1 there are findings (integrity.h), 2 it could not be looked at. */
int operator_check_integrity(const struct settings *settings, bool is_json, bool has_to_repair);
