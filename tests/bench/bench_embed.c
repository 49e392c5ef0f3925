/* Tokens a second of a backend on chunks of about 225 tokens and on mixed lengths, and the time of one query: alone,
 * and while bulk batches of about 50 ms are computed, in turn with them and beside them. Also per second of CPU time,
 * which other programs of a busy machine disturb less. bench_embed [backend [threads]] */
#include "common/arena.h"
#include "common/clock.h"
#include "worker/embed/background.h"
#include "worker/embed/model.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TEXTS = 64, QUERIES = 50, BULK_TOKENS = 400, QUERY_PAUSE_US = 20000 };

static uint32_t seed = 1;

static int random_up_to(int n)
{
    seed = seed * 1664525u + 1013904223u;
    return (int)((uint64_t)(seed >> 8) * (uint64_t)n >> 24);
}

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double run_set(const struct embed_backend_api *api, struct embed_backend *b, const struct embed_model *m,
                      int shortest, int longest, double *out_per_cpu)
{
    int32_t offsets[TEXTS + 1] = {0}, *ids = must_malloc(TEXTS * 512 * sizeof *ids);
    float *vectors = must_malloc(TEXTS * (size_t)m->dim * sizeof *vectors);
    for (int i = 0; i < TEXTS; i++)
        offsets[i + 1] = offsets[i] + shortest + random_up_to(longest - shortest + 1);
    for (int i = 0; i < offsets[TEXTS]; i++)
        ids[i] = 1000 + random_up_to(28000);
    struct embed_batch batch = {ids, offsets, TEXTS};
    double best = 0;
    *out_per_cpu = 0;
    for (int round = 0; round < 4; round++) {
        int64_t start = clock_monotonic_us();
        double cpu_start = cpu_us();
        if (api->run(b, &batch, vectors) != EMBED_OK)
            return -1;
        double rate = offsets[TEXTS] * 1e6 / (double)(clock_monotonic_us() - start);
        best = rate > best ? rate : best;
        double per_cpu = offsets[TEXTS] * 1e6 / (cpu_us() - cpu_start);
        *out_per_cpu = per_cpu > *out_per_cpu ? per_cpu : *out_per_cpu;
    }
    free(ids);
    free(vectors);
    return best;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Bulk batches, one after another, until told to stop. */
struct bulk {
    const struct embed_backend_api *api;
    struct embed_backend *backend;
    bool is_beside;        /* else queries and batches take turns */
    pthread_mutex_t turns; /* held during a run */
    atomic_int waiting;    /* queries */
    atomic_bool is_over;
    int64_t tokens, took_us;
};

static void *run_bulk(void *cls)
{
    struct bulk *bulk = cls;
    static int32_t ids[BULK_TOKENS];
    static float vectors[2 * 4096];
    for (int i = 0; i < BULK_TOKENS; i++)
        ids[i] = 1000 + i;
    const struct embed_batch batch = {ids, (int32_t[]){0, BULK_TOKENS / 2, BULK_TOKENS}, 2};
    if (bulk->is_beside)
        thread_into_background();
    int64_t start = clock_monotonic_us();
    while (!bulk->is_over) {
        while (!bulk->is_beside && bulk->waiting > 0)
            usleep(10); /* queries first */
        pthread_mutex_lock(&bulk->turns);
        if (bulk->api->run(bulk->backend, &batch, vectors) != EMBED_OK)
            abort();
        pthread_mutex_unlock(&bulk->turns);
        bulk->tokens += BULK_TOKENS;
    }
    bulk->took_us = clock_monotonic_us() - start;
    return NULL;
}

static void query(const struct embed_backend_api *api, struct embed_backend *b, const struct embed_model *m,
                  struct bulk *bulk)
{
    float vector[4096];
    struct token_list ids = {0};
    const char *text = "how do I install a package from the archive?";
    tokenizer_encode(m->tokenizer, text, strlen(text), (size_t)m->max_tokens, &ids);
    const struct embed_batch batch = {ids.ids, (int32_t[]){0, (int32_t)ids.count}, 1};
    bool takes_turns = bulk && !bulk->is_beside;
    if (takes_turns) {
        bulk->waiting++;
        pthread_mutex_lock(&bulk->turns);
        bulk->waiting--;
    }
    if ((bulk && bulk->is_beside ? api->run_beside : api->run)(b, &batch, vector) != EMBED_OK)
        abort();
    if (takes_turns)
        pthread_mutex_unlock(&bulk->turns);
    token_list_free(&ids);
}

static void time_queries(const struct embed_backend_api *api, struct embed_backend *b, const struct embed_model *m,
                         struct bulk *bulk)
{
    int64_t times[QUERIES];
    pthread_t thread;
    if (bulk) {
        pthread_mutex_init(&bulk->turns, NULL);
        if (pthread_create(&thread, NULL, run_bulk, bulk) != 0)
            abort();
    }
    for (int i = 0; i < QUERIES; i++) {
        if (bulk)
            usleep(QUERY_PAUSE_US);
        int64_t start = clock_monotonic_us();
        query(api, b, m, bulk);
        times[i] = clock_monotonic_us() - start;
    }
    qsort(times, QUERIES, sizeof *times, compare);
    printf("  one query, %s %8.2f ms p50, %8.2f ms p95",
           !bulk             ? "alone:         "
           : bulk->is_beside ? "beside bulk:   "
                             : "in turn:       ",
           (double)times[QUERIES / 2] / 1000, (double)times[QUERIES * 95 / 100] / 1000);
    if (bulk) {
        bulk->is_over = true;
        pthread_join(thread, NULL);
        printf(", bulk meanwhile %.0f tokens/s", (double)bulk->tokens * 1e6 / (double)bulk->took_us);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    char error[256], folder[512];
    const char *models = getenv("OPSTREAM_MODEL_DIR");
    snprintf(folder, sizeof folder, "%s/all-MiniLM-L6-v2", models ? models : "build/models");
    int64_t begun = clock_monotonic_us();
    struct embed_model *m = embed_model_open(folder, error, sizeof error);
    const struct embed_backend_api *api = embed_backend_find(argc > 1 ? argv[1] : "cpu");
    struct embed_backend *b = m && api ? api->open(&m->bert, 0, argc > 2 ? atoi(argv[2]) : 0, error, sizeof error)
                                       : NULL;
    if (!b) {
        fprintf(stderr, "cannot open: %s\n", error);
        return 1;
    }
    printf("%s (%s): opened in %.0f ms\n", api->name, api->device_name(b),
           (double)(clock_monotonic_us() - begun) / 1000);
    double per_cpu, rate = run_set(api, b, m, 200, 250, &per_cpu);
    printf("  chunks of 200-250 tokens: %8.0f tokens/s, %8.0f a CPU second\n", rate, per_cpu);
    rate = run_set(api, b, m, 8, 256, &per_cpu);
    printf("  mixed, 8-256 tokens:      %8.0f tokens/s, %8.0f a CPU second\n", rate, per_cpu);
    time_queries(api, b, m, NULL);
    if (api->run_beside) {
        time_queries(api, b, m, &(struct bulk){.api = api, .backend = b});
        time_queries(api, b, m, &(struct bulk){.api = api, .backend = b, .is_beside = true});
    }
    api->close(b);
    embed_model_close(m);
    return 0;
}
