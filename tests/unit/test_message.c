#include "common/json.h"
#include "common/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char operation[] = "11111111-1111-4111-8111-111111111111";

static void an_event_is_written_as_clients_see_it(void **state)
{
    (void)state;
    scoped_text t = {0};
    const struct event e = {.type = "document_processed",
                            .operation_id = operation,
                            .collection_id = "22222222-2222-4222-8222-222222222222",
                            .user_id = 1,
                            .status = "processing",
                            .progress = 12.5,
                            .data_json = " { \"processed\": 1, \"note\": \"}\" }\n"};
    message_write(&t, &e, "2026-11-22T05:53:11.123456Z");
    assert_string_equal(
        t.data,
        "{\"timestamp\":\"2026-11-22T05:53:11.123456Z\",\"type\":\"document_processed\","
        "\"operation_id\":\"11111111-1111-4111-8111-111111111111\","
        "\"collection_id\":\"22222222-2222-4222-8222-222222222222\",\"status\":\"processing\",\"progress\":12.5,"
        "\"data\":{\"operation_id\":\"11111111-1111-4111-8111-111111111111\","
        "\"collection_id\":\"22222222-2222-4222-8222-222222222222\",\"processed\": 1, \"note\": \"}\" }}");
}

static void what_is_unknown_is_null_and_no_data_are_none(void **state)
{
    (void)state;
    static const char *const empties[] = {NULL, "", "{}", " { } ", "null", "[]"};
    for (size_t i = 0; i < array_len(empties); i++) {
        scoped_text t = {0};
        struct scope sc;
        scope_init(&sc, NULL);
        const struct event e = {.type = "x",
                                .operation_id = operation,
                                .collection_id = i % 2 ? "" : NULL,
                                .status = "pending",
                                .progress = -1,
                                .data_json = empties[i]};
        message_write(&t, &e, "now");
        scoped(cJSON) *json = NULL;
        assert_int_equal(json_parse(&sc, t.data, t.len, &json), STATUS_OK);
        assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "progress")));
        assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "collection_id")));
        assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "data")), 2);
        scope_done(&sc);
    }
}

static void an_event_id_is_read_or_refused(void **state)
{
    (void)state;
    struct event_id id;
    assert_int_equal(event_id_parse("00ff00ff00ff00ff-1763790791123-42", &id), STATUS_OK);
    assert_string_equal(id.epoch, "00ff00ff00ff00ff");
    assert_int_equal(id.ms, 1763790791123);
    assert_int_equal(id.seq, 42);
    assert_int_equal(event_id_parse("a-18446744073709551615-0", &id), STATUS_OK);
    assert_true(id.ms == UINT64_MAX);
    assert_int_equal(event_id_parse("0", &id), STATUS_OK);
    assert_string_equal(id.epoch, "");
    static const char *const bad[] = {"",
                                      "1",
                                      "00",
                                      "-",
                                      "--",
                                      "a-1",
                                      "a-1-",
                                      "a--1",
                                      "-1-1",
                                      "a-1-1-1",
                                      "a-1-1 ",
                                      " a-1-1",
                                      "A-1-1",
                                      "a-1-x",
                                      "a-+1-1",
                                      "a-1--1",
                                      "a-18446744073709551616-0",
                                      "00ff00ff00ff00ff0-1-1",
                                      "g-1-1",
                                      "a-0x1-1",
                                      "*",
                                      "a-1-1\n"};
    for (size_t i = 0; i < array_len(bad); i++) {
        if (event_id_parse(bad[i], &id) != STATUS_INVALID)
            fail_msg("taken: '%s'", bad[i]);
    }
}

static void event_ids_are_ordered_by_time_then_sequence(void **state)
{
    (void)state;
    const struct event_id a = {"x", 1, 9}, b = {"a", 2, 0}, c = {"q", 2, 1}, d = {"z", 2, 1};
    assert_true(event_id_compare(&a, &b) < 0);
    assert_true(event_id_compare(&c, &b) > 0);
    assert_int_equal(event_id_compare(&c, &d), 0);
}

static void uuids_are_random_and_of_version_4(void **state)
{
    (void)state;
    char before[37] = "", uuid[37];
    for (int i = 0; i < 1000; i++) {
        uuid_make(uuid);
        assert_true(uuid_is_valid(uuid));
        assert_int_equal(uuid[14], '4');
        assert_non_null(strchr("89ab", uuid[19]));
        assert_string_not_equal(uuid, before);
        memcpy(before, uuid, sizeof uuid);
    }
}

static void what_is_no_uuid_is_refused(void **state)
{
    (void)state;
    assert_true(uuid_is_valid("ABCDEF00-abcd-0000-0000-000000000000"));
    static const char *const bad[] = {"",
                                      "x",
                                      "11111111-1111-4111-8111-11111111111",
                                      "11111111-1111-4111-8111-1111111111111",
                                      "11111111111141118111111111111111",
                                      "g1111111-1111-4111-8111-111111111111",
                                      "11111111_1111-4111-8111-111111111111",
                                      "{1111111-1111-4111-8111-11111111111}",
                                      "11111111-1111-4111-8111-11111111111\n"};
    for (size_t i = 0; i < array_len(bad); i++)
        assert_false(uuid_is_valid(bad[i]));
}

static void a_change_of_rights_names_whom_it_concerns(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t user_id, api_key_id;
        const char *collection_id; /* NULL = it is refused */
    } cases[] = {
        {"{\"user_id\":7}", 7, 0, ""},
        {"{\"api_key_id\":3,\"unknown\":1}", 0, 3, ""},
        {"{\"collection_id\":\"AAAAAAAA-1111-4111-8111-11111111111F\"}", 0, 0, "aaaaaaaa-1111-4111-8111-11111111111f"},
        {"{\"collection_id\":\"x\"}", 0, 0, NULL},
        {"{\"user_id\":\"7\"}", 0, 0, NULL},
        {"{\"user_id\":-7}", 0, 0, NULL},
        {"{\"user_id\":1e300}", 0, 0, NULL},
        {"{}", 0, 0, NULL},
        {"[7]", 0, 0, NULL},
        {"7", 0, 0, NULL},
        {"", 0, 0, NULL},
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct scope sc;
        struct access_change change;
        scope_init(&sc, NULL);
        enum status s = message_access_parse(&sc, cases[i].text, strlen(cases[i].text), &change);
        assert_int_equal(s == STATUS_OK, cases[i].collection_id != NULL);
        if (s == STATUS_OK) {
            assert_int_equal(change.user_id, cases[i].user_id);
            assert_int_equal(change.api_key_id, cases[i].api_key_id);
            assert_string_equal(change.collection_id, cases[i].collection_id);
        }
        scope_done(&sc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_written_as_clients_see_it),
        cmocka_unit_test(what_is_unknown_is_null_and_no_data_are_none),
        cmocka_unit_test(an_event_id_is_read_or_refused),
        cmocka_unit_test(event_ids_are_ordered_by_time_then_sequence),
        cmocka_unit_test(uuids_are_random_and_of_version_4),
        cmocka_unit_test(what_is_no_uuid_is_refused),
        cmocka_unit_test(a_change_of_rights_names_whom_it_concerns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
