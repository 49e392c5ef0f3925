/* Events as clients of the oldest protocol know them: everything at the top level, few types. */
#include "api/relay/frame.h"
#include "common/json.h"

#include <string.h>

struct facts {
    const char *id, *type, *operation_id, *status;
    const cJSON *data;
};

static void open_frame(struct text *json, const struct facts *f, const char *type)
{
    text_clear(json);
    json_open(json, NULL, '{');
    json_text(json, "type", type);
    if (f->id)
        json_text(json, "id", f->id);
    json_text(json, "operation_id", f->operation_id);
}

static void close_frame(struct text *out, struct text *json)
{
    json_close(json, '}');
    frame_put(out, json->data, json->len);
}

/* The first of several members that is a number; -1 = none. */
static int64_t number(const cJSON *data, const char *const *names)
{
    for (; *names; names++) {
        int64_t n = json_get_int(data, *names, -1);
        if (n >= 0)
            return n;
    }
    return -1;
}

static int64_t total_of(const cJSON *data)
{
    return number(data,
                  (const char *const[]){"total_files", "total", "total_files_found", "documents_to_process", NULL});
}

static int64_t processed_of(const cJSON *data)
{
    return number(data, (const char *const[]){"processed_files", "processed", "documents_processed", "removed", NULL});
}

static void put_number(struct text *json, const char *key, int64_t n)
{
    if (n >= 0)
        json_int(json, key, n);
    else
        json_null(json, key);
}

static void put_counts(struct text *json, const cJSON *data)
{
    int64_t processed = processed_of(data);
    json_int(json, "processed_files", processed > 0 ? processed : 0);
    put_number(json, "total_files", total_of(data));
}

static void render_started(struct text *out, struct text *json, const struct facts *f)
{
    open_frame(json, f, "operation_started");
    json_text(json, "operation_type", json_get_text(f->data, "operation_type", json_get_text(f->data, "type", NULL)));
    put_number(json, "total_files", total_of(f->data));
    json_text(json, "status", f->status);
    close_frame(out, json);
}

static void render_completed(struct text *out, struct text *json, const struct facts *f)
{
    open_frame(json, f, "operation_completed");
    json_text(json, "status", "completed");
    json_text(json, "message", json_get_text(f->data, "message", "Operation completed successfully"));
    close_frame(out, json);
}

static void render_error(struct text *out, struct text *json, const struct facts *f, const char *fallback)
{
    open_frame(json, f, "error");
    json_text(json, "status", f->status);
    json_text(json, "message", json_get_text(f->data, "error_message", json_get_text(f->data, "message", fallback)));
    close_frame(out, json);
}

static const char *file_of(const cJSON *data)
{
    return json_get_text(data, "current_file", json_get_text(data, "current_document", NULL));
}

static void render_processing(struct text *out, struct text *json, const struct facts *f)
{
    const char *message = json_get_text(f->data, "message", NULL);
    open_frame(json, f, "file_processing");
    json_text(json, "current_file", file_of(f->data));
    put_counts(json, f->data);
    json_text(json, "status", "Processing");
    if (message)
        json_text(json, "message", message);
    close_frame(out, json);
}

static void render_file_completed(struct text *out, struct text *json, const struct facts *f)
{
    open_frame(json, f, "file_completed");
    json_text(json, "current_file", file_of(f->data));
    put_counts(json, f->data);
    close_frame(out, json);
}

static void render(struct text *out, struct text *json, const struct facts *f)
{
    bool is_state = strcmp(f->type, "current_state") == 0;
    if (strcmp(f->type, "operation_completed") == 0 || (is_state && strcmp(f->status, "completed") == 0)) {
        render_completed(out, json, f);
    } else if (strcmp(f->type, "operation_failed") == 0 || (is_state && strcmp(f->status, "failed") == 0)) {
        render_error(out, json, f, "Operation failed");
    } else if (strcmp(f->type, "operation_cancelled") == 0 || (is_state && strcmp(f->status, "cancelled") == 0)) {
        render_error(out, json, f, "Operation cancelled");
    } else if (strcmp(f->type, "operation_started") == 0 || (is_state && strcmp(f->status, "processing") == 0)) {
        render_started(out, json, f);
    } else if (strcmp(f->type, "history_truncated") == 0) {
        open_frame(json, f, f->type);
        close_frame(out, json);
    } else if (strcmp(f->type, "document_processed") == 0) {
        render_processing(out, json, f);
        render_file_completed(out, json, f);
    } else if (!is_state && total_of(f->data) >= 0) {
        render_processing(out, json, f);
    }
}

void flat_render(struct text *out, const char *json, size_t len)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *object = NULL;
    scoped_text frame = {0};
    if (json_parse(&sc, json, len, &object) == STATUS_OK) {
        const cJSON *data = cJSON_GetObjectItemCaseSensitive(object, "data");
        struct facts f = {
            .id = json_get_text(object, "id", NULL),
            .type = json_get_text(object, "type", ""),
            .operation_id = json_get_text(object, "operation_id", json_get_text(data, "operation_id", NULL)),
            .status = json_get_text(object, "status", json_get_text(data, "status", "")),
            .data = data,
        };
        render(out, &frame, &f);
    }
    scope_done(&sc);
}
