/* A table of names: each node carries its name and lies inside what it names. */
#pragma once

#include <stddef.h>

struct table_node {
    struct table_node *next;
    unsigned hash;
    char *name; /* owned */
};

struct table {
    struct table_node **buckets; /* zeroed struct = empty table */
    size_t bucket_count, count;
};

/* NULL when there is none. */
struct table_node *table_find(const struct table *t, const char *name);
/* The name must not be there yet; it is copied. */
void table_add(struct table *t, struct table_node *node, const char *name);
/* Frees the node's name. */
void table_remove(struct table *t, struct table_node *node);
/* Each node once; `visit` may remove the node it is given, and no other. */
void table_each(struct table *t, void (*visit)(struct table_node *node, void *context), void *context);
/* The buckets; the nodes must be gone. */
void table_done(struct table *t);
