#include "common/json.h"
#include "tests/support/store.h"

#include <stdio.h>
#include <string.h>
#include <sys/time.h>

static const char collection[] = "11111111-1111-4111-8111-111111111111";

static struct event event_of(const char *operation, int attempt, const char *type)
{
    return (struct event){.type = type,
                          .operation_id = operation,
                          .collection_id = collection,
                          .user_id = 7,
                          .status = "processing",
                          .progress = 12.5,
                          .attempt = attempt,
                          .data_json = "{\"processed\":1}"};
}

static const char *new_operation(void)
{
    char *uuid = arena_alloc(&store.sc.arena, 37);
    uuid_make(uuid);
    return uuid;
}

/* The id, or NULL when it was refused. */
static const char *publish(const struct event *e)
{
    const char *id = "unset";
    assert_ok(message_publish(&store.sc, store.events, e, &id));
    return id;
}

static redisReply *newest_of(const char *key)
{
    redisReply *reply = NULL;
    assert_ok(redis_run(&store.sc, store.events, &reply, "XREVRANGE %s + - COUNT 1", key));
    assert_int_equal(reply->elements, 1);
    return reply;
}

static const char *stream_of(const char *operation)
{
    return redis_key(&store.sc, store.events, MESSAGE_STREAM, operation);
}

static const char *user_stream(void)
{
    return redis_key(&store.sc, store.events, MESSAGE_USER_STREAM, 7ll);
}

static int64_t number(const char *command, const char *key)
{
    scoped(redisReply) *reply = NULL;
    assert_ok(redis_run(&store.sc, store.events, &reply, "%s %s", command, key));
    return reply->integer;
}

static void an_event_stands_under_one_id_on_both_streams(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const struct event e = event_of(operation, 1, "operation_started");
    const char *id = publish(&e);
    struct event_id parsed;
    assert_ok(event_id_parse(id, &parsed));
    scoped(redisReply) *own = newest_of(stream_of(operation));
    scoped(redisReply) *users = newest_of(user_stream());
    const char *entry = arena_printf(&store.sc.arena, "%llu-%llu", (unsigned long long)parsed.ms,
                                     (unsigned long long)parsed.seq);
    assert_string_equal(own->element[0]->element[0]->str, entry);
    assert_string_equal(users->element[0]->element[0]->str, entry);
    assert_string_equal(own->element[0]->element[1]->element[0]->str, "message");
    const char *json = own->element[0]->element[1]->element[1]->str;
    assert_string_equal(users->element[0]->element[1]->element[1]->str, json);
    scoped(cJSON) *message = NULL;
    assert_ok(json_parse(&store.sc, json, strlen(json), &message));
    assert_string_equal(json_get_text(message, "id", ""), id);
    assert_string_equal(json_get_text(message, "type", ""), "operation_started");
    assert_string_equal(json_get_text(cJSON_GetObjectItem(message, "data"), "operation_id", ""), operation);
}

static void ids_only_rise(void **state)
{
    (void)state;
    const char *operation = new_operation();
    struct event_id before = {.ms = 0}, now;
    for (int i = 0; i < 200; i++) {
        const struct event e = event_of(i % 3 ? operation : new_operation(), 1, "document_processed");
        assert_ok(event_id_parse(publish(&e), &now));
        assert_true(event_id_compare(&before, &now) < 0);
        assert_true(i == 0 || strcmp(before.epoch, now.epoch) == 0);
        before = now;
    }
}

static void ids_rise_even_when_the_clock_went_back(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const struct event e = event_of(operation, 1, "document_processed");
    assert_ok(redis_run(&store.sc, store.events, NULL, "XADD %s 9000000000000-5 message {}", stream_of(operation)));
    struct event_id id;
    assert_ok(event_id_parse(publish(&e), &id));
    assert_int_equal(id.ms, 9000000000000);
    assert_int_equal(id.seq, 6);
    const struct event other = event_of(new_operation(), 1, "document_processed"); /* the user's stream is ahead now */
    assert_ok(event_id_parse(publish(&other), &id));
    assert_int_equal(id.ms, 9000000000000);
    assert_int_equal(id.seq, 7);
    assert_ok(redis_run(&store.sc, store.events, NULL, "DEL %s", user_stream()));
}

static void an_older_attempt_is_refused_and_a_newer_one_takes_over(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const struct event first = event_of(operation, 1, "operation_started"),
                       second = event_of(operation, 2, "operation_started");
    assert_non_null(publish(&first));
    assert_non_null(publish(&second));
    assert_null(publish(&first));
    assert_non_null(publish(&second));
    assert_int_equal(number("XLEN", stream_of(operation)), 3);
}

static void nothing_follows_the_last_event(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const struct event first = event_of(operation, 1, "operation_started"),
                       later = event_of(operation, 5, "operation_started");
    struct event last = event_of(operation, 1, "operation_completed");
    last.is_last = true;
    assert_non_null(publish(&first));
    assert_non_null(publish(&last));
    assert_null(publish(&last));
    assert_null(publish(&first));
    assert_null(publish(&later));
    assert_int_equal(number("XLEN", stream_of(operation)), 2);
}

static void an_operation_that_no_worker_took_can_be_closed(void **state)
{
    (void)state;
    struct event last = event_of(new_operation(), 0, "operation_cancelled");
    last.is_last = true;
    assert_non_null(publish(&last));
}

/* A power cut of PostgreSQL can take back a claim whose attempt has published already; then it is cancelled. */
static void the_last_event_closes_a_stream_that_knows_a_newer_attempt(void **state)
{
    (void)state;
    const char *operation = new_operation();
    struct event started = event_of(operation, 1, "operation_started"),
                 end = event_of(operation, 0, "operation_cancelled");
    end.is_last = true;
    assert_non_null(publish(&started));
    assert_non_null(publish(&end));
    assert_null(publish(&started));
    assert_null(publish(&end));
}

static void streams_are_bounded_and_kept_for_a_day(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const struct event e = event_of(operation, 1, "document_processed");
    for (int i = 0; i < 1300; i++)
        assert_non_null(publish(&e));
    int64_t len = number("XLEN", stream_of(operation));
    assert_true(len >= 1000 && len < 1300);
    const char *keys[] = {stream_of(operation), user_stream(),
                          redis_key(&store.sc, store.events, MESSAGE_STREAM_META, operation)};
    for (size_t i = 0; i < array_len(keys); i++) {
        int64_t ttl = number("TTL", keys[i]);
        assert_true(ttl > 86000 && ttl <= 86400);
    }
    assert_int_equal(number("TTL", redis_key(&store.sc, store.events, MESSAGE_EPOCH)), -1);
}

static void a_lost_data_set_shows_in_the_epoch(void **state)
{
    (void)state;
    struct event_id before, after;
    const struct event e = event_of(new_operation(), 1, "document_processed");
    assert_ok(event_id_parse(publish(&e), &before));
    assert_ok(redis_run(&store.sc, store.events, NULL, "FLUSHDB"));
    assert_ok(event_id_parse(publish(&e), &after));
    assert_string_not_equal(before.epoch, after.epoch);
    assert_int_equal(strlen(after.epoch), 16);
}

/* What a promotion or a restart from a snapshot looks like to the scripts: the keys name another server. */
static void a_data_set_on_another_server_has_another_epoch(void **state)
{
    (void)state;
    struct event_id before, after, later;
    const struct event e = event_of(new_operation(), 1, "document_processed");
    assert_ok(event_id_parse(publish(&e), &before));
    assert_ok(redis_run(&store.sc, store.events, NULL, "SET %s %s",
                        redis_key(&store.sc, store.events, MESSAGE_EPOCH_SERVER), "0123456789abcdef"));
    assert_ok(event_id_parse(publish(&e), &after));
    assert_string_not_equal(before.epoch, after.epoch);
    assert_ok(event_id_parse(publish(&e), &later));
    assert_string_equal(after.epoch, later.epoch);
}

static void an_event_that_redis_has_no_memory_for_changes_nothing(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const struct event e = event_of(operation, 1, "operation_started");
    assert_non_null(publish(&e));
    assert_ok(redis_run(&store.sc, store.events, NULL, "CONFIG SET maxmemory 1"));
    const struct event newer = event_of(operation, 2, "operation_started");
    enum status s = message_publish(&store.sc, store.events, &newer, NULL);
    scope_forgive(&store.sc);
    assert_ok(redis_run(&store.sc, store.events, NULL, "CONFIG SET maxmemory 0"));
    assert_int_equal(s, STATUS_UNAVAILABLE);
    assert_int_equal(number("XLEN", stream_of(operation)), 1);
    assert_non_null(publish(&e)); /* its attempt is still the newest one heard of */
}

/* ---- channels ---- */

static redisContext *subscriber(void)
{
    char host[64] = "";
    int port = 0;
    assert_int_equal(sscanf(getenv("REDIS_URL"), "redis://%63[^:]:%d", host, &port), 2);
    redisContext *c = redisConnect(host, port);
    assert_non_null(c);
    redisSetTimeout(c, (struct timeval){10, 0});
    return c;
}

static void subscribe(redisContext *c, const char *channel)
{
    redisReply *reply = redisCommand(c, "SUBSCRIBE %s", channel);
    assert_non_null(reply);
    freeReplyObject(reply);
}

static void expect_message(redisContext *c, const char *channel, const char *holds)
{
    void *next = NULL;
    assert_int_equal(redisGetReply(c, &next), REDIS_OK);
    scoped(redisReply) *reply = next;
    assert_string_equal(reply->element[1]->str, channel);
    assert_non_null(strstr(reply->element[2]->str, holds));
}

static void an_event_reaches_the_three_channels(void **state)
{
    (void)state;
    const char *operation = new_operation();
    const char *channels[] = {redis_key(&store.sc, store.events, MESSAGE_CHANNEL_OPERATION, operation),
                              redis_key(&store.sc, store.events, MESSAGE_CHANNEL_USER, 7ll),
                              redis_key(&store.sc, store.events, MESSAGE_CHANNEL_COLLECTION, collection)};
    redisContext *c = subscriber();
    for (size_t i = 0; i < array_len(channels); i++)
        subscribe(c, channels[i]);
    struct event e = event_of(operation, 1, "operation_started");
    const char *id = publish(&e);
    for (size_t i = 0; i < array_len(channels); i++)
        expect_message(c, channels[i], id);
    e.collection_id = NULL; /* nothing goes to "collection:" */
    id = publish(&e);
    expect_message(c, channels[0], id);
    expect_message(c, channels[1], id);
    e.collection_id = collection;
    id = publish(&e);
    for (size_t i = 0; i < array_len(channels); i++)
        expect_message(c, channels[i], id);
    redisFree(c);
}

static void a_refused_event_reaches_nobody(void **state)
{
    (void)state;
    const char *operation = new_operation();
    redisContext *c = subscriber();
    const char *channel = redis_key(&store.sc, store.events, MESSAGE_CHANNEL_OPERATION, operation);
    subscribe(c, channel);
    const struct event old = event_of(operation, 1, "operation_started"),
                       new = event_of(operation, 2, "operation_started");
    const char *first = publish(&new);
    assert_null(publish(&old));
    const char *second = publish(&new);
    expect_message(c, channel, first);
    expect_message(c, channel, second);
    redisFree(c);
}

static void control_messages_go_to_one_worker_or_to_all(void **state)
{
    (void)state;
    const char *operation = new_operation();
    redisContext *c = subscriber();
    subscribe(c, "test:control");
    subscribe(c, "test:control:w1");
    const char *json = arena_printf(&store.sc.arena, "{\"action\":\"cancel\",\"operation_id\":\"%s\"}", operation);
    assert_ok(message_control(&store.sc, store.events, "w1", "cancel", operation));
    assert_ok(message_control(&store.sc, store.events, NULL, "cancel", operation));
    expect_message(c, "test:control:w1", json);
    expect_message(c, "test:control", json);
    redisFree(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_stands_under_one_id_on_both_streams),
        cmocka_unit_test(ids_only_rise),
        cmocka_unit_test(ids_rise_even_when_the_clock_went_back),
        cmocka_unit_test(an_older_attempt_is_refused_and_a_newer_one_takes_over),
        cmocka_unit_test(nothing_follows_the_last_event),
        cmocka_unit_test(an_operation_that_no_worker_took_can_be_closed),
        cmocka_unit_test(the_last_event_closes_a_stream_that_knows_a_newer_attempt),
        cmocka_unit_test(streams_are_bounded_and_kept_for_a_day),
        cmocka_unit_test(a_lost_data_set_shows_in_the_epoch),
        cmocka_unit_test(a_data_set_on_another_server_has_another_epoch),
        cmocka_unit_test(an_event_that_redis_has_no_memory_for_changes_nothing),
        cmocka_unit_test(an_event_reaches_the_three_channels),
        cmocka_unit_test(a_refused_event_reaches_nobody),
        cmocka_unit_test(control_messages_go_to_one_worker_or_to_all),
    };
    return cmocka_run_group_tests(tests, store_setup_empty, store_teardown);
}
