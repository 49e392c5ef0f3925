/* What a request says about chunking. */
#pragma once

#include "api/request.h"

bool chunking_is_known(const char *strategy);
/* "character, recursive, …" in the arena. */
const char *chunking_names(struct scope *sc);
/* `strategy` may be NULL, `config` too; sizes below 0 are not given, and taken from `config` if they stand there.
 * STATUS_INVALID with a sentence: an unknown strategy, a value out of its bounds, sizes that do not fit each other. */
enum status chunking_check(struct request *r, const char *strategy, const cJSON *config, int64_t *io_size,
                           int64_t *io_overlap) must_check;
