#include "worker/embed/cuda/blas.h"

#include <dlfcn.h>
#include <stdlib.h>

static void *open_library(void)
{
    const char *set = getenv("OPSTREAM_CUBLAS");
    if (set)
        return dlopen(set, RTLD_NOW | RTLD_LOCAL);
    void *library = dlopen("libcublas.so.13", RTLD_NOW | RTLD_LOCAL);
    return library ? library : dlopen("libcublas.so.12", RTLD_NOW | RTLD_LOCAL);
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
        *out_problem = "cuBLAS (libcublas.so.13 or .12) cannot be loaded: install it or set OPSTREAM_CUBLAS to its file";
        return NULL;
    }
    if (!find(opened, "cublasCreate_v2", &blas.create) || !find(opened, "cublasDestroy_v2", &blas.destroy) ||
        !find(opened, "cublasSetStream_v2", &blas.set_stream) || !find(opened, "cublasSetMathMode", &blas.set_math_mode) ||
        !find(opened, "cublasSgemm_v2", &blas.sgemm)) {
        dlclose(opened);
        *out_problem = "the cuBLAS that was found lacks a function that is needed";
        return NULL;
    }
    library = opened;
    return &blas;
}
