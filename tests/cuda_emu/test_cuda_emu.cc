/* The emulation itself: it must find the faults that it is there for. */
#include "worker/embed/cuda/launch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

enum { THREADS = 64 };

/* Each thread reads what its neighbour wrote. */
static void shift(bool has_barrier, float *out)
{
    SHARED_FLOATS(room);
    room[threadIdx.x] = (float)threadIdx.x;
    if (has_barrier)
        __syncthreads();
    out[threadIdx.x] = room[(threadIdx.x + 1) % THREADS];
}

static void run_shift(bool has_barrier, const char *order, float *out)
{
    setenv("CUDA_EMU_ORDER", order, 1);
    LAUNCH(shift, dim3(1), dim3(THREADS), THREADS * sizeof(float), NULL, has_barrier, out);
    unsetenv("CUDA_EMU_ORDER");
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static void a_missing_barrier_gives_other_results_in_another_order(void **)
{
    float forward[THREADS], reverse[THREADS];
    run_shift(true, "forward", forward);
    run_shift(true, "reverse", reverse);
    assert_memory_equal(forward, reverse, sizeof forward);
    assert_true(forward[THREADS - 1] == 0 && forward[0] == 1);
    run_shift(false, "forward", forward);
    run_shift(false, "reverse", reverse);
    assert_memory_not_equal(forward, reverse, sizeof forward);
}

static void sum_lanes(float *out)
{
    float x = (float)threadIdx.x;
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    out[threadIdx.x] = x;
}

static void lanes_exchange_values_within_their_warp(void **)
{
    static const char *const orders[] = {"forward", "reverse", "7"};
    for (const char *order : orders) {
        float out[THREADS];
        setenv("CUDA_EMU_ORDER", order, 1);
        LAUNCH(sum_lanes, dim3(1), dim3(THREADS), 0, NULL, out);
        unsetenv("CUDA_EMU_ORDER");
        for (int i = 0; i < THREADS; i++)
            assert_true(out[i] == (i < 32 ? 496.0f : 1520.0f));
    }
}

static void count_threads(int *sum)
{
    atomicAdd(sum, (int)(blockIdx.x * 10 + blockIdx.y + threadIdx.x));
}

static void every_thread_of_every_block_runs_once(void **)
{
    int sum = 0;
    LAUNCH(count_threads, dim3(3, 2), dim3(4), 0, NULL, &sum);
    assert_int_equal(sum, (0 + 1 + 10 + 11 + 20 + 21) * 4 + 6 * (0 + 1 + 2 + 3));
}

static void read_unset(float *out)
{
    SHARED_FLOATS(room);
    *out = room[0];
}

static void memory_starts_out_as_nan(void **)
{
    float out = 0;
    void *p = NULL;
    LAUNCH(read_unset, dim3(1), dim3(1), sizeof(float), NULL, &out);
    assert_true(isnan(out));
    assert_int_equal(cudaMalloc(&p, sizeof out), cudaSuccess);
    memcpy(&out, p, sizeof out);
    assert_true(isnan(out));
    assert_int_equal(cudaFree(p), cudaSuccess);
}

static void impossible_launches_are_refused(void **)
{
    float out = 0;
    LAUNCH(read_unset, dim3(1), dim3(1025), sizeof(float), NULL, &out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    LAUNCH(read_unset, dim3(0), dim3(1), sizeof(float), NULL, &out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    LAUNCH(read_unset, dim3(1, 65536), dim3(1), sizeof(float), NULL, &out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    LAUNCH(read_unset, dim3(1), dim3(1), 49 * 1024, NULL, &out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

/* ---- faults that end the program: in a child ---- */

static void half_reaches_the_barrier(void)
{
    if (threadIdx.x < THREADS / 2)
        __syncthreads();
}

static void two_barriers(void)
{
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
}

static void half_a_warp_exchanges(void)
{
    if (threadIdx.x % 32 < 16)
        (void)__shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

template <typename kernel> static bool is_ended(kernel k)
{
    pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        LAUNCH(k, dim3(1), dim3(THREADS), 0, NULL);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void barriers_that_not_all_threads_reach_end_the_program(void **)
{
    assert_true(is_ended(half_reaches_the_barrier));
    assert_true(is_ended(two_barriers));
    assert_true(is_ended(half_a_warp_exchanges));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_barrier_gives_other_results_in_another_order),
        cmocka_unit_test(lanes_exchange_values_within_their_warp),
        cmocka_unit_test(every_thread_of_every_block_runs_once),
        cmocka_unit_test(memory_starts_out_as_nan),
        cmocka_unit_test(impossible_launches_are_refused),
        cmocka_unit_test(barriers_that_not_all_threads_reach_end_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
