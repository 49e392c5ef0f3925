/* What the parts of the supervisor share: its state, owned by the one thread that supervisor.c runs, and the functions
 * that they call of each other. The signal for "do it" is always a turn of that thread; nothing here blocks for longer
 * than one statement or one Redis time-out. */
#pragma once

#include "worker/chores.h"
#include "worker/embedder_process.h"
#include "worker/internal_http.h"
#include "worker/lease.h"
#include "worker/scheduler.h"
#include "worker/settle.h"
#include "worker/slots.h"
#include "worker/supervisor.h"

#include <stdatomic.h>

enum {
    MOST_SLOTS = 257,
    MOST_QUEUES = 32,
    REDIS_TIMEOUT_MS = 500,
    RETRY_MS = 500, /* after the database did not answer */
};

/* One blocking pop at a time, for slots of one kind: the ordinary ones, or the one for `fast` alone. */
struct lane {
    bool is_fast_only;
    struct redis *redis;
    const char *queues[MOST_QUEUES];
    size_t queue_count;
    bool is_waiting; /* a BRPOP is on its way */
    int64_t sent_ms;
    char held[MOST_IN_BATCH][37]; /* popped, not claimed yet; in that order */
    size_t held_count;
    bool lacks_many;
    bool is_brief; /* the last one was of a brief kind: as many are popped as there are, for one child */
    const char *held_queue;
    int64_t try_at_ms;
};

struct supervisor {
    const struct settings *settings;
    struct scope life; /* owns what lives as long as the worker */
    int signal_fd, wake_fd;
    _Atomic(struct lease *) lease;
    struct chores *chores;
    struct scheduler *scheduler;
    struct internal_http *http, *metrics_http;
    struct embedder_process embedder;
    struct db *db;
    struct settle_stores stores;
    struct redis *control;
    bool is_subscribed;
    int64_t control_sent_ms, control_heard_ms;
    struct lane lanes[2];
    struct slot slots[MOST_SLOTS];
    size_t slot_count;
    struct hand_back *owed; /* given back as soon as the database answers */
    size_t owed_count, owed_capacity;
    int64_t owed_at_ms, check_at_ms, orphans_at_ms, find_at_ms, display_at_ms;
    atomic_bool is_draining;
    bool is_hurried;
    int64_t drain_until_ms;
    char worker_id[64];
};

/* Whether the lease's own connection finds PostgreSQL away: nothing is asked of it then, as each try takes seconds in
 * which nothing else happens. */
bool is_database_away(const struct supervisor *w);

/* owed.c: operations that are given back. What the database does not take now is owed, and paid later. */
/* For no fault of its own. */
struct hand_back hand_back_free(const char *operation_id, const char *task_id, const char *reason);
struct hand_back hand_back_of(const struct slot *slot, bool is_counted, enum error_class class, const char *reason);
void give_back(struct supervisor *w, const struct hand_back *give);
/* Tries to settle all that is owed. */
void pay(struct supervisor *w);

/* children.c: what the task children report, their deaths, their limits. */
void read_reports(struct supervisor *w, struct slot *slot);
/* Buries the children that have ended; what they worked on is given back. */
void reap(struct supervisor *w);
/* Starts a child where one is missing, kills one that is over a limit. */
void watch_slot(struct supervisor *w, struct slot *slot, int64_t now);
size_t busy_count(const struct supervisor *w);
void stop_all(struct supervisor *w, enum stop_reason reason, int64_t grace_ms);

/* holding.c: compares what the rows say with what runs here, both ways. */
void check_rows(struct supervisor *w);
void check_orphans(struct supervisor *w);

/* control.c: messages to this worker. */
void read_control(struct supervisor *w);
void keep_control(struct supervisor *w);

/* lanes.c: popping and claiming. */
void read_lane(struct supervisor *w, struct lane *lane);
/* Asks for a job when there is a child for it. */
void pump(struct supervisor *w, struct lane *lane);
/* Puts a UUID that was popped and cannot be used here to where it came from. */
void put_back(struct supervisor *w, struct lane *lane);
/* Takes due rows that no pop brought, while there are children to spare. */
void find_due(struct supervisor *w);

/* display.c: what others may see of this worker in Redis. */
void show(struct supervisor *w);
void hide(struct supervisor *w);

/* supervisor.c */
void begin_drain(struct supervisor *w);
