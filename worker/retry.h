/* Whether, and when, an operation is tried again after its attempt ended. One table, by class of the error; what a
 * kind of operation adds (number of tries, first delay) stands in common/operation.def. Crashes are given back by the
 * supervisor at once, and counted like failures. */
#pragma once

#include "worker/orders.h"

struct task_facts {
    enum operation_type type;
    int failures;        /* since the last committed document */
    bool has_committed;  /* anything */
    bool has_progressed; /* a document: the next failure is the first again */
    bool is_over_limit;  /* the soft time limit was reached */
    double jitter;       /* 0 … 1 */
    int default_retry_delay;
};

struct task_verdict {
    enum task_outcome outcome;
    double delay_seconds;
    bool is_counted; /* towards max_attempts */
};

/* What follows from how the work ended. */
struct task_verdict task_judge(enum status s, const struct task_facts *facts);
