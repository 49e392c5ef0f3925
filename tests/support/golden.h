/* Files that tests read: golden ones of the repository, and the model that set-up fetched. Tests run from the
 * repository's root. */
#pragma once

#include "common/json.h"

/* Whole file, NUL-terminated; the test fails when it cannot be read. Caller frees. */
char *golden_read(const char *path, size_t *out_len);
/* The same as JSON. */
cJSON *golden_json(const char *path);
/* Folder of all-MiniLM-L6-v2. */
const char *golden_model_dir(void);
/* Bytes of a hex string, NUL-terminated; caller frees. */
char *golden_unhex(const char *hex, size_t *out_len);
