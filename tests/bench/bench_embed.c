/* Tokens a second of a backend on chunks of about 225 tokens and on mixed lengths, and the time of one query. Also per
 * second of CPU time, which other programs of a busy machine disturb less. bench_embed [backend [threads]] */
#include "common/arena.h"
#include "common/clock.h"
#include "worker/embed/model.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXTS = 64, QUERIES = 50 };

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
    int64_t times[QUERIES];
    for (int i = 0; i < QUERIES; i++) {
        float vector[4096];
        struct token_list ids = {0};
        const char *query = "how do I install a package from the archive?";
        int64_t start = clock_monotonic_us();
        tokenizer_encode(m->tokenizer, query, strlen(query), (size_t)m->max_tokens, &ids);
        if (api->run(b, &(struct embed_batch){ids.ids, (int32_t[]){0, (int32_t)ids.count}, 1}, vector) != EMBED_OK)
            return 1;
        times[i] = clock_monotonic_us() - start;
        token_list_free(&ids);
    }
    qsort(times, QUERIES, sizeof *times, compare);
    printf("  one query:                %8.2f ms p50\n", (double)times[QUERIES / 2] / 1000);
    api->close(b);
    embed_model_close(m);
    return 0;
}
