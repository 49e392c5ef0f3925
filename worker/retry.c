#include "worker/retry.h"

enum { OF_ITS_KIND = -1, NEVER = -2, MOST_DOUBLINGS = 10 };

/* Seconds until the next try. */
static const int delay_of_class[] = {
    [ERROR_TRANSIENT] = OF_ITS_KIND, /* something was away */
    [ERROR_INTERNAL] = OF_ITS_KIND,  /* our fault; it may have been a rare one */
    [ERROR_RESOURCE] = 60,           /* too much at once: a device, processes */
    [ERROR_PERMANENT] = NEVER,       /* it would end the same way */
};
/* And for what is known more closely than by its class. */
static const struct {
    enum status status;
    int delay_seconds;
} delays_of_status[] = {
    {STATUS_NO_SPACE, 30}, /* batches were halved before */
};

static int delay_of(enum status s)
{
    for (size_t i = 0; i < array_len(delays_of_status); i++) {
        if (delays_of_status[i].status == s)
            return delays_of_status[i].delay_seconds;
    }
    enum error_class class = status_class(s);
    return class < array_len(delay_of_class) && delay_of_class[class] ? delay_of_class[class] : NEVER;
}

static bool doubles(enum operation_type type)
{
    return type == OPERATION_INDEX || type == OPERATION_APPEND || type == OPERATION_REINDEX;
}

static double delay_of_kind(const struct task_facts *f)
{
    const struct operation_kind *kind = operation_kind(f->type);
    double delay = kind->retry_delay_seconds >= 0 ? kind->retry_delay_seconds : f->default_retry_delay;
    for (int i = 0; doubles(f->type) && i < f->failures && i < MOST_DOUBLINGS && !f->has_progressed; i++)
        delay *= 2;
    return delay;
}

struct task_verdict task_judge(enum status s, const struct task_facts *f)
{
    if (s == STATUS_OK)
        return (struct task_verdict){TASK_COMPLETED, 0, false};
    if (s == STATUS_LOST)
        return (struct task_verdict){TASK_LOST, 0, false};
    if (s == STATUS_CANCELLED)
        return (struct task_verdict){TASK_STOPPED, 0, false};
    if (s == STATUS_TIMEOUT && f->is_over_limit)
        return f->has_committed ? (struct task_verdict){TASK_HAND_BACK, 0, !f->has_progressed}
                                : (struct task_verdict){TASK_FAILED, 0, false};
    double delay = delay_of(s);
    if (delay == NEVER)
        return (struct task_verdict){TASK_FAILED, 0, false};
    if (delay == OF_ITS_KIND)
        delay = delay_of_kind(f);
    /* Never earlier, so that what was broken has the time that it was promised. */
    return (struct task_verdict){TASK_HAND_BACK, delay * (1 + f->jitter / 4), true};
}
