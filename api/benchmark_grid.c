#include "api/benchmark_grid.h"

#include "api/chunking_check.h"

#include <math.h>
#include <string.h>

enum { MOST_VALUES = 512, MOST_POINTS = 64, LARGEST_K = 100, MOST_SEARCHES = 1000000 };

static enum status refuse(struct request *r, const char *sentence)
{
    return request_invalid(r, "body", "configurations", "value_error", "%s", sentence);
}

/* How many values there are in it, at any depth; stops soon after `most`. */
static int json_size(const cJSON *json, int most)
{
    int count = 0;
    for (const cJSON *item = json->child; item && count <= most; item = item->next)
        count += 1 + json_size(item, most - count);
    return count;
}

static enum status check_members(struct request *r, const cJSON *grid)
{
    static const char *const known[] = {"k", "mode", "chunking"};
    for (const cJSON *member = grid->child; member; member = member->next) {
        bool is_known = false;
        for (size_t i = 0; i < array_len(known); i++)
            is_known = is_known || strcmp(member->string, known[i]) == 0;
        if (!is_known)
            return request_invalid(r, "body", "configurations", "extra_forbidden",
                                   "configurations has k, mode and chunking, no '%s'", member->string);
        if (!cJSON_IsArray(member) || !member->child)
            return request_invalid(r, "body", "configurations", "list_type", "%s is no list, or an empty one",
                                   member->string);
        if (cJSON_GetObjectItemCaseSensitive(grid, member->string) != member)
            return request_invalid(r, "body", "configurations", "value_error", "%s is there twice", member->string);
        if (json_size(member, MOST_VALUES) > MOST_VALUES)
            return request_invalid(r, "body", "configurations", "too_long", "%s has more than %d values",
                                   member->string, (int)MOST_VALUES);
        for (const cJSON *a = member->child; a; a = a->next) {
            for (const cJSON *b = member->child; b != a; b = b->next) {
                if (cJSON_Compare(a, b, true))
                    return request_invalid(r, "body", "configurations", "value_error", "%s has the same value twice",
                                           member->string);
            }
        }
    }
    return STATUS_OK;
}

static enum status check_k(struct request *r, const cJSON *list)
{
    if (!list)
        return refuse(r, "k is missing: how many documents are looked at, a list such as [5, 10]");
    for (const cJSON *k = list->child; k; k = k->next) {
        double n = cJSON_IsNumber(k) ? k->valuedouble : NAN;
        if (!(n >= 1 && n <= LARGEST_K) || n != floor(n))
            return refuse(r, "each k is a whole number from 1 to 100");
    }
    return STATUS_OK;
}

/* Measured is only what searches do. */
static enum status check_modes(struct request *r, const cJSON *list)
{
    for (const cJSON *mode = list ? list->child : NULL; mode; mode = mode->next) {
        const char *name = cJSON_IsString(mode) ? mode->valuestring : "";
        if (strcmp(name, "sparse") == 0 || strcmp(name, "hybrid") == 0)
            return refuse(r, "sparse and hybrid searches are not available (they are answered as dense ones): there is "
                             "nothing to measure; use the mode dense");
        if (strcmp(name, "dense") != 0)
            return refuse(r, "each mode is one of: dense");
    }
    return STATUS_OK;
}

static enum status check_size(struct request *r, const cJSON *chunking, const char *name, int least, int most,
                              int64_t *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(chunking, name);
    double n = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    *out = -1;
    if (!item)
        return STATUS_OK;
    if (!(n >= least && n <= most) || n != floor(n))
        return request_invalid(r, "body", "configurations", "value_error",
                               "%s of a chunking is a whole number from %d to %d", name, least, most);
    *out = (int64_t)n;
    return STATUS_OK;
}

static enum status check_chunking(struct request *r, const cJSON *chunking)
{
    static const char *const known[] = {"strategy", "chunk_size", "chunk_overlap", "config"};
    const cJSON *strategy = cJSON_GetObjectItemCaseSensitive(chunking, "strategy");
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(chunking, "config");
    int64_t size, overlap;
    if (!cJSON_IsObject(chunking) || !chunking->child)
        return refuse(r, "each chunking is null (as the collection is) or an object with strategy, chunk_size, "
                         "chunk_overlap or config");
    for (const cJSON *member = chunking->child; member; member = member->next) {
        bool is_known = false;
        for (size_t i = 0; i < array_len(known); i++)
            is_known = is_known || strcmp(member->string, known[i]) == 0;
        if (!is_known)
            return request_invalid(r, "body", "configurations", "extra_forbidden",
                                   "a chunking has strategy, chunk_size, chunk_overlap and config, no '%s'",
                                   member->string);
    }
    if ((strategy && !cJSON_IsString(strategy)) || (config && (!cJSON_IsObject(config) || !strategy)))
        return refuse(r, "strategy of a chunking is a name, and config an object that needs a strategy");
    enum status s = check_size(r, chunking, "chunk_size", 100, 10000, &size);
    if (s == STATUS_OK)
        s = check_size(r, chunking, "chunk_overlap", 0, 9999, &overlap);
    return s == STATUS_OK ? chunking_check(r, strategy ? strategy->valuestring : NULL, config, &size, &overlap) : s;
}

static enum status check_chunkings(struct request *r, const cJSON *list)
{
    enum status s = STATUS_OK;
    for (const cJSON *c = list ? list->child : NULL; c && s == STATUS_OK; c = c->next)
        s = cJSON_IsNull(c) ? STATUS_OK : check_chunking(r, c);
    return s;
}

static size_t length(const cJSON *list)
{
    return list ? (size_t)cJSON_GetArraySize(list) : 1;
}

static const char *printed(struct request *r, const cJSON *item)
{
    if (!item || cJSON_IsNull(item))
        return NULL;
    scoped_memory char *text = cJSON_PrintUnformatted(item);
    return text ? arena_strdup(&r->sc->arena, text) : NULL;
}

static void spread(struct request *r, const cJSON *ks, const cJSON *modes, const cJSON *chunkings,
                   struct benchmark_grid *out)
{
    for (size_t c = 0; c < length(chunkings); c++) {
        const char *chunking = printed(r, chunkings ? cJSON_GetArrayItem(chunkings, (int)c) : NULL);
        out->has_chunking = out->has_chunking || chunking;
        for (size_t m = 0; m < length(modes); m++) {
            const char *mode = modes ? cJSON_GetArrayItem(modes, (int)m)->valuestring : "dense";
            for (const cJSON *k = ks->child; k; k = k->next)
                out->points[out->count++] = (struct benchmark_point){(int)k->valuedouble, mode, chunking};
        }
    }
}

enum status benchmark_grid_read(struct request *r, struct benchmark_grid *out)
{
    const cJSON *grid = cJSON_GetObjectItemCaseSensitive(r->json, "configurations");
    const cJSON *ks = cJSON_GetObjectItemCaseSensitive(grid, "k");
    const cJSON *modes = cJSON_GetObjectItemCaseSensitive(grid, "mode");
    const cJSON *chunkings = cJSON_GetObjectItemCaseSensitive(grid, "chunking");
    if (length(ks) > MOST_POINTS || length(modes) > MOST_POINTS || length(chunkings) > MOST_POINTS ||
        length(ks) * length(modes) * length(chunkings) > MOST_POINTS)
        return refuse(r, "the grid has more than 64 configurations");
    enum status s = check_members(r, grid);
    if (s == STATUS_OK)
        s = check_k(r, ks);
    if (s == STATUS_OK)
        s = check_modes(r, modes);
    if (s == STATUS_OK)
        s = check_chunkings(r, chunkings);
    if (s != STATUS_OK)
        return s;
    *out = (struct benchmark_grid){.points = arena_array(&r->sc->arena, MOST_POINTS, sizeof *out->points)};
    spread(r, ks, modes, chunkings, out);
    return STATUS_OK;
}

enum status benchmark_grid_check(struct request *r, const struct benchmark_grid *grid, int64_t queries, int repeats)
{
    int64_t searches = (int64_t)grid->count * queries * repeats;
    if (searches > MOST_SEARCHES)
        return request_invalid(r, "body", "configurations", "value_error",
                               "%zu configurations times %lld queries times %d repeats are more than %d searches",
                               grid->count, (long long)queries, repeats, MOST_SEARCHES);
    return STATUS_OK;
}
