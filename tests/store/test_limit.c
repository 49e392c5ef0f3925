#include "api/limit.h"

#include "common/clock.h"
#include "tests/support/store.h"

#include <stdio.h>
#include <string.h>

static struct settings settings;
static struct api api;
static struct request r;
static struct route route = {.method = "POST", .path = "/limited", .limit = "3/hour"};

static int set_up(void **state)
{
    static int number;
    static char address[32];
    (void)state;
    snprintf(address, sizeof address, "203.0.113.%d", ++number); /* every test is a stranger to the others */
    settings.rate_limits = "on";
    api = (struct api){.settings = &settings, .limiter = limiter_new()};
    r = (struct request){.sc = &store.sc,
                         .api = &api,
                         .events = store.events,
                         .route = &route,
                         .client_address = address,
                         .reply.file_fd = -1};
    route.limit = "3/hour";
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    limiter_free(api.limiter);
    text_free(&r.reply.body);
    return 0;
}

static const char *header(const char *name)
{
    for (int i = r.reply.header_count - 1; i >= 0; i--) {
        if (strcmp(r.reply.headers[i].name, name) == 0)
            return r.reply.headers[i].value;
    }
    return NULL;
}

static enum status call(void)
{
    r.reply.header_count = 0;
    enum status s = limit_check(&r);
    scope_forgive(&store.sc);
    return s;
}

static void limits_are_read(void **state)
{
    static const char *const bad[] = {"",        "10",   "10/", "/hour",  "0/hour", "-1/hour",
                                      "10/year", "1/0s", "1/5", "x/hour", "1/5sx",  "10/hours"};
    struct limit_rate rate;
    (void)state;
    assert_int_equal(limit_parse("10/hour", &rate), STATUS_OK);
    assert_int_equal(rate.burst, 10);
    assert_int_equal(rate.interval_ms, 360000);
    assert_int_equal(limit_parse("1/300s", &rate), STATUS_OK);
    assert_int_equal(rate.interval_ms, 300000);
    assert_int_equal(limit_parse("30/minute", &rate), STATUS_OK);
    assert_int_equal(rate.interval_ms, 2000);
    for (size_t i = 0; i < array_len(bad); i++)
        assert_int_equal(limit_parse(bad[i], &rate), STATUS_INVALID);
}

static void a_burst_passes_and_then_one_an_interval(void **state)
{
    struct limit_rate rate = {.burst = 3, .interval_ms = 100};
    int64_t tat = 0;
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(limit_step(&rate, 1000, &tat), 0);
    assert_int_equal(limit_step(&rate, 1000, &tat), 100);
    assert_int_equal(limit_step(&rate, 1060, &tat), 40);
    assert_int_equal(limit_step(&rate, 1100, &tat), 0);
    assert_int_equal(limit_step(&rate, 1100, &tat), 100);
    for (int i = 0; i < 3; i++)
        assert_int_equal(limit_step(&rate, 5000, &tat), 0);
}

static void a_caller_is_refused_after_his_share(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(call(), STATUS_OK);
        assert_string_equal(header("X-RateLimit-Limit"), "3");
        assert_int_equal(atoi(header("X-RateLimit-Remaining")), 2 - i);
    }
    assert_int_equal(call(), STATUS_RATE_LIMITED);
    assert_int_equal(r.reply.http, 429);
    assert_non_null(strstr(r.reply.body.data,
                           "\"detail\":\"Rate limit exceeded\",\"error\":\"rate_limit_exceeded\",\"retry_after\":"));
    assert_non_null(strstr(r.reply.body.data, "\"limit\":\"3/hour\""));
    assert_true(atoi(header("Retry-After")) > 1100 && atoi(header("Retry-After")) <= 1200);
    assert_string_equal(header("X-RateLimit-Remaining"), "0");
    assert_true(atoll(header("X-RateLimit-Reset")) > clock_wall_ms() / 1000);
}

static void another_instance_knows_of_it(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(call(), STATUS_OK);
    struct redis *other = store_connect_redis(STORE_EVENTS_DB);
    r.events = other;
    assert_int_equal(call(), STATUS_RATE_LIMITED);
    redis_free(other);
}

static void users_are_counted_apart_from_their_address(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        (void)call();
    r.user.id = 4711;
    assert_int_equal(call(), STATUS_OK);
    r.user.id = 4712;
    assert_int_equal(call(), STATUS_OK);
}

static void limits_can_be_switched_off(void **state)
{
    (void)state;
    settings.rate_limits = "off";
    for (int i = 0; i < 10; i++)
        assert_int_equal(call(), STATUS_OK);
}

static struct redis *redis_that_is_away(void)
{
    return redis_new(&(struct redis_options){.url = "redis://127.0.0.1:1", .prefix = "", .timeout_ms = 100});
}

static void nobody_is_refused_while_redis_is_away(void **state)
{
    (void)state;
    r.events = redis_that_is_away();
    for (int i = 0; i < 10; i++)
        assert_int_equal(call(), STATUS_OK);
    redis_free(r.events);
}

static int guesses_until_refused(const char *account)
{
    for (int i = 0; i < 1000; i++) {
        r.reply.header_count = 0;
        enum status s = limit_guess(&r, account);
        scope_forgive(&store.sc);
        if (s != STATUS_OK)
            return i;
    }
    return -1;
}

static void guessing_is_slowed_whatever_the_setting_says(void **state)
{
    (void)state;
    settings.rate_limits = "off";
    assert_int_equal(guesses_until_refused("anna"), 10);
    assert_int_equal(guesses_until_refused("ANNA"), 0);
    assert_int_equal(guesses_until_refused("bert"), 10);
    limit_guess_forget(&r, "anna");
    assert_int_equal(guesses_until_refused("anna"), 10);
}

static void an_address_that_guesses_at_many_accounts_is_slowed(void **state)
{
    (void)state;
    int tries = 0;
    for (int i = 0; i < 100; i++) {
        r.reply.header_count = 0;
        enum status s = limit_guess(&r, arena_printf(&store.sc.arena, "account%d", i));
        scope_forgive(&store.sc);
        if (s != STATUS_OK)
            break;
        tries++;
    }
    assert_in_range(tries, 50, 60);
}

static void right_passwords_cost_an_address_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        r.reply.header_count = 0;
        assert_int_equal(limit_guess(&r, "carl"), STATUS_OK);
        limit_guess_forget(&r, "carl");
    }
}

static void guessing_is_slowed_while_redis_is_away(void **state)
{
    (void)state;
    clock_set_for_tests(1000000);
    r.events = redis_that_is_away();
    assert_int_equal(guesses_until_refused("dora"), 10);
    limit_guess_forget(&r, "dora"); /* only its own try: other accounts may share the slot */
    assert_int_equal(guesses_until_refused("dora"), 1);
    redis_free(r.events);
    clock_set_for_tests(-1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(limits_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_burst_passes_and_then_one_an_interval, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_caller_is_refused_after_his_share, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_instance_knows_of_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(users_are_counted_apart_from_their_address, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_can_be_switched_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_is_refused_while_redis_is_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(guessing_is_slowed_whatever_the_setting_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_address_that_guesses_at_many_accounts_is_slowed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(right_passwords_cost_an_address_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(guessing_is_slowed_while_redis_is_away, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
