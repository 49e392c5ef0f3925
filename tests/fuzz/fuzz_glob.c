/* Patterns against paths: "pattern\npath". */
#include "common/arena.h"
#include "common/source/glob.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = must_malloc(size + 1);
    memcpy(copy, data, size);
    copy[size] = '\0';
    char *newline = memchr(copy, '\n', size);
    if (newline) {
        *newline = '\0';
        char *path = newline + 1;
        glob_matches(copy, path, size - (size_t)(path - copy));
    }
    free(copy);
    return 0;
}
