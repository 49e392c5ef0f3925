/* The system itself: what it is, how it does, what sources it knows. */
#include "api/router.h"
#include "api/views.h"
#include "build/queries.h"
#include "common/clock.h"
#include "common/message.h"
#include "common/version.h"

#include <string.h>

enum status system_status(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_WORKERS_LIVE, &rows);
    if (s != STATUS_OK)
        return s;
    int64_t gpus = db_int(rows, 0, "gpu_count", 0);
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_bool(t, "gpu_available", gpus > 0);
    json_bool(t, "reranking_available", false);
    json_open(t, "available_reranking_models", '[');
    json_close(t, ']');
    json_int(t, "cuda_device_count", gpus);
    json_text(t, "cuda_device_name", gpus > 0 ? db_text(rows, 0, "gpus") : NULL);
    json_close(t, '}');
    return STATUS_OK;
}

/* What runs by the clock, for whoever runs the system. */
enum status system_tasks(struct request *r)
{
    int64_t offset, limit;
    const char *name = request_query(r, "name");
    scoped(PGresult) *rows = NULL;
    enum status s = request_slice(r, &offset, &limit);
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_SYSTEM_TASKS_LIST, &rows, name && *name ? name : NULL, db_number(r->sc, limit),
                   db_number(r->sc, offset));
    if (s == STATUS_OK)
        view_reply_slice(r, &schema_SYSTEM_TASK, rows, offset, limit);
    return s;
}

/* The screen shows numbers, also where there is no limit. */
static int64_t or_very_many(int64_t limit)
{
    return limit < 0 ? 1000000 : limit;
}

static int64_t whole_gb(int64_t bytes)
{
    return bytes < 0 ? bytes : bytes >> 30;
}

enum status system_info(struct request *r)
{
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "version", OPSTREAM_VERSION);
    json_text(t, "environment", r->api->settings->environment);
    json_text(t, "python_version", "none");
    json_open(t, "limits", '{');
    json_int(t, "max_collections_per_user", or_very_many(r->api->settings->max_collections_per_user));
    json_int(t, "max_storage_gb_per_user", or_very_many(whole_gb(r->api->settings->max_bytes_per_user)));
    json_close(t, '}');
    json_open(t, "rate_limits", '{');
    json_text(t, "chunking_preview", "30/minute");
    json_text(t, "plugin_install", "not available");
    json_text(t, "llm_test", "not available");
    json_close(t, '}');
    json_close(t, '}');
    return STATUS_OK;
}

static void write_service(struct text *t, const char *name, bool is_healthy, const char *trouble)
{
    json_open(t, name, '{');
    json_text(t, "status", is_healthy ? "healthy" : "unhealthy");
    if (!is_healthy)
        json_text(t, "message", trouble);
    json_close(t, '}');
}

/* Always 200: it tells how the services do, and this one answers. */
enum status system_health(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    scoped(redisReply) *pong = NULL;
    bool has_db = db_run(r->sc, r->db, SQL_WORKERS_LIVE, &rows) == STATUS_OK;
    bool has_workers = has_db && db_int(rows, 0, "workers", 0) > 0;
    scope_forgive(r->sc);
    bool has_redis = redis_run(r->sc, r->queue, &pong, "PING") == STATUS_OK;
    scope_forgive(r->sc);
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    write_service(t, "postgres", has_db, "PostgreSQL does not answer");
    write_service(t, "redis", has_redis, "Redis does not answer");
    write_service(t, "qdrant", has_db, "vectors are kept in PostgreSQL, which does not answer");
    write_service(t, "vecpipe", has_workers, "no worker is running");
    json_close(t, '}');
    return STATUS_OK;
}

/* ---- connectors ---- */

static const char connector_directory[] = "{\"name\":\"Local directory\",\"description\":\"Reads documents below a "
                                          "directory that the workers can see\",\"icon\":\"folder\","
                                          "\"fields\":["
                                          "{\"name\":\"path\",\"type\":\"text\",\"label\":\"Directory "
                                          "path\",\"description\":\"Absolute path of the directory\",\"required\":true,"
                                          "\"default\":null,\"placeholder\":\"/path/to/documents\"},"
                                          "{\"name\":\"recursive\",\"type\":\"boolean\",\"label\":\"Include "
                                          "subdirectories\",\"description\":\"Read the directories below it too\","
                                          "\"required\":false,\"default\":true},"
                                          "{\"name\":\"include_patterns\",\"type\":\"glob_list\",\"label\":\"Include "
                                          "patterns\",\"description\":\"Only files that match one of these are read\","
                                          "\"required\":false,\"default\":null,\"placeholder\":\"*.md, *.txt\"},"
                                          "{\"name\":\"exclude_patterns\",\"type\":\"glob_list\",\"label\":\"Exclude "
                                          "patterns\",\"description\":\"Files that match one of these are left out\","
                                          "\"required\":false,\"default\":null,\"placeholder\":\"drafts/**\"}],"
                                          "\"secrets\":[],\"supports_sync\":true,\"preview_endpoint\":\"\"}";

enum status connectors_list(struct request *r)
{
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_open(t, "connectors", '{');
    json_raw(t, "directory", connector_directory);
    json_close(t, '}');
    json_close(t, '}');
    return STATUS_OK;
}

enum status connectors_show(struct request *r)
{
    if (strcmp(r->params[0], "directory") != 0)
        return fail(r->sc, STATUS_NOT_FOUND, "Connector with ID '%s' not found", r->params[0]);
    return reply_constant(r, 200, connector_directory);
}
