/* What a worker does regularly and what may take its time, on threads and connections of their own: one sweeps lapsed
 * workers and reconciles, the other removes what dead attempts left, asks how the embedder is and looks whether the
 * source roots are there. */
#pragma once

#include "common/config.h"
#include "worker/lease.h"

struct chores;

/* `wake_fd` (an eventfd) is written to when the embedder's state changed. The settings and the lease must outlive it.
 */
struct chores *chores_start(const struct settings *settings, struct lease *lease, const char *embedder_socket,
                            int wake_fd);
void chores_stop(struct chores *chores);
bool chores_embedder_is_ready(struct chores *chores);
/* The embedder's process has ended: not ready until it answers again. */
void chores_embedder_died(struct chores *chores);
/* An attempt was stopped or died: what it left unseen is removed soon. */
void chores_remove_leftovers(struct chores *chores);
/* A constant sentence when something that a task needs is missing; NULL = nothing is. */
const char *chores_problem(struct chores *chores);
