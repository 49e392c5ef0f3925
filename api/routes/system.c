/* The system itself: what it is, how it does, what sources it knows, what a directory holds. */
#include "api/router.h"
#include "api/scan.h"
#include "api/source_request.h"
#include "api/views.h"
#include "build/queries.h"
#include "common/clock.h"
#include "common/message.h"
#include "common/version.h"

#include <string.h>

enum { PREVIEW_MS = 3000, PREVIEW_FILES_SHOWN = 1000, PREVIEW_WARNINGS = 20, SCAN_TOLD_SECONDS = 300 };

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

/* ---- what a directory holds ---- */

struct preview {
    struct text files, warnings; /* the inside of the lists */
    int shown, warned;
};

static const char *shown_bytes(struct scope *sc, const char *bytes, size_t len)
{
    scoped_text t = {0};
    text_append_escaped(&t, bytes, len);
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status preview_file(struct scope *sc, void *context, const struct source_file *file,
                                const struct scan_totals *so_far)
{
    (void)so_far;
    struct preview *p = context;
    if (file->problem) {
        if (p->warned++ < PREVIEW_WARNINGS)
            json_text(&p->warnings, NULL,
                      arena_printf(&sc->arena, "%s: %s", shown_bytes(sc, file->path, file->path_len), file->problem));
        return STATUS_OK;
    }
    if (p->shown++ >= PREVIEW_FILES_SHOWN)
        return STATUS_OK;
    const char *slash = memrchr(file->path, '/', file->path_len);
    const char *name = slash ? slash + 1 : file->path;
    char modified[32];
    json_open(&p->files, NULL, '{');
    json_text(&p->files, "file_path", shown_bytes(sc, file->path, file->path_len));
    json_text(&p->files, "file_name", shown_bytes(sc, name, file->path_len - (size_t)(name - file->path)));
    json_int(&p->files, "file_size", file->size);
    json_null(&p->files, "mime_type");
    json_null(&p->files, "content_hash");
    clock_iso_of_ns(file->mtime_ns, modified);
    json_text(&p->files, "modified_at", *modified ? modified : NULL);
    json_close(&p->files, '}');
    return STATUS_OK;
}

/* /ws/directory-scan/{scan_id} lets in whom this key names; a scan that another user has named already stays his. */
static bool name_scan(struct request *r, const char *scan_id)
{
    scoped(redisReply) *set = NULL;
    scoped(redisReply) *owner = NULL;
    const char *key = redis_key(r->sc, r->events, "directory-scan:%s:user", scan_id);
    const char *user = arena_printf(&r->sc->arena, "%lld", (long long)r->user.id);
    enum status s = redis_run(r->sc, r->events, &set, "SET %s %s NX EX %d", key, user, SCAN_TOLD_SECONDS);
    if (s == STATUS_OK)
        s = redis_run(r->sc, r->events, &owner, "GET %s", key);
    scope_forgive(r->sc); /* without Redis the answer itself tells all */
    return s == STATUS_OK && owner->type == REDIS_REPLY_STRING && strcmp(owner->str, user) == 0;
}

/* Kept for sockets that open after the answer, published to those that are there. */
static void tell_scan(struct request *r, const char *scan_id, const struct scan_totals *totals)
{
    char now[28];
    clock_iso(now);
    scoped_text t = {0};
    scoped(redisReply) *kept = NULL;
    scoped(redisReply) *told = NULL;
    json_open(&t, NULL, '{');
    json_text(&t, "timestamp", now);
    json_text(&t, "type", "completed");
    json_text(&t, "scan_id", scan_id);
    json_open(&t, "data", '{');
    json_int(&t, "total_files", totals->files);
    json_int(&t, "total_size", totals->bytes);
    json_int(&t, "percentage", 100);
    json_close(&t, '}');
    json_close(&t, '}');
    enum status s = redis_run(r->sc, r->events, &kept, "SET %s %s EX %d",
                              redis_key(r->sc, r->events, "directory-scan:%s:last", scan_id), text_str(&t),
                              SCAN_TOLD_SECONDS);
    if (s == STATUS_OK)
        s = redis_run(r->sc, r->events, &told, "PUBLISH %s %s",
                      redis_key(r->sc, r->events, "directory-scan:%s", scan_id), text_str(&t));
    (void)s;
    scope_forgive(r->sc);
}

static void write_preview(struct request *r, const char *path, const char *scan_id, const struct scan_totals *totals,
                          struct preview *p)
{
    if (totals->cut)
        json_text(&p->warnings, NULL, totals->cut);
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "scan_id", scan_id);
    json_text(t, "path", path);
    json_open(t, "files", '[');
    text_puts(t, text_str(&p->files));
    json_close(t, ']');
    json_int(t, "total_files", totals->files);
    json_int(t, "total_size", totals->bytes);
    json_open(t, "warnings", '[');
    text_puts(t, text_str(&p->warnings));
    json_close(t, ']');
    json_close(t, '}');
}

enum status directory_scan_preview(struct request *r)
{
    struct scan_totals totals;
    char made_id[37];
    uuid_make(made_id);
    const char *path = json_get_text(r->json, "path", ""), *scan_id = json_get_text(r->json, "scan_id", made_id);
    enum status s = source_request_may_read(r->sc, r->db, r->api->settings, &r->user, path);
    if (s != STATUS_OK)
        return s;
    bool is_told = name_scan(r, scan_id);
    struct preview p = {0};
    struct scan_request scan = {
        .roots = r->api->settings->source_roots,
        .path = path,
        .options = {.recursive = json_get_bool(r->json, "recursive", true),
                    .include = cJSON_GetObjectItemCaseSensitive(r->json, "include_patterns"),
                    .exclude = cJSON_GetObjectItemCaseSensitive(r->json, "exclude_patterns")},
        .deadline_ms = clock_monotonic_ms() + PREVIEW_MS,
        .on_file = preview_file,
        .context = &p,
    };
    s = scan_run(r->sc, &scan, &totals);
    if (s == STATUS_OK)
        write_preview(r, path, scan_id, &totals, &p);
    if (s == STATUS_OK && is_told)
        tell_scan(r, scan_id, &totals);
    text_free(&p.files);
    text_free(&p.warnings);
    return s;
}
