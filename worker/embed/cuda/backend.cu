/* The cuda backend: weights uploaded once, activations of up to STEP_TOKENS packed tokens in device memory that grows
 * on demand, matrix products by cuBLAS in fp32 (TF32 stays off), all else by the kernels of kernels.cu, everything in
 * one stream. No call's error is dropped: the first one ends the run and decides how (`outcome`). */
#include "worker/embed/cuda/blas.h"
#include "worker/embed/cuda/kernels.h"

extern "C" {
#include "worker/embed/backend.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* More tokens than this go through in several steps of whole sequences, so that memory is bounded whatever the caller
 * asks for. */
enum { STEP_TOKENS = 16384, ALIGN_FLOATS = 64 };

/* A layer's weights in device memory; q, k and v in one matrix. */
struct device_layer {
    const float *qkv_w, *qkv_b, *out_w, *out_b, *attention_norm_w, *attention_norm_b;
    const float *up_w, *up_b, *down_w, *down_b, *output_norm_w, *output_norm_b;
};

struct buffer {
    void *at;
    size_t bytes;
};

struct embed_backend {
    const struct bert_model *model;
    const struct blas *blas;
    int device;
    char name[256];
    cudaStream_t stream;
    cublasHandle_t handle;
    float *weights;
    const float *word, *position, *type, *norm_w, *norm_b;
    struct device_layer *layers;

    /* Device memory: x and a are [t][h], qkv is [t][3h], up [t][f]; `input` holds what `staging` does. */
    struct buffer x, a, qkv, up, input, vectors;
    struct buffer staging, answer; /* pinned host memory */
    enum embed_result outcome;     /* of the run; DEVICE_LOST stays */
    const char *reason;
    int step_tokens;
};

/* A step's tokens, as the kernels want them; all in one piece of memory, so that one copy brings them over. */
struct step {
    int t, count, tile_count;
    struct attention_tile *tiles; /* [tile_count] */
    int32_t *ids, *positions;     /* [t] */
    int32_t *offsets;             /* [count + 1] */
};

/* ---- errors ---- */

/* One JSON line, as log.c writes them; the plugin brings no JSON library, and these texts are CUDA's constant ones. */
static void complain(const char *call, const char *reason)
{
    char now[32];
    time_t seconds = time(NULL);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(stderr,
            "{\"time\":\"%s\",\"level\":\"error\",\"program\":\"embedder\",\"event\":\"cuda_failed\",\"call\":\"%s\","
            "\"reason\":\"%s\"}\n",
            now, call, reason);
}

static bool failed(struct embed_backend *b, enum embed_result outcome, const char *call, const char *reason)
{
    b->outcome = outcome;
    b->reason = reason;
    complain(call, reason);
    return false;
}

static bool ok(struct embed_backend *b, cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* takes the note of a passing error (no memory) away; a lost device stays lost */
    return failed(b, error == cudaErrorMemoryAllocation ? EMBED_OUT_OF_MEMORY : EMBED_DEVICE_LOST, call,
                  cudaGetErrorString(error));
}

static bool blas_ok(struct embed_backend *b, cublasStatus_t status, const char *call)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return true;
    (void)cudaGetLastError();
    if (status == CUBLAS_STATUS_ALLOC_FAILED)
        return failed(b, EMBED_OUT_OF_MEMORY, call, "cuBLAS has not enough memory");
    char reason[64];
    snprintf(reason, sizeof reason, "cuBLAS status %d", (int)status);
    failed(b, EMBED_DEVICE_LOST, call, reason);
    b->reason = "cuBLAS failed";
    return false;
}

/* ---- memory ---- */

static bool grow(struct embed_backend *b, struct buffer *buffer, size_t bytes, bool is_pinned)
{
    if (bytes <= buffer->bytes)
        return true;
    void *old = buffer->at;
    buffer->at = NULL;
    buffer->bytes = 0;
    if (old && !ok(b, is_pinned ? cudaFreeHost(old) : cudaFree(old), "free"))
        return false;
    if (!ok(b, is_pinned ? cudaMallocHost(&buffer->at, bytes) : cudaMalloc(&buffer->at, bytes), "allocate")) {
        buffer->at = NULL;
        return false;
    }
    buffer->bytes = bytes;
    return true;
}

/* An error here can only repeat one that was seen before. */
static void release(struct embed_backend *b)
{
    struct buffer *const device[] = {&b->x, &b->a, &b->qkv, &b->up, &b->input, &b->vectors};
    for (struct buffer *buffer : device) {
        (void)cudaFree(buffer->at);
        *buffer = {};
    }
    for (struct buffer *buffer : {&b->staging, &b->answer}) {
        (void)cudaFreeHost(buffer->at);
        *buffer = {};
    }
}

/* ---- weights ---- */

/* Places weights one after another: first without memory, to learn how much they need, then for good. */
struct upload {
    struct embed_backend *b;
    float *base;
    size_t used;
    bool is_good;
};

static const float *put(struct upload *u, const float *from, size_t count)
{
    float *to = u->base ? u->base + u->used : NULL;
    if (to && u->is_good)
        u->is_good = ok(u->b, cudaMemcpy(to, from, count * sizeof *to, cudaMemcpyHostToDevice), "copy weights");
    u->used += count;
    return to;
}

static const float *put_aligned(struct upload *u, const float *from, size_t count)
{
    u->used = (u->used + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
    return put(u, from, count);
}

static void put_layer(struct upload *u, const struct bert_layer *l, struct device_layer *out)
{
    size_t h = (size_t)u->b->model->hidden, f = (size_t)u->b->model->ffn;
    out->qkv_w = put_aligned(u, l->query_w, h * h);
    put(u, l->key_w, h * h);
    put(u, l->value_w, h * h);
    out->qkv_b = put_aligned(u, l->query_b, h);
    put(u, l->key_b, h);
    put(u, l->value_b, h);
    out->out_w = put_aligned(u, l->attention_out_w, h * h);
    out->out_b = put_aligned(u, l->attention_out_b, h);
    out->attention_norm_w = put_aligned(u, l->attention_norm_w, h);
    out->attention_norm_b = put_aligned(u, l->attention_norm_b, h);
    out->up_w = put_aligned(u, l->up_w, f * h);
    out->up_b = put_aligned(u, l->up_b, f);
    out->down_w = put_aligned(u, l->down_w, h * f);
    out->down_b = put_aligned(u, l->down_b, h);
    out->output_norm_w = put_aligned(u, l->output_norm_w, h);
    out->output_norm_b = put_aligned(u, l->output_norm_b, h);
}

static void put_all(struct upload *u)
{
    struct embed_backend *b = u->b;
    const struct bert_model *m = b->model;
    size_t h = (size_t)m->hidden;
    u->used = 0;
    b->word = put_aligned(u, m->word_embeddings, (size_t)m->vocab * h);
    b->position = put_aligned(u, m->position_embeddings, (size_t)m->max_positions * h);
    b->type = put_aligned(u, m->type_embeddings, h);
    b->norm_w = put_aligned(u, m->embeddings_norm_w, h);
    b->norm_b = put_aligned(u, m->embeddings_norm_b, h);
    for (int i = 0; i < m->layers; i++)
        put_layer(u, &m->layer[i], &b->layers[i]);
}

static bool upload_weights(struct embed_backend *b)
{
    struct upload u = {b, NULL, 0, true};
    put_all(&u);
    if (!ok(b, cudaMalloc((void **)&b->weights, u.used * sizeof(float)), "allocate weights")) {
        b->weights = NULL;
        return false;
    }
    u.base = b->weights;
    put_all(&u);
    /* A copy may return when its bytes are only staged, and our stream does not wait for the default one. */
    return u.is_good && ok(b, cudaDeviceSynchronize(), "copy weights");
}

/* ---- one step ---- */

static int tiles_of(const struct embed_batch *batch, int first, int last)
{
    int tiles = 0;
    for (int s = first; s < last; s++)
        tiles += (batch->offsets[s + 1] - batch->offsets[s] + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES;
    return tiles;
}

static size_t step_bytes(const struct step *s)
{
    return (size_t)s->tile_count * sizeof *s->tiles + (2 * (size_t)s->t + (size_t)s->count + 1) * sizeof(int32_t);
}

static void step_lay_out(struct step *s, void *memory)
{
    s->tiles = (struct attention_tile *)memory;
    s->ids = (int32_t *)(s->tiles + s->tile_count);
    s->positions = s->ids + s->t;
    s->offsets = s->positions + s->t;
}

/* Sequences first .. last - 1; token numbers start at 0 in each step. */
static void step_fill(struct step *s, const struct embed_batch *batch, int first)
{
    int base = batch->offsets[first], tile = 0;
    memcpy(s->ids, batch->ids + base, (size_t)s->t * sizeof *s->ids);
    for (int i = 0; i <= s->count; i++)
        s->offsets[i] = batch->offsets[first + i] - base;
    for (int i = 0; i < s->count; i++) {
        for (int at = s->offsets[i]; at < s->offsets[i + 1]; at++) {
            s->positions[at] = at - s->offsets[i];
            if (s->positions[at] % ATTENTION_QUERIES == 0)
                s->tiles[tile++] = {s->offsets[i], s->offsets[i + 1], at};
        }
    }
}

static bool make_room(struct embed_backend *b, const struct step *s)
{
    size_t t = (size_t)s->t, h = (size_t)b->model->hidden, f = (size_t)b->model->ffn;
    return grow(b, &b->x, t * h * sizeof(float), false) && grow(b, &b->a, t * h * sizeof(float), false) &&
           grow(b, &b->qkv, t * 3 * h * sizeof(float), false) && grow(b, &b->up, t * f * sizeof(float), false) &&
           grow(b, &b->input, step_bytes(s), false) && grow(b, &b->staging, step_bytes(s), true);
}

/* y[t][out] = x[t][in] · w[out][in]ᵀ; cuBLAS counts columns first, so it sees all three transposed. */
static bool multiply(struct embed_backend *b, const float *x, const float *w, int t, int in, int out, float *y)
{
    const float one = 1, zero = 0;
    return blas_ok(b,
                   b->blas->sgemm(b->handle, CUBLAS_OP_T, CUBLAS_OP_N, out, t, in, &one, w, in, x, in, &zero, y, out),
                   "multiply");
}

static bool run_layer(struct embed_backend *b, const struct device_layer *l, const struct step *s)
{
    const struct bert_model *m = b->model;
    int t = s->t, h = m->hidden, f = m->ffn;
    float *x = (float *)b->x.at, *a = (float *)b->a.at, *qkv = (float *)b->qkv.at, *up = (float *)b->up.at;
    return multiply(b, x, l->qkv_w, t, h, 3 * h, qkv) &&
           ok(b, launch_attention(b->stream, qkv, l->qkv_b, s->tiles, s->tile_count, h, m->heads, a), "attention") &&
           multiply(b, a, l->out_w, t, h, h, qkv) &&
           ok(b,
              launch_add_norm(b->stream, x, qkv, l->out_b, t, h, l->attention_norm_w, l->attention_norm_b,
                              m->norm_epsilon),
              "add_norm") &&
           multiply(b, x, l->up_w, t, h, f, up) && ok(b, launch_gelu(b->stream, up, l->up_b, t, f), "gelu") &&
           multiply(b, up, l->down_w, t, f, h, a) &&
           ok(b, launch_add_norm(b->stream, x, a, l->down_b, t, h, l->output_norm_w, l->output_norm_b, m->norm_epsilon),
              "add_norm");
}

/* Ends with the stream empty: the staging memory is free for the next step. */
static bool run_step(struct embed_backend *b, const struct embed_batch *batch, int first, int last)
{
    const struct bert_model *m = b->model;
    int t = batch->offsets[last] - batch->offsets[first], h = m->hidden;
    struct step s = {t, last - first, tiles_of(batch, first, last), NULL, NULL, NULL, NULL};
    if (!make_room(b, &s))
        return false;
    step_lay_out(&s, b->staging.at);
    step_fill(&s, batch, first);
    step_lay_out(&s, b->input.at);
    float *x = (float *)b->x.at;
    if (!ok(b, cudaMemcpyAsync(b->input.at, b->staging.at, step_bytes(&s), cudaMemcpyHostToDevice, b->stream),
            "copy tokens") ||
        !ok(b,
            launch_embeddings(b->stream, s.ids, s.positions, t, h, b->word, b->position, b->type, b->norm_w, b->norm_b,
                              m->norm_epsilon, x),
            "embeddings"))
        return false;
    for (int i = 0; i < m->layers; i++) {
        if (!run_layer(b, &b->layers[i], &s))
            return false;
    }
    float *vectors = (float *)b->vectors.at + (size_t)first * (size_t)h;
    return ok(b,
              launch_pool(b->stream, x, s.offsets, s.count, h, m->pooling == EMBED_POOLING_MEAN, m->normalise != 0,
                          vectors),
              "pool") &&
           ok(b, cudaStreamSynchronize(b->stream), "synchronize");
}

static bool run_all(struct embed_backend *b, const struct embed_batch *batch)
{
    size_t bytes = (size_t)batch->count * (size_t)b->model->hidden * sizeof(float);
    if (!ok(b, cudaSetDevice(b->device), "set device") || !grow(b, &b->vectors, bytes, false) ||
        !grow(b, &b->answer, bytes, true))
        return false;
    for (int first = 0, last; first < batch->count; first = last) {
        for (last = first + 1;
             last < batch->count && batch->offsets[last + 1] - batch->offsets[first] <= b->step_tokens;)
            last++;
        if (!run_step(b, batch, first, last))
            return false;
    }
    return ok(b, cudaMemcpyAsync(b->answer.at, b->vectors.at, bytes, cudaMemcpyDeviceToHost, b->stream),
              "copy vectors") &&
           ok(b, cudaStreamSynchronize(b->stream), "synchronize");
}

static enum embed_result run(struct embed_backend *b, const struct embed_batch *batch, float *vectors)
{
    if (b->outcome == EMBED_DEVICE_LOST)
        return EMBED_DEVICE_LOST;
    if (!embed_batch_is_valid(b->model, batch))
        return EMBED_BAD_INPUT;
    if (batch->count == 0)
        return EMBED_OK;
    b->outcome = EMBED_OK;
    if (!run_all(b, batch)) {
        /* What was taken goes back, so that half of the batch, or another process, has room. The stream may still be at
         * work with it; cudaFree waits for that. */
        if (b->outcome == EMBED_OUT_OF_MEMORY && ok(b, cudaStreamSynchronize(b->stream), "synchronize")) {
            release(b);
            b->outcome = EMBED_OUT_OF_MEMORY;
        }
        return b->outcome;
    }
    memcpy(vectors, b->answer.at, (size_t)batch->count * (size_t)b->model->hidden * sizeof(float));
    return EMBED_OK;
}

/* ---- life ---- */

/* Also of what was opened halfway, and of a lost device: errors can tell nothing new. */
static void close_backend(struct embed_backend *b)
{
    if (!b)
        return;
    (void)cudaSetDevice(b->device);
    if (b->stream)
        (void)cudaStreamSynchronize(b->stream);
    release(b);
    if (b->handle)
        (void)b->blas->destroy(b->handle);
    (void)cudaFree(b->weights);
    if (b->stream)
        (void)cudaStreamDestroy(b->stream);
    (void)cudaGetLastError();
    free(b->layers);
    free(b);
}

/* How many GPUs answer; 0 with a sentence why. */
static int count_devices(const char **out_problem)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        *out_problem = cudaGetErrorString(error);
        return 0;
    }
    if (count <= 0)
        *out_problem = "there is no GPU";
    return count > 0 && blas_load(out_problem) ? count : 0;
}

static int device_count(void)
{
    const char *problem = NULL;
    return count_devices(&problem);
}

static bool open_device(struct embed_backend *b)
{
    struct cudaDeviceProp properties;
    if (!ok(b, cudaSetDevice(b->device), "set device") ||
        !ok(b, cudaGetDeviceProperties(&properties, b->device), "device properties"))
        return false;
    snprintf(b->name, sizeof b->name, "%s", properties.name);
    if (!ok(b, cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking), "create stream")) {
        b->stream = NULL;
        return false;
    }
    if (!blas_ok(b, b->blas->create(&b->handle), "create cuBLAS")) {
        b->handle = NULL;
        return false;
    }
    return blas_ok(b, b->blas->set_stream(b->handle, b->stream), "cuBLAS stream") &&
           blas_ok(b, b->blas->set_math_mode(b->handle, CUBLAS_DEFAULT_MATH), "cuBLAS math mode");
}

static int step_tokens(void)
{
    const char *set = getenv("OPSTREAM_CUDA_STEP_TOKENS"); /* for tests and comparisons */
    int tokens = set ? atoi(set) : 0;
    return tokens > 0 && tokens < STEP_TOKENS ? tokens : STEP_TOKENS;
}

/* One token through the whole model: a GPU for which the plugin holds no code shows itself now, and the first text
 * finds all in place. */
static bool warm_up(struct embed_backend *b)
{
    const int32_t id = 0, offsets[] = {0, 1};
    const struct embed_batch batch = {&id, offsets, 1};
    return run_all(b, &batch);
}

static const char *unsuitable(const struct bert_model *m)
{
    if (m->hidden / m->heads > LARGEST_HEAD)
        return "attention heads of more than 128 columns are not supported";
    return NULL;
}

static struct embed_backend *open_backend(const struct bert_model *model, int device, int threads, char *error,
                                          size_t error_size)
{
    (void)threads;
    const char *problem = NULL;
    int count = count_devices(&problem);
    if (count > 0 && (device < 0 || device >= count))
        problem = "there is no GPU of this number";
    else if (count > 0)
        problem = model ? unsuitable(model) : "there is no model";
    if (problem) {
        snprintf(error, error_size, "cuda: %s", problem);
        return NULL;
    }
    struct embed_backend *b = (struct embed_backend *)calloc(1, sizeof *b);
    struct device_layer *layers = (struct device_layer *)calloc((size_t)model->layers, sizeof *layers);
    if (!b || !layers)
        abort(); /* as everywhere: no memory ends the process */
    b->model = model;
    b->blas = blas_load(&problem);
    b->device = device;
    b->layers = layers;
    b->step_tokens = step_tokens();
    if (open_device(b) && upload_weights(b) && warm_up(b))
        return b;
    snprintf(error, error_size, "cuda: GPU %d: %s", device, b->reason ? b->reason : "failed");
    close_backend(b);
    return NULL;
}

static const char *device_name(const struct embed_backend *b)
{
    return b->name;
}

extern "C" __attribute__((visibility("default"))) const struct embed_backend_api *opstream_embed_backend(void)
{
    static const struct embed_backend_api api = {EMBED_BACKEND_ABI, "cuda",        device_count, open_backend, run,
                                                 device_name,       close_backend, nullptr};
    return &api;
}
