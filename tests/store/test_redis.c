#include "tests/support/store.h"

#include <string.h>
#include <unistd.h>

static struct redis *connect_with(int timeout_ms)
{
    const struct redis_options options = {
        .url = getenv("REDIS_URL"), .database = STORE_EVENTS_DB, .prefix = "test:", .timeout_ms = timeout_ms};
    return redis_new(&options);
}

/* Once the pause after a failure is over. */
static enum status run_when_back(struct redis *r, redisReply **out, const char *command)
{
    enum status s = STATUS_UNAVAILABLE;
    for (int i = 0; i < 1000 && s == STATUS_UNAVAILABLE; i++) {
        scope_forgive(&store.sc);
        s = redis_run(&store.sc, r, out, command);
        if (s != STATUS_OK)
            usleep(5000);
    }
    return s;
}

static void names_have_the_prefix(void **state)
{
    (void)state;
    assert_string_equal(redis_key(&store.sc, store.events, "queue:%s", "fast"), "test:queue:fast");
}

static void the_wanted_database_is_selected(void **state)
{
    (void)state;
    assert_ok(redis_run(&store.sc, store.events, NULL, "SET where events"));
    assert_ok(redis_run(&store.sc, store.queue, NULL, "SET where queue"));
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.events, &reply, "GET where"));
    assert_string_equal(reply->str, "events");
}

static void a_connection_that_the_server_closed_is_opened_again_unnoticed(void **state)
{
    (void)state;
    struct redis *r = connect_with(5000);
    scoped(redisReply) *id = NULL;
    assert_ok(redis_run(&store.sc, r, &id, "CLIENT ID"));
    assert_ok(redis_run(&store.sc, store.events, NULL, "CLIENT KILL ID %lld", id->integer));
    scoped(redisReply) *again = NULL;
    assert_ok(redis_run(&store.sc, r, &again, "CLIENT ID"));
    assert_true(again->integer > id->integer);
    redis_free(r);
}

static void an_answer_that_comes_too_late_is_never_taken_for_anothers(void **state)
{
    (void)state;
    struct redis *r = connect_with(100);
    assert_ok(redis_run(&store.sc, r, NULL, "PING"));
    assert_status(STATUS_UNAVAILABLE, redis_run(&store.sc, r, NULL, "BLPOP late 0"));
    assert_false(redis_is_connected(r));
    assert_ok(redis_run(&store.sc, store.events, NULL, "LPUSH late x"));
    scoped(redisReply) *reply = NULL;
    assert_int_equal(run_when_back(r, &reply, "PING"), STATUS_OK);
    assert_string_equal(reply->str, "PONG");
    redis_free(r);
}

static void while_it_pauses_a_command_fails_at_once(void **state)
{
    (void)state;
    const struct redis_options nobody = {.url = "redis://127.0.0.1:1"};
    struct redis *r = redis_new(&nobody);
    for (int i = 0; i < 50; i++)
        assert_status(STATUS_UNAVAILABLE, redis_run(&store.sc, r, NULL, "PING"));
    assert_int_equal(redis_fd(r), -1);
    assert_int_equal(redis_heard_ms(r), 0);
    redis_free(r);
}

static void a_blocking_command_may_end_with_nothing(void **state)
{
    (void)state;
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run_blocking(&store.sc, store.events, 50, &reply, "BRPOP %s 0.05", "nothing"));
    assert_int_equal(reply->type, REDIS_REPLY_NIL);
    assert_true(redis_heard_ms(store.events) > 0);
}

static void a_mistake_of_ours_is_an_internal_error_and_keeps_the_connection(void **state)
{
    (void)state;
    assert_ok(redis_run(&store.sc, store.events, NULL, "SET text x"));
    assert_status(STATUS_INTERNAL, redis_run(&store.sc, store.events, NULL, "LPUSH text y"));
    assert_true(redis_is_connected(store.events));
}

static void a_script_is_sent_again_when_the_server_forgot_it(void **state)
{
    (void)state;
    static const char script[] = "return {KEYS[1], ARGV[1], #ARGV}";
    const char *argv[] = {"k", "v w", ""};
    const size_t lengths[] = {1, 3, 0};
    for (int i = 0; i < 3; i++) {
        scoped(redisReply) *reply = NULL;
        assert_ok(redis_script(&store.sc, store.events, script, 1, 3, argv, lengths, &reply));
        assert_string_equal(reply->element[0]->str, "k");
        assert_string_equal(reply->element[1]->str, "v w");
        assert_int_equal(reply->element[2]->integer, 2);
        if (i == 1)
            assert_ok(redis_run(&store.sc, store.events, NULL, "SCRIPT FLUSH"));
    }
}

static void a_password_and_a_path_of_the_url_are_understood(void **state)
{
    (void)state;
    /* The private server knows no password: AUTH is refused, and that is said without repeating it. */
    const char *address = strstr(getenv("REDIS_URL"), "://") + 3;
    const struct redis_options options = {.url = arena_printf(&store.sc.arena, "redis://:s%%40cret@%s/3", address)};
    struct redis *r = redis_new(&options);
    assert_int_equal(redis_run(&store.sc, r, NULL, "PING"), STATUS_UNAVAILABLE);
    assert_null(strstr(store.sc.problem_text, "cret"));
    assert_non_null(strstr(store.sc.problem_text, "password"));
    scope_forgive(&store.sc);
    redis_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_have_the_prefix),
        cmocka_unit_test(the_wanted_database_is_selected),
        cmocka_unit_test(a_connection_that_the_server_closed_is_opened_again_unnoticed),
        cmocka_unit_test(an_answer_that_comes_too_late_is_never_taken_for_anothers),
        cmocka_unit_test(while_it_pauses_a_command_fails_at_once),
        cmocka_unit_test(a_blocking_command_may_end_with_nothing),
        cmocka_unit_test(a_mistake_of_ours_is_an_internal_error_and_keeps_the_connection),
        cmocka_unit_test(a_script_is_sent_again_when_the_server_forgot_it),
        cmocka_unit_test(a_password_and_a_path_of_the_url_are_understood),
    };
    return cmocka_run_group_tests(tests, store_setup_empty, store_teardown);
}
