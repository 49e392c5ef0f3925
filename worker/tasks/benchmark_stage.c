/* A benchmark of another chunking: the collection is cut and embedded beside the live vectors (staging.h), asked, and
 * removed again. Configurations with the same chunking follow each other in a grid and share it. */
#include "worker/tasks/benchmark.h"
#include "worker/tasks/staging.h"

#include <string.h>

/* What the chunking does not say is the collection's strategy and the default sizes. */
static enum status read_chunking(struct scope *sc, struct bench *b, const char *text, struct staging_settings *out)
{
    scoped(cJSON) *json = NULL;
    enum status s = json_parse(sc, text, strlen(text), &json);
    if (s == STATUS_OK)
        s = staging_settings_of_collection(sc, b->task->db, b->task->collection_id, out);
    if (s != STATUS_OK)
        return s;
    const char *strategy = json_get_text(json, "strategy", NULL);
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(json, "config");
    if (strategy) {
        scoped_memory char *printed = config ? cJSON_PrintUnformatted(config) : NULL;
        out->strategy = arena_strdup(&sc->arena, strategy);
        out->chunking_json = arena_strdup(&sc->arena, printed);
    }
    out->chunk_size = (int)json_get_int(json, "chunk_size", 0);
    out->chunk_overlap = (int)json_get_int(json, "chunk_overlap", -1);
    return STATUS_OK;
}

static void tell(struct scope *sc, struct staging *st, const char *current, void *context)
{
    struct bench *b = context;
    scoped_text data = {0};
    json_open(&data, NULL, '{');
    json_int(&data, "processed", b->done);
    json_int(&data, "total", b->total);
    json_text(&data, "message", "Cutting and embedding the documents anew");
    json_int(&data, "documents_staged", st->counts.staged);
    json_int(&data, "documents", st->counts.documents_total);
    json_close(&data, '}');
    b->task->processed = b->done;
    task_event(sc, st->task, "processing_progress", 99.0 * (double)b->done / (double)b->total, current, text_str(&data),
               0);
}

void bench_leave_staging(struct bench *b)
{
    if (b->staging)
        staging_close(b->staging);
    b->staging = NULL;
    b->staged_chunking = NULL;
}

enum status bench_unstage(struct scope *sc, struct bench *b)
{
    enum status s = b->staging ? staging_drop(sc, b->staging) : STATUS_OK;
    bench_leave_staging(b);
    return s;
}

enum status bench_stage(struct scope *sc, struct bench *b, const struct bench_configuration *c)
{
    if (!c->chunking_json || (b->staged_chunking && strcmp(b->staged_chunking, c->chunking_json) == 0))
        return STATUS_OK;
    enum status s = bench_unstage(sc, b);
    struct staging_settings *wanted = arena_zalloc(&sc->arena, sizeof *wanted);
    if (s == STATUS_OK)
        s = read_chunking(sc, b, c->chunking_json, wanted);
    if (s != STATUS_OK)
        return s;
    b->staging = arena_zalloc(&sc->arena, sizeof *b->staging);
    b->staged_chunking = arena_strdup(&sc->arena, c->chunking_json);
    s = staging_open(sc, b->staging, b->task, wanted);
    return s == STATUS_OK ? staging_fill(sc, b->staging, tell, b) : s;
}
