#include "api/benchmark_grid.h"

#include <math.h>
#include <string.h>

enum { MOST_POINTS = 64, LARGEST_K = 100, MOST_SEARCHES = 1000000 };

static enum status refuse(struct request *r, const char *sentence)
{
    return request_invalid(r, "body", "configurations", "value_error", "%s", sentence);
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

static enum status check_chunkings(struct request *r, const cJSON *list)
{
    for (const cJSON *c = list ? list->child : NULL; c; c = c->next) {
        if (!cJSON_IsNull(c))
            return refuse(r, "other chunkings cannot be measured in this version: leave chunking out, or re-index a "
                             "collection with each and benchmark them one after the other");
    }
    return STATUS_OK;
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
