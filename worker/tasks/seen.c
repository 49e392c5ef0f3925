#include "worker/tasks/seen.h"

#include <string.h>

enum { FIRST_CAPACITY = 1024 };

void seen_add(struct seen *s, int64_t id)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : FIRST_CAPACITY;
        s->ids = must_realloc(s->ids, s->capacity * sizeof *s->ids);
    }
    s->ids[s->count++] = id;
    s->is_sorted = false;
}

void seen_add_unreadable(struct seen *s, const char *path, size_t len)
{
    if (s->unreadable_count == s->unreadable_capacity) {
        s->unreadable_capacity = s->unreadable_capacity ? s->unreadable_capacity * 2 : 16;
        s->unreadable = must_realloc(s->unreadable, s->unreadable_capacity * sizeof *s->unreadable);
    }
    char *copy = must_malloc(len + 1);
    memcpy(copy, path, len);
    copy[len] = '\0';
    s->unreadable[s->unreadable_count++] = copy;
    s->is_sorted = false;
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(struct seen *s)
{
    if (s->is_sorted)
        return;
    if (s->count > 0)
        qsort(s->ids, s->count, sizeof *s->ids, compare_ids);
    if (s->unreadable_count > 0)
        qsort(s->unreadable, s->unreadable_count, sizeof *s->unreadable, compare_paths);
    s->is_sorted = true;
}

bool seen_has(struct seen *s, int64_t id)
{
    sort(s);
    return s->count > 0 && bsearch(&id, s->ids, s->count, sizeof *s->ids, compare_ids) != NULL;
}

bool seen_is_hidden(struct seen *s, const char *path, size_t len)
{
    bool is_hidden = false;
    sort(s);
    if (s->unreadable_count == 0)
        return false;
    char *above = must_malloc(len + 1);
    memcpy(above, path, len);
    above[len] = '\0';
    for (char *slash; !is_hidden && (slash = strrchr(above, '/'));) { /* each directory above it */
        *slash = '\0';
        is_hidden = bsearch(&above, s->unreadable, s->unreadable_count, sizeof *s->unreadable, compare_paths) != NULL;
    }
    free(above);
    return is_hidden;
}

void seen_done(struct seen *s)
{
    for (size_t i = 0; i < s->unreadable_count; i++)
        free(s->unreadable[i]);
    free(s->unreadable);
    free(s->ids);
    *s = (struct seen){0};
}
