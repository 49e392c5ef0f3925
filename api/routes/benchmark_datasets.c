/* Datasets of queries and judgments, each of its owner. */
#include "api/idempotency.h"
#include "api/router.h"
#include "api/views.h"
#include "common/log.h"
#include "common/store/audit_store.h"
#include "common/store/benchmark_store.h"

#include <string.h>

static enum status find_dataset(struct request *r, PGresult **out_rows)
{
    return dataset_store_find(r->sc, r->db, r->params[0], r->user.id, r->user.is_superuser, out_rows);
}

enum status datasets_list(struct request *r)
{
    int page, per_page;
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = dataset_store_list(r->sc, r->db, r->user.id, per_page, (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_reply_page(r, "datasets", &schema_DATASET, rows, page, per_page);
    return s;
}

/* With a page of its queries. */
enum status datasets_show(struct request *r)
{
    int page, per_page;
    scoped(PGresult) *rows = NULL;
    scoped(PGresult) *queries = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = find_dataset(r, &rows);
    if (s == STATUS_OK)
        s = dataset_store_queries(r->sc, r->db, db_int(rows, 0, "row_id", 0), per_page, (int64_t)(page - 1) * per_page,
                                  &queries);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    view_fields_with(t, &schema_DATASET, rows, 0, NULL, NULL);
    view_write_list(t, "queries", &schema_DATASET_QUERY, queries);
    json_int(t, "total", view_total(queries));
    json_int(t, "page", page);
    json_int(t, "per_page", per_page);
    json_close(t, '}');
    return STATUS_OK;
}

/* ---- upload ---- */

static enum status refuse(struct request *r, const char *field, enum status s)
{
    if (s != STATUS_UNPROCESSABLE)
        return s;
    const char *sentence = r->sc->problem_text;
    return request_invalid(r, "body", field, "value_error", "%s", sentence);
}

static enum status read_content(struct request *r, const char *format, struct ir_dataset *out)
{
    const cJSON *queries = cJSON_GetObjectItemCaseSensitive(r->json, "queries");
    const char *qrels = json_get_text(r->json, "qrels", NULL), *field = "queries";
    bool is_trec = strcmp(format, "trec") == 0;
    if (!is_trec && strcmp(format, "json") != 0)
        return request_invalid(r, "body", "format", "value_error", "format must be one of: json, trec");
    if (!is_trec && qrels)
        return request_invalid(r, "body", "qrels", "value_error",
                               "qrels belong to the format trec; in json each query has its `relevant`");
    if (is_trec && !cJSON_IsString(queries))
        return request_invalid(r, "body", "queries", "string_type", "in the format trec, queries is a string");
    if (is_trec && !qrels)
        return request_invalid(r, "body", "qrels", "missing", "in the format trec, qrels is a string with judgments");
    enum status s = is_trec ? ir_dataset_from_trec(r->sc, queries->valuestring, qrels, out, &field)
                            : ir_dataset_from_json(r->sc, queries, out);
    return refuse(r, field, s);
}

static enum status insert_dataset(struct request *r, void *context)
{
    const struct dataset_new *d = context;
    scoped(PGresult) *rows = NULL;
    enum status s = dataset_store_insert(r->sc, r->db, d, &rows);
    if (s == STATUS_OK)
        s = audit_store_add(r->sc, r->db, r->user.id, "benchmark_dataset_created", NULL, NULL, NULL);
    if (s == STATUS_OK)
        view_write(reply_json(r, 201), NULL, &schema_DATASET, rows, 0);
    return s;
}

enum status datasets_create(struct request *r)
{
    struct ir_dataset content;
    struct dataset_new d = {
        .name = json_get_text(r->json, "name", ""),
        .description = json_get_text(r->json, "description", NULL),
        .format = json_get_text(r->json, "format", "json"),
        .owner_id = r->user.id,
        .content = &content,
    };
    bool is_replay = false;
    enum status s = idempotency_replay(r, &is_replay);
    if (s != STATUS_OK || is_replay)
        return s;
    s = read_content(r, d.format, &content);
    if (s == STATUS_OK)
        s = idempotency_run(r, insert_dataset, &d, &is_replay);
    if (s == STATUS_OK && !is_replay)
        log_info("dataset_created", log_text("name", d.name), log_int("user", r->user.id),
                 log_int("queries", (int64_t)content.query_count),
                 log_int("judgments", (int64_t)content.judgment_count));
    return s;
}

enum status datasets_delete(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = find_dataset(r, &rows);
    if (s == STATUS_OK)
        s = dataset_store_delete(r->sc, r->db, db_int(rows, 0, "row_id", 0));
    return s == STATUS_OK ? reply_empty(r, 204) : s;
}
