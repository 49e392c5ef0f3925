/* Collections: list, create, show, change, delete. */
#include "api/chunking_check.h"
#include "api/guard.h"
#include "api/idempotency.h"
#include "api/resources.h"
#include "api/router.h"
#include "api/source_request.h"
#include "api/views.h"
#include "common/chunking.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/message.h"
#include "common/store/audit_store.h"
#include "common/store/source_store.h"

#include <string.h>

enum { LEAST_SYNC_MINUTES = 15, LONGEST_NAME = 255 };

static const char *const quantizations[] = {"float32", "float16", "int8", NULL};
static const char *const sync_modes[] = {"one_time", "continuous", NULL};

/* `initial_operation_id` is only filled by create, `operation_id` only there when it reads a source. */
static void write_collection(struct text *t, const PGresult *rows, const char *operation_uuid, bool with_operation)
{
    json_open(t, NULL, '{');
    view_fields_with(t, &schema_COLLECTION, rows, 0, "initial_operation_id", operation_uuid);
    if (with_operation)
        json_text(t, "operation_id", operation_uuid);
    json_close(t, '}');
}

enum status collections_list(struct request *r)
{
    int page, per_page;
    enum status s = request_page(r, &page, &per_page);
    if (s != STATUS_OK)
        return s;
    scoped(PGresult) *rows = NULL;
    s = collection_store_list(r->sc, r->db, r->user.id, request_query_bool(r, "include_public", true), per_page,
                              (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_reply_page(r, "collections", &schema_COLLECTION, rows, page, per_page);
    return s;
}

enum status collections_show(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = guard_readable(r, r->params[0], &c, &rows);
    if (s == STATUS_OK)
        write_collection(reply_json(r, 200), rows, NULL, false);
    return s;
}

/* ---- what bodies say ---- */

static bool is_one_of(const char *const *valid, const char *word)
{
    for (; *valid; valid++) {
        if (strcmp(*valid, word) == 0)
            return true;
    }
    return false;
}

static const char *joined(struct request *r, const char *const *words)
{
    scoped_text t = {0};
    for (const char *const *w = words; *w; w++)
        text_printf(&t, "%s%s", w == words ? "" : ", ", *w);
    return arena_strdup(&r->sc->arena, text_str(&t));
}

/* Trimmed; names show up in paths and exports, so some characters are out. */
static enum status read_name(struct request *r, const char *given, const char **out)
{
    size_t len = strlen(given);
    while (len > 0 && strchr(" \t\r\n", given[len - 1]))
        len--;
    size_t start = 0;
    while (start < len && strchr(" \t\r\n", given[start]))
        start++;
    const char *name = arena_strndup(&r->sc->arena, given + start, len - start);
    if (!*name)
        return request_invalid(r, "body", "name", "string_too_short", "name must not be empty");
    for (const char *p = name; *p; p++) {
        if (strchr("/\\*?<>|:\"", *p) || (unsigned char)*p < 0x20 || *p == 0x7F)
            return request_invalid(r, "body", "name", "value_error",
                                   "name must not contain any of / \\ * ? < > | : \" or control characters");
    }
    *out = name;
    return STATUS_OK;
}

/* The first node of a kind in the wizard's pipeline; NULL when there is none. */
static const cJSON *pipeline_node(const cJSON *pipeline, const char *type)
{
    const cJSON *nodes = cJSON_GetObjectItemCaseSensitive(pipeline, "nodes");
    for (const cJSON *n = cJSON_IsArray(nodes) ? nodes->child : NULL; n; n = n->next) {
        if (strcmp(json_get_text(n, "type", ""), type) == 0)
            return n;
    }
    return NULL;
}

static enum status check_pipeline(struct request *r, const cJSON *pipeline)
{
    if (!pipeline || cJSON_IsNull(pipeline))
        return STATUS_OK;
    const cJSON *nodes = cJSON_GetObjectItemCaseSensitive(pipeline, "nodes");
    const cJSON *edges = cJSON_GetObjectItemCaseSensitive(pipeline, "edges");
    if (!cJSON_IsArray(nodes) || (edges && !cJSON_IsArray(edges)))
        return fail(r->sc, STATUS_INVALID, "pipeline_config must have a list of nodes and a list of edges");
    for (const cJSON *n = nodes->child; n; n = n->next) {
        if (!json_get_text(n, "id", NULL) || !json_get_text(n, "type", NULL))
            return fail(r->sc, STATUS_INVALID, "every node of pipeline_config needs an id and a type");
    }
    return STATUS_OK;
}

/* Of the body, else of the wizard's pipeline, whose plugins may be others than ours. */
static enum status read_chunking(struct request *r, struct collection_new *out)
{
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(r->json, "chunking_config");
    const cJSON *node = pipeline_node(cJSON_GetObjectItemCaseSensitive(r->json, "pipeline_config"), "chunker");
    out->strategy = json_get_text(r->json, "chunking_strategy", NULL);
    if (cJSON_IsObject(config) && !out->strategy)
        return fail(r->sc, STATUS_INVALID, "chunking_config needs a chunking_strategy: one of %s",
                    chunking_names(r->sc));
    if (!out->strategy && node && chunking_is_known(json_get_text(node, "plugin_id", NULL))) {
        out->strategy = json_get_text(node, "plugin_id", NULL);
        config = cJSON_GetObjectItemCaseSensitive(node, "config");
    }
    out->chunk_size = json_get_int(r->json, "chunk_size", -1);
    out->chunk_overlap = json_get_int(r->json, "chunk_overlap", -1);
    out->chunking_json = json_printed(r, cJSON_IsObject(config) ? config : NULL);
    return chunking_check(r, out->strategy, config, &out->chunk_size, &out->chunk_overlap);
}

/* `was_continuous` and `interval_before`: what the collection has already (PUT). */
static enum status read_sync(struct request *r, bool was_continuous, int64_t interval_before, const char **out_mode,
                             int64_t *out_minutes)
{
    const char *mode = json_get_text(r->json, "sync_mode", NULL);
    int64_t minutes = json_get_int(r->json, "sync_interval_minutes", -1);
    if (mode && !is_one_of(sync_modes, mode))
        return request_invalid(r, "body", "sync_mode", "value_error", "sync_mode must be one of: %s",
                               joined(r, sync_modes));
    if (minutes >= 0 && minutes < LEAST_SYNC_MINUTES)
        return request_invalid(r, "body", "sync_interval_minutes", "greater_than_equal",
                               "sync_interval_minutes must be at least %d", LEAST_SYNC_MINUTES);
    bool is_continuous = mode ? strcmp(mode, "continuous") == 0 : was_continuous;
    if (is_continuous && minutes < 0 && interval_before <= 0)
        return request_invalid(r, "body", "sync_interval_minutes", "missing",
                               "sync_interval_minutes is required when sync_mode is 'continuous'");
    *out_mode = mode;
    *out_minutes = minutes;
    return STATUS_OK;
}

static enum status read_model(struct request *r, const char **out)
{
    const char *wanted = json_get_text(r->json, "embedding_model", NULL);
    const cJSON *node = pipeline_node(cJSON_GetObjectItemCaseSensitive(r->json, "pipeline_config"), "embedder");
    if (!wanted && node)
        wanted = json_get_text(cJSON_GetObjectItemCaseSensitive(node, "config"), "model", NULL);
    return collection_store_model(r->sc, r->db, r->api->settings->default_model, wanted, out);
}

static enum status read_new(struct request *r, struct collection_new *out)
{
    const char *mode = NULL;
    *out = (struct collection_new){
        .owner_id = r->user.id,
        .description = json_get_text(r->json, "description", NULL),
        .quantization = json_get_text(r->json, "quantization", "float16"),
        .is_public = json_get_bool(r->json, "is_public", false),
        .metadata_json = body_json(r, "metadata"),
        .sync_interval_minutes = -1,
    };
    enum status s = read_name(r, json_get_text(r->json, "name", ""), &out->name);
    if (s == STATUS_OK && !is_one_of(quantizations, out->quantization))
        s = request_invalid(r, "body", "quantization", "value_error", "quantization must be one of: %s",
                            joined(r, quantizations));
    if (s == STATUS_OK)
        s = read_sync(r, false, 0, &mode, &out->sync_interval_minutes);
    if (s == STATUS_OK)
        s = check_pipeline(r, cJSON_GetObjectItemCaseSensitive(r->json, "pipeline_config"));
    if (s == STATUS_OK)
        s = read_chunking(r, out);
    if (s == STATUS_OK)
        s = read_model(r, &out->model);
    out->is_continuous = mode && strcmp(mode, "continuous") == 0;
    return s;
}

/* ---- create ---- */

struct creation {
    struct collection_new collection;
    bool has_source;
    struct source_request source;
    struct operation_ref operation;
};

static const char *index_config(struct request *r, const struct creation *n, int64_t source_id)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "collection_name", n->collection.name);
    json_text(&t, "embedding_model", n->collection.model);
    json_text(&t, "quantization", n->collection.quantization);
    if (n->has_source)
        source_request_config(&t, &n->source, source_id);
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

static enum status audit(struct request *r, const char *action, const struct collection *c, const char *name)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "name", name);
    json_close(&t, '}');
    return audit_store_add(r->sc, r->db, r->user.id, action, c->uuid, NULL, text_str(&t));
}

/* The collection, its source if it has one, and the operation that makes it ready: all or nothing. */
static enum status create_in_transaction(struct request *r, void *context)
{
    struct creation *n = context;
    struct collection c = {0};
    scoped(PGresult) *rows = NULL;
    int64_t source_id = 0;
    enum status s = resource_admit_collection(r, n->has_source);
    if (s == STATUS_OK)
        s = collection_store_insert(r->sc, r->db, &n->collection, &c, &rows);
    if (s == STATUS_OK && n->has_source) {
        struct source_new source = {c.id, n->source.type, n->source.path, n->source.config_json};
        s = source_store_put(r->sc, r->db, &source, &source_id);
    }
    if (s != STATUS_OK)
        return s;
    struct operation_new o = {
        .collection_id = c.id,
        .user_id = r->user.id,
        .type = OPERATION_INDEX,
        .queue = n->has_source ? operation_kind(OPERATION_APPEND)->queue : NULL, /* reading documents is long work */
        .config_json = index_config(r, n, source_id),
        .default_retries = (int)r->api->settings->default_max_retries,
    };
    s = audit(r, "collection_created", &c, n->collection.name);
    if (s == STATUS_OK)
        s = operation_store_insert(r->sc, r->db, &o, &n->operation);
    if (s == STATUS_OK)
        write_collection(reply_json(r, 201), rows, n->operation.uuid, n->has_source);
    return s;
}

enum status collections_create(struct request *r)
{
    struct creation n = {.has_source = source_request_is_there(r->json)};
    bool is_done = false;
    enum status s = idempotency_replay(r, &is_done);
    if (s == STATUS_OK && !is_done)
        s = read_new(r, &n.collection);
    if (s == STATUS_OK && !is_done && n.has_source)
        s = source_request_read(r, &n.source);
    if (s != STATUS_OK || is_done)
        return s;
    s = idempotency_run(r, create_in_transaction, &n, &is_done);
    if (s == STATUS_OK && !is_done)
        guard_accepted(r, &n.operation);
    return s;
}

/* ---- change ---- */

/* What was changed, not to what: descriptions and metadata are the owner's. */
static const char *fields_changed(struct request *r, const struct collection_change *change)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    if (change->name)
        json_text(&t, "name", change->name);
    if (change->is_public)
        json_raw(&t, "is_public", change->is_public);
    if (change->sync_mode)
        json_text(&t, "sync_mode", change->sync_mode);
    if (change->sync_interval_minutes >= 0)
        json_int(&t, "sync_interval_minutes", change->sync_interval_minutes);
    if (change->has_description)
        json_bool(&t, "description", true);
    if (change->has_metadata)
        json_bool(&t, "metadata", true);
    json_close(&t, '}');
    return arena_strdup(&r->sc->arena, text_str(&t));
}

/* After the commit: whoever has lost the right to watch is let go at once, on every instance. */
static void tell_access(struct request *r, const char *collection_uuid)
{
    struct scope sc;
    scope_init(&sc, r->sc->trace_id);
    sc.deadline_ms = r->sc->deadline_ms;
    if (message_access(&sc, r->events, collection_uuid) != STATUS_OK)
        log_info("access_not_told", log_text("collection", collection_uuid), log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static enum status change_in_transaction(struct request *r, const struct collection *c,
                                         const struct collection_change *change)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_begin(r->sc, r->db);
    if (s == STATUS_OK)
        s = collection_store_update(r->sc, r->db, c->id, change, &rows);
    if (s == STATUS_OK)
        s = audit_store_add(r->sc, r->db, r->user.id, "collection_updated", c->uuid, NULL, fields_changed(r, change));
    if (s == STATUS_OK)
        s = db_commit(r->sc, r->db);
    else
        db_rollback(r->db);
    if (s == STATUS_OK && change->is_public)
        tell_access(r, c->uuid);
    if (s == STATUS_OK)
        write_collection(reply_json(r, 200), rows, NULL, false);
    return s;
}

enum status collections_update(struct request *r)
{
    struct collection c;
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s != STATUS_OK)
        return s;
    struct collection_change change = {.sync_interval_minutes = -1};
    const char *name = json_get_text(r->json, "name", NULL);
    if (name)
        s = read_name(r, name, &change.name);
    if (s == STATUS_OK)
        s = read_sync(r, c.is_continuous, c.sync_interval_minutes, &change.sync_mode, &change.sync_interval_minutes);
    if (s != STATUS_OK)
        return s;
    const cJSON *is_public = cJSON_GetObjectItemCaseSensitive(r->json, "is_public");
    change.is_public = cJSON_IsBool(is_public) ? cJSON_IsTrue(is_public) ? "true" : "false" : NULL;
    change.has_description = cJSON_GetObjectItemCaseSensitive(r->json, "description");
    change.description = json_get_text(r->json, "description", NULL);
    change.has_metadata = cJSON_GetObjectItemCaseSensitive(r->json, "metadata");
    change.metadata_json = body_json(r, "metadata");
    return change_in_transaction(r, &c, &change);
}

/* ---- delete ---- */

static enum status delete_in_transaction(struct request *r, const struct collection *c, struct operation_ref *out)
{
    scoped_text config = {0};
    json_open(&config, NULL, '{');
    json_text(&config, "collection_name", c->name);
    json_close(&config, '}');
    struct operation_new o = {
        .collection_id = c->id,
        .user_id = r->user.id,
        .type = OPERATION_DELETE,
        .config_json = text_str(&config),
        .default_retries = (int)r->api->settings->default_max_retries,
    };
    enum status s = db_begin(r->sc, r->db);
    if (s == STATUS_OK)
        s = operation_store_insert(r->sc, r->db, &o, out);
    if (s == STATUS_OK)
        s = audit(r, "collection_deleted", c, c->name);
    if (s == STATUS_OK)
        s = collection_store_hide(r->sc, r->db, c->id);
    (void)FAULT(BEFORE_DELETE_COMMIT, c->uuid);
    if (s == STATUS_OK)
        return db_commit(r->sc, r->db);
    db_rollback(r->db);
    return s;
}

/* Gone for every reader at once, its name free; a worker removes what it held behind the answer. */
enum status collections_delete(struct request *r)
{
    struct collection c;
    struct operation_ref operation;
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = delete_in_transaction(r, &c, &operation);
    if (s == STATUS_CONFLICT)
        return guard_busy(r, &c, "Cannot delete the collection");
    if (s != STATUS_OK)
        return s;
    guard_accepted(r, &operation);
    tell_access(r, c.uuid);
    reply_header(r, "X-Operation-ID", arena_strdup(&r->sc->arena, operation.uuid));
    return reply_empty(r, 204);
}
