/* What this instance knows of the services that it needs: a thread asks them once a second, so that probes are answered
 * at once and by anybody. Also counts the queues for Prometheus. */
#pragma once

#include "api/api.h"
#include "common/text.h"

struct health;

struct health *health_new(struct api *api);
/* Starts asking; keeps api->is_schema_ok. */
enum status health_start(struct scope *sc, struct health *h) must_check;
void health_free(struct health *h);

struct health_view {
    bool is_ready;    /* false: 503 */
    bool is_degraded; /* Redis or its subscription is away */
    /* NULL = healthy, else a sentence without internals */
    const char *database, *redis, *relay, *embedding;
};
void health_look(struct health *h, struct health_view *out);
