/* The inside of a scan: what scan.c, on the loop, and scan_walk.c, on a scan thread, share. */
#pragma once

#include "api/relay/hub.h"
#include "api/relay/scan_claim.h"
#include "api/relay/scan_list.h"

#include <pthread.h>

enum { SCAN_WAIT_MS = 60 * 1000 /* for a thread */ };

struct scan_word {
    struct scan_word *next;
    struct scan *scan;
    char *json;
    bool is_last;
};

struct scan {
    struct job job;
    /* the loop's */
    int refs;
    struct client *client;
    struct scan *next, **link; /* those that a client waits for */
    struct scan_word *held, **last_held;
    int64_t asked_ms;
    /* both read */
    struct lookup *pool;
    char *path;
    bool is_recursive, is_superuser;
    int64_t api_key_id;
    struct scan_claim claim;
    _Atomic bool is_cancelled, has_ended;
    _Atomic int64_t until_ms; /* 0 = it has not begun */
    pthread_mutex_t lock;     /* guards `ahead` */
    pthread_cond_t has_room;
    int ahead; /* frames handed over that the client has not been sent */
    /* the thread's */
    struct scan_list list;
    int64_t told_ms, renewed_ms;
    struct lookup_tools *tools;
    const char *end; /* why it ended early; NULL = it did not */
};

/* On a scan thread. */
void scan_walk(struct job *job, struct lookup_tools *tools);
/* On the loop: takes a word that scan_walk told. */
void scan_hear(void *word);
