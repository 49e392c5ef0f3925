/* The steps of a BERT encoder that are not matrix products. Tokens of all sequences are packed, t of them; h = hidden,
 * f = ffn; matrices are row-major fp32 in device memory. Each function starts kernels on `stream` and returns the
 * launch's error. */
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

/* Up to ATTENTION_QUERIES neighbouring tokens of one sequence: what one block of the attention works on. */
enum { ATTENTION_QUERIES = 16, LARGEST_HEAD = 128 };
struct attention_tile {
    int32_t begin, end; /* the sequence's tokens */
    int32_t first;      /* the tile's first token */
};

/* x[t][h] = LayerNorm(word[ids] + position[positions] + type) */
cudaError_t launch_embeddings(cudaStream_t stream, const int32_t *ids, const int32_t *positions, int t, int h,
                              const float *word, const float *position, const float *type, const float *norm_w,
                              const float *norm_b, float epsilon, float *x);
/* x[t][h] = LayerNorm(x + y + bias) */
cudaError_t launch_add_norm(cudaStream_t stream, float *x, const float *y, const float *bias, int t, int h,
                            const float *norm_w, const float *norm_b, float epsilon);
/* x[t][f] = gelu(x + bias), by erf */
cudaError_t launch_gelu(cudaStream_t stream, float *x, const float *bias, int t, int f);
/* out[t][h]; qkv[t][3h] holds q, k and v without their bias[3h]. */
cudaError_t launch_attention(cudaStream_t stream, const float *qkv, const float *bias,
                             const struct attention_tile *tiles, int tile_count, int h, int heads, float *out);
/* vectors[count][h]: mean of the rows offsets[s] .. offsets[s + 1] of x, or the first of them; divided by its L2 norm
 * if asked. */
cudaError_t launch_pool(cudaStream_t stream, const float *x, const int32_t *offsets, int count, int h, bool is_mean,
                        bool normalise, float *vectors);
