/* An emulated libcublas.so.13: plain loops. It fails when CUDA_EMU_FAIL_BLAS names the status to fail with. */
#include "cublas_v2.h"

#include <stdlib.h>

#define EXPORTED __attribute__((visibility("default")))

struct cublasContext {
    int calls;
};

static cublasStatus_t outcome(void)
{
    const char *fail = getenv("CUDA_EMU_FAIL_BLAS");
    return fail ? (cublasStatus_t)atoi(fail) : CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasCreate_v2(cublasHandle_t *out)
{
    if (outcome() != CUBLAS_STATUS_SUCCESS)
        return outcome();
    *out = (cublasHandle_t)calloc(1, sizeof **out);
    return *out ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

EXPORTED cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORTED cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t)
{
    return handle ? outcome() : CUBLAS_STATUS_INVALID_VALUE;
}

EXPORTED cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t)
{
    return handle ? outcome() : CUBLAS_STATUS_INVALID_VALUE;
}

/* Sixteen sums at once, so that the compiler may use vectors. */
static float dot(const float *a, const float *b, int k)
{
    float sums[16] = {0}, sum = 0;
    int i = 0;
    for (; i + 16 <= k; i += 16) {
        for (int l = 0; l < 16; l++)
            sums[l] += a[i + l] * b[i + l];
    }
    for (; i < k; i++)
        sum += a[i] * b[i];
    for (int l = 0; l < 16; l++)
        sum += sums[l];
    return sum;
}

/* c = alpha · aᵀ b + beta · c, columns first; nothing else is used. As in cuBLAS, c is not read when beta is 0. */
EXPORTED cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                       int n, int k, const float *alpha, const float *a, int lda, const float *b,
                                       int ldb, const float *beta, float *c, int ldc)
{
    if (!handle || op_a != CUBLAS_OP_T || op_b != CUBLAS_OP_N || m < 1 || n < 1 || k < 1 || lda < k || ldb < k ||
        ldc < m)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (outcome() != CUBLAS_STATUS_SUCCESS)
        return outcome();
    for (int row = 0; row < m; row++) {
        for (int column = 0; column < n; column++) {
            float *at = c + (size_t)column * ldc + row,
                  product = *alpha * dot(a + (size_t)row * lda, b + (size_t)column * ldb, k);
            *at = *beta != 0 ? product + *beta * *at : product;
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}
