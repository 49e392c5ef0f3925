#include "worker/schedule.h"

#include "common/cron.h"

#include <string.h>

/* A minute's worth of due times over ten years of downtime is not counted to its end. */
enum { MOST_MISSED = 100000 };

static const struct scheduled_row rows[] = {
#define SCHEDULED(name, setting, function, summary) {name, summary, offsetof(struct settings, setting), function},
#include "worker/schedule.def"
#undef SCHEDULED
};

const struct scheduled_row *schedule_rows(size_t *out_count)
{
    *out_count = array_len(rows);
    return rows;
}

const struct scheduled_row *schedule_find(const char *name)
{
    for (size_t i = 0; i < array_len(rows); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    }
    return NULL;
}

const char *schedule_expression(const struct settings *settings, const struct scheduled_row *row)
{
    const char *value = *(const char *const *)((const char *)settings + row->setting);
    return value ? value + strspn(value, " \t") : "";
}

bool schedule_choose(const char *expression, int64_t due, int64_t now, int64_t *out_due, int64_t *out_next,
                     int *out_missed)
{
    struct cron cron;
    char problem[CRON_PROBLEM_BYTES];
    if (due > now || !cron_parse(expression, &cron, problem))
        return false;
    int missed = 0;
    int64_t next;
    for (; cron_next(&cron, due, &next) && next <= now; due = next) {
        if (++missed == MOST_MISSED) { /* the newest of them is near enough */
            due = now;
            break;
        }
    }
    *out_due = due;
    *out_missed = missed;
    return cron_next(&cron, now, out_next);
}
