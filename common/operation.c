#include "common/operation.h"

#include <string.h>

static const struct operation_kind kinds[] = {
#define OPERATION_TYPE(name, text, queue, retries, delay, mutates, summary)                                            \
    {text, queue, retries, delay, mutates, summary},
#include "common/operation.def"
#undef OPERATION_TYPE
};

static const char *const state_names[] = {"pending", "processing", "completed", "failed", "cancelled"};

static const struct operation_transition transitions[] = {
    {OPERATION_PENDING, OPERATION_CLAIM, OPERATION_PROCESSING, "a worker took it"},
    {OPERATION_PENDING, OPERATION_CANCEL, OPERATION_CANCELLED, "cancelled before a worker took it"},
    {OPERATION_PENDING, OPERATION_FAIL, OPERATION_FAILED, "no attempt is left"},
    {OPERATION_PROCESSING, OPERATION_FINISH, OPERATION_COMPLETED, "its attempt committed the end"},
    {OPERATION_PROCESSING, OPERATION_FAIL, OPERATION_FAILED, "its attempt failed for good"},
    {OPERATION_PROCESSING, OPERATION_CANCEL, OPERATION_CANCELLED, "cancelled while it ran"},
    {OPERATION_PROCESSING, OPERATION_HAND_BACK, OPERATION_PENDING, "its attempt gave it back"},
    {OPERATION_PROCESSING, OPERATION_SWEEP, OPERATION_PENDING, "its worker's lease lapsed"},
};

const struct operation_kind *operation_kind(enum operation_type type)
{
    return &kinds[type];
}

enum status operation_type_parse(const char *name, enum operation_type *out)
{
    for (int i = 0; i < OPERATION_TYPES; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            *out = (enum operation_type)i;
            return STATUS_OK;
        }
    }
    return STATUS_INVALID;
}

const struct operation_transition *operation_transitions(size_t *out_count)
{
    *out_count = array_len(transitions);
    return transitions;
}

enum status operation_next(enum operation_state from, enum operation_event event, enum operation_state *out)
{
    for (size_t i = 0; i < array_len(transitions); i++) {
        if (transitions[i].from == from && transitions[i].event == event) {
            *out = transitions[i].to;
            return STATUS_OK;
        }
    }
    return STATUS_CONFLICT;
}

const char *operation_state_name(enum operation_state state)
{
    return state_names[state];
}

enum status operation_state_parse(const char *name, enum operation_state *out)
{
    for (int i = 0; i < OPERATION_STATES; i++) {
        if (strcmp(state_names[i], name) == 0) {
            *out = (enum operation_state)i;
            return STATUS_OK;
        }
    }
    return STATUS_INVALID;
}

bool operation_is_final(enum operation_state state)
{
    return state == OPERATION_COMPLETED || state == OPERATION_FAILED || state == OPERATION_CANCELLED;
}
