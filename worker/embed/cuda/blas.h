/* cuBLAS, loaded when it is first asked for: it is large, comes in several versions, and where it is missing the plugin
 * must still load. */
#pragma once

#include <cublas_v2.h>

struct blas {
    decltype(&cublasCreate) create;
    decltype(&cublasDestroy) destroy;
    decltype(&cublasSetStream) set_stream;
    decltype(&cublasSetMathMode) set_math_mode;
    decltype(&cublasSgemm) sgemm;
};

/* From beside the plugin, else from where the loader looks; OPSTREAM_CUBLAS names a file of its own. NULL with a
 * sentence in *out_problem. Stays loaded. */
const struct blas *blas_load(const char **out_problem);
