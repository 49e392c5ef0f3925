/* One projection of a file of vectors, as projection_compute() does it: bench_projection FILE POINTS DIM METHOD
 * [THREADS] [cosine|euclidean] [SEED]. The file holds float32, row by row. Writes float32 x, y to FILE.METHOD and a
 * line of JSON. */
#include "common/clock.h"
#include "worker/projection/projection.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static bool read_points(const char *path, struct matrix *m)
{
    FILE *file = fopen(path, "rb");
    bool is_read = file != NULL;
    for (size_t i = 0; is_read && i < m->rows; i++)
        is_read = fread(matrix_row(m, i), sizeof(float), m->cols, file) == m->cols;
    if (file)
        fclose(file);
    return is_read;
}

static double cpu_seconds(const struct rusage *u)
{
    return (double)u->ru_utime.tv_sec + (double)u->ru_utime.tv_usec / 1e6 + (double)u->ru_stime.tv_sec +
           (double)u->ru_stime.tv_usec / 1e6;
}

/* Of this program: getrusage() counts what the process had before exec, too. */
static double peak_mb(void)
{
    char line[256];
    double kb = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtod(line + 6, NULL);
    }
    if (status)
        fclose(status);
    return kb / 1024;
}

struct stages {
    const char *last;
    int64_t since_ms;
};

static bool watch(void *context, const char *stage, double fraction)
{
    struct stages *s = context;
    int64_t now = clock_monotonic_ms();
    (void)fraction;
    if (getenv("STAGES") && s->last != stage)
        fprintf(stderr, "%s: after %.2f s\n", stage, (double)(now - s->since_ms) / 1000);
    s->last = stage;
    return false;
}

int main(int argc, char **argv)
{
    struct projection_options o = {
        .n_neighbors = 15, .min_dist = 0.1, .spread = 1, .perplexity = 30, .is_cosine = true};
    if (argc < 5 || !projection_method_parse(argv[4], &o.method)) {
        fprintf(stderr, "usage: bench_projection FILE POINTS DIM pca|umap|tsne [THREADS] [cosine|euclidean] [SEED]\n");
        return 2;
    }
    int threads = argc > 5 ? atoi(argv[5]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    o.is_cosine = argc <= 6 || strcmp(argv[6], "cosine") == 0;
    o.seed = argc > 7 ? strtoull(argv[7], NULL, 10) : 0;
    struct matrix points = matrix_new(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    if (!read_points(argv[1], &points)) {
        fprintf(stderr, "bench_projection: %s does not hold that many vectors\n", argv[1]);
        return 1;
    }
    float *positions = calloc(points.rows + 1, 2 * sizeof *positions);
    struct stages stages = {"", clock_monotonic_ms()};
    struct projection_figures f;
    int64_t began = clock_monotonic_ms();
    struct crew *crew = crew_new(threads, watch, &stages);
    if (!projection_compute(crew, &points, &o, positions, &f))
        return 1;
    double seconds = (double)(clock_monotonic_ms() - began) / 1000;
    crew_free(crew);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\":%.3f,\"cpu_seconds\":%.2f,\"peak_mb\":%.0f,\"estimated_mb\":%.0f,\"trustworthiness\":%.5f,"
           "\"divergence\":%.5f}\n",
           seconds, cpu_seconds(&usage), peak_mb(),
           (double)projection_bytes(points.rows, points.cols, &o, threads) / 1e6, f.trustworthiness,
           f.divergence == f.divergence ? f.divergence : 0);
    char path[4096];
    snprintf(path, sizeof path, "%s.%s", argv[1], argv[4]);
    FILE *out = fopen(path, "wb");
    bool is_written = out && fwrite(positions, 2 * sizeof *positions, points.rows, out) == points.rows;
    if (out)
        fclose(out);
    free(positions);
    matrix_free(&points);
    return is_written ? 0 : 1;
}
