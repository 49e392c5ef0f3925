#include "worker/tasks/projecting.h"

#include <string.h>

struct label {
    const char *key, *text;
    size_t first, count; /* in the points by key */
};

static int by_key(const void *a, const void *b)
{
    const struct projection_point *x = *(struct projection_point *const *)a, *y = *(struct projection_point *const *)b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->chunk_id > y->chunk_id) - (x->chunk_id < y->chunk_id);
}

static int by_count(const void *a, const void *b)
{
    const struct label *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : strcmp(x->key, y->key);
}

static void write_entry(struct text *legend, size_t label, const char *text, size_t count)
{
    json_open(legend, NULL, '{');
    json_int(legend, "label", (int64_t)label);
    json_text(legend, "text", text);
    json_int(legend, "count", (int64_t)count);
    json_close(legend, '}');
}

static size_t find_labels(struct projection_point **sorted, size_t count, struct label *labels)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(sorted[i]->key, sorted[i - 1]->key) != 0)
            labels[found++] = (struct label){sorted[i]->key, sorted[i]->text, i, 0};
        labels[found - 1].count++;
    }
    qsort(labels, found, sizeof *labels, by_count);
    return found;
}

void projection_label(struct projection_point *points, size_t count, struct text *legend)
{
    scoped_memory struct projection_point **sorted = must_calloc(count + 1, sizeof(void *));
    scoped_memory struct label *labels = must_calloc(count + 1, sizeof *labels);
    for (size_t i = 0; i < count; i++)
        sorted[i] = &points[i];
    qsort(sorted, count, sizeof(void *), by_key);
    size_t found = find_labels(sorted, count, labels);
    size_t named = found <= PROJECTION_LABELS ? found : PROJECTION_LABELS - 1, others = 0;
    json_open(legend, NULL, '[');
    for (size_t n = 0; n < found; n++) {
        for (size_t i = 0; i < labels[n].count; i++)
            sorted[labels[n].first + i]->label = (uint32_t)(n < named ? n : named);
        if (n < named)
            write_entry(legend, n, labels[n].text, labels[n].count);
        else
            others += labels[n].count;
    }
    if (others > 0)
        write_entry(legend, named, "other", others);
    json_close(legend, ']');
}
