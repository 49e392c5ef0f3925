/* The children that run tasks: one a slot, started ahead of the work, told what to do over a socket pair, watched,
 * stopped in a bounded time, and replaced. What becomes of their operations is the supervisor's business. */
#pragma once

#include "common/config.h"
#include "worker/orders.h"

#include <sys/types.h>

enum slot_state {
    SLOT_EMPTY,    /* no child; one is started when it is time */
    SLOT_STARTING, /* not heard of yet */
    SLOT_READY,    /* waits for work */
    SLOT_BUSY,
    SLOT_RETIRING, /* told to end: had its number of tasks, or grew too large */
};

/* Why a busy child was told to stop, which decides what follows for its operation. */
enum stop_reason {
    STOP_NONE,    /* it was not; if it dies, it crashed */
    STOP_LOST,    /* its operation is not ours any more (cancelled, swept) */
    STOP_DRAIN,   /* the worker ends: handed back for free */
    STOP_HARD,    /* the hard time limit: killed, counted as a crash */
    STOP_SILENT,  /* it said nothing for too long: the same */
    STOP_ABANDON, /* the lease was lost: others have its operation */
};

/* One operation of a batch. */
struct slot_item {
    char operation_id[37], task_id[37];
    enum operation_type type;
    int attempt;
};

struct slot {
    enum slot_state state;
    pid_t pid;
    int fd;
    bool is_fast_only;
    int tasks_done;
    int64_t start_at_ms; /* SLOT_EMPTY: not before */
    int64_t changed_ms;  /* when the state began */
    int64_t heard_ms;
    struct batch_page *page; /* shared with the child; NULL: there is none, it gets no batches */
    /* Of the task; of a batch, the one that is being worked on, as of the last slot_look(). */
    char operation_id[37], task_id[37];
    enum operation_type type;
    int attempt;
    enum stop_reason stop;
    int64_t kill_at_ms; /* 0 = not being killed */
    bool is_killed;
    struct slot_item *items; /* of a batch; NULL = one order, or none */
    uint32_t item_count;
};

/* How a child left. */
struct slot_death {
    int signal; /* 0 = it exited by itself */
    int exit_status;
};

void slot_start(struct slot *slot, const char *embedder_socket);
/* Hands a claimed operation to a ready child. False when it cannot be told: the child is then being ended. */
bool slot_run(struct slot *slot, const struct order *order, enum operation_type type, int attempt);
/* The same for operations of a brief kind; takes the items over, whatever it returns. */
bool slot_run_batch(struct slot *slot, struct slot_item *items, uint32_t count, const char *worker_id);
/* Of a batch: which item is being worked on, and since when. False: none is. */
bool slot_look(struct slot *slot, uint32_t *out_item);
/* The slot's task is this item from now on, for whoever looks. */
void slot_take_item(struct slot *slot, uint32_t item);
/* Takes back what has not begun: items from *out_first up to *out_end; false when there is nothing. */
bool slot_recall(struct slot *slot, uint32_t *out_first, uint32_t *out_end);
/* Tells the task to stop, asks again by SIGTERM, and kills the child's process group at `now + grace_ms`. */
void slot_stop(struct slot *slot, enum stop_reason reason, int64_t grace_ms);
void slot_kill(struct slot *slot);
/* No more tasks: it ends by itself. */
void slot_retire(struct slot *slot);
/* The next report of the child; false when there is none now. */
bool slot_read(struct slot *slot, struct report *out);
/* The child has ended and can be reaped. */
bool slot_has_died(const struct slot *slot);
/* After that: kills what is left of its process group and empties the slot; the task, and the items of a batch, stay
 * noted until slot_forget_dead(). Nothing new is started there before pause_ms. */
struct slot_death slot_reap(struct slot *slot, int64_t pause_ms);
void slot_forget_dead(struct slot *slot);
/* Resident memory in MiB, 0 when unknown. */
int64_t slot_memory_mb(const struct slot *slot);
bool slot_has_task(const struct slot *slot);
/* The task is over: ready for the next one. */
void slot_forget_task(struct slot *slot);
