/* What supervisor and task child say to each other: whole packets over a SOCK_SEQPACKET pair. */
#pragma once

#include "common/metrics.h"
#include "common/operation.h"

#include <stdatomic.h>
#include <stdint.h>

enum { REASON_BYTES = 640, LABEL_BYTES = 48, MOST_IN_BATCH = 128 };

enum order_kind {
    ORDER_RUN = 1, /* an operation that was claimed for this child */
    ORDER_STOP,    /* stop it: cancelled, or the worker ends */
    ORDER_BATCH,   /* a struct batch_order: operations of a brief kind, to be run one after the other */
};

struct order {
    uint32_t kind;
    char operation_id[37];
    char task_id[37];
    char worker_id[64];
};

struct batch_order {
    uint32_t kind, count;
    char worker_id[64];
    struct {
        char operation_id[37], task_id[37];
    } items[MOST_IN_BATCH]; /* only `count` of them are sent */
};

/* Memory that supervisor and child share. `cursor` holds the number of items that the child has begun in its lower
 * half, and in its upper half how many it may begin; both change it by compare-and-exchange only. So the supervisor
 * takes back what has not begun, without asking, and knows after a death which item was being worked on. */
struct batch_page {
    _Atomic uint64_t cursor;
    _Atomic int64_t began_ms; /* of the newest item, clock_monotonic_ms() */
};
static inline uint32_t batch_begun(uint64_t cursor)
{
    return (uint32_t)cursor;
}
static inline uint32_t batch_limit(uint64_t cursor)
{
    return (uint32_t)(cursor >> 32);
}
static inline uint64_t batch_cursor(uint32_t limit, uint32_t begun)
{
    return (uint64_t)limit << 32 | begun;
}

/* How an attempt ended, as its child tells it. */
enum task_outcome {
    TASK_COMPLETED, /* committed */
    TASK_FAILED,    /* committed */
    TASK_HAND_BACK, /* to be given back by the supervisor, with the delay and reason below */
    TASK_STOPPED,   /* told to stop */
    TASK_LOST,      /* not ours any more */
};

/* How an attempt is told of in the operation's history (`ended`). */
enum attempt_end {
    ATTEMPT_HANDED_BACK, /* for no fault of its own */
    ATTEMPT_FAILED,
    ATTEMPT_SOFT_LIMIT,
    ATTEMPT_DRAINED, /* its worker was stopped */
    ATTEMPT_CRASH,   /* its process died */
    ATTEMPT_SILENT,  /* it gave no sign of life and was killed */
    ATTEMPT_HARD_LIMIT,
};

struct task_end {
    uint32_t item;    /* of a batch: which one */
    uint32_t outcome; /* enum task_outcome */
    uint32_t class;   /* enum error_class */
    uint32_t ended;   /* enum attempt_end, when given back */
    bool is_counted;  /* as a failure, when given back */
    bool is_outage;   /* PostgreSQL was away: no fault of the operation's */
    double delay_seconds;
    double seconds, cpu_seconds, peak_bytes, waited_seconds;
    int64_t documents, chunks, tokens; /* of this attempt */
    char reason[REASON_BYTES];         /* fit for clients */
};

enum report_kind {
    REPORT_READY = 1, /* waits for work */
    REPORT_ALIVE,
    REPORT_METRIC,
    REPORT_END,       /* of an order, or of an item of a batch that was not simply completed */
    REPORT_BATCH_END, /* after those of its items */
};

struct report {
    uint32_t kind;
    union {
        struct task_end end;
        struct {
            uint32_t completed;
            double seconds, cpu_seconds, peak_bytes; /* of all of them together */
        } batch;
        struct {
            uint32_t metric, action;
            double amount;
            bool has_label1, has_label2;
            char label1[LABEL_BYTES], label2[LABEL_BYTES];
        } metric;
    };
};
