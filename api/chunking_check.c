#include "api/chunking_check.h"

#include <string.h>

static const char *const strategies[] = {"character",    "recursive", "markdown", "semantic",
                                         "hierarchical", "hybrid",    NULL};

bool chunking_is_known(const char *strategy)
{
    for (const char *const *s = strategies; *s; s++) {
        if (strcmp(*s, strategy) == 0)
            return true;
    }
    return false;
}

const char *chunking_names(struct scope *sc)
{
    scoped_text t = {0};
    for (const char *const *s = strategies; *s; s++)
        text_printf(&t, "%s%s", s == strategies ? "" : ", ", *s);
    return arena_strdup(&sc->arena, text_str(&t));
}

/* An integer of a chunking_config within the bounds of the field of the same name; *out stays when it is absent. */
static enum status config_number(struct request *r, const cJSON *config, const char *name, int64_t least, int64_t most,
                                 int64_t *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, name);
    if (!item || cJSON_IsNull(item))
        return STATUS_OK;
    int64_t n = json_get_int(config, name, -1);
    if (n < least || n > most)
        return fail(r->sc, STATUS_INVALID, "chunking_config.%s must be a whole number from %lld to %lld", name,
                    (long long)least, (long long)most);
    if (*out < 0)
        *out = n;
    return STATUS_OK;
}

enum status chunking_check(struct request *r, const char *strategy, const cJSON *config, int64_t *io_size,
                           int64_t *io_overlap)
{
    if (strategy && !chunking_is_known(strategy))
        return fail(r->sc, STATUS_INVALID, "Invalid chunking_strategy '%s'. Valid values are: %s", strategy,
                    chunking_names(r->sc));
    enum status s = config_number(r, config, "chunk_size", 10, 10000, io_size);
    if (s == STATUS_OK)
        s = config_number(r, config, "chunk_overlap", 0, 1000, io_overlap);
    if (s == STATUS_OK && *io_size > 0 && *io_overlap >= *io_size)
        return fail(r->sc, STATUS_INVALID, "chunk_overlap (%lld) must be smaller than chunk_size (%lld)",
                    (long long)*io_overlap, (long long)*io_size);
    return s;
}
