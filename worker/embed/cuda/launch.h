/* The two things that differ between nvcc and the emulation of tests/cuda_emu: how a kernel is started and where its
 * shared memory comes from. */
#pragma once

#include <cuda_runtime.h>

#ifdef __CUDACC__
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                         \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define SHARED_FLOATS(name) extern __shared__ float name[]
#else
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                         \
    cuda_emu_launch((grid), (block), (shared_bytes), (stream), [&] { kernel(__VA_ARGS__); })
#define SHARED_FLOATS(name) float *name = (float *)cuda_emu_shared()
#endif
