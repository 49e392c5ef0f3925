#include "api/resources.h"

#include "api/estimates.h"
#include "api/router.h"
#include "common/log.h"
#include "common/metrics.h"

#include <string.h>

enum { TRY_AGAIN_SECONDS = 30 };

static void write_numbers(struct text *t, const struct resource_refusal *refusal)
{
    json_text(t, "resource", refusal->kind);
    json_int(t, "limit", refusal->limit);
    json_int(t, "used", refusal->used);
    json_int(t, "requested", refusal->requested);
}

static void reply_limit(struct request *r, const struct resource_refusal *refusal)
{
    bool passes = strcmp(refusal->kind, resource_name(RESOURCE_OPERATIONS)) == 0;
    struct text *t = reply_json(r, 429);
    json_open(t, NULL, '{');
    json_text(t, "detail", r->sc->problem_text);
    json_text(t, "error", "resource_limit_exceeded");
    write_numbers(t, refusal);
    if (passes) {
        json_int(t, "retry_after", TRY_AGAIN_SECONDS);
        reply_header(r, "Retry-After", arena_printf(&r->sc->arena, "%d", TRY_AGAIN_SECONDS));
    }
    json_close(t, '}');
}

static void reply_space(struct request *r, const struct resource_refusal *refusal)
{
    struct text *t = reply_json(r, 507);
    json_open(t, NULL, '{');
    json_open(t, "detail", '{');
    json_text(t, "error", "insufficient_space");
    json_text(t, "message", r->sc->problem_text);
    json_text(t, "suggestion",
              "Wait for running operations to end, delete what is not needed, or ask an administrator for more space");
    write_numbers(t, refusal);
    json_int(t, "reserved", refusal->reserved);
    json_close(t, '}');
    json_close(t, '}');
}

static enum status refuse(struct request *r, enum status s, const struct resource_refusal *refusal)
{
    if (s != STATUS_RATE_LIMITED && s != STATUS_NO_SPACE)
        return s;
    metrics_add(METRIC_RESOURCE_REFUSALS, refusal->kind, NULL, 1);
    log_info("resource_refused", log_text("kind", refusal->kind), log_int("user", r->user.id),
             log_int("limit", refusal->limit), log_int("used", refusal->used), log_int("requested", refusal->requested),
             log_text("correlation_id", r->sc->trace_id));
    if (s == STATUS_RATE_LIMITED)
        reply_limit(r, refusal);
    else
        reply_space(r, refusal);
    return s;
}

/* How much a source holds is found out by the scan; that there is room for one document is asked here. */
static enum status admit(struct request *r, bool makes_collection, bool reads_source)
{
    struct resource_refusal refusal = {0};
    const struct resource_wish wish = {.user_id = r->user.id,
                                       .amount = {[RESOURCE_COLLECTIONS] = makes_collection,
                                                  [RESOURCE_DOCUMENTS] = reads_source,
                                                  [RESOURCE_BYTES] = reads_source,
                                                  [RESOURCE_OPERATIONS] = 1}};
    return refuse(r, resource_store_admit(r->sc, r->db, r->api->settings, &wish, &refusal), &refusal);
}

enum status resource_admit(struct request *r, enum operation_type type, bool reads_source)
{
    bool only_removes = type == OPERATION_DELETE || type == OPERATION_REMOVE_SOURCE;
    return only_removes ? STATUS_OK : admit(r, false, reads_source);
}

enum status resource_admit_collection(struct request *r, bool reads_source)
{
    return admit(r, true, reads_source);
}

/* A strategy that stays is no reason to cut anew. */
static const cJSON *what_changes(cJSON *config)
{
    cJSON *wanted = cJSON_GetObjectItemCaseSensitive(config, "new_config");
    const cJSON *before = cJSON_GetObjectItemCaseSensitive(config, "previous_config");
    static const char *const cutting[] = {"chunking_strategy", "chunking_config"};
    bool is_same = true;
    for (size_t i = 0; i < array_len(cutting); i++)
        is_same = is_same && cJSON_Compare(cJSON_GetObjectItemCaseSensitive(wanted, cutting[i]),
                                           cJSON_GetObjectItemCaseSensitive(before, cutting[i]), true);
    if (is_same)
        cJSON_DeleteItemFromObjectCaseSensitive(wanted, cutting[0]);
    return wanted;
}

enum status resource_reserve(struct request *r, const struct collection *c, enum operation_type type,
                             const char *config_json, const struct operation_ref *o)
{
    struct resource_refusal refusal = {0};
    struct estimate estimate;
    if (type != OPERATION_REINDEX)
        return STATUS_OK;
    scoped(cJSON) *config = NULL;
    enum status s = json_parse(r->sc, config_json, strlen(config_json), &config);
    if (s == STATUS_OK)
        s = estimate_reindex(r, c, what_changes(config), &estimate);
    if (s != STATUS_OK)
        return s;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    estimate_write(&t, &estimate);
    json_close(&t, '}');
    s = resource_store_reserve(r->sc, r->db, r->api->settings, o->uuid, estimate.vector_bytes + estimate.text_bytes,
                               text_str(&t), &refusal);
    return refuse(r, s, &refusal);
}
