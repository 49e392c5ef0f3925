/* Smallest answers for product areas that Opstream does not have, so that the screens that ask stay quiet. */
#include "api/guard.h"
#include "api/router.h"
#include "build/queries.h"
#include "common/chunking.h"

#include <string.h>

enum status peripheral_conversations(struct request *r)
{
    return reply_constant(r, 200, "{\"conversations\":[],\"total\":0}");
}

enum status peripheral_plugins(struct request *r)
{
    return reply_constant(r, 200, "{\"plugins\":[]}");
}

enum status peripheral_plugins_available(struct request *r)
{
    return reply_constant(r, 200,
                          "{\"plugins\":[],\"registry_version\":null,\"last_updated\":null,\"registry_source\":null,"
                          "\"semantik_version\":\"\"}");
}

/* What the wizard's node editor offers. */
static const struct {
    const char *id, *type, *name, *description;
} plugins[] = {
    {"text", "parser", "Text", "Reads text, HTML, office and PDF documents"},
    {"dense_local", "embedder", "Local model", "Embeds with the default model of the workers"},
};

static void write_plugin(struct text *t, const char *wanted, const char *id, const char *type, const char *name,
                         const char *description)
{
    if (wanted && *wanted && strcmp(wanted, type) != 0)
        return;
    json_open(t, NULL, '{');
    json_text(t, "id", id);
    json_text(t, "type", type);
    json_text(t, "display_name", name);
    json_text(t, "description", description);
    json_text(t, "source", "builtin");
    json_bool(t, "enabled", true);
    json_close(t, '}');
}

enum status peripheral_pipeline_plugins(struct request *r)
{
    const char *type = request_query(r, "plugin_type");
    size_t count;
    const struct chunking_strategy *strategies = chunking_strategies(&count);
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_open(t, "plugins", '[');
    for (size_t i = 0; i < array_len(plugins); i++)
        write_plugin(t, type, plugins[i].id, plugins[i].type, plugins[i].name, plugins[i].description);
    for (size_t i = 0; i < count; i++)
        write_plugin(t, type, strategies[i].name, "chunker", strategies[i].title, strategies[i].summary);
    json_close(t, ']');
    json_close(t, '}');
    return STATUS_OK;
}

enum status peripheral_plugin_schema(struct request *r)
{
    return reply_constant(r, 200, "null");
}

/* ---- models ---- */

static void write_model(struct text *t, const PGresult *rows, int row)
{
    json_open(t, NULL, '{');
    json_text(t, "id", db_text(rows, row, "model"));
    json_text(t, "name", db_text(rows, row, "model"));
    json_text(t, "description", "");
    json_text(t, "model_type", "embedding");
    json_raw(t, "memory_mb", "{}");
    json_bool(t, "is_installed", db_bool(rows, row, "is_installed"));
    json_null(t, "size_on_disk_mb");
    json_raw(t, "used_by_collections", db_text(rows, row, "used_by"));
    json_null(t, "active_download_task_id");
    json_null(t, "active_delete_task_id");
    json_open(t, "embedding_details", '{');
    json_raw(t, "dimension", db_text(rows, row, "dim"));
    json_close(t, '}');
    json_null(t, "llm_details");
    json_close(t, '}');
}

enum status peripheral_models(struct request *r)
{
    const char *type = request_query(r, "model_type");
    bool only_installed = request_query_bool(r, "installed_only", false);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_MODELS_USED, &rows, db_number(r->sc, r->user.id));
    if (s != STATUS_OK)
        return s;
    bool is_wanted = !type || !*type || strcmp(type, "embedding") == 0;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_open(t, "models", '[');
    for (int i = 0; is_wanted && i < PQntuples(rows); i++) {
        if (!only_installed || db_bool(rows, i, "is_installed"))
            write_model(t, rows, i);
    }
    json_close(t, ']');
    json_null(t, "cache_size");
    json_null(t, "hf_cache_scan_error");
    json_close(t, '}');
    return STATUS_OK;
}

enum status peripheral_models_by_name(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    scoped(PGresult) *workers = NULL;
    enum status s = db_run(r->sc, r->db, SQL_MODELS_USED, &rows, db_number(r->sc, r->user.id));
    if (s == STATUS_OK)
        s = db_run(r->sc, r->db, SQL_WORKERS_LIVE, &workers);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_open(t, "models", '{');
    for (int i = 0; i < PQntuples(rows); i++) {
        const char *name = db_text(rows, i, "model");
        json_open(t, name, '{');
        json_text(t, "model_name", name);
        json_raw(t, "dimension", db_text(rows, i, "dim"));
        json_text(t, "description", "");
        json_text(t, "provider", "dense_local");
        json_close(t, '}');
    }
    json_close(t, '}');
    json_text(t, "current_device", db_int(workers, 0, "gpu_count", 0) > 0 ? "cuda" : "cpu");
    json_bool(t, "using_real_embeddings", true);
    json_close(t, '}');
    return STATUS_OK;
}

/* ---- lists that are empty ---- */

enum status peripheral_profiles(struct request *r)
{
    return reply_constant(r, 200, "{\"profiles\":[],\"total\":0}");
}

enum status peripheral_api_keys(struct request *r)
{
    return reply_constant(r, 200, "{\"api_keys\":[],\"total\":0}");
}

enum status peripheral_templates(struct request *r)
{
    return reply_constant(r, 200, "{\"templates\":[],\"total\":0}");
}

enum status peripheral_llm_settings(struct request *r)
{
    return reply_constant(r, 200,
                          "{\"high_quality_provider\":null,\"high_quality_model\":null,\"low_quality_provider\":null,"
                          "\"low_quality_model\":null,"
                          "\"local_quantization\":null,\"local_low_quantization\":null,\"default_temperature\":null,"
                          "\"default_max_tokens\":null,"
                          "\"created_at\":null,\"updated_at\":null}");
}

enum status peripheral_llm_models(struct request *r)
{
    return reply_constant(r, 200, "{\"models\":[]}");
}

enum status peripheral_llm_usage(struct request *r)
{
    return reply_constant(
        r, 200,
        "{\"total_input_tokens\":0,\"total_output_tokens\":0,\"total_tokens\":0,\"by_feature\":{},\"by_provider\":{},"
        "\"event_count\":0,\"period_days\":30}");
}

enum status peripheral_system_settings(struct request *r)
{
    return reply_constant(r, 200, "{\"settings\":{}}");
}

enum status peripheral_system_defaults(struct request *r)
{
    return reply_constant(r, 200, "{\"defaults\":{},\"settings\":{}}");
}

enum status peripheral_stats(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_SETTINGS_STATS, &rows, db_number(r->sc, r->user.id));
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_int(t, "collection_count", db_int(rows, 0, "collection_count", 0));
    json_int(t, "file_count", db_int(rows, 0, "file_count", 0));
    json_real(t, "database_size_mb", db_real(rows, 0, "database_size_mb", 0));
    json_int(t, "parquet_files_count", 0);
    json_int(t, "parquet_size_mb", 0);
    json_close(t, '}');
    return STATUS_OK;
}

enum status peripheral_reset_database(struct request *r)
{
    return fail(r->sc, STATUS_NOT_IMPLEMENTED,
                "Resetting the database over HTTP is not available; delete the collections, or let an operator do it");
}

/* ---- of a collection ---- */

enum status peripheral_sparse_index(struct request *r)
{
    struct collection c;
    enum status s = guard_readable(r, r->params[0], &c, NULL);
    if (s != STATUS_OK)
        return s;
    return reply_constant(
        r, 200,
        "{\"enabled\":false,\"plugin_id\":null,\"sparse_collection_name\":null,\"model_config_data\":null,"
        "\"document_count\":null,\"created_at\":null,\"last_indexed_at\":null}");
}

enum status peripheral_sparse_index_change(struct request *r)
{
    struct collection c;
    enum status s = guard_owned(r, r->params[0], &c, NULL);
    return s == STATUS_OK ? fail(r->sc, STATUS_NOT_IMPLEMENTED, "Sparse indexes are not available in this version") : s;
}
