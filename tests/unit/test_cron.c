#include "common/cron.h"

#include "common/base.h"
#include "worker/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static int64_t at(const char *iso)
{
    struct tm t = {0};
    assert_non_null(strptime(iso, "%Y-%m-%d %H:%M:%S", &t));
    return timegm(&t);
}

static struct cron parsed(const char *expression)
{
    struct cron c;
    char problem[CRON_PROBLEM_BYTES] = "";
    if (!cron_parse(expression, &c, problem))
        fail_msg("%s: %s", expression, problem);
    return c;
}

static const char *shown(int64_t t, char out[32])
{
    time_t seconds = t;
    struct tm tm;
    strftime(out, 32, "%Y-%m-%d %H:%M:%S", gmtime_r(&seconds, &tm));
    return out;
}

static void the_next_time_is_the_first_later_match(void **state)
{
    static const struct {
        const char *expression, *after, *next;
    } table[] = {
        {"* * * * *", "2026-11-25 12:00:00", "2026-11-25 12:01:00"},
        {"* * * * *", "2026-11-25 12:00:59", "2026-11-25 12:01:00"},
        {"0 3 * * *", "2026-11-25 03:00:00", "2026-11-26 03:00:00"},
        {"0 3 * * *", "2026-11-25 02:59:59", "2026-11-25 03:00:00"},
        {"*/15 * * * *", "2026-11-25 12:46:00", "2026-11-25 13:00:00"},
        {"7/20 * * * *", "2026-11-25 12:27:00", "2026-11-25 12:47:00"},
        {"0 */6 * * *", "2026-11-25 18:00:00", "2026-11-26 00:00:00"},
        {"5,10,55 9-17 * * mon-fri", "2026-11-27 17:55:00", "2026-11-30 09:05:00"}, /* over a weekend */
        {"0 0 * * 0", "2026-11-25 00:00:00", "2026-11-29 00:00:00"},
        {"0 0 * * 7", "2026-11-25 00:00:00", "2026-11-29 00:00:00"},
        {"0 0 * * fri-sun", "2026-11-28 00:00:00", "2026-11-29 00:00:00"},
        {"0 0 * * 5-7", "2026-11-29 00:00:00", "2026-12-04 00:00:00"},
        {"0 0 31 * *", "2026-11-01 00:00:00", "2026-12-31 00:00:00"},
        {"0 0 29 2 *", "2026-01-01 00:00:00", "2028-02-29 00:00:00"},
        {"0 0 29 feb *", "2096-03-01 00:00:00", "2104-02-29 00:00:00"}, /* 2100 is no leap year */
        {"0 0 1 Jan-Mar/2 *", "2026-01-01 00:00:00", "2026-03-01 00:00:00"},
        {"0 12 13 * fri", "2026-11-25 00:00:00", "2026-11-27 12:00:00"}, /* either kind of day */
        {"0 12 13 * fri", "2026-12-12 00:00:00", "2026-12-13 12:00:00"},
        {"0 12 */2 * fri", "2026-11-25 00:00:00", "2026-11-27 12:00:00"}, /* both: a star in front restricts nothing */
        {"0 12 30 2 fri", "2026-01-01 00:00:00", "2026-02-06 12:00:00"},
        {"59 23 31 12 *", "2026-12-31 23:59:00", "2027-12-31 23:59:00"},
        {"@hourly", "2026-11-25 12:00:01", "2026-11-25 13:00:00"},
        {"@daily", "2026-11-25 12:00:01", "2026-11-26 00:00:00"},
        {" @Weekly ", "2026-11-25 12:00:01", "2026-11-29 00:00:00"},
        {"@monthly", "2026-11-25 12:00:01", "2026-12-01 00:00:00"},
        {"@yearly", "2026-11-25 12:00:01", "2027-01-01 00:00:00"},
        {"\t0  0\t1 1 * ", "2026-11-25 12:00:01", "2027-01-01 00:00:00"},
    };
    (void)state;
    for (size_t i = 0; i < array_len(table); i++) {
        struct cron c = parsed(table[i].expression);
        int64_t next = 0;
        char text[32];
        assert_true(cron_next(&c, at(table[i].after), &next));
        if (next != at(table[i].next))
            fail_msg("%s after %s: %s", table[i].expression, table[i].after, shown(next, text));
    }
}

/* Bits against gmtime, minute by minute. */
static bool matches(const struct cron *c, int64_t t)
{
    time_t seconds = t;
    struct tm tm;
    gmtime_r(&seconds, &tm);
    bool is_date = c->days >> tm.tm_mday & 1, is_weekday = c->weekdays >> tm.tm_wday & 1;
    return c->minutes >> tm.tm_min & 1 && c->hours >> tm.tm_hour & 1 && c->months >> (tm.tm_mon + 1) & 1 &&
           (c->is_either_day ? is_date || is_weekday : is_date && is_weekday);
}

static void it_agrees_with_looking_at_every_minute(void **state)
{
    static const char *const expressions[] = {"*/7 3-5,23 * * *", "13 0 1,15 * mon", "59 */11 28-31 2,12 *",
                                              "0 0 */10 * sat-sun", "1-59/29 12 * jan,jul wed"};
    (void)state;
    for (size_t i = 0; i < array_len(expressions); i++) {
        struct cron c = parsed(expressions[i]);
        int64_t now = at("2027-12-15 11:17:42"), next;
        for (int times = 0; times < 12; times++) {
            assert_true(cron_next(&c, now, &next));
            int64_t t = (now / 60 + 1) * 60;
            while (!matches(&c, t))
                t += 60;
            assert_int_equal(next, t);
            now = next;
        }
    }
}

static void nonsense_is_refused_with_what_is_wrong(void **state)
{
    static const struct {
        const char *expression, *holds;
    } table[] = {
        {"61 * * * *", "61 is no minute from 0 to 59"},
        {"* 24 * * *", "24 is no hour from 0 to 23"},
        {"* * 0 * *", "day of the month from 1 to 31"},
        {"* * 32 * *", "day of the month"},
        {"* * * 13 *", "month from 1 to 12"},
        {"* * * * 8", "day of the week"},
        {"* * * foo *", "`foo` is no month"},
        {"* * * january *", "`january` is no month"},
        {"* * * * *x", "`x` in the day of the week"},
        {"", "0 fields"},
        {"* * * *", "4 fields"},
        {"*", "1 field,"},
        {"* * * * * *", "6 fields"},
        {"5-3 * * * *", "runs backwards"},
        {"*/0 * * * *", "step"},
        {"*/x * * * *", "step"},
        {"*/99 * * * *", "step"},
        {"1- * * * *", "missing"},
        {", * * * *", "missing"},
        {"1,, * * * *", "missing"},
        {"-1 * * * *", "`-1` is no minute"},
        {"99999999999999999999 * * * *", "is no minute"},
        {"0 0 30 2 *", "never runs"},
        {"0 0 31 2,4,6,9,11 *", "never runs"},
        {"@reboot", "@reboot is none of"},
        {"@every 30s", "none of"},
    };
    (void)state;
    for (size_t i = 0; i < array_len(table); i++) {
        struct cron c;
        char problem[CRON_PROBLEM_BYTES] = "";
        if (cron_parse(table[i].expression, &c, problem))
            fail_msg("`%s` was taken", table[i].expression);
        if (!strstr(problem, table[i].holds))
            fail_msg("`%s`: %s", table[i].expression, problem);
    }
}

static void a_search_is_bounded(void **state)
{
    (void)state;
    struct cron c = parsed("0 0 29 2 */7"); /* a 29th of February that is a Sunday */
    int64_t next;
    char text[32];
    assert_true(cron_next(&c, at("2072-03-01 00:00:00"), &next));
    assert_string_equal(shown(next, text), "2088-02-29 00:00:00");
    assert_false(cron_next(&c, INT64_MAX, &next));
    assert_false(cron_next(&c, -1, &next));
}

static void after_downtime_one_run_is_due_for_all_that_were_missed(void **state)
{
    int64_t due, next;
    int missed;
    (void)state;
    assert_false(
        schedule_choose("0 * * * *", at("2026-11-25 13:00:00"), at("2026-11-25 12:59:59"), &due, &next, &missed));
    assert_true(
        schedule_choose("0 * * * *", at("2026-11-25 13:00:00"), at("2026-11-25 13:00:05"), &due, &next, &missed));
    assert_int_equal(due, at("2026-11-25 13:00:00"));
    assert_int_equal(next, at("2026-11-25 14:00:00"));
    assert_int_equal(missed, 0);
    assert_true(
        schedule_choose("0 * * * *", at("2026-11-25 13:00:00"), at("2026-11-26 09:30:00"), &due, &next, &missed));
    assert_int_equal(due, at("2026-11-26 09:00:00"));
    assert_int_equal(next, at("2026-11-26 10:00:00"));
    assert_int_equal(missed, 20);
    /* Ten years later, every minute of them. */
    assert_true(
        schedule_choose("* * * * *", at("2026-11-25 13:00:00"), at("2036-11-25 13:00:30"), &due, &next, &missed));
    assert_int_equal(next, at("2036-11-25 13:01:00"));
    assert_true(missed > 0);
}

static void every_row_has_a_setting_whose_default_is_an_expression(void **state)
{
    struct scope sc;
    struct settings settings;
    size_t count;
    (void)state;
    scope_init(&sc, NULL);
    assert_int_equal(settings_load(&sc, &settings, SETTING_WORKER), STATUS_OK);
    const struct scheduled_row *rows = schedule_rows(&count);
    for (size_t i = 0; i < count; i++) {
        (void)parsed(schedule_expression(&settings, &rows[i]));
        assert_ptr_equal(schedule_find(rows[i].name), &rows[i]);
    }
    assert_null(schedule_find("nothing"));
    settings_done(&settings);
    scope_done(&sc);
}

static void a_setting_that_is_no_expression_is_named_with_its_fault(void **state)
{
    struct scope sc;
    struct settings settings;
    (void)state;
    scope_init(&sc, NULL);
    setenv("RETENTION_CRON", "0 25 * * *", 1);
    assert_int_equal(settings_load(&sc, &settings, SETTING_WORKER), STATUS_INVALID);
    assert_non_null(strstr(sc.problem_text, "RETENTION_CRON: `0 25 * * *`"));
    assert_non_null(strstr(sc.problem_text, "25 is no hour from 0 to 23"));
    scope_forgive(&sc);
    setenv("RETENTION_CRON", "", 1); /* switched off */
    assert_int_equal(settings_load(&sc, &settings, SETTING_WORKER), STATUS_OK);
    assert_string_equal(schedule_expression(&settings, schedule_find("retention")), "");
    settings_done(&settings);
    unsetenv("RETENTION_CRON");
    scope_done(&sc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_time_is_the_first_later_match),
        cmocka_unit_test(it_agrees_with_looking_at_every_minute),
        cmocka_unit_test(nonsense_is_refused_with_what_is_wrong),
        cmocka_unit_test(a_search_is_bounded),
        cmocka_unit_test(after_downtime_one_run_is_due_for_all_that_were_missed),
        cmocka_unit_test(every_row_has_a_setting_whose_default_is_an_expression),
        cmocka_unit_test(a_setting_that_is_no_expression_is_named_with_its_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
