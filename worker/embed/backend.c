#include "worker/embed/backend.h"

#include "common/log.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where OPSTREAM_CUDA_PLUGIN says, or in ../lib beside the program: build/bin and build/lib, /usr/bin and /usr/lib. */
static bool plugin_path(char *path, size_t size)
{
    static const char tail[] = "/../lib/libopstream-cuda.so";
    const char *set = getenv("OPSTREAM_CUDA_PLUGIN");
    if (set)
        return (size_t)snprintf(path, size, "%s", set) < size;
    ssize_t n = readlink("/proc/self/exe", path, size - sizeof tail);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (!slash)
        return false;
    memcpy(slash, tail, sizeof tail);
    return true;
}

/* NULL with a sentence. What was loaded stays loaded. */
static const struct embed_backend_api *load_plugin(char *error, size_t error_size)
{
    char path[PATH_MAX];
    if (!plugin_path(path, sizeof path)) {
        snprintf(error, error_size, "the cuda plugin's path cannot be told");
        return NULL;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(error, error_size, "the cuda plugin cannot be loaded: %s", dlerror());
        return NULL;
    }
    embed_plugin_entry entry;
    *(void **)&entry = dlsym(library, EMBED_PLUGIN_SYMBOL);
    const struct embed_backend_api *api = entry ? entry() : NULL;
    if (!api || api->abi != EMBED_BACKEND_ABI) {
        snprintf(error, error_size, "%.200s is no plugin of this version", path);
        return NULL;
    }
    return api;
}

static const struct embed_backend_api *find_cuda(char *error, size_t error_size)
{
    const struct embed_backend_api *cuda = load_plugin(error, error_size);
    if (!cuda)
        return NULL;
    if (cuda->device_count() > 0)
        return cuda;
    /* Opening must fail here, and tells why. */
    struct embed_backend *none = cuda->open(NULL, 0, 0, error, error_size);
    cuda->close(none);
    return NULL;
}

const struct embed_backend_api *embed_backend_choose(const char *name, char *error, size_t error_size)
{
    if (strcmp(name, "reference") == 0)
        return embed_backend_reference();
    if (strcmp(name, "cpu") == 0)
        return embed_backend_cpu();
    bool is_auto = strcmp(name, "auto") == 0;
    if (!is_auto && strcmp(name, "cuda") != 0) {
        snprintf(error, error_size, "there is no backend '%.40s': auto, cpu, cuda or reference", name);
        return NULL;
    }
    char reason[512] = "";
    const struct embed_backend_api *cuda = find_cuda(reason, sizeof reason);
    if (cuda)
        return cuda;
    if (is_auto) {
        log_info("no_gpu", log_text("reason", reason));
        return embed_backend_cpu();
    }
    snprintf(error, error_size, "%s", reason);
    return NULL;
}

const struct embed_backend_api *embed_backend_find(const char *name)
{
    char error[512] = "";
    const struct embed_backend_api *api = embed_backend_choose(name, error, sizeof error);
    if (!api)
        log_error("no_backend", log_text("name", name), log_text("reason", error));
    return api;
}
