/* tokenizer.json, which comes with a model from elsewhere. */
#include "tests/fuzz/fuzz.h"
#include "worker/embed/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], error[256];
    int fd = memfd_create("tokenizer", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct tokenizer *t = tokenizer_open(path, error, sizeof error);
    if (t) {
        struct token_list ids = {0};
        tokenizer_encode(t, (const char *)data, size, 100, &ids);
        for (size_t i = 0; i < ids.count; i++) {
            if (ids.ids[i] < 0 || ids.ids[i] >= tokenizer_vocab_size(t))
                abort();
        }
        token_list_free(&ids);
    }
    tokenizer_close(t);
    close(fd);
    return 0;
}
