/* What an operation is: kinds, states, and the only valid transitions. The trigger in sql/migrations follows the same
 * table and a test holds one against the other. */
#pragma once

#include "common/base.h"
#include "common/status.h"

#include <stdbool.h>
#include <stddef.h>

enum operation_type {
#define OPERATION_TYPE(name, text, queue, retries, delay, mutates, summary) OPERATION_##name,
#include "common/operation.def"
#undef OPERATION_TYPE
    OPERATION_TYPES
};

struct operation_kind {
    const char *name;  /* "append" */
    const char *queue; /* "default" */
    int retries;       /* -1 = setting */
    int retry_delay_seconds;
    bool mutates;
    const char *summary;
};
const struct operation_kind *operation_kind(enum operation_type type);
/* STATUS_INVALID for an unknown name. */
enum status operation_type_parse(const char *name, enum operation_type *out) must_check;

enum operation_state {
    OPERATION_PENDING,
    OPERATION_PROCESSING,
    OPERATION_COMPLETED,
    OPERATION_FAILED,
    OPERATION_CANCELLED,
    OPERATION_STATES
};

enum operation_event {
    OPERATION_CLAIM,     /* a worker took it */
    OPERATION_FINISH,    /* its attempt committed the end */
    OPERATION_FAIL,      /* its attempt, or the last of them, failed for good */
    OPERATION_CANCEL,    /* somebody with the right cancelled it */
    OPERATION_HAND_BACK, /* its attempt gave it back, to be tried later */
    OPERATION_SWEEP,     /* its worker's lease lapsed */
};

struct operation_transition {
    enum operation_state from;
    enum operation_event event;
    enum operation_state to;
    const char *reason;
};
const struct operation_transition *operation_transitions(size_t *out_count);

/* STATUS_CONFLICT when `event` cannot happen in `from`; *out is written only on success. */
enum status operation_next(enum operation_state from, enum operation_event event, enum operation_state *out) must_check;
/* "pending", … */
const char *operation_state_name(enum operation_state state);
enum status operation_state_parse(const char *name, enum operation_state *out) must_check;
bool operation_is_final(enum operation_state state);
