/* The clock of what is due by the clock: a thread and a connection of a worker. One worker at a time holds the table
 * lease "scheduler"; it takes due times and starts their runs. Whoever loses the lease stops its runs, whose due times
 * the next holder takes again. */
#pragma once

#include "worker/lease.h"

struct scheduler;

/* The settings and the lease must outlive it. */
struct scheduler *scheduler_start(const struct settings *settings, struct lease *lease);
/* Stops what runs and gives the lease to whoever wants it next, without waiting for that; there is no way back. */
void scheduler_hand_over(struct scheduler *scheduler);
/* The same, and waits. NULL is allowed. */
void scheduler_stop(struct scheduler *scheduler);

/* For how long a run, and the lease, are believed in without a sign of life. */
double scheduler_lease_seconds(const struct settings *settings);
