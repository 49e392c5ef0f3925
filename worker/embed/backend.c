#include "worker/embed/backend.h"

#include "common/log.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool embed_batch_is_valid(const struct bert_model *m, const struct embed_batch *batch)
{
    if (batch->count < 0 || batch->offsets[0] != 0)
        return false;
    for (int s = 0; s < batch->count; s++) {
        int64_t n = (int64_t)batch->offsets[s + 1] - batch->offsets[s];
        if (n < 1 || n > m->max_positions)
            return false;
    }
    for (int i = 0; i < batch->offsets[batch->count]; i++) {
        if (batch->ids[i] < 0 || batch->ids[i] >= m->vocab)
            return false;
    }
    return true;
}

/* The plugin lies in ../lib beside the program, or where OPSTREAM_CUDA_PLUGIN says. It stays loaded. */
static const struct embed_backend_api *load_plugin(void)
{
    char path[PATH_MAX] = "";
    const char *set = getenv("OPSTREAM_CUDA_PLUGIN");
    if (set) {
        snprintf(path, sizeof path, "%s", set);
    } else {
        ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
        char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
        if (!slash)
            return NULL;
        strcpy(slash, "/../lib/libopstream-cuda.so");
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        log_debug("no_cuda_plugin", log_text("reason", dlerror()));
        return NULL;
    }
    embed_plugin_entry entry;
    *(void **)&entry = dlsym(library, EMBED_PLUGIN_SYMBOL);
    const struct embed_backend_api *api = entry ? entry() : NULL;
    if (!api || api->abi != EMBED_BACKEND_ABI) {
        log_warning("cuda_plugin_of_another_version", log_text("path", path));
        return NULL;
    }
    return api;
}

const struct embed_backend_api *embed_backend_find(const char *name)
{
    if (strcmp(name, "reference") == 0)
        return embed_backend_reference();
    if (strcmp(name, "cpu") == 0)
        return embed_backend_cpu();
    bool is_auto = strcmp(name, "auto") == 0;
    if (!is_auto && strcmp(name, "cuda") != 0)
        return NULL;
    const struct embed_backend_api *cuda = load_plugin();
    if (cuda && cuda->device_count() > 0)
        return cuda;
    return is_auto ? embed_backend_cpu() : NULL;
}
