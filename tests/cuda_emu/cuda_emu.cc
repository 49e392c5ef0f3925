/* See include/cuda_runtime.h. One launch runs at a time in a thread; it returns when the kernel has run. */
#include "cuda_runtime.h"

#include <memory>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { WARP = 32, MOST_THREADS = 1024, MOST_SHARED_BYTES = 48 << 10, STACK_BYTES = 256 << 10, MOST_GRID_Y = 65535 };

enum order_kind { FORWARD, REVERSE, SHUFFLED };
enum state { RUNNABLE, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };

struct fiber {
    ucontext_t context;
    void *sp; /* of a fiber that was left by switch_stacks */
    enum state state;
    int line;      /* of the barrier */
    unsigned mask; /* of the warp operation */
    int round;     /* of warp operations: which of the two slots the next one uses */
    uint32_t slot[2];
    dim3 place;
};

struct scheduler {
    struct fiber fibers[MOST_THREADS];
    struct fiber home; /* the thread that launched */
    char *stacks;
    int count, current;
    const std::function<void()> *kernel;
    std::unique_ptr<char[]> shared;
    enum order_kind order;
    uint64_t seed;

    scheduler()
    {
        stacks = (char *)mmap(NULL, (size_t)MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED)
            abort();
    }
    ~scheduler()
    {
        munmap(stacks, (size_t)MOST_THREADS * STACK_BYTES);
    }
};

thread_local struct cuda_emu_place cuda_emu_now;
static thread_local std::unique_ptr<struct scheduler> owner;
static thread_local struct scheduler *all __attribute__((tls_model("initial-exec")));

[[noreturn]] static void die(const char *sentence, int line, int other)
{
    fprintf(stderr, "cuda emulation: %s (lines %d and %d; block %u, %u)\n", sentence, line, other, cuda_emu_now.block.x,
            cuda_emu_now.block.y);
    abort();
}

/* ---- changing stacks ---- */

#if defined(__x86_64__)
/* swapcontext asks the kernel for the signal mask each time, which is a hundred times slower than this. */
extern "C" void cuda_emu_switch(void **save_sp, void *load_sp);
asm(R"(
    .text
    .local cuda_emu_switch
    .type cuda_emu_switch, @function
cuda_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_emu_switch, .-cuda_emu_switch
)");
#endif

static void fiber_main(void);

static void prepare(struct fiber *f, char *stack)
{
#if defined(__SANITIZE_ADDRESS__)
    /* The first functions of the stack's last fiber never returned, and left their marks. */
    __asan_unpoison_memory_region(stack + STACK_BYTES - 8192, 8192);
#endif
#if defined(__x86_64__)
    void **top = (void **)(stack + STACK_BYTES);
    *--top = NULL;               /* fiber_main never returns; keeps the stack aligned as after a call */
    *--top = (void *)fiber_main; /* where cuda_emu_switch returns to */
    top -= 6;
    memset(top, 0, 6 * sizeof *top);
    f->sp = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
#endif
}

static void change(struct fiber *from, struct fiber *to)
{
#if defined(__x86_64__)
    cuda_emu_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
}

/* The scheduler lets fiber i run until its next barrier or its end. */
static void enter(struct scheduler *s, int i)
{
    struct fiber *f = &s->fibers[i];
    s->current = i;
    cuda_emu_now.thread = f->place;
#if defined(__SANITIZE_ADDRESS__)
    void *fake = NULL;
    __sanitizer_start_switch_fiber(&fake, s->stacks + (size_t)i * STACK_BYTES, STACK_BYTES);
#endif
    change(&s->home, f);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

#if defined(__SANITIZE_ADDRESS__)
static thread_local const void *home_bottom;
static thread_local size_t home_bytes;
#endif

/* The fiber gives way to the scheduler. */
static void leave(enum state state, int line)
{
    struct scheduler *s = all;
    struct fiber *f = &s->fibers[s->current];
    f->state = state;
    f->line = line;
#if defined(__SANITIZE_ADDRESS__)
    void *fake = NULL;
    __sanitizer_start_switch_fiber(state == ENDED ? NULL : &fake, home_bottom, home_bytes);
#endif
    change(f, &s->home);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &home_bottom, &home_bytes);
#endif
}

static void fiber_main(void)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &home_bottom, &home_bytes);
#endif
    (*all->kernel)();
    leave(ENDED, 0);
    abort();
}

/* ---- what kernels call ---- */

void *cuda_emu_shared(void)
{
    return all->shared.get();
}

int cuda_emu_lane(void)
{
    return all->current % WARP;
}

void cuda_emu_block_barrier(int line)
{
    leave(AT_BLOCK_BARRIER, line);
}

void cuda_emu_warp_barrier(unsigned mask, int line)
{
    all->fibers[all->current].mask = mask;
    leave(AT_WARP_BARRIER, line);
}

uint32_t cuda_emu_exchange(unsigned mask, uint32_t bits, int from, int line)
{
    struct scheduler *s = all;
    struct fiber *f = &s->fibers[s->current];
    int source = s->current / WARP * WARP + from, slot = f->round++ % 2;
    if (from < 0 || from >= WARP || source >= s->count || !(mask >> from & 1))
        die("a value is taken from a lane that does not take part", line, line);
    f->slot[slot] = bits;
    cuda_emu_warp_barrier(mask, line);
    /* Nobody can have come round to this slot again: the next operation waits for all. */
    return s->fibers[source].slot[slot];
}

/* ---- the order of threads ---- */

static uint64_t next_random(struct scheduler *s)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return s->seed;
}

static void choose_order(struct scheduler *s, std::vector<int> &order)
{
    for (size_t i = 0; i < order.size(); i++)
        order[i] = s->order == REVERSE ? (int)(order.size() - 1 - i) : (int)i;
}

static void shuffle(struct scheduler *s, std::vector<int> &order)
{
    for (size_t i = order.size(); s->order == SHUFFLED && i > 1; i--)
        std::swap(order[i - 1], order[next_random(s) % i]);
}

/* ---- barriers ---- */

/* All lanes of a warp operation have come, from the same line. */
static bool release_warp(struct scheduler *s, int first)
{
    int leader = -1;
    for (int i = first; i < first + WARP && i < s->count; i++) {
        if (s->fibers[i].state == AT_WARP_BARRIER && leader < 0)
            leader = i;
    }
    if (leader < 0)
        return false;
    unsigned mask = s->fibers[leader].mask;
    for (int i = first; i < first + WARP && i < s->count; i++) {
        struct fiber *f = &s->fibers[i];
        if (!(mask >> (i - first) & 1))
            continue;
        if (f->state == RUNNABLE)
            return false;
        if (f->state != AT_WARP_BARRIER || f->mask != mask || f->line != s->fibers[leader].line)
            die("lanes of a warp wait at different operations, or have ended", s->fibers[leader].line, f->line);
    }
    for (int i = first; i < first + WARP && i < s->count; i++) {
        if (mask >> (i - first) & 1)
            s->fibers[i].state = RUNNABLE;
    }
    return true;
}

/* Nobody can run on: all must have ended, or wait at one barrier. */
static bool release_block(struct scheduler *s)
{
    if (s->fibers[0].state == ENDED) {
        for (int i = 0; i < s->count; i++) {
            if (s->fibers[i].state != ENDED)
                die("threads wait at a barrier that others have not reached before their end", s->fibers[i].line, 0);
        }
        return false;
    }
    for (int i = 0; i < s->count; i++) {
        if (s->fibers[i].state != AT_BLOCK_BARRIER || s->fibers[i].line != s->fibers[0].line)
            die("threads wait at different barriers, or have ended", s->fibers[0].line, s->fibers[i].line);
    }
    for (int i = 0; i < s->count; i++)
        s->fibers[i].state = RUNNABLE;
    return true;
}

static void run_block(struct scheduler *s, size_t shared_bytes)
{
    s->shared.reset(new char[shared_bytes > 0 ? shared_bytes : 1]);
    memset(s->shared.get(), 0xff, shared_bytes);
    dim3 size = cuda_emu_now.block_size;
    for (int i = 0; i < s->count; i++) {
        unsigned n = (unsigned)i;
        s->fibers[i].state = RUNNABLE;
        s->fibers[i].round = 0;
        s->fibers[i].place = dim3(n % size.x, n / size.x % size.y, n / size.x / size.y);
        prepare(&s->fibers[i], s->stacks + (size_t)i * STACK_BYTES);
    }
    std::vector<int> order((size_t)s->count);
    choose_order(s, order);
    for (bool is_going = true; is_going;) {
        is_going = false;
        shuffle(s, order);
        for (int i : order) {
            if (s->fibers[i].state == RUNNABLE) {
                enter(s, i);
                is_going = true;
            }
        }
        for (int first = 0; first < s->count; first += WARP)
            is_going |= release_warp(s, first);
        if (!is_going)
            is_going = release_block(s);
    }
    s->shared.reset();
}

/* ---- errors ---- */

static thread_local cudaError_t last_error;
static cudaError_t sticking = cudaSuccess;
static std::string fail_setting;
static long fail_calls;

/* Counts the calls of the runtime and lets the one that CUDA_EMU_FAIL names fail. */
static cudaError_t begin_call(void)
{
    const char *setting = getenv("CUDA_EMU_FAIL");
    if (fail_setting != (setting ? setting : "")) {
        fail_setting = setting ? setting : "";
        fail_calls = 0;
        sticking = last_error = cudaSuccess;
    }
    if (sticking != cudaSuccess)
        return last_error = sticking;
    if (!setting)
        return cudaSuccess;
    char *colon;
    long wanted = strtol(setting, &colon, 10);
    if (++fail_calls != wanted || *colon != ':')
        return cudaSuccess;
    last_error = (cudaError_t)atoi(colon + 1);
    if (last_error >= cudaErrorIllegalAddress)
        sticking = last_error;
    return last_error;
}

static cudaError_t wrong(cudaError_t error)
{
    return last_error = error;
}

#define BEGIN_CALL()                                                                                                   \
    do {                                                                                                               \
        cudaError_t begun = begin_call();                                                                              \
        if (begun != cudaSuccess)                                                                                      \
            return begun;                                                                                              \
    } while (0)

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = sticking;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    }
    return "unrecognized error code";
}

/* ---- devices, memory, streams ---- */

struct cuda_emu_stream {
    unsigned flags;
};

static int devices(void)
{
    const char *set = getenv("CUDA_EMU_DEVICES");
    return set ? atoi(set) : 1;
}

cudaError_t cudaGetDeviceCount(int *out)
{
    BEGIN_CALL();
    *out = devices();
    return *out > 0 ? cudaSuccess : wrong(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    BEGIN_CALL();
    return device >= 0 && device < devices() ? cudaSuccess : wrong(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    BEGIN_CALL();
    if (device < 0 || device >= devices())
        return wrong(cudaErrorInvalidDevice);
    memset(out, 0, sizeof *out);
    strcpy(out->name, "emulation");
    return cudaSuccess;
}

/* A block's size lies in front of it, so that what is freed is given back to the device. */
enum { HEAD_BYTES = 64 };
static size_t device_used;

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    BEGIN_CALL();
    const char *limit = getenv("CUDA_EMU_MEMORY");
    if (bytes == 0) {
        *out = NULL;
        return cudaSuccess;
    }
    if (limit && (bytes > strtoull(limit, NULL, 10) || device_used > strtoull(limit, NULL, 10) - bytes))
        return wrong(cudaErrorMemoryAllocation);
    char *p = (char *)malloc(bytes + HEAD_BYTES);
    if (!p)
        return wrong(cudaErrorMemoryAllocation);
    memcpy(p, &bytes, sizeof bytes);
    memset(p + HEAD_BYTES, 0xff, bytes);
    device_used += bytes;
    *out = p + HEAD_BYTES;
    return cudaSuccess;
}

/* Frees even when it reports the error of a lost device: nothing else would. */
cudaError_t cudaFree(void *p)
{
    if (p) {
        size_t bytes;
        memcpy(&bytes, (char *)p - HEAD_BYTES, sizeof bytes);
        device_used -= bytes;
        free((char *)p - HEAD_BYTES);
    }
    BEGIN_CALL();
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    BEGIN_CALL();
    *out = malloc(bytes);
    return *out ? cudaSuccess : wrong(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    BEGIN_CALL();
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind)
{
    BEGIN_CALL();
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return stream ? cudaMemcpy(to, from, bytes, kind) : wrong(cudaErrorInvalidValue);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    BEGIN_CALL();
    *out = new cuda_emu_stream{flags};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    delete stream;
    BEGIN_CALL();
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    BEGIN_CALL();
    return stream ? cudaSuccess : wrong(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize(void)
{
    BEGIN_CALL();
    return cudaSuccess;
}

/* ---- launches ---- */

static bool is_launchable(dim3 grid, dim3 block, size_t shared_bytes)
{
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    return grid.x >= 1 && grid.x <= INT32_MAX && grid.y >= 1 && grid.y <= MOST_GRID_Y && grid.z >= 1 &&
           grid.z <= MOST_GRID_Y && threads >= 1 && threads <= MOST_THREADS && shared_bytes <= MOST_SHARED_BYTES;
}

void cuda_emu_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, const std::function<void()> &kernel)
{
    if (begin_call() != cudaSuccess)
        return;
    if (!is_launchable(grid, block, shared_bytes)) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    if (!all) {
        owner.reset(new scheduler);
        all = owner.get();
    }
    struct scheduler *s = all;
    const char *order = getenv("CUDA_EMU_ORDER");
    s->order = !order ? FORWARD : strcmp(order, "reverse") == 0 ? REVERSE : atoi(order) > 0 ? SHUFFLED : FORWARD;
    s->seed = s->order == SHUFFLED ? (uint64_t)atoi(order) * 0x9e3779b97f4a7c15ull : 1;
    s->kernel = &kernel;
    s->count = (int)(block.x * block.y * block.z);
    cuda_emu_now.block_size = block;
    cuda_emu_now.grid_size = grid;
    std::vector<int> blocks(grid.x * grid.y * grid.z);
    choose_order(s, blocks);
    shuffle(s, blocks);
    for (int b : blocks) {
        unsigned n = (unsigned)b;
        cuda_emu_now.block = dim3(n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y);
        run_block(s, shared_bytes);
    }
}
