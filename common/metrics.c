#include "common/metrics.h"

#include "common/arena.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SERIES = 512, SLOTS = 2048, MAX_LABELS = 2, MAX_BUCKETS = 20 };

enum metric_type { COUNTER, GAUGE, HISTOGRAM };

static const struct {
    enum metric_type type;
    const char *labels; /* "route,status" */
    const char *name;
    const char *meaning;
} descriptions[] = {
#define METRIC(name, type, labels, text_name, meaning) {type, labels, text_name, meaning},
#include "common/metrics.def"
#undef METRIC
};

/* Upper bounds. From a fast query to an operation's hard limit; for shares of something whole; for sizes. */
static const double second_buckets[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                        1,     2.5,    5,     10,   30,    60,   300, 1800, 7200};
static const double ratio_buckets[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1};
static const double byte_buckets[] = {128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536, 262144};
static_assert(array_len(second_buckets) < MAX_BUCKETS && array_len(ratio_buckets) < MAX_BUCKETS, "MAX_BUCKETS");

struct series {
    char *labels[MAX_LABELS];   /* NULL where the metric has fewer */
    _Atomic double value;       /* a histogram's sum */
    _Atomic uint64_t buckets[]; /* of a histogram: not cumulative, the last one for what lies above all bounds */
};

/* A series is never removed, so that readers need no lock: a slot goes from NULL to its series once. Writers of slots
 * hold `growing`. */
static struct {
    _Atomic(struct series *) slots[SLOTS];
    int count;
} families[METRICS];
static pthread_mutex_t growing = PTHREAD_MUTEX_INITIALIZER;

static bool ends_in(enum metric m, const char *end)
{
    size_t len = strlen(descriptions[m].name), end_len = strlen(end);
    return len > end_len && strcmp(descriptions[m].name + len - end_len, end) == 0;
}

static size_t bounds_of(enum metric m, const double **out)
{
    if (ends_in(m, "_bytes")) {
        *out = byte_buckets;
        return array_len(byte_buckets);
    }
    *out = ends_in(m, "_ratio") ? ratio_buckets : second_buckets;
    return ends_in(m, "_ratio") ? array_len(ratio_buckets) : array_len(second_buckets);
}

static int label_count(enum metric m)
{
    const char *labels = descriptions[m].labels;
    return *labels == '\0' ? 0 : strchr(labels, ',') ? 2 : 1;
}

static size_t hash_of(const char *const labels[MAX_LABELS])
{
    uint64_t hash = 0xCBF29CE484222325u;
    for (int i = 0; i < MAX_LABELS; i++) {
        for (const char *p = labels[i] ? labels[i] : ""; *p; p++)
            hash = (hash ^ (unsigned char)*p) * 0x100000001B3u;
        hash = (hash ^ 0xFF) * 0x100000001B3u; /* no byte of UTF-8: "a","bc" is not "ab","c" */
    }
    return (size_t)(hash ^ hash >> 32);
}

static bool is_same(const struct series *s, const char *const labels[MAX_LABELS])
{
    for (int i = 0; i < MAX_LABELS; i++) {
        if (labels[i] && strcmp(s->labels[i], labels[i]) != 0)
            return false;
    }
    return true;
}

/* The series, or NULL and the empty slot where it belongs. There always is an empty slot. */
static struct series *find(enum metric m, const char *const labels[MAX_LABELS], size_t *out_slot)
{
    for (size_t i = hash_of(labels) % SLOTS;; i = (i + 1) % SLOTS) {
        struct series *s = atomic_load_explicit(&families[m].slots[i], memory_order_acquire);
        *out_slot = i;
        if (!s || is_same(s, labels))
            return s;
    }
}

static struct series *make(enum metric m, const char *const labels[MAX_LABELS])
{
    size_t buckets = descriptions[m].type == HISTOGRAM ? MAX_BUCKETS : 0;
    struct series *s = must_calloc(1, sizeof *s + buckets * sizeof s->buckets[0]);
    for (int i = 0; i < MAX_LABELS; i++)
        s->labels[i] = labels[i] ? must_strdup(labels[i]) : NULL;
    return s;
}

static struct series *series_of(enum metric m, const char *label1, const char *label2)
{
    int count = label_count(m);
    const char *labels[MAX_LABELS] = {count > 0 ? (label1 ? label1 : "") : NULL,
                                      count > 1 ? (label2 ? label2 : "") : NULL};
    size_t slot;
    struct series *s = find(m, labels, &slot);
    if (s)
        return s;
    pthread_mutex_lock(&growing);
    if (families[m].count >= MAX_SERIES) {
        for (int i = 0; i < count; i++)
            labels[i] = "other";
    }
    s = find(m, labels, &slot); /* another thread may have been faster */
    if (!s) {
        s = make(m, labels);
        families[m].count++;
        atomic_store_explicit(&families[m].slots[slot], s, memory_order_release);
    }
    pthread_mutex_unlock(&growing);
    return s;
}

static void add(_Atomic double *to, double amount)
{
    double old = atomic_load_explicit(to, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(to, &old, old + amount, memory_order_relaxed, memory_order_relaxed))
        ;
}

static metrics_sink *forward_to; /* owner: main(), before threads start */

void metrics_forward(metrics_sink *sink)
{
    forward_to = sink;
}

/* True when it went elsewhere. */
static bool forwarded(enum metric m, enum metric_action action, const char *label1, const char *label2, double amount)
{
    if (forward_to)
        forward_to(m, action, label1, label2, amount);
    return forward_to != NULL;
}

void metrics_add(enum metric m, const char *label1, const char *label2, double amount)
{
    assert(descriptions[m].type != HISTOGRAM && (descriptions[m].type == GAUGE || amount >= 0));
    if (!forwarded(m, METRIC_ACTION_ADD, label1, label2, amount))
        add(&series_of(m, label1, label2)->value, amount);
}

void metrics_set(enum metric m, const char *label1, const char *label2, double value)
{
    assert(descriptions[m].type == GAUGE);
    if (!forwarded(m, METRIC_ACTION_SET, label1, label2, value))
        atomic_store_explicit(&series_of(m, label1, label2)->value, value, memory_order_relaxed);
}

void metrics_observe(enum metric m, const char *label1, const char *label2, double seconds)
{
    assert(descriptions[m].type == HISTOGRAM);
    if (isnan(seconds) || forwarded(m, METRIC_ACTION_OBSERVE, label1, label2, seconds))
        return;
    const double *bounds;
    size_t count = bounds_of(m, &bounds), i = 0;
    while (i < count && seconds > bounds[i])
        i++;
    struct series *s = series_of(m, label1, label2);
    atomic_fetch_add_explicit(&s->buckets[i], 1, memory_order_relaxed);
    add(&s->value, seconds);
}

static void put_number(struct text *out, double value)
{
    if (isnan(value) || isinf(value)) {
        text_puts(out, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    char digits[32];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_puts(out, digits);
}

/* The format is UTF-8; a backslash, a quote and a line feed are escaped. */
static void put_label_value(struct text *out, const char *value)
{
    scoped_text repaired = {0};
    text_append_repaired(&repaired, value, strlen(value));
    for (const char *p = text_str(&repaired); *p; p++) {
        if (*p == '\n')
            text_puts(out, "\\n");
        else if (*p == '\\' || *p == '"')
            text_printf(out, "\\%c", *p);
        else
            text_putc(out, *p);
    }
}

/* name{label="value",…,le="…"} */
static void put_sample_name(struct text *out, enum metric m, const char *suffix, const struct series *s,
                            const double *le)
{
    text_printf(out, "%s%s", descriptions[m].name, suffix);
    const char *name = descriptions[m].labels;
    char before = '{';
    for (int i = 0; i < label_count(m); i++) {
        size_t len = strcspn(name, ",");
        text_printf(out, "%c%.*s=\"", before, (int)len, name);
        put_label_value(out, s->labels[i]);
        text_putc(out, '"');
        name += len + (name[len] == ',');
        before = ',';
    }
    if (le) {
        text_printf(out, "%cle=\"", before);
        put_number(out, *le);
        text_putc(out, '"');
        before = ',';
    }
    text_puts(out, before == ',' ? "} " : " ");
}

static void put_histogram(struct text *out, enum metric m, struct series *s)
{
    const double *bounds;
    size_t count = bounds_of(m, &bounds);
    uint64_t total = 0;
    for (size_t i = 0; i <= count; i++) {
        double bound = i < count ? bounds[i] : INFINITY;
        total += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
        put_sample_name(out, m, "_bucket", s, &bound);
        text_printf(out, "%llu\n", (unsigned long long)total);
    }
    put_sample_name(out, m, "_sum", s, NULL);
    put_number(out, atomic_load_explicit(&s->value, memory_order_relaxed));
    text_putc(out, '\n');
    put_sample_name(out, m, "_count", s, NULL);
    text_printf(out, "%llu\n", (unsigned long long)total);
}

static void put_series(struct text *out, enum metric m, struct series *s)
{
    if (descriptions[m].type == HISTOGRAM) {
        put_histogram(out, m, s);
        return;
    }
    put_sample_name(out, m, "", s, NULL);
    put_number(out, atomic_load_explicit(&s->value, memory_order_relaxed));
    text_putc(out, '\n');
}

void metrics_write(struct text *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    for (int m = 0; m < METRICS; m++) {
        text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", descriptions[m].name, descriptions[m].meaning,
                    descriptions[m].name, types[descriptions[m].type]);
        if (label_count((enum metric)m) == 0)
            series_of((enum metric)m, NULL,
                      NULL); /* shown as 0 before its first use, so that rates see the first step */
        for (size_t i = 0; i < SLOTS; i++) {
            struct series *s = atomic_load_explicit(&families[m].slots[i], memory_order_acquire);
            if (s)
                put_series(out, (enum metric)m, s);
        }
    }
}
