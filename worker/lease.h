/* The worker's sign of life: one row of `workers`, renewed each second by a thread and a connection of its own, so that
 * a job may take as long as it likes. The thread waits for PostgreSQL and for a schema that fits before it registers.
 * Any thread may ask. */
#pragma once

#include "common/config.h"

struct lease;

struct lease_facts {
    const char *url; /* of the internal HTTP; NULL = none */
    char **queues;   /* NULL-terminated */
    int slots;
};

/* Written to `wake_fd` (an eventfd) whenever something changed. Copies the facts; the settings must outlive it. */
struct lease *lease_start(const struct settings *settings, const struct lease_facts *facts, int wake_fd);
/* Ends the thread; `remove_row` when the worker has given everything back, else the row is left to lapse. */
void lease_stop(struct lease *lease, bool remove_row);
/* The worker's id: new at each start, and after a lost lease. */
void lease_worker_id(struct lease *lease, char out[64]);
/* What a database session of this worker is called (application_name), so that whoever sweeps it can end it. `out`: 64
 * bytes. */
void lease_session_name(struct lease *lease, const char *role, char out[64]);
/* Registered, and renewed so lately that nobody can have swept it: work may be claimed. */
bool lease_is_held(struct lease *lease);
/* The row was swept: everything that this worker held belongs to others. Until lease_start_over(). */
bool lease_is_lost(struct lease *lease);
void lease_start_over(struct lease *lease);
/* An operator wrote into the row that this worker is to end (opstream-worker --drain). */
bool lease_is_asked_to_drain(struct lease *lease);
/* Takes no more claims from now on; waits until the row says so, at most a second. */
void lease_drain(struct lease *lease);
/* What the embedder serves; written to the row. */
void lease_describe(struct lease *lease, char **models, const char *device);
/* For how long the connection has been unbroken and punctual: only then may other workers' leases be judged. */
int64_t lease_unbroken_ms(struct lease *lease);
/* PostgreSQL did not answer the last time. */
bool lease_is_cut_off(struct lease *lease);
/* Since when PostgreSQL answers again after an outage that this process saw; -1 = it saw none. */
int64_t lease_since_outage_ms(struct lease *lease);
/* Why not to be ready, a constant sentence; NULL = nothing is wrong. */
const char *lease_problem(struct lease *lease);
