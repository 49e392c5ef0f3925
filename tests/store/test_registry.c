/* Who is connected, over all instances: the scripts of the registry on a real Redis. */
#include "api/relay/registry.h"

#include "common/clock.h"
#include "tests/support/store.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const instances[] = {"11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222",
                                        "33333333-3333-4333-8333-333333333333"};
static int64_t next_number;

static struct registration one(int instance, int64_t user, const char *operation)
{
    struct registration r = {.user_id = user};
    snprintf(r.operation_id, sizeof r.operation_id, "%s", operation);
    registry_name(&r, instances[instance], ++next_number, clock_wall_ms());
    return r;
}

static enum registry_answer enter(struct redis *redis, const struct registration *r, int user_most, int operation_most)
{
    enum registry_answer answer;
    assert_ok(registry_enter(&store.sc, redis, &r, 1, user_most, operation_most, &answer));
    return answer;
}

static int64_t number_from(const char *format, const char *key)
{
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.events, &reply, format, key));
    return reply->integer;
}

static void a_user_and_an_operation_have_limits(void **state)
{
    (void)state;
    char operation[37];
    uuid_make(operation);
    for (int i = 0; i < 3; i++) {
        struct registration r = one(i % 2, 100, operation);
        assert_int_equal(enter(store.events, &r, 3, 4), REGISTRY_ENTERED);
    }
    struct registration fourth = one(0, 100, operation), stranger = one(1, 101, operation),
                        late = one(1, 102, operation);
    assert_int_equal(enter(store.events, &fourth, 3, 4), REGISTRY_USER_FULL);
    assert_int_equal(enter(store.events, &stranger, 3, 4), REGISTRY_ENTERED);
    assert_int_equal(enter(store.events, &late, 3, 4), REGISTRY_OPERATION_FULL);
    struct registration elsewhere = one(1, 102, "");
    assert_int_equal(enter(store.events, &elsewhere, 3, 4), REGISTRY_ENTERED);
    assert_ok(registry_leave(&store.sc, store.events, &stranger));
    assert_int_equal(enter(store.events, &late, 3, 4), REGISTRY_ENTERED);
    assert_int_equal(enter(store.events, &late, 3, 4), REGISTRY_ENTERED); /* it counts already */
}

static void each_of_a_batch_is_answered_by_itself(void **state)
{
    (void)state;
    struct registration list[6];
    const struct registration *all[6];
    enum registry_answer answers[6];
    char operation[37];
    uuid_make(operation);
    for (int i = 0; i < 6; i++) {
        list[i] = one(0, i == 5 ? 201 : 200, i % 2 ? operation : "");
        all[i] = &list[i];
    }
    assert_ok(registry_enter(&store.sc, store.events, all, 6, 3, 100, answers));
    static const enum registry_answer expected[] = {REGISTRY_ENTERED,   REGISTRY_ENTERED,   REGISTRY_ENTERED,
                                                    REGISTRY_USER_FULL, REGISTRY_USER_FULL, REGISTRY_ENTERED};
    assert_memory_equal(answers, expected, sizeof expected);
}

static void what_a_dead_instance_left_counts_no_more_after_its_time(void **state)
{
    (void)state;
    struct registration dead = one(0, 300, ""), other = one(1, 300, "");
    assert_int_equal(enter(store.events, &dead, 1, 1), REGISTRY_ENTERED);
    assert_int_equal(enter(store.events, &other, 1, 1), REGISTRY_USER_FULL);
    const char *key = redis_key(&store.sc, store.events, "websocket:connections:user:300");
    scoped(redisReply) *score = NULL;
    assert_ok(redis_run(&store.sc, store.events, &score, "ZSCORE %s %s", key, dead.member));
    int64_t left = strtoll(score->str, NULL, 10) - clock_wall_ms() / 1000;
    assert_in_range(left, 1, 60); /* an instance that is killed is forgotten within a minute */
    assert_ok(
        redis_run(&store.sc, store.events, NULL, "ZADD %s 1 %s", key, dead.member)); /* as if that time had passed */
    assert_int_equal(enter(store.events, &other, 1, 1), REGISTRY_ENTERED);
    assert_int_equal(number_from("ZCARD %s", key), 1);
    assert_ok(registry_renew(&store.sc, store.events, &dead, 1)); /* it was only slow: it counts again */
    assert_int_equal(number_from("ZCARD %s", key), 2);
}

struct racer {
    int instance, entered;
};

static void *race(void *context)
{
    struct racer *racer = context;
    struct scope sc;
    scope_init(&sc, NULL);
    struct redis *redis = store_connect_redis(STORE_EVENTS_DB);
    for (int i = 0; i < 7; i++) {
        struct registration r = {.user_id = 400};
        const struct registration *list = &r;
        enum registry_answer answer = REGISTRY_USER_FULL;
        registry_name(&r, instances[racer->instance], 1000 + i, clock_wall_ms());
        if (registry_enter(&sc, redis, &list, 1, 10, 100, &answer) == STATUS_OK && answer == REGISTRY_ENTERED)
            racer->entered++;
    }
    redis_free(redis);
    scope_done(&sc);
    return NULL;
}

static void of_a_race_over_three_instances_exactly_ten_come_in(void **state)
{
    (void)state;
    pthread_t threads[3];
    struct racer racers[3] = {{0, 0}, {1, 0}, {2, 0}};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    int entered = 0;
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        entered += racers[i].entered;
    }
    assert_int_equal(entered, 10);
}

/* Of what comes on a subscription: a message's text, or what else it is. */
static const char *next_word(struct redis *listener)
{
    for (int tries = 0; tries < 3000; tries++) {
        scoped(redisReply) *reply = NULL;
        assert_ok(redis_receive(&store.sc, listener, &reply));
        if (reply) {
            assert_int_equal(reply->elements, 3);
            bool is_message = strcmp(reply->element[0]->str, "message") == 0;
            return arena_strdup(&store.sc.arena, reply->element[is_message ? 2 : 0]->str);
        }
        usleep(10000);
    }
    fail_msg("nothing came");
    return NULL;
}

static void when_a_user_is_full_each_instance_is_asked_once_whether_the_others_live(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct registration r = one(i % 2, 500, "");
        assert_int_equal(enter(store.events, &r, 4, 4), REGISTRY_ENTERED);
    }
    struct redis *listener = store_connect_redis(STORE_EVENTS_DB);
    const char *subscribe[] = {"SUBSCRIBE", redis_key(&store.sc, listener, REGISTRY_INSTANCE_CHANNEL, instances[1])};
    assert_ok(redis_send(&store.sc, listener, 2, subscribe));
    assert_string_equal(next_word(listener), "subscribe");
    struct registration more = one(2, 500, "");
    assert_int_equal(enter(store.events, &more, 4, 4), REGISTRY_USER_FULL);
    assert_string_equal(next_word(listener), REGISTRY_ASK "500");
    redis_free(listener);
}

static void watchers_are_put_together_by_users(void **state)
{
    (void)state;
    char operation[37];
    uuid_make(operation);
    struct watcher list[10];
    int count = -1;
    int64_t total = -1;
    assert_ok(registry_watchers(&store.sc, store.events, operation, 10, list, &count, &total));
    assert_int_equal(count, 0);
    assert_int_equal(total, 0);
    for (int i = 0; i < 5; i++) {
        struct registration r = {.user_id = i == 4 ? 601 : 600};
        snprintf(r.operation_id, sizeof r.operation_id, "%s", operation);
        registry_name(&r, instances[i % 3], ++next_number, 1000LL * (i == 4 ? 100 : 200 + i));
        assert_int_equal(enter(store.events, &r, 10, 10), REGISTRY_ENTERED);
    }
    const char *key = redis_key(&store.sc, store.events, "websocket:connections:operation:%s", operation);
    assert_ok(redis_run(&store.sc, store.events, NULL, "ZADD %s 1 %s", key, "dead:1:602:1"));
    assert_ok(redis_run(&store.sc, store.events, NULL, "ZADD %s 99999999999 %s", key, "nonsense"));
    assert_ok(registry_watchers(&store.sc, store.events, operation, 10, list, &count, &total));
    assert_int_equal(count, 2);
    assert_int_equal(total, 6); /* whoever wrote nonsense there is counted, and not named */
    assert_true(list[0].user_id == 601 && list[0].connections == 1 && list[0].since == 100);
    assert_true(list[1].user_id == 600 && list[1].connections == 4 && list[1].since == 200);
    assert_ok(registry_watchers(&store.sc, store.events, operation, 2, list, &count, &total));
    assert_in_range(count, 1, 2);
}

static void without_redis_nothing_is_known(void **state)
{
    (void)state;
    struct redis *away = redis_new(
        &(struct redis_options){.url = "unix:///nowhere", .prefix = "test:", .timeout_ms = 50});
    struct registration r = one(0, 700, "");
    const struct registration *list = &r;
    enum registry_answer answer;
    assert_status(STATUS_UNAVAILABLE, registry_enter(&store.sc, away, &list, 1, 1, 1, &answer));
    redis_free(away);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_user_and_an_operation_have_limits),
        cmocka_unit_test(each_of_a_batch_is_answered_by_itself),
        cmocka_unit_test(what_a_dead_instance_left_counts_no_more_after_its_time),
        cmocka_unit_test(of_a_race_over_three_instances_exactly_ten_come_in),
        cmocka_unit_test(when_a_user_is_full_each_instance_is_asked_once_whether_the_others_live),
        cmocka_unit_test(watchers_are_put_together_by_users),
        cmocka_unit_test(without_redis_nothing_is_known),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
