#include "common/cron.h"

#include "common/base.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    MOST_BYTES = 512,
    FIELDS = 5,
    SECONDS_A_DAY = 86400,
    MOST_DAYS = 40 *
                366, /* the 29th of February on a given day of the week comes every 28 years, or after 40 around 2100 */
};

static const int64_t END_OF_CALENDARS = 253370764800; /* the year 9999 */

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
                                          "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

struct field {
    const char *name;
    int least, most;
    const char *const *names; /* of least, least + 1, …; NULL = none */
};

static const struct field fields[FIELDS] = {
    {"minute", 0, 59, NULL},
    {"hour", 0, 23, NULL},
    {"day of the month", 1, 31, NULL},
    {"month", 1, 12, month_names},
    {"day of the week", 0, 7, weekday_names},
};

static const struct {
    const char *word, *expression;
} words[] = {
    {"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},  {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
    {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"},
};

/* ---- reading ---- */

/* A number or a name at *at; false with the problem. */
static bool read_value(const struct field *f, const char **at, int *out, char *problem)
{
    const char *s = *at;
    size_t letters = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    for (int i = 0; letters && f->names && f->names[i]; i++) {
        if (letters == 3 && strncasecmp(s, f->names[i], 3) == 0) {
            *out = f->least + i;
            *at = s + 3;
            return true;
        }
    }
    size_t digits = strspn(s, "0123456789");
    if (digits == 0) {
        int shown = (int)strcspn(s, ",");
        if (shown == 0)
            snprintf(problem, CRON_PROBLEM_BYTES, "a value is missing in the %s", f->name);
        else
            snprintf(problem, CRON_PROBLEM_BYTES, "`%.*s` is no %s", shown > 20 ? 20 : shown, s, f->name);
        return false;
    }
    int n = 0;
    for (size_t i = 0; i < digits; i++)
        n = n > 999 ? 1000 : n * 10 + (s[i] - '0');
    if (n < f->least || n > f->most) {
        snprintf(problem, CRON_PROBLEM_BYTES, "%.*s is no %s from %d to %d", digits > 20 ? 20 : (int)digits, s, f->name,
                 f->least, f->most);
        return false;
    }
    *out = n;
    *at = s + digits;
    return true;
}

static bool read_step(const struct field *f, const char **at, int *out, char *problem)
{
    const char *s = *at;
    int n = 0;
    size_t digits = strspn(s, "0123456789");
    for (size_t i = 0; i < digits; i++)
        n = n > 999 ? 1000 : n * 10 + (s[i] - '0');
    if (digits == 0 || n < 1 || n > f->most) {
        snprintf(problem, CRON_PROBLEM_BYTES, "the step after / in the %s must be a number from 1 to %d", f->name,
                 f->most);
        return false;
    }
    *at = s + digits;
    *out = n;
    return true;
}

/* "*", "5", "5-9", "mon-fri", "*" and "5-9" with "/2" behind; "5/10" goes on to the end. */
static bool read_item(const struct field *f, const char **at, uint64_t *bits, char *problem)
{
    int from = f->least, to = f->most, step = 1;
    bool is_single = false;
    if (**at == '*') {
        ++*at;
    } else {
        if (!read_value(f, at, &from, problem))
            return false;
        to = from;
        is_single = **at != '-';
        if (**at == '-') {
            ++*at;
            if (!read_value(f, at, &to, problem))
                return false;
        }
        if (to == 0 && f->most == 7 && from > 0)
            to = 7; /* fri-sun */
        if (to < from) {
            snprintf(problem, CRON_PROBLEM_BYTES, "the range %d-%d of the %s runs backwards", from, to, f->name);
            return false;
        }
    }
    if (**at == '/') {
        ++*at;
        if (!read_step(f, at, &step, problem))
            return false;
        to = is_single ? f->most : to;
    }
    for (int i = from; i <= to; i += step)
        *bits |= UINT64_C(1) << i;
    return true;
}

static bool read_field(const struct field *f, const char *text, uint64_t *bits, char *problem)
{
    for (;;) {
        if (!read_item(f, &text, bits, problem))
            return false;
        if (*text == '\0')
            return true;
        if (*text != ',') {
            snprintf(problem, CRON_PROBLEM_BYTES, "`%.20s` in the %s is not understood", text, f->name);
            return false;
        }
        text++;
    }
}

/* Days that the longest month of those chosen does not have never come. */
static bool has_a_day(const struct cron *c)
{
    static const uint8_t longest[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    for (int m = 1; m <= 12; m++) {
        if (c->months >> m & 1 && (c->is_either_day || c->days & ((UINT64_C(2) << longest[m - 1]) - 2)))
            return true;
    }
    return false;
}

static const char *spelled_out(const char *expression)
{
    for (size_t i = 0; i < array_len(words); i++) {
        if (strcasecmp(expression, words[i].word) == 0)
            return words[i].expression;
    }
    return expression;
}

static bool assemble(const uint64_t bits[FIELDS], bool is_either_day, struct cron *out, char *problem)
{
    *out = (struct cron){.minutes = bits[0],
                         .hours = (uint32_t)bits[1],
                         .days = (uint32_t)bits[2],
                         .months = (uint16_t)bits[3],
                         .weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 0x7F),
                         .is_either_day = is_either_day};
    if (has_a_day(out))
        return true;
    snprintf(problem, CRON_PROBLEM_BYTES, "it never runs: no month of those has such a day");
    return false;
}

bool cron_parse(const char *expression, struct cron *out, char problem[CRON_PROBLEM_BYTES])
{
    char copy[MOST_BYTES], *state = NULL;
    uint64_t bits[FIELDS] = {0};
    bool begins_with_star[FIELDS] = {false};
    int count = 0;
    if (strnlen(expression, MOST_BYTES) == MOST_BYTES) {
        snprintf(problem, CRON_PROBLEM_BYTES, "it is longer than %d bytes", MOST_BYTES - 1);
        return false;
    }
    snprintf(copy, sizeof copy, "%s", expression + strspn(expression, " \t"));
    for (size_t len = strlen(copy); len > 0 && strchr(" \t", copy[len - 1]); len--)
        copy[len - 1] = '\0';
    const char *whole = spelled_out(copy);
    if (whole != copy)
        snprintf(copy, sizeof copy, "%s", whole);
    if (*copy == '@') {
        snprintf(problem, CRON_PROBLEM_BYTES, "%.20s is none of @hourly, @daily, @weekly, @monthly, @yearly", copy);
        return false;
    }
    for (char *word = strtok_r(copy, " \t", &state); word; word = strtok_r(NULL, " \t", &state)) {
        if (count < FIELDS && !read_field(&fields[count], word, &bits[count], problem))
            return false;
        if (count < FIELDS)
            begins_with_star[count] = *word == '*';
        count++;
    }
    if (count != FIELDS) {
        snprintf(problem, CRON_PROBLEM_BYTES,
                 "it has %d field%s, not five (minute, hour, day of the month, month, day of the week)", count,
                 count == 1 ? "" : "s");
        return false;
    }
    struct cron read;
    if (!assemble(bits, !begins_with_star[2] && !begins_with_star[4], &read, problem))
        return false;
    *out = read;
    return true;
}

/* ---- the calendar ---- */

/* Days since 1970 to year, month and day of the proleptic Gregorian calendar; Howard Hinnant, "chrono-compatible
 * low-level date algorithms", civil_from_days. */
static void civil_from_days(int64_t days, int *out_month, int *out_day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *out_day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *out_month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
}

static bool is_day(const struct cron *c, int64_t days)
{
    int month, day;
    civil_from_days(days, &month, &day);
    int64_t weekday = ((days + 4) % 7 + 7) % 7; /* 1970 began on a Thursday */
    bool is_date = c->days >> day & 1, is_weekday = c->weekdays >> weekday & 1;
    return c->months >> month & 1 && (c->is_either_day ? is_date || is_weekday : is_date && is_weekday);
}

/* The first minute of a day from `from` on; -1 = none. */
static int minute_of_day(const struct cron *c, int from)
{
    for (int m = from; m < 24 * 60; m++) {
        if (!(c->hours >> (m / 60) & 1))
            m += 59 - m % 60;
        else if (c->minutes >> (m % 60) & 1)
            return m;
    }
    return -1;
}

bool cron_next(const struct cron *cron, int64_t after, int64_t *out)
{
    if (after < 0 || after >= END_OF_CALENDARS)
        return false;
    int64_t first = after / 60 + 1; /* the next whole minute */
    int64_t day = first / (24 * 60);
    int from = (int)(first % (24 * 60));
    for (int64_t last = day + MOST_DAYS; day <= last; day++, from = 0) {
        int minute = is_day(cron, day) ? minute_of_day(cron, from) : -1;
        if (minute < 0)
            continue;
        *out = day * SECONDS_A_DAY + (int64_t)minute * 60;
        return *out < END_OF_CALENDARS;
    }
    return false;
}
