#include "api/estimates.h"

#include "api/scan.h"
#include "api/source_request.h"
#include "api/views.h"
#include "common/clock.h"
#include "common/store/estimate_store.h"
#include "common/store/source_store.h"

#include <string.h>

enum { WALK_MS = 2000, MOST_FILES = 1000000, MOST_SOURCES = 100, DIM_OF_THE_UNKNOWN = 768 };

static const char past[] = "the speed of your past operations", guess[] = "no past operation to go by: a guess";
static const char *basis_of(struct request *r, const struct estimate_basis *b, const char *what)
{
    const char *speed = b->past_operations > 0 ? past : guess;
    return arena_printf(&r->sc->arena, "%s; %s%s", what, speed,
                        b->dim > 0 ? "" : "; the model's dimension is not known here: 768 was taken");
}

static int64_t first_of(int64_t a, int64_t b, int64_t c)
{
    return a >= 0 ? a : b >= 0 ? b : c;
}

/* What past chunks say of past bytes; 0 = nothing. */
static double tokens_per_byte(const struct estimate_basis *b, double tokens_per_chunk, int64_t size, int64_t overlap)
{
    if (b->bytes <= 0 || b->chunks <= 0 || tokens_per_chunk <= 0 || size <= 0)
        return 0;
    double step = overlap < size ? (double)(size - overlap) / (double)size : 0.5;
    return (double)b->chunks * tokens_per_chunk * step / (double)b->bytes;
}

static struct estimate_input input_of(const struct request *r, const struct estimate_basis *b)
{
    const struct settings *s = r->api->settings;
    int64_t size = first_of(b->chunk_size, -1, s->default_chunk_size);
    int64_t overlap = first_of(b->chunk_overlap, -1, s->default_chunk_overlap);
    double tokens_per_chunk = b->past_chunks > 0 ? (double)b->past_tokens / (double)b->past_chunks : 0;
    return (struct estimate_input){
        .chunks = -1,
        .tokens_per_byte = tokens_per_byte(b, tokens_per_chunk, size, overlap),
        .tokens_per_chunk = tokens_per_chunk,
        .tokens_per_second = b->past_seconds > 0 ? (double)b->past_tokens / b->past_seconds : 0,
        .chunk_size = size,
        .chunk_overlap = overlap,
        .dim = b->dim > 0 ? b->dim : DIM_OF_THE_UNKNOWN,
        .quantization = b->quantization,
        .graph_from = s->exact_scan_rows,
        .has_gpu = b->has_gpu,
        .batch_tokens = 16384,
    };
}

enum status estimate_reindex(struct request *r, const struct collection *c, const cJSON *asked, struct estimate *out)
{
    struct estimate_basis b;
    enum status s = estimate_store_basis(r->sc, r->db, c->id, c->owner_id,
                                         json_get_text(asked, "embedding_model", NULL), 0, &b);
    if (s != STATUS_OK)
        return s;
    struct estimate_input in = input_of(r, &b);
    int64_t size = json_get_int(asked, "chunk_size", -1), overlap = json_get_int(asked, "chunk_overlap", -1);
    const char *strategy = json_get_text(asked, "chunking_strategy", NULL);
    in.documents = b.documents;
    in.bytes = b.bytes;
    in.quantization = json_get_text(asked, "quantization", b.quantization);
    in.keeps_chunks = (size < 0 || size == in.chunk_size) && (overlap < 0 || overlap == in.chunk_overlap) && !strategy;
    if (in.keeps_chunks)
        in.chunks = b.chunks;
    else
        in.tokens_per_chunk = 0;
    in.chunk_size = first_of(size, in.chunk_size, 1);
    in.chunk_overlap = first_of(overlap, in.chunk_overlap, 0);
    estimate_make(&in, out);
    out->is_complete = true;
    out->basis = basis_of(r, &b,
                          in.keeps_chunks ? "the collection's chunks, embedded anew"
                                          : "the collection's documents, cut and embedded anew");
    return STATUS_OK;
}

static enum status walk(struct request *r, const char *path, const cJSON *config, int64_t deadline_ms,
                        struct scan_totals *out)
{
    struct scan_request scan = {
        .roots = r->api->settings->source_roots,
        .path = path,
        .options = {.recursive = json_get_bool(config, "recursive", true),
                    .include = cJSON_GetObjectItemCaseSensitive(config, "include_patterns"),
                    .exclude = cJSON_GetObjectItemCaseSensitive(config, "exclude_patterns")},
        .most_files = MOST_FILES,
        .deadline_ms = deadline_ms,
    };
    return scan_run(r->sc, &scan, out);
}

static int64_t beyond(int64_t there, int64_t here)
{
    return there > here ? there - here : 0;
}

static void finish(struct request *r, const struct estimate_basis *b, int64_t documents, int64_t bytes, const char *cut,
                   struct estimate *out)
{
    struct estimate_input in = input_of(r, b);
    in.documents = documents;
    in.bytes = bytes;
    estimate_make(&in, out);
    out->is_complete = !cut;
    out->basis = basis_of(r, b,
                          cut ? arena_printf(&r->sc->arena, "what was seen of the source, at least: %s", cut)
                              : "the files that the source holds and the collection does not");
}

enum status estimate_append(struct request *r, const struct collection *c, struct estimate *out)
{
    struct source_request source;
    struct scan_totals totals;
    struct estimate_basis b;
    scoped(PGresult) *known = NULL;
    scoped(cJSON) *config = NULL;
    int64_t source_id = 0;
    enum status s = source_request_read(r, &source);
    if (s == STATUS_OK)
        s = json_parse(r->sc, source.config_json, strlen(source.config_json), &config);
    if (s == STATUS_OK)
        s = walk(r, source.path, config, clock_monotonic_ms() + WALK_MS, &totals);
    if (s != STATUS_OK)
        return s;
    if (source_store_find(r->sc, r->db, c->id, 0, source.path, &known) == STATUS_OK)
        source_id = db_int(known, 0, "id", 0);
    scope_forgive(r->sc);
    s = estimate_store_basis(r->sc, r->db, c->id, r->user.id, NULL, source_id, &b);
    if (s == STATUS_OK)
        finish(r, &b, beyond(totals.files, b.source_documents), beyond(totals.bytes, b.source_bytes), totals.cut, out);
    return s;
}

/* A source that this machine cannot see is left out, and said so. */
static void walk_all(struct request *r, const PGresult *sources, struct scan_totals *sum)
{
    int64_t deadline_ms = clock_monotonic_ms() + WALK_MS;
    for (int i = 0; i < PQntuples(sources); i++) {
        const char *path = db_text(sources, i, "source_path"), *json = db_text(sources, i, "source_config");
        scoped(cJSON) *config = NULL;
        struct scan_totals one = {0};
        if (!path)
            continue;
        enum status s = json_parse(r->sc, json, strlen(json), &config);
        if (s == STATUS_OK)
            s = walk(r, path, config, deadline_ms, &one);
        scope_forgive(r->sc);
        if (s != STATUS_OK)
            one.cut = "a source cannot be seen from here";
        sum->files += one.files;
        sum->bytes += one.bytes;
        sum->cut = sum->cut ? sum->cut : one.cut;
    }
    if (view_total(sources) > MOST_SOURCES && !sum->cut)
        sum->cut = "there are more sources";
}

enum status estimate_sync(struct request *r, const struct collection *c, struct estimate *out)
{
    struct scan_totals totals = {0};
    struct estimate_basis b;
    scoped(PGresult) *sources = NULL;
    enum status s = source_store_list(r->sc, r->db, c->id, MOST_SOURCES, 0, &sources);
    if (s == STATUS_OK)
        walk_all(r, sources, &totals);
    if (s == STATUS_OK)
        s = estimate_store_basis(r->sc, r->db, c->id, r->user.id, NULL, 0, &b);
    if (s == STATUS_OK)
        finish(r, &b, beyond(totals.files, b.documents), beyond(totals.bytes, b.bytes), totals.cut, out);
    return s;
}
