/* The fast backend for CPUs: sequences packed without padding, cut into blocks of whole sequences that fit the cache
 * and go through all layers on one thread; weights packed once into panels; one pool of threads that sleeps when there
 * is nothing to do. */
#include "common/arena.h"
#include "worker/embed/backend.h"
#include "worker/embed/background.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Vectors are passed between static inline functions only, so their calling convention does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"

enum { BLOCK_TOKENS = 256, ROW_TILE = 64, MOST_THREADS = 64 };

/* w[n][k] as panels [k][columns], zero-padded to whole panels; so is the bias. */
struct packed {
    int n, k;
    float *panels;
    float *bias;
};

struct kernels {
    const char *name;
    int columns; /* of a panel */
    void (*linear)(const struct packed *w, const float *x, int rows, float *y);
    void (*gelu)(float *x, size_t n);
    void (*add_norm)(float *x, const float *y, const float *w, const float *b, float epsilon, int rows, int h);
    void (*attention)(const float *qkv, int t, int h, int heads, float *room, float *out);
};

#if defined(__x86_64__)
#define KERNEL __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma")))
#define KERNEL_NAME "avx512"
#define NAME(x) x##_avx512
#define MR 12
#define NV 2
#include "worker/embed/cpu_kernels.h"

#define KERNEL __attribute__((target("avx2,fma")))
#define KERNEL_NAME "avx2"
#define NAME(x) x##_avx2
#define MR 6
#define NV 1
#include "worker/embed/cpu_kernels.h"
#endif

#define KERNEL
#define KERNEL_NAME "generic"
#define NAME(x) x##_generic
#define MR 4
#define NV 1
#include "worker/embed/cpu_kernels.h"

static const struct kernels *choose_kernels(void)
{
    const char *wanted = getenv("OPSTREAM_CPU_KERNELS"); /* for tests and comparisons */
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    if (has_avx512 && (!wanted || strcmp(wanted, "avx512") == 0))
        return &kernels_avx512;
    if (has_avx2 && (!wanted || strcmp(wanted, "generic") != 0))
        return &kernels_avx2;
#endif
    (void)wanted;
    return &kernels_generic;
}

struct packed_layer {
    struct packed qkv, out, up, down;
};

/* A thread's own memory for one block. */
struct room {
    float *x, *qkv, *a, *up;
    float *attention;
    int tokens;
};

struct embed_backend {
    const struct bert_model *model;
    const struct kernels *kernels;
    struct packed_layer *layers;
    struct room rooms[MOST_THREADS];
    struct room beside; /* of run_beside */
    char name[48];

    /* The pool: a run is announced by `round`, its blocks are taken from `next`. */
    pthread_mutex_t lock;
    pthread_cond_t start, end;
    pthread_t threads[MOST_THREADS];
    int thread_count; /* the caller is one of them */
    uint64_t round;
    int working;
    bool is_closing;

    /* The run. */
    const struct embed_batch *batch;
    float *vectors;
    int *blocks; /* [block_count + 1]: first sequence of each */
    int block_count;
    atomic_int next;
};

struct member {
    struct embed_backend *backend;
    int index;
};

/* ---- packing ---- */

static float *aligned_floats(size_t count)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, (count + 16) * sizeof(float)) != 0)
        abort();
    return p;
}

static void pack(struct packed *out, const float *const *w, const float *const *b, int parts, int n, int k, int columns)
{
    int panels = (n * parts + columns - 1) / columns;
    out->n = n * parts;
    out->k = k;
    out->panels = aligned_floats((size_t)panels * (size_t)k * (size_t)columns);
    out->bias = aligned_floats((size_t)panels * (size_t)columns);
    for (int p = 0; p < panels; p++) {
        for (int c = 0; c < columns; c++) {
            int row = p * columns + c;
            const float *from = row < out->n ? w[row / n] + (size_t)(row % n) * (size_t)k : NULL;
            out->bias[row] = from ? b[row / n][row % n] : 0;
            for (int i = 0; i < k; i++)
                out->panels[((size_t)p * (size_t)k + (size_t)i) * (size_t)columns + (size_t)c] = from ? from[i] : 0;
        }
    }
}

static void packed_done(struct packed *p)
{
    free(p->panels);
    free(p->bias);
}

static void pack_layer(struct embed_backend *b, const struct bert_layer *l, struct packed_layer *out)
{
    int h = b->model->hidden, f = b->model->ffn, columns = b->kernels->columns;
    pack(&out->qkv, (const float *[]){l->query_w, l->key_w, l->value_w},
         (const float *[]){l->query_b, l->key_b, l->value_b}, 3, h, h, columns);
    pack(&out->out, &l->attention_out_w, &l->attention_out_b, 1, h, h, columns);
    pack(&out->up, &l->up_w, &l->up_b, 1, f, h, columns);
    pack(&out->down, &l->down_w, &l->down_b, 1, h, f, columns);
}

/* ---- one block ---- */

static void room_done(struct room *r)
{
    free(r->x);
    free(r->qkv);
    free(r->a);
    free(r->up);
    free(r->attention);
    memset(r, 0, sizeof *r);
}

static void room_for(struct room *r, const struct bert_model *m, int tokens)
{
    if (tokens <= r->tokens)
        return;
    room_done(r);
    size_t t = (size_t)tokens, h = (size_t)m->hidden, padded = ((size_t)m->max_positions + 15) & ~(size_t)15;
    r->x = aligned_floats(t * h);
    r->qkv = aligned_floats(t * 3 * h);
    r->a = aligned_floats(t * h);
    r->up = aligned_floats(ROW_TILE * (size_t)m->ffn);
    r->attention = aligned_floats((h / (size_t)m->heads + 4) * padded);
    r->tokens = tokens;
}

static void embeddings(const struct embed_backend *b, const struct embed_batch *batch, int first, int last, float *x)
{
    const struct bert_model *m = b->model;
    size_t h = (size_t)m->hidden;
    float *row = x;
    for (int s = first; s < last; s++) {
        for (int i = batch->offsets[s]; i < batch->offsets[s + 1]; i++, row += h) {
            const float *word = m->word_embeddings + (size_t)batch->ids[i] * h;
            const float *position = m->position_embeddings + (size_t)(i - batch->offsets[s]) * h;
            for (size_t k = 0; k < h; k++)
                row[k] = word[k] + position[k] + m->type_embeddings[k];
        }
    }
    b->kernels->add_norm(x, NULL, m->embeddings_norm_w, m->embeddings_norm_b, m->norm_epsilon,
                         batch->offsets[last] - batch->offsets[first], m->hidden);
}

/* The feed-forward part goes through in tiles of rows, whose up-projection stays in cache. */
static void feed_forward(const struct embed_backend *b, const struct packed_layer *p, const struct bert_layer *l,
                         struct room *r, int tokens)
{
    const struct bert_model *m = b->model;
    for (int from = 0; from < tokens; from += ROW_TILE) {
        int rows = tokens - from < ROW_TILE ? tokens - from : ROW_TILE;
        float *x = r->x + (size_t)from * (size_t)m->hidden, *y = r->a + (size_t)from * (size_t)m->hidden;
        b->kernels->linear(&p->up, x, rows, r->up);
        b->kernels->gelu(r->up, (size_t)rows * (size_t)m->ffn);
        b->kernels->linear(&p->down, r->up, rows, y);
        b->kernels->add_norm(x, y, l->output_norm_w, l->output_norm_b, m->norm_epsilon, rows, m->hidden);
    }
}

static void pool(const struct bert_model *m, const float *x, int t, float *vector)
{
    int h = m->hidden;
    memcpy(vector, x, (size_t)h * sizeof(float));
    if (m->pooling == EMBED_POOLING_MEAN) {
        for (int i = 1; i < t; i++) {
            for (int k = 0; k < h; k++)
                vector[k] += x[(size_t)i * (size_t)h + (size_t)k];
        }
        for (int k = 0; k < h; k++)
            vector[k] /= (float)t;
    }
    double norm = 0;
    for (int k = 0; k < h; k++)
        norm += (double)vector[k] * vector[k];
    for (int k = 0; m->normalise && norm > 0 && k < h; k++)
        vector[k] = (float)(vector[k] / sqrt(norm));
}

static void run_block(const struct embed_backend *b, struct room *r, const struct embed_batch *batch, int first,
                      int last, float *vectors)
{
    const struct bert_model *m = b->model;
    int begin = batch->offsets[first], tokens = batch->offsets[last] - begin;
    size_t h = (size_t)m->hidden;
    room_for(r, m, tokens);
    embeddings(b, batch, first, last, r->x);
    for (int i = 0; i < m->layers; i++) {
        const struct packed_layer *p = &b->layers[i];
        const struct bert_layer *l = &m->layer[i];
        b->kernels->linear(&p->qkv, r->x, tokens, r->qkv);
        for (int s = first; s < last; s++) {
            size_t at = (size_t)(batch->offsets[s] - begin);
            b->kernels->attention(r->qkv + at * 3 * h, batch->offsets[s + 1] - batch->offsets[s], m->hidden, m->heads,
                                  r->attention, r->a + at * h);
        }
        b->kernels->linear(&p->out, r->a, tokens, r->qkv);
        b->kernels->add_norm(r->x, r->qkv, l->attention_norm_w, l->attention_norm_b, m->norm_epsilon, tokens,
                             m->hidden);
        feed_forward(b, p, l, r, tokens);
    }
    for (int s = first; s < last; s++)
        pool(m, r->x + (size_t)(batch->offsets[s] - begin) * h, batch->offsets[s + 1] - batch->offsets[s],
             vectors + (size_t)s * h);
}

/* ---- the pool ---- */

static void work(struct embed_backend *b, int index)
{
    for (int i; (i = atomic_fetch_add(&b->next, 1)) < b->block_count;)
        run_block(b, &b->rooms[index], b->batch, b->blocks[i], b->blocks[i + 1], b->vectors);
}

static void *member_main(void *cls)
{
    struct member me = *(struct member *)cls;
    free(cls);
    struct embed_backend *b = me.backend;
    uint64_t seen = 0;
    thread_into_background(); /* the threads that serve questions come first */
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (b->round == seen && !b->is_closing)
            pthread_cond_wait(&b->start, &b->lock);
        if (b->is_closing)
            break;
        seen = b->round;
        pthread_mutex_unlock(&b->lock);
        work(b, me.index);
        pthread_mutex_lock(&b->lock);
        if (--b->working == 0)
            pthread_cond_signal(&b->end);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

/* Whole sequences, in order, up to BLOCK_TOKENS each; smaller blocks when there would be fewer of them than threads. */
static void cut_blocks(struct embed_backend *b)
{
    const struct embed_batch *batch = b->batch;
    int share = batch->offsets[batch->count] / b->thread_count + 1;
    int most = share < BLOCK_TOKENS ? share : BLOCK_TOKENS;
    b->blocks = must_realloc(b->blocks, ((size_t)batch->count + 1) * sizeof *b->blocks);
    b->block_count = 0;
    b->blocks[0] = 0;
    for (int s = 0, tokens = 0; s < batch->count; s++) {
        int n = batch->offsets[s + 1] - batch->offsets[s];
        if (tokens > 0 && tokens + n > most) {
            b->blocks[++b->block_count] = s;
            tokens = 0;
        }
        tokens += n;
    }
    b->blocks[++b->block_count] = batch->count;
}

static enum embed_result run(struct embed_backend *b, const struct embed_batch *batch, float *vectors)
{
    if (!embed_batch_is_valid(b->model, batch))
        return EMBED_BAD_INPUT;
    if (batch->count == 0)
        return EMBED_OK;
    b->batch = batch;
    b->vectors = vectors;
    cut_blocks(b);
    atomic_store(&b->next, 0);
    if (b->block_count == 1 || b->thread_count == 1) {
        work(b, 0);
        return EMBED_OK;
    }
    pthread_mutex_lock(&b->lock);
    b->round++;
    b->working = b->thread_count - 1;
    pthread_cond_broadcast(&b->start);
    pthread_mutex_unlock(&b->lock);
    work(b, 0);
    pthread_mutex_lock(&b->lock);
    while (b->working > 0)
        pthread_cond_wait(&b->end, &b->lock);
    pthread_mutex_unlock(&b->lock);
    return EMBED_OK;
}

/* On the caller's thread alone: the pool's belong to the run. */
static enum embed_result run_beside(struct embed_backend *b, const struct embed_batch *batch, float *vectors)
{
    if (!embed_batch_is_valid(b->model, batch))
        return EMBED_BAD_INPUT;
    for (int first = 0, last; first < batch->count; first = last) {
        for (last = first + 1; last < batch->count; last++) {
            if (batch->offsets[last + 1] - batch->offsets[first] > BLOCK_TOKENS)
                break;
        }
        run_block(b, &b->beside, batch, first, last, vectors);
    }
    return EMBED_OK;
}

/* ---- life ---- */

static void close_backend(struct embed_backend *b)
{
    if (!b)
        return;
    pthread_mutex_lock(&b->lock);
    b->is_closing = true;
    pthread_cond_broadcast(&b->start);
    pthread_mutex_unlock(&b->lock);
    for (int i = 1; i < b->thread_count; i++)
        pthread_join(b->threads[i], NULL);
    for (int i = 0; i < b->model->layers; i++) {
        packed_done(&b->layers[i].qkv);
        packed_done(&b->layers[i].out);
        packed_done(&b->layers[i].up);
        packed_done(&b->layers[i].down);
    }
    for (int i = 0; i < MOST_THREADS; i++)
        room_done(&b->rooms[i]);
    room_done(&b->beside);
    pthread_cond_destroy(&b->start);
    pthread_cond_destroy(&b->end);
    pthread_mutex_destroy(&b->lock);
    free(b->blocks);
    free(b->layers);
    free(b);
}

static struct embed_backend *open_backend(const struct bert_model *model, int device, int threads, char *error,
                                          size_t error_size)
{
    (void)device;
    struct embed_backend *b = must_calloc(1, sizeof *b);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = threads > 0 ? threads : cores > 0 ? (int)cores : 1;
    b->model = model;
    b->kernels = choose_kernels();
    b->layers = must_calloc((size_t)model->layers, sizeof *b->layers);
    for (int i = 0; i < model->layers; i++)
        pack_layer(b, &model->layer[i], &b->layers[i]);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->start, NULL);
    pthread_cond_init(&b->end, NULL);
    b->thread_count = 1;
    for (int i = 1; i < wanted && i < MOST_THREADS; i++) {
        struct member *m = must_calloc(1, sizeof *m);
        *m = (struct member){b, i};
        if (pthread_create(&b->threads[i], NULL, member_main, m) != 0) {
            free(m);
            snprintf(error, error_size, "thread %d cannot be started", i);
            close_backend(b);
            return NULL;
        }
        b->thread_count++;
    }
    snprintf(b->name, sizeof b->name, "%s, %d threads", b->kernels->name, b->thread_count);
    return b;
}

static int device_count(void)
{
    return 1;
}

static const char *device_name(const struct embed_backend *b)
{
    return b->name;
}

const struct embed_backend_api *embed_backend_cpu(void)
{
    static const struct embed_backend_api api = {EMBED_BACKEND_ABI, "cpu",         device_count, open_backend, run,
                                                 device_name,       close_backend, run_beside};
    return &api;
}
