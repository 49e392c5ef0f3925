/* The side of Redis that a loop uses: commands that are sent and answers that are taken when they come. */
#include "tests/support/store.h"

#include <poll.h>
#include <string.h>

/* The next answer, waiting for it. */
static redisReply *await(struct redis *r)
{
    redisReply *reply = NULL;
    for (int i = 0; i < 100 && !reply; i++) {
        struct pollfd p = {.fd = redis_fd(r), .events = POLLIN};
        poll(&p, 1, 100);
        assert_ok(redis_receive(&store.sc, r, &reply));
    }
    assert_non_null(reply);
    return reply;
}

static void an_answer_that_has_not_come_yet_is_not_waited_for(void **state)
{
    (void)state;
    struct redis *r = store_connect_redis(STORE_QUEUE_DB);
    const char *key = redis_key(&store.sc, r, "queue:async"), *pop[] = {"BRPOP", key, "5"};
    redisReply *none = NULL;
    assert_ok(redis_send(&store.sc, r, 3, pop));
    assert_ok(redis_receive(&store.sc, r, &none));
    assert_null(none);
    assert_ok(redis_push(&store.sc, store.queue, "async", "job"));
    scoped(redisReply) *reply = await(r);
    assert_int_equal(reply->elements, 2);
    assert_string_equal(reply->element[1]->str, "job");
    redis_free(r);
}

static void a_message_that_waits_to_be_read_does_not_cost_the_subscription(void **state)
{
    (void)state;
    struct redis *r = store_connect_redis(STORE_EVENTS_DB);
    const char *subscribe[] = {"SUBSCRIBE", "async"}, *ping[] = {"PING"};
    assert_ok(redis_send(&store.sc, r, 2, subscribe));
    scoped(redisReply) *subscribed = await(r);
    for (int i = 0; i < 2; i++) {
        assert_ok(redis_run(&store.sc, store.events, NULL, "PUBLISH async hello"));
        assert_ok(redis_send(&store.sc, r, 1, ping));
        scoped(redisReply) *message = await(r);
        assert_string_equal(message->element[2]->str, "hello");
        scoped(redisReply) *pong = await(r);
        assert_string_equal(pong->element[0]->str, "pong");
    }
    redis_free(r);
}

static void a_connection_that_was_dropped_is_opened_again_after_its_pause(void **state)
{
    (void)state;
    struct redis *r = store_connect_redis(STORE_QUEUE_DB);
    const char *ping[] = {"PING"};
    assert_ok(redis_send(&store.sc, r, 1, ping));
    redis_drop(r);
    redisReply *none;
    assert_status(STATUS_UNAVAILABLE, redis_receive(&store.sc, r, &none));
    enum status s = STATUS_UNAVAILABLE;
    for (int i = 0; i < 200 && s != STATUS_OK; i++) {
        poll(NULL, 0, 20);
        s = redis_send(&store.sc, r, 1, ping);
        scope_forgive(&store.sc);
    }
    scoped(redisReply) *pong = await(r);
    assert_string_equal(pong->str, "PONG");
    redis_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_that_has_not_come_yet_is_not_waited_for),
        cmocka_unit_test(a_message_that_waits_to_be_read_does_not_cost_the_subscription),
        cmocka_unit_test(a_connection_that_was_dropped_is_opened_again_after_its_pause),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
