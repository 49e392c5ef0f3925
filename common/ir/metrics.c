#include "common/ir/metrics.h"

#include <math.h>
#include <string.h>

static int by_rank(const void *a, const void *b)
{
    const struct ir_ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return -strcmp(x->document, y->document);
}

void ir_sort(struct ir_ranked *ranked, size_t count)
{
    if (count > 1)
        qsort(ranked, count, sizeof *ranked, by_rank);
}

static int by_document(const void *a, const void *b)
{
    return strcmp(((const struct ir_judgment *)a)->document, ((const struct ir_judgment *)b)->document);
}

static int by_falling_relevance(const void *a, const void *b)
{
    int x = ((const struct ir_judgment *)a)->relevance, y = ((const struct ir_judgment *)b)->relevance;
    return x == y ? 0 : x > y ? -1 : 1;
}

/* What the grades bring when they stand in their best order, down to rank k. */
static double ideal_gain(struct ir_judgment *judged, size_t count, size_t k)
{
    double sum = 0;
    qsort(judged, count, sizeof *judged, by_falling_relevance);
    for (size_t i = 0; i < count && i < k && judged[i].relevance > 0; i++)
        sum += judged[i].relevance / log2((double)i + 2);
    return sum;
}

static void walk(struct ir_metrics *m, double *out_gain, const struct ir_ranked *ranked, size_t returned,
                 const struct ir_judgment *by_name, size_t judged_count)
{
    for (size_t i = 0; i < returned; i++) {
        const struct ir_judgment key = {.document = ranked[i].document};
        const struct ir_judgment *j = bsearch(&key, by_name, judged_count, sizeof *by_name, by_document);
        if (!j)
            continue;
        m->judged_returned++;
        if (j->relevance < 1)
            continue;
        m->relevant_returned++;
        *out_gain += j->relevance / log2((double)i + 2);
        m->average_precision += (double)m->relevant_returned / (double)(i + 1);
        if (m->relevant_returned == 1)
            m->reciprocal_rank = 1.0 / (double)(i + 1);
    }
}

struct ir_metrics ir_measure(struct arena *arena, const struct ir_ranked *ranked, size_t ranked_count,
                             const struct ir_judgment *judged, size_t judged_count, size_t k)
{
    struct ir_metrics m = {.returned = (int64_t)(ranked_count < k ? ranked_count : k)};
    for (size_t i = 0; i < judged_count; i++)
        m.relevant += judged[i].relevance >= 1;
    if (judged_count == 0 || k == 0)
        return m;
    struct ir_judgment *sorted = arena_array(arena, judged_count, sizeof *sorted);
    memcpy(sorted, judged, judged_count * sizeof *sorted);
    qsort(sorted, judged_count, sizeof *sorted, by_document);
    double gain = 0;
    walk(&m, &gain, ranked, (size_t)m.returned, sorted, judged_count);
    double ideal = ideal_gain(sorted, judged_count, k);
    m.precision = (double)m.relevant_returned / (double)k;
    if (m.relevant > 0) {
        m.recall = (double)m.relevant_returned / (double)m.relevant;
        m.average_precision /= (double)m.relevant;
        m.ndcg = gain / ideal;
    }
    return m;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x == y ? 0 : x < y ? -1 : 1;
}

double ir_percentile(double *values, size_t count, double share)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, by_value);
    size_t rank = (size_t)ceil(share * (double)count);
    return values[rank < 1 ? 0 : rank > count ? count - 1 : rank - 1];
}
