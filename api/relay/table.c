#include "api/relay/table.h"

#include "common/arena.h"

#include <string.h>

enum { FIRST_BUCKETS = 64 };

static unsigned hash_of(const char *name)
{
    unsigned h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

struct table_node *table_find(const struct table *t, const char *name)
{
    if (!t->bucket_count)
        return NULL;
    unsigned h = hash_of(name);
    struct table_node *n = t->buckets[h & (t->bucket_count - 1)];
    while (n && (n->hash != h || strcmp(n->name, name) != 0))
        n = n->next;
    return n;
}

static void grow(struct table *t)
{
    size_t count = t->bucket_count ? t->bucket_count * 2 : FIRST_BUCKETS;
    struct table_node **buckets = must_calloc(count, sizeof(struct table_node *));
    for (size_t i = 0; i < t->bucket_count; i++) {
        for (struct table_node *n = t->buckets[i], *next; n; n = next) {
            next = n->next;
            n->next = buckets[n->hash & (count - 1)];
            buckets[n->hash & (count - 1)] = n;
        }
    }
    free(t->buckets);
    t->buckets = buckets;
    t->bucket_count = count;
}

void table_add(struct table *t, struct table_node *node, const char *name)
{
    if (t->count >= t->bucket_count)
        grow(t);
    node->name = must_strdup(name);
    node->hash = hash_of(name);
    struct table_node **bucket = &t->buckets[node->hash & (t->bucket_count - 1)];
    node->next = *bucket;
    *bucket = node;
    t->count++;
}

void table_remove(struct table *t, struct table_node *node)
{
    struct table_node **link = &t->buckets[node->hash & (t->bucket_count - 1)];
    while (*link != node)
        link = &(*link)->next;
    *link = node->next;
    t->count--;
    free(node->name);
    node->name = NULL;
}

void table_each(struct table *t, void (*visit)(struct table_node *node, void *context), void *context)
{
    for (size_t i = 0; i < t->bucket_count; i++) {
        for (struct table_node *n = t->buckets[i], *next; n; n = next) {
            next = n->next;
            visit(n, context);
        }
    }
}

void table_done(struct table *t)
{
    free(t->buckets);
    *t = (struct table){0};
}
