#include "common/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct scope sc;
static struct settings settings;
static const char secret[] = "0123456789abcdef0123456789abcdef";

static int start(void **state)
{
    (void)state;
    clearenv();
    setenv("JWT_SECRET_KEY", secret, 1);
    scope_init(&sc, NULL);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    settings_done(&settings);
    scope_done(&sc);
    return 0;
}

static void load(enum setting_flag program)
{
    enum status s = settings_load(&sc, &settings, program);
    if (s != STATUS_OK)
        fail_msg("%s", sc.problem_text);
}

static void expect_fault(enum setting_flag program, const char *holds)
{
    assert_int_equal(settings_load(&sc, &settings, program), STATUS_INVALID);
    if (!strstr(sc.problem_text, holds))
        fail_msg("'%s' does not say '%s'", sc.problem_text, holds);
}

static void defaults_stand_where_nothing_is_set(void **state)
{
    (void)state;
    load(SETTING_API);
    assert_int_equal(settings.api_port, 8080);
    assert_int_equal(settings.ws_port, -1);
    assert_string_equal(settings.redis_prefix, "");
    assert_string_equal(settings.registration, "open");
    assert_null(settings.embed_url);
    assert_false(settings.test_operations);
}

static void the_environment_overrides_defaults(void **state)
{
    (void)state;
    setenv("API_PORT", "9000", 1);
    setenv("TEST_OPERATIONS", "Yes", 1);
    setenv("REDIS_PREFIX", "a:", 1);
    load(SETTING_API);
    assert_int_equal(settings.api_port, 9000);
    assert_true(settings.test_operations);
    assert_string_equal(settings.redis_prefix, "a:");
}

static void an_empty_number_counts_as_not_set(void **state)
{
    (void)state;
    setenv("API_PORT", "", 1);
    setenv("REDIS_URL", "", 1);
    load(SETTING_API);
    assert_int_equal(settings.api_port, 8080);
    assert_string_equal(settings.redis_url, "");
}

static void an_alias_works_and_the_name_wins(void **state)
{
    (void)state;
    setenv("CELERY_TASK_SOFT_TIME_LIMIT", "11", 1);
    load(SETTING_WORKER);
    assert_int_equal(settings.soft_time_limit, 11);
    settings_done(&settings);
    setenv("OPERATION_SOFT_TIME_LIMIT", "22", 1);
    load(SETTING_WORKER);
    assert_int_equal(settings.soft_time_limit, 22);
}

static void every_fault_is_named_at_once(void **state)
{
    (void)state;
    setenv("API_PORT", "80a", 1);
    setenv("API_THREADS", "0", 1);
    setenv("WS_PORT", "70000", 1);
    setenv("TEST_OPERATIONS", "perhaps", 1);
    setenv("REGISTRATION", "everyone", 1);
    unsetenv("JWT_SECRET_KEY");
    expect_fault(SETTING_API, "JWT_SECRET_KEY");
    static const char *const names[] = {"API_PORT", "API_THREADS", "WS_PORT", "TEST_OPERATIONS", "REGISTRATION"};
    for (size_t i = 0; i < array_len(names); i++)
        assert_non_null(strstr(sc.problem_text, names[i]));
}

static void numbers_are_whole_and_nothing_else(void **state)
{
    (void)state;
    static const char *const bad[] = {" 1", "+1", "1 ", "1.5", "0x10", "99999999999999999999", "-1"};
    for (size_t i = 0; i < array_len(bad); i++) {
        setenv("DRAIN_SECONDS", bad[i], 1);
        expect_fault(SETTING_API, "DRAIN_SECONDS");
        scope_forgive(&sc);
    }
}

static void a_short_secret_is_refused_and_never_repeated(void **state)
{
    (void)state;
    setenv("JWT_SECRET_KEY", "hunter2", 1);
    expect_fault(SETTING_API, "JWT_SECRET_KEY");
    assert_null(strstr(sc.problem_text, "hunter2"));
}

static void what_only_the_other_program_reads_does_not_matter(void **state)
{
    (void)state;
    unsetenv("JWT_SECRET_KEY");
    setenv("API_PORT", "nonsense", 1);
    load(SETTING_WORKER);
    assert_null(settings.jwt_secret_key);
}

static void a_broker_url_names_the_queue_database(void **state)
{
    (void)state;
    setenv("CELERY_BROKER_URL", "redis://:pw@host:6379/5?x=1", 1);
    load(SETTING_API);
    assert_int_equal(settings.redis_queue_db, 5);
    settings_done(&settings);
    setenv("REDIS_QUEUE_DB", "2", 1);
    load(SETTING_API);
    assert_int_equal(settings.redis_queue_db, 2);
    settings_done(&settings);
    unsetenv("REDIS_QUEUE_DB");
    setenv("CELERY_BROKER_URL", "redis://:topsecret@host/five", 1);
    expect_fault(SETTING_API, "CELERY_BROKER_URL");
    assert_null(strstr(sc.problem_text, "topsecret"));
}

static void concurrency_fits_the_machine_and_can_be_capped(void **state)
{
    (void)state;
    load(SETTING_WORKER);
    assert_true(settings.worker_concurrency >= 1 && settings.worker_concurrency <= 4);
    settings_done(&settings);
    setenv("WORKER_CONCURRENCY", "16", 1);
    setenv("CELERY_MAX_CONCURRENCY", "3", 1);
    load(SETTING_WORKER);
    assert_int_equal(settings.worker_concurrency, 3);
}

static void help_and_page_list_the_settings_without_their_secrets(void **state)
{
    (void)state;
    scoped_text help = {0}, page = {0};
    settings_help(&help, SETTING_API);
    settings_markdown(&page);
    assert_non_null(strstr(help.data, "API_PORT = 8080"));
    assert_non_null(strstr(help.data, "JWT_SECRET_KEY, required"));
    assert_null(strstr(help.data, "WORKER_CONCURRENCY"));
    assert_non_null(strstr(page.data, "| `WORKER_CONCURRENCY` | number |  | worker |"));
    assert_non_null(strstr(page.data, "`OPERATION_SOFT_TIME_LIMIT` or `CELERY_TASK_SOFT_TIME_LIMIT`"));
    assert_null(strstr(help.data, secret));
    assert_null(strstr(page.data, secret));
    for (const char *line = help.data; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 90);
}

static void lists_are_trimmed_and_without_empty_items(void **state)
{
    (void)state;
    size_t count;
    char **items = settings_list(&sc.arena, " a, b c ,,\td ", ',', &count);
    assert_int_equal(count, 3);
    assert_string_equal(items[0], "a");
    assert_string_equal(items[1], "b c");
    assert_string_equal(items[2], "d");
    assert_null(items[3]);
    assert_null(settings_list(&sc.arena, NULL, ',', &count)[0]);
    assert_int_equal(count, 0);
}

static void a_url_of_sentinels_names_them_and_the_primary(void **state)
{
    (void)state;
    setenv("REDIS_URL", "redis+sentinel://:secret@one:26379,[::1]:26380/main?sentinel_password=other", 1);
    load(SETTING_API);
}

static void a_url_of_sentinels_without_a_primary_is_refused(void **state)
{
    (void)state;
    setenv("REDIS_URL", "redis+sentinel://one:26379,two", 1);
    expect_fault(SETTING_API, "REDIS_URL: names no primary");
}

static void a_url_of_sentinels_without_any_is_refused(void **state)
{
    (void)state;
    setenv("REDIS_URL", "redis+sentinel:///main", 1);
    expect_fault(SETTING_API, "REDIS_URL: names no sentinel");
}

#define test(name) cmocka_unit_test_setup_teardown(name, start, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(defaults_stand_where_nothing_is_set),
        test(the_environment_overrides_defaults),
        test(an_empty_number_counts_as_not_set),
        test(an_alias_works_and_the_name_wins),
        test(every_fault_is_named_at_once),
        test(numbers_are_whole_and_nothing_else),
        test(a_short_secret_is_refused_and_never_repeated),
        test(what_only_the_other_program_reads_does_not_matter),
        test(a_broker_url_names_the_queue_database),
        test(concurrency_fits_the_machine_and_can_be_capped),
        test(help_and_page_list_the_settings_without_their_secrets),
        test(lists_are_trimmed_and_without_empty_items),
        test(a_url_of_sentinels_names_them_and_the_primary),
        test(a_url_of_sentinels_without_a_primary_is_refused),
        test(a_url_of_sentinels_without_any_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
