#include "worker/embed/cuda/kernels.h"

#include "worker/embed/cuda/launch.h"

#include <math.h>

enum { WARP = 32, WARPS = 4, THREADS = WARP * WARPS, LARGEST_GRID = 65535 };

#define ALL_LANES 0xffffffffu

__device__ static float warp_sum(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

__device__ static float warp_max(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

/* One warp, one row in global memory, of which each lane touches only its own columns. */
__device__ static void norm_row(float *row, int h, int lane, float sum, const float *w, const float *b, float epsilon)
{
    float mean = warp_sum(sum) / (float)h, squares = 0;
    for (int k = lane; k < h; k += WARP)
        squares += (row[k] - mean) * (row[k] - mean);
    float scale = 1 / sqrtf(warp_sum(squares) / (float)h + epsilon);
    for (int k = lane; k < h; k += WARP)
        row[k] = (row[k] - mean) * scale * w[k] + b[k];
}

__global__ static void embeddings(const int32_t *ids, const int32_t *positions, int t, int h, const float *word,
                                  const float *position, const float *type, const float *norm_w, const float *norm_b,
                                  float epsilon, float *x)
{
    int lane = (int)threadIdx.x % WARP;
    size_t i = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (i >= (size_t)t)
        return; /* whole warps; there is no barrier of the block */
    const float *from_word = word + (size_t)ids[i] * (size_t)h,
                *from_position = position + (size_t)positions[i] * (size_t)h;
    float *row = x + i * (size_t)h, sum = 0;
    for (int k = lane; k < h; k += WARP)
        sum += row[k] = from_word[k] + from_position[k] + type[k];
    norm_row(row, h, lane, sum, norm_w, norm_b, epsilon);
}

__global__ static void add_norm(float *x, const float *y, const float *bias, int t, int h, const float *norm_w,
                                const float *norm_b, float epsilon)
{
    int lane = (int)threadIdx.x % WARP;
    size_t i = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (i >= (size_t)t)
        return;
    float *row = x + i * (size_t)h, sum = 0;
    const float *add = y + i * (size_t)h;
    for (int k = lane; k < h; k += WARP)
        sum += row[k] += add[k] + bias[k];
    norm_row(row, h, lane, sum, norm_w, norm_b, epsilon);
}

/* A block takes rows blockIdx.y, + gridDim.y, …; its threads take neighbouring columns. */
__global__ static void gelu(float *x, const float *bias, int t, int f)
{
    int k = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (k >= f)
        return;
    for (int i = (int)blockIdx.y; i < t; i += (int)gridDim.y) {
        float *at = x + (size_t)i * (size_t)f + k, v = *at + bias[k];
        *at = 0.5f * v * (1 + erff(v * 0.70710678118654752f));
    }
}

/* One block: ATTENTION_QUERIES tokens of one sequence (blockIdx.x) and one head (blockIdx.y). Keys and values pass
 * through shared memory, a tile of 32 at a time; each warp has QUERIES of the queries and keeps a running softmax for
 * each (largest score, each lane's own sum, weighted values), so the length of a sequence is not bounded by memory. In
 * the scores a lane is a key; in the sums it is every 32nd column. */
enum { QUERIES = ATTENTION_QUERIES / WARPS, COLUMNS = LARGEST_HEAD / WARP };

__global__ static void attention(const float *qkv, const float *bias, const struct attention_tile *tiles, int h, int d,
                                 float scale, float *out)
{
    SHARED_FLOATS(room);
    int stride = d + 1; /* odd for the usual sizes: lanes reading a column of the keys hit different banks */
    float *q = room, *k = q + ATTENTION_QUERIES * d, *v = k + WARP * stride, *p = v + WARP * d;
    struct attention_tile tile = tiles[blockIdx.x];
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    size_t head = (size_t)blockIdx.y * (size_t)d, row = 3 * (size_t)h;
    int rows = min(ATTENTION_QUERIES, tile.end - tile.first);
    for (int i = (int)threadIdx.x; i < rows * d; i += THREADS)
        q[i] = (qkv[((size_t)tile.first + (size_t)(i / d)) * row + head + (size_t)(i % d)] +
                bias[head + (size_t)(i % d)]) *
               scale;

    float largest[QUERIES], sum[QUERIES], weighted[QUERIES][COLUMNS];
    for (int n = 0; n < QUERIES; n++) {
        largest[n] = -INFINITY;
        sum[n] = 0;
        for (int c = 0; c < COLUMNS; c++)
            weighted[n][c] = 0;
    }
    for (int at = tile.begin; at < tile.end; at += WARP) {
        int keys = min(WARP, tile.end - at);
        __syncthreads(); /* nobody reads the previous tile any more */
        for (int i = (int)threadIdx.x; i < keys * d; i += THREADS) {
            int j = i / d, c = i % d;
            const float *from = qkv + ((size_t)at + (size_t)j) * row + head + (size_t)c;
            k[j * stride + c] = from[h] + bias[(size_t)h + head + (size_t)c];
            v[j * d + c] = from[2 * h] + bias[2 * (size_t)h + head + (size_t)c];
        }
        __syncthreads();
#pragma unroll
        for (int n = 0; n < QUERIES; n++) {
            int i = n * WARPS + warp;
            if (i >= rows)
                break; /* the same for all lanes */
            float score = -INFINITY;
            if (lane < keys) {
                score = 0;
                for (int c = 0; c < d; c++)
                    score += q[i * d + c] * k[lane * stride + c];
            }
            float new_largest = fmaxf(largest[n], warp_max(score));
            float weight = expf(score - new_largest), shrink = expf(largest[n] - new_largest);
            largest[n] = new_largest;
            sum[n] = sum[n] * shrink + weight;
            p[warp * WARP + lane] = weight;
            __syncwarp();
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) {
                int column = c * WARP + lane;
                if (column < d) {
                    float total = weighted[n][c] * shrink;
                    for (int j = 0; j < keys; j++)
                        total += p[warp * WARP + j] * v[j * d + column];
                    weighted[n][c] = total;
                }
            }
            __syncwarp(); /* before the next query's weights */
        }
    }
#pragma unroll
    for (int n = 0; n < QUERIES; n++) {
        int i = n * WARPS + warp;
        if (i >= rows)
            break;
        float whole = warp_sum(sum[n]);
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int column = c * WARP + lane;
            if (column < d)
                out[((size_t)tile.first + (size_t)i) * (size_t)h + head + (size_t)column] = weighted[n][c] / whole;
        }
    }
}

/* One block a sequence. The vector is summed up in place, each thread its own columns. */
__global__ static void pool(const float *x, const int32_t *offsets, int h, bool is_mean, bool normalise, float *vectors)
{
    SHARED_FLOATS(sums);
    int begin = offsets[blockIdx.x], n = is_mean ? offsets[blockIdx.x + 1] - begin : 1;
    float *vector = vectors + (size_t)blockIdx.x * (size_t)h, squares = 0;
    for (int k = (int)threadIdx.x; k < h; k += THREADS) {
        float sum = 0;
        for (int i = 0; i < n; i++)
            sum += x[((size_t)begin + (size_t)i) * (size_t)h + (size_t)k];
        sum /= (float)n;
        vector[k] = sum;
        squares += sum * sum;
    }
    squares = warp_sum(squares);
    if (threadIdx.x % WARP == 0)
        sums[threadIdx.x / WARP] = squares;
    __syncthreads();
    float norm = 0;
    for (int i = 0; i < WARPS; i++)
        norm += sums[i];
    if (!normalise || !(norm > 0))
        return;
    norm = sqrtf(norm);
    for (int k = (int)threadIdx.x; k < h; k += THREADS)
        vector[k] /= norm;
}

/* ---- launches ---- */

static unsigned blocks_for(int items, int per_block)
{
    return (unsigned)((items - 1) / per_block + 1);
}

cudaError_t launch_embeddings(cudaStream_t stream, const int32_t *ids, const int32_t *positions, int t, int h,
                              const float *word, const float *position, const float *type, const float *norm_w,
                              const float *norm_b, float epsilon, float *x)
{
    LAUNCH(embeddings, dim3(blocks_for(t, WARPS)), dim3(THREADS), 0, stream, ids, positions, t, h, word, position, type,
           norm_w, norm_b, epsilon, x);
    return cudaGetLastError();
}

cudaError_t launch_add_norm(cudaStream_t stream, float *x, const float *y, const float *bias, int t, int h,
                            const float *norm_w, const float *norm_b, float epsilon)
{
    LAUNCH(add_norm, dim3(blocks_for(t, WARPS)), dim3(THREADS), 0, stream, x, y, bias, t, h, norm_w, norm_b, epsilon);
    return cudaGetLastError();
}

cudaError_t launch_gelu(cudaStream_t stream, float *x, const float *bias, int t, int f)
{
    LAUNCH(gelu, dim3(blocks_for(f, THREADS), (unsigned)(t < LARGEST_GRID ? t : LARGEST_GRID)), dim3(THREADS), 0,
           stream, x, bias, t, f);
    return cudaGetLastError();
}

cudaError_t launch_attention(cudaStream_t stream, const float *qkv, const float *bias,
                             const struct attention_tile *tiles, int tile_count, int h, int heads, float *out)
{
    int d = h / heads;
    size_t floats = (size_t)(ATTENTION_QUERIES * d + WARP * (d + 1) + WARP * d + WARPS * WARP);
    LAUNCH(attention, dim3((unsigned)tile_count, (unsigned)heads), dim3(THREADS), floats * sizeof(float), stream, qkv,
           bias, tiles, h, d, 1 / sqrtf((float)d), out);
    return cudaGetLastError();
}

cudaError_t launch_pool(cudaStream_t stream, const float *x, const int32_t *offsets, int count, int h, bool is_mean,
                        bool normalise, float *vectors)
{
    LAUNCH(pool, dim3((unsigned)count), dim3(THREADS), WARPS * sizeof(float), stream, x, offsets, h, is_mean, normalise,
           vectors);
    return cudaGetLastError();
}
