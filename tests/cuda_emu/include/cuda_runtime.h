/* A small emulation of CUDA's execution model on a CPU, for tests: the part of cuda_runtime.h that the kernels of
 * worker/embed/cuda use.
 *
 * The threads of a block are fibers that run one after another and change places only at barriers and warp operations.
 * The order is chosen by CUDA_EMU_ORDER (forward, reverse, or a number: the seed of a shuffle that changes at each
 * barrier): a kernel that lacks a barrier gives different results in different orders. Barriers that only some threads
 * reach, or reach at different places, end the program with a sentence. Device and shared memory start out as NaN, and
 * device memory is exact heap blocks, so that AddressSanitizer sees what leaves them.
 *
 * CUDA_EMU_DEVICES: how many there are (1). CUDA_EMU_MEMORY: bytes of device memory. CUDA_EMU_FAIL="N:CODE": the N-th
 * call of the runtime (or of cuBLAS) from the time that the variable got this value fails with this cudaError; 700 and
 * above stick, as on a lost device. */
#pragma once

#include <algorithm>
#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

static inline int min(int a, int b)
{
    return a < b ? a : b;
}

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* What the running fiber sees. */
struct cuda_emu_place {
    dim3 thread, block, block_size, grid_size;
};
extern thread_local struct cuda_emu_place cuda_emu_now __attribute__((tls_model("initial-exec")));
#define threadIdx (cuda_emu_now.thread)
#define blockIdx (cuda_emu_now.block)
#define blockDim (cuda_emu_now.block_size)
#define gridDim (cuda_emu_now.grid_size)

void *cuda_emu_shared(void);
void cuda_emu_block_barrier(int line);
void cuda_emu_warp_barrier(unsigned mask, int line);
/* Gives `bits` to the other lanes and returns those of lane `from` (of the warp). */
uint32_t cuda_emu_exchange(unsigned mask, uint32_t bits, int from, int line);
int cuda_emu_lane(void);

#define __syncthreads() cuda_emu_block_barrier(__LINE__)
#define __syncwarp() cuda_emu_warp_barrier(0xffffffffu, __LINE__)

template <typename T> T cuda_emu_shuffle(unsigned mask, T value, int from, int line)
{
    static_assert(sizeof(T) == 4, "only 32-bit values");
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    bits = cuda_emu_exchange(mask, bits, from, line);
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
#define __shfl_sync(mask, value, from) cuda_emu_shuffle((mask), (value), (from) % 32, __LINE__)
#define __shfl_xor_sync(mask, value, with) cuda_emu_shuffle((mask), (value), cuda_emu_lane() ^ (with), __LINE__)
#define __shfl_down_sync(mask, value, by)                                                                              \
    cuda_emu_shuffle((mask), (value), std::min(31, cuda_emu_lane() + (int)(by)), __LINE__)

/* Fibers change places nowhere else, so a plain addition is atomic. */
template <typename T> T atomicAdd(T *at, T by)
{
    T old = *at;
    *at = old + by;
    return old;
}

enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorIllegalAddress = 700,
};
typedef enum cudaError cudaError_t;
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaStreamNonBlocking = 1 };
typedef struct cuda_emu_stream *cudaStream_t;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
};

cudaError_t cudaGetDeviceCount(int *out);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device);
cudaError_t cudaMalloc(void **out, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **out, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t error);

void cuda_emu_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                     const std::function<void()> &kernel);
