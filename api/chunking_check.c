#include "api/chunking_check.h"

#include "common/chunking.h"

enum status chunking_check(struct request *r, const char *strategy, const cJSON *config, int64_t *io_size,
                           int64_t *io_overlap)
{
    struct chunking_config keys;
    if (strategy && !chunking_is_known(strategy))
        return fail(r->sc, STATUS_INVALID, "Invalid chunking_strategy '%s'. Valid values are: %s", strategy,
                    chunking_names(r->sc));
    enum status s = chunking_read(r->sc, strategy, config, &keys);
    if (s != STATUS_OK)
        return s;
    if (*io_size < 0)
        *io_size = keys.chunk_size;
    if (*io_overlap < 0)
        *io_overlap = keys.chunk_overlap;
    /* A default that does not fit is made smaller; only what was asked for is refused. */
    int64_t size = *io_size > 0 ? *io_size : r->api->settings->default_chunk_size;
    return chunking_check_sizes(r->sc, &keys, size, *io_overlap > 0 ? *io_overlap : 0);
}
