/* The grid of a benchmark: every combination of what its lists hold. */
#pragma once

#include "api/request.h"
#include "common/store/benchmark_store.h"

struct benchmark_grid {
    struct benchmark_point *points;
    size_t count;
    bool has_chunking; /* some point is of another chunking than the collection's */
};

/* `configurations` of the body: {"k": [5, 10], "mode": ["dense"], "chunking": [null, {"chunk_size": 100}]}; k is
 * needed. STATUS_UNPROCESSABLE with its 422 entry. */
enum status benchmark_grid_read(struct request *r, struct benchmark_grid *out) must_check;
/* STATUS_UNPROCESSABLE when it comes to more searches than one benchmark may make. */
enum status benchmark_grid_check(struct request *r, const struct benchmark_grid *grid, int64_t queries,
                                 int repeats) must_check;
