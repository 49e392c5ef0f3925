/* Times that recur, as crontab(5) writes them: five fields for minute, hour, day of the month, month and day of the
 * week, each a list of *, numbers, ranges and steps; months and days of the week also by their first three letters,
 * 0 and 7 both are Sunday. Where both kinds of days are restricted (neither begins with *), either may match. @hourly,
 * @daily, @midnight, @weekly, @monthly, @yearly and @annually stand for five fields. All times are UTC. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Bit n set: n matches. */
struct cron {
    uint64_t minutes;
    uint32_t hours, days; /* days: 1..31 */
    uint16_t months;      /* 1..12 */
    uint8_t weekdays;     /* 0..6, Sunday is 0 */
    bool is_either_day;   /* the day of the month or the day of the week, not both */
};

enum { CRON_PROBLEM_BYTES = 160 };

/* False with a phrase that tells what is wrong, also when no day ever matches (February 30). Writes `out` only on
 * success. */
bool cron_parse(const char *expression, struct cron *out, char problem[CRON_PROBLEM_BYTES]);
/* The first match later than `after`; both in seconds since 1970. False when there is none within the next 40 years or
 * before the year 9999. */
bool cron_next(const struct cron *cron, int64_t after, int64_t *out);
