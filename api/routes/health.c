/* Probes and metrics (contract, sections 8 and 12). All of them run on the connection thread. */
#include "api/health.h"

#include "api/openapi.h"
#include "api/router.h"
#include "common/metrics.h"

#include <string.h>

enum status health_show(struct request *r)
{
    return reply_constant(r, 200, "{\"status\":\"healthy\",\"service\":\"webui\"}");
}

enum status health_live(struct request *r)
{
    return reply_constant(r, 200, "{\"status\":\"healthy\",\"check\":\"liveness\"}");
}

static void write_service(struct text *t, const char *name, const char *trouble)
{
    json_open(t, name, '{');
    json_text(t, "status", trouble ? "unhealthy" : "healthy");
    json_text(t, "message", trouble);
    json_close(t, '}');
}

enum status health_ready(struct request *r)
{
    struct health_view v;
    health_look(r->api->health, &v);
    struct text *t = reply_json(r, v.is_ready ? 200 : 503);
    json_open(t, NULL, '{');
    json_bool(t, "ready", v.is_ready);
    json_text(t, "check", "readiness");
    json_bool(t, "degraded", v.is_degraded);
    json_bool(t, "draining", r->api->is_draining);
    json_open(t, "services", '{');
    write_service(t, "database", v.database);
    write_service(t, "redis", v.redis);
    write_service(t, "relay", v.relay);
    write_service(t, "embedding", v.embedding);
    /* The ancestor's names: its vector store and its search process. */
    write_service(t, "qdrant", v.database);
    write_service(t, "search_api", v.embedding);
    json_close(t, '}');
    json_close(t, '}');
    if (!v.is_ready)
        reply_header(r, "Retry-After", "2");
    return STATUS_OK;
}

/* Samples of the text format, "name{labels} value" a line, as members of an object. */
static void write_samples(struct scope *sc, struct text *t, const struct text *samples)
{
    for (const char *line = text_str(samples); *line;) {
        size_t len = strcspn(line, "\n");
        const char *blank = memrchr(line, ' ', len);
        if (*line != '#' && blank)
            json_real(t, arena_strndup(&sc->arena, line, (size_t)(blank - line)), strtod(blank + 1, NULL));
        line += len + (line[len] == '\n');
    }
}

enum status health_metrics(struct request *r)
{
    scoped_text samples = {0};
    metrics_write(&samples);
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "instance_id", r->api->instance_id);
    json_open(t, "metrics", '{');
    write_samples(r->sc, t, &samples);
    json_close(t, '}');
    json_close(t, '}');
    return STATUS_OK;
}

enum status openapi_show(struct request *r)
{
    openapi_write(reply_json(r, 200));
    return STATUS_OK;
}
