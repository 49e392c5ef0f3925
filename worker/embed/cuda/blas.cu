#include "worker/embed/cuda/blas.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beside the plugin. By its whole path: a loader that something has wrapped does not know whose search path to use. */
static void *open_beside(const char *name)
{
    Dl_info self;
    char path[PATH_MAX];
    if (dladdr((void *)&blas_load, &self) == 0)
        return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    int folder = slash ? (int)(slash - self.dli_fname) : 0;
    if (!slash || (size_t)snprintf(path, sizeof path, "%.*s/%s", folder, self.dli_fname, name) >= sizeof path)
        return NULL;
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *open_library(void)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    const char *set = getenv("OPSTREAM_CUBLAS");
    if (set)
        return dlopen(set, RTLD_NOW | RTLD_LOCAL);
    void *library = NULL;
    for (int i = 0; i < 2 && !library; i++)
        library = open_beside(names[i]);
    for (int i = 0; i < 2 && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

template <typename function> static bool find(void *library, const char *name, function *out)
{
    *out = (function)dlsym(library, name);
    return *out != NULL;
}

const struct blas *blas_load(const char **out_problem)
{
    static struct blas blas;
    static void *library;
    if (library)
        return &blas;
    void *opened = open_library();
    if (!opened) {
        *out_problem =
            "cuBLAS (libcublas.so.13 or .12) cannot be loaded: install it or set OPSTREAM_CUBLAS to its file";
        return NULL;
    }
    if (!find(opened, "cublasCreate_v2", &blas.create) || !find(opened, "cublasDestroy_v2", &blas.destroy) ||
        !find(opened, "cublasSetStream_v2", &blas.set_stream) ||
        !find(opened, "cublasSetMathMode", &blas.set_math_mode) || !find(opened, "cublasSgemm_v2", &blas.sgemm)) {
        dlclose(opened);
        *out_problem = "the cuBLAS that was found lacks a function that is needed";
        return NULL;
    }
    library = opened;
    return &blas;
}
