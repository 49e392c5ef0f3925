#include "api/router.h"
#include "api/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#undef fail /* ours, not the one of cmocka */

static const struct schema_field fields[] = {
    {"name", FIELD_TEXT, FIELD_REQUIRED, 2, 5, ""},     {"note", FIELD_TEXT, FIELD_NULLABLE, 1, 0, ""},
    {"count", FIELD_INT, FIELD_OPTIONAL, 1, 100, ""},   {"ratio", FIELD_REAL, FIELD_OPTIONAL, 0, 1, ""},
    {"is_it", FIELD_BOOL, FIELD_OPTIONAL, 1, 0, ""},    {"config", FIELD_OBJECT, FIELD_NULLABLE, 1, 0, ""},
    {"items", FIELD_LIST, FIELD_OPTIONAL, 1, 2, ""},    {"ids", FIELD_UUIDS, FIELD_OPTIONAL, 1, 2, ""},
    {"id", FIELD_UUID, FIELD_OPTIONAL, 1, 0, ""},       {"any", FIELD_ANY, FIELD_OPTIONAL, 1, 0, ""},
    {"password", FIELD_TEXT, FIELD_OPTIONAL, 8, 9, ""},
};
static const struct schema schema = {"TEST", false, fields, array_len(fields)};
static const struct schema strict = {"TEST", true, fields, array_len(fields)};
static const struct schema_field loose_fields[] = {{"note", FIELD_TEXT, FIELD_NULLABLE, 1, 0, ""}};
static const struct schema loose = {"LOOSE", false, loose_fields, array_len(loose_fields)};

static struct scope sc;
static struct request r;

static int set_up(void **state)
{
    (void)state;
    scope_init(&sc, "trace");
    r = (struct request){.sc = &sc, .reply.file_fd = -1};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    text_free(&r.reply.body);
    text_free(&r.reply.invalid);
    scope_done(&sc);
    return 0;
}

static enum status check(const struct schema *s, const char *body)
{
    cJSON *json = NULL;
    text_clear(&r.reply.invalid);
    scope_forgive(&sc);
    r.json = NULL;
    r.body = body;
    r.body_len = strlen(body);
    enum status status = schema_read_body(&r, s, &json);
    cJSON_Delete(json);
    return status;
}

static void assert_fault(const char *body, const char *expected)
{
    assert_int_equal(check(&schema, body), STATUS_UNPROCESSABLE);
    assert_string_equal(text_str(&r.reply.invalid), expected);
}

static void a_body_that_fits_passes(void **state)
{
    (void)state;
    assert_int_equal(check(&schema, "{\"name\":\"anna\"}"), STATUS_OK);
    assert_int_equal(check(&schema, " {\"name\":\"anna\",\"note\":null,\"count\":100,\"ratio\":0.5,\"is_it\":false,"
                                    "\"config\":{},\"items\":[1,\"b\"],"
                                    "\"ids\":[\"0b6f2a4e-7c1d-4f3a-9e58-1d2c3b4a5f60\"],\"id\":\"0B6F2A4E-7C1D-4F3A-"
                                    "9E58-1D2C3B4A5F60\",\"any\":null} \n"),
                     STATUS_OK);
}

static void lengths_are_counted_in_code_points(void **state)
{
    (void)state;
    assert_int_equal(check(&schema, "{\"name\":\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"}"),
                     STATUS_OK); /* 3 code points, 9 bytes */
    assert_fault("{\"name\":\"\xF0\x9F\x98\x80\"}",
                 "{\"type\":\"string_too_short\",\"loc\":[\"body\",\"name\"],\"msg\":\"String should have at least 2 "
                 "characters\",\"input\":\"\xF0\x9F\x98\x80\"}");
}

static void all_faults_are_told_at_once(void **state)
{
    (void)state;
    assert_int_equal(
        check(&schema, "{\"count\":0,\"ratio\":\"x\",\"is_it\":1,\"config\":[],\"ids\":[\"no\"],\"id\":7}"),
        STATUS_UNPROCESSABLE);
    scoped_text list = {0};
    text_printf(&list, "[%s]", r.reply.invalid.data);
    scoped(cJSON) *json = NULL;
    assert_int_equal(json_parse(&sc, list.data, list.len, &json), STATUS_OK);
    assert_int_equal(cJSON_GetArraySize(json), 7);
    const cJSON *last = cJSON_GetArrayItem(json, 5);
    assert_string_equal(json_get_text(last, "type", ""), "uuid_parsing");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(last, "loc")), 3);
}

static void numbers_keep_their_bounds(void **state)
{
    (void)state;
    assert_fault("{\"name\":\"anna\",\"count\":101}",
                 "{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"count\"],\"msg\":\"Input should be less than or "
                 "equal to 100\",\"input\":101}");
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"count\":1.5}"), STATUS_UNPROCESSABLE);
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"count\":1e300}"), STATUS_UNPROCESSABLE);
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"ratio\":1e400}"), STATUS_UNPROCESSABLE);
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"count\":2.0}"), STATUS_OK);
}

static void lists_keep_their_bounds(void **state)
{
    (void)state;
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"items\":[]}"), STATUS_UNPROCESSABLE);
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"items\":[1,2,3]}"), STATUS_UNPROCESSABLE);
    assert_non_null(strstr(r.reply.invalid.data, "too_long"));
}

static void null_is_taken_only_where_it_is_allowed(void **state)
{
    (void)state;
    assert_int_equal(check(&schema, "{\"name\":null}"), STATUS_UNPROCESSABLE);
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"count\":null}"), STATUS_UNPROCESSABLE);
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"config\":null}"), STATUS_OK);
}

static void unknown_fields_are_refused_by_strict_schemas_only(void **state)
{
    (void)state;
    assert_int_equal(check(&schema, "{\"name\":\"anna\",\"x\":1}"), STATUS_OK);
    assert_int_equal(check(&strict, "{\"name\":\"anna\",\"x\":1}"), STATUS_UNPROCESSABLE);
    assert_string_equal(r.reply.invalid.data, "{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"x\"],\"msg\":\"Extra "
                                              "inputs are not permitted\",\"input\":1}");
}

static void a_missing_body_is_told(void **state)
{
    (void)state;
    assert_fault("", "{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\",\"input\":null}");
    assert_fault(" \r\n", "{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\",\"input\":null}");
}

static void a_body_of_optional_fields_may_be_missing(void **state)
{
    (void)state;
    assert_int_equal(check(&loose, ""), STATUS_OK);
    assert_null(r.json);
    assert_int_equal(check(&loose, "null"), STATUS_OK);
    assert_null(r.json);
    assert_int_equal(check(&loose, "{}"), STATUS_OK);
    assert_int_equal(check(&loose, "[]"), STATUS_UNPROCESSABLE);
}

static void what_is_no_json_or_no_object_is_told(void **state)
{
    static const char *const bodies[] = {"{",        "{\"a\":}", "nope", "{} {}", "\xFF", "{\"name\":\"\\ud800\"}",
                                         "\"text\"", "[1]",      "7"};
    (void)state;
    for (size_t i = 0; i < array_len(bodies); i++) {
        assert_int_equal(check(&schema, bodies[i]), STATUS_UNPROCESSABLE);
        assert_true(r.reply.invalid.len > 0);
    }
}

static void a_password_is_not_sent_back(void **state)
{
    (void)state;
    assert_fault("{\"name\":\"anna\",\"password\":\"secret\"}",
                 "{\"type\":\"string_too_short\",\"loc\":[\"body\",\"password\"],\"msg\":\"String should have at least "
                 "8 characters\",\"input\":null}");
}

static void the_answer_has_pydantics_shape(void **state)
{
    (void)state;
    check(&schema, "{\"name\":\"a\"}");
    reply_error(&r, STATUS_UNPROCESSABLE);
    assert_int_equal(r.reply.http, 422);
    assert_string_equal(r.reply.body.data, "{\"detail\":[{\"type\":\"string_too_short\",\"loc\":[\"body\",\"name\"],"
                                           "\"msg\":\"String should have at least 2 characters\",\"input\":\"a\"}]}");
}

static void faults_of_ours_are_not_told(void **state)
{
    (void)state;
    assert_int_equal(fail(&sc, STATUS_INTERNAL, "relation secret_table is broken"), STATUS_INTERNAL);
    reply_error(&r, STATUS_INTERNAL);
    assert_string_equal(r.reply.body.data, "{\"detail\":\"Internal server error\",\"correlation_id\":\"trace\"}");
    reply_error(&r, STATUS_UNAVAILABLE);
    assert_int_equal(r.reply.http, 503);
    assert_null(strstr(r.reply.body.data, "secret_table"));
    assert_string_equal(r.reply.headers[0].name, "Retry-After");
}

static void the_sentence_of_a_refusal_is_told_with_a_reference(void **state)
{
    (void)state;
    assert_int_equal(fail(&sc, STATUS_CONFLICT, "name taken"), STATUS_CONFLICT);
    reply_error(&r, STATUS_CONFLICT);
    assert_string_equal(r.reply.body.data, "{\"detail\":\"name taken\",\"reference\":\"ERR-trace\"}");
}

static void a_header_with_a_line_break_is_left_out(void **state)
{
    (void)state;
    reply_header(&r, "X-A", "fine");
    reply_header(&r, "X-B", "a\r\nSet-Cookie: b");
    assert_int_equal(r.reply.header_count, 1);
}

static void query_parameters_are_found_and_decoded(void **state)
{
    (void)state;
    r.query = "a=1&b=x%20y+z&c&=4&a=2&bad=%zz&d%5B%5D=5";
    assert_string_equal(request_query(&r, "a"), "1");
    assert_string_equal(request_query(&r, "b"), "x y z");
    assert_string_equal(request_query(&r, "c"), "");
    assert_string_equal(request_query(&r, "d[]"), "5");
    assert_null(request_query(&r, "bad"));
    assert_null(request_query(&r, "e"));
    r.query = NULL;
    assert_null(request_query(&r, "a"));
}

static void pages_have_defaults_and_bounds(void **state)
{
    static const char *const bad[] = {"page=0", "page=-1", "per_page=101", "per_page=0",
                                      "page=x", "page=",   "per_page=1e2", "page=99999999999999999999"};
    int page, per_page;
    (void)state;
    r.query = "limit=50";
    assert_int_equal(request_page(&r, &page, &per_page), STATUS_OK);
    assert_int_equal(page, 1);
    assert_int_equal(per_page, 50);
    for (size_t i = 0; i < array_len(bad); i++) {
        r.query = bad[i];
        assert_int_equal(request_page(&r, &page, &per_page), STATUS_UNPROCESSABLE);
    }
    assert_non_null(strstr(r.reply.invalid.data, "\"loc\":[\"query\",\"page\"]"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_body_that_fits_passes),
        TEST(lengths_are_counted_in_code_points),
        TEST(all_faults_are_told_at_once),
        TEST(numbers_keep_their_bounds),
        TEST(lists_keep_their_bounds),
        TEST(null_is_taken_only_where_it_is_allowed),
        TEST(unknown_fields_are_refused_by_strict_schemas_only),
        TEST(a_missing_body_is_told),
        TEST(a_body_of_optional_fields_may_be_missing),
        TEST(what_is_no_json_or_no_object_is_told),
        TEST(a_password_is_not_sent_back),
        TEST(the_answer_has_pydantics_shape),
        TEST(faults_of_ours_are_not_told),
        TEST(the_sentence_of_a_refusal_is_told_with_a_reference),
        TEST(a_header_with_a_line_break_is_left_out),
        TEST(query_parameters_are_found_and_decoded),
        TEST(pages_have_defaults_and_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
