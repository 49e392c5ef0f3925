/* Two benchmarks of one dataset side by side: for each pair of configurations the means over the queries that both
 * measured, their difference, and how likely chance alone makes one as large. */
#include "api/router.h"
#include "common/config.h"
#include "common/ir/significance.h"
#include "common/message.h"
#include "common/store/benchmark_store.h"

#include <string.h>

enum { MOST_PAIRS = 16, MOST_ROUNDS = 10000, LEAST_ROUNDS = 1000, MOST_THROWS = 5000000 };

static const struct {
    const char *name, *a, *b;
} metrics[] = {
    {"precision", "precision_a", "precision_b"},
    {"recall", "recall_a", "recall_b"},
    {"mrr", "mrr_a", "mrr_b"},
    {"ndcg", "ndcg_a", "ndcg_b"},
    {"map", "map_a", "map_b"},
};

struct side {
    PGresult *benchmark, *configurations;
};

static void free_side(struct side *s)
{
    PQclear(s->benchmark);
    PQclear(s->configurations);
}

static enum status load_side(struct request *r, const char *uuid, struct side *out)
{
    if (!uuid_is_valid(uuid))
        return fail(r->sc, STATUS_INVALID, "ids names two benchmarks by their UUIDs: '%s' is none", uuid);
    enum status s = benchmark_store_find(r->sc, r->db, uuid, r->user.id, r->user.is_superuser, &out->benchmark);
    if (s == STATUS_OK)
        s = benchmark_store_configurations(r->sc, r->db, db_int(out->benchmark, 0, "row_id", 0), &out->configurations);
    return s;
}

/* ---- which with which ---- */

struct pair {
    int a, b;
};

static bool is_measured(const struct side *s, int row)
{
    return db_text(s->configurations, row, "metrics") != NULL;
}

static bool is_alike(const struct side *a, int i, const struct side *b, int j)
{
    const char *x = db_text(a->configurations, i, "chunking"), *y = db_text(b->configurations, j, "chunking");
    return db_int(a->configurations, i, "k", 0) == db_int(b->configurations, j, "k", 0) &&
           strcmp(db_text(a->configurations, i, "mode"), db_text(b->configurations, j, "mode")) == 0 &&
           strcmp(x ? x : "", y ? y : "") == 0;
}

static enum status read_number(struct request *r, const char *word, const struct side *s, int *out)
{
    char *end;
    long n = strtol(word, &end, 10);
    if (*end || end == word || n < 0 || n >= PQntuples(s->configurations))
        return fail(r->sc, STATUS_INVALID, "configurations names one of each benchmark, as 0,1: '%s' is none of '%s'",
                    word, db_text(s->benchmark, 0, "name"));
    *out = (int)n;
    return STATUS_OK;
}

static enum status named_pair(struct request *r, const char *names, const struct side *a, const struct side *b,
                              struct pair *out)
{
    size_t count = 0;
    char **words = settings_list(&r->sc->arena, names, ',', &count);
    if (!words || count != 2)
        return fail(r->sc, STATUS_INVALID, "configurations names two, one of each benchmark, as 0,1");
    enum status s = read_number(r, words[0], a, &out->a);
    if (s == STATUS_OK)
        s = read_number(r, words[1], b, &out->b);
    if (s == STATUS_OK && (!is_measured(a, out->a) || !is_measured(b, out->b)))
        return fail(r->sc, STATUS_INVALID, "One of these configurations has not been measured");
    return s;
}

static enum status choose_pairs(struct request *r, const struct side *a, const struct side *b, struct pair *out,
                                size_t *out_count)
{
    const char *names = request_query(r, "configurations");
    size_t count = 0;
    if (names && *names) {
        *out_count = 1;
        return named_pair(r, names, a, b, out);
    }
    for (int i = 0; i < PQntuples(a->configurations); i++) {
        for (int j = 0; j < PQntuples(b->configurations) && count < MOST_PAIRS; j++) {
            if (is_alike(a, i, b, j) && is_measured(a, i) && is_measured(b, j))
                out[count++] = (struct pair){i, j};
        }
    }
    *out_count = count;
    if (count == 0)
        return fail(
            r->sc, STATUS_INVALID,
            "The benchmarks have no measured configuration in common; say which to compare: configurations=0,0");
    return STATUS_OK;
}

/* ---- the comparison ---- */

static void write_metric(struct request *r, struct text *t, const PGresult *rows, size_t metric)
{
    int count = PQntuples(rows);
    double *differences = arena_array(&r->sc->arena, (size_t)count + 1, sizeof *differences), a = 0, b = 0;
    int better = 0, worse = 0;
    for (int i = 0; i < count; i++) {
        double x = db_real(rows, i, metrics[metric].a, 0), y = db_real(rows, i, metrics[metric].b, 0);
        differences[i] = y - x;
        a += x;
        b += y;
        better += y > x;
        worse += y < x;
    }
    size_t rounds = count > 0 ? (size_t)(MOST_THROWS / count) : 0;
    rounds = rounds < LEAST_ROUNDS ? LEAST_ROUNDS : rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds;
    json_open(t, metrics[metric].name, '{');
    json_real(t, "a", count ? a / count : 0);
    json_real(t, "b", count ? b / count : 0);
    json_real(t, "difference", count ? (b - a) / count : 0);
    json_real(t, "p_value", ir_randomisation_test(differences, (size_t)count, rounds));
    json_int(t, "queries_better", better);
    json_int(t, "queries_worse", worse);
    json_close(t, '}');
}

static void write_configuration(struct text *t, const char *key, const struct side *s, int row)
{
    json_open(t, key, '{');
    json_int(t, "configuration", row);
    json_int(t, "k", db_int(s->configurations, row, "k", 0));
    json_text(t, "mode", db_text(s->configurations, row, "mode"));
    json_raw(t, "chunking", db_text(s->configurations, row, "chunking"));
    json_raw(t, "latency", db_text(s->configurations, row, "latency"));
    json_raw(t, "details", db_text(s->configurations, row, "details"));
    json_close(t, '}');
}

static enum status write_pair(struct request *r, struct text *t, const struct side *a, const struct side *b,
                              const struct pair *p)
{
    scoped(PGresult) *rows = NULL;
    enum status s = benchmark_store_pairs(r->sc, r->db, db_int(a->configurations, p->a, "row_id", 0),
                                          db_int(b->configurations, p->b, "row_id", 0), &rows);
    if (s != STATUS_OK)
        return s;
    json_open(t, NULL, '{');
    write_configuration(t, "a", a, p->a);
    write_configuration(t, "b", b, p->b);
    json_int(t, "queries", PQntuples(rows));
    json_open(t, "metrics", '{');
    for (size_t i = 0; i < array_len(metrics); i++)
        write_metric(r, t, rows, i);
    json_close(t, '}');
    json_close(t, '}');
    return STATUS_OK;
}

static void write_side(struct text *t, const struct side *s)
{
    json_open(t, NULL, '{');
    json_text(t, "id", db_text(s->benchmark, 0, "id"));
    json_text(t, "name", db_text(s->benchmark, 0, "name"));
    json_text(t, "collection_id", db_text(s->benchmark, 0, "collection_id"));
    json_text(t, "collection_name", db_text(s->benchmark, 0, "collection_name"));
    json_close(t, '}');
}

static enum status compare(struct request *r, const struct side *a, const struct side *b)
{
    struct pair pairs[MOST_PAIRS] = {0};
    size_t count = 0;
    scoped_text t = {0};
    const char *hash = db_text(a->benchmark, 0, "dataset_hash");
    if (strcmp(hash, db_text(b->benchmark, 0, "dataset_hash")) != 0)
        return fail(r->sc, STATUS_INVALID,
                    "The benchmarks are of different datasets; their figures cannot be compared");
    enum status s = choose_pairs(r, a, b, pairs, &count);
    json_open(&t, NULL, '{');
    json_text(&t, "dataset_hash", hash);
    json_open(&t, "benchmarks", '[');
    write_side(&t, a);
    write_side(&t, b);
    json_close(&t, ']');
    json_open(&t, "comparisons", '[');
    for (size_t i = 0; i < count && s == STATUS_OK; i++)
        s = write_pair(r, &t, a, b, &pairs[i]);
    json_close(&t, ']');
    json_close(&t, '}');
    return s == STATUS_OK ? reply_constant(r, 200, text_str(&t)) : s;
}

enum status benchmarks_compare(struct request *r)
{
    struct side a = {0}, b = {0};
    size_t count = 0;
    const char *ids = request_query(r, "ids");
    char **words = settings_list(&r->sc->arena, ids ? ids : "", ',', &count);
    if (!words || count != 2)
        return fail(r->sc, STATUS_INVALID, "ids names two benchmarks, with a comma between");
    enum status s = load_side(r, words[0], &a);
    if (s == STATUS_OK)
        s = load_side(r, words[1], &b);
    if (s == STATUS_OK)
        s = compare(r, &a, &b);
    free_side(&a);
    free_side(&b);
    return s;
}
