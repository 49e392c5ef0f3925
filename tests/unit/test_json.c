#include "common/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void commas_and_brackets_come_by_themselves(void **state)
{
    (void)state;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "a", "x");
    json_int(&t, "b", -9223372036854775807ll);
    json_open(&t, "list", '[');
    json_int(&t, NULL, 1);
    json_open(&t, NULL, '{');
    json_close(&t, '}');
    json_text(&t, NULL, "[");
    json_bool(&t, NULL, true);
    json_close(&t, ']');
    json_open(&t, "empty", '[');
    json_close(&t, ']');
    json_raw(&t, "raw", "{\"k\": 1}");
    json_raw(&t, "none", NULL);
    json_text(&t, "null", NULL);
    json_null(&t, "also");
    json_close(&t, '}');
    assert_string_equal(t.data, "{\"a\":\"x\",\"b\":-9223372036854775807,\"list\":[1,{},\"[\",true],\"empty\":[],"
                                "\"raw\":{\"k\": 1},\"none\":null,\"null\":null,\"also\":null}");
}

static void strings_are_escaped_and_repaired(void **state)
{
    (void)state;
    scoped_text t = {0};
    json_text_n(&t, NULL, "q\"b\\ n\nt\tr\r e\x1B d\x7F \xC3\xA9 \xFF \0.", 25);
    assert_string_equal(t.data, "\"q\\\"b\\\\ n\\nt\\tr\\r e\\u001b d\\u007f \xC3\xA9 \xEF\xBF\xBD \\u0000.\"");
}

static void a_real_is_as_short_as_it_can_be_read_back(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},  {100, "100"},      {1.0 / 3, "0.333333333333333"}, {12.5, "12.5"}, {-0.25, "-0.25"},
                 {NAN, "null"}, {INFINITY, "null"}};
    for (size_t i = 0; i < array_len(cases); i++) {
        scoped_text t = {0};
        json_real(&t, NULL, cases[i].value);
        if (isfinite(cases[i].value))
            assert_true(strtod(t.data, NULL) == cases[i].value);
        if (i != 2)
            assert_string_equal(t.data, cases[i].text);
    }
}

static enum status parse(const char *bytes, size_t len)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *json = NULL;
    enum status s = json_parse(&sc, bytes, len, &json);
    assert_true((s == STATUS_OK) == (json != NULL));
    assert_true(s == STATUS_OK || strlen(sc.problem_text) > 10);
    scope_done(&sc);
    return s;
}

static void json_is_read_strictly(void **state)
{
    (void)state;
    static const char *const good[] = {"{}", " [1, 2.5e3, \"x\", null, true] \n", "\"\\ud83d\\ude00\"", "0",
                                       "{\"a\":{\"b\":[]}}"};
    static const char *const bad[] = {"",       " ",        "{",     "{} x",      "{\"a\":1,}",   "[1,]", "nul",
                                      "\xFF",   "\"\x01\"", "\"a",   "{\"a\" 1}", "\"\\u0000\"",  "'a'",  "\"\\ud800\"",
                                      "{a: 1}", "// c\n{}", "[1 2]", "{}{}",      "\"tab\there\""};
    for (size_t i = 0; i < array_len(good); i++) {
        if (parse(good[i], strlen(good[i])) != STATUS_OK)
            fail_msg("refused: %s", good[i]);
    }
    for (size_t i = 0; i < array_len(bad); i++) {
        if (parse(bad[i], strlen(bad[i])) != STATUS_UNPROCESSABLE)
            fail_msg("taken: %s", bad[i]);
    }
    assert_int_equal(parse("{\"a\":\"b\0c\"}", 11), STATUS_UNPROCESSABLE);
    assert_int_equal(parse("\"\\\\u0000\"", 9), STATUS_OK);             /* an escaped backslash, then plain letters */
    assert_int_equal(parse("\"a\\uzzzzb\"", 10), STATUS_UNPROCESSABLE); /* else the string would end at the a */
    assert_int_equal(parse("\"a\\u12\"", 7), STATUS_UNPROCESSABLE);
    assert_int_equal(parse("\"\\up\\\0.\"", 8), STATUS_UNPROCESSABLE); /* a NUL inside an escape */
    assert_int_equal(parse("\"\\\0\"", 4), STATUS_UNPROCESSABLE);
    assert_int_equal(parse("\"\\u00e9\\uD83D\\uDE00\"", 20), STATUS_OK);
    assert_int_equal(parse("{}garbage", 2), STATUS_OK); /* the length counts */
}

static void nesting_has_a_limit(void **state)
{
    (void)state;
    for (int depth = 60; depth <= 70; depth++) {
        scoped_text t = {0};
        for (int i = 0; i < depth; i++)
            text_putc(&t, '[');
        for (int i = 0; i < depth; i++)
            text_putc(&t, ']');
        assert_int_equal(parse(t.data, t.len), depth <= 64 ? STATUS_OK : STATUS_UNPROCESSABLE);
    }
    scoped_text deep = {0};
    for (int i = 0; i < 1000000; i++)
        text_putc(&deep, '[');
    assert_int_equal(parse(deep.data, deep.len), STATUS_UNPROCESSABLE);
}

static void members_of_another_type_count_as_absent(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, NULL);
    static const char source[] = "{\"t\":\"x\",\"n\":7,\"r\":7.5,\"b\":true,\"z\":null,\"big\":1e300}";
    scoped(cJSON) *o = NULL;
    assert_int_equal(json_parse(&sc, source, strlen(source), &o), STATUS_OK);
    assert_string_equal(json_get_text(o, "t", "-"), "x");
    assert_string_equal(json_get_text(o, "n", "-"), "-");
    assert_string_equal(json_get_text(o, "z", "-"), "-");
    assert_string_equal(json_get_text(o, "T", "-"), "-");
    assert_int_equal(json_get_int(o, "n", -1), 7);
    assert_int_equal(json_get_int(o, "r", -1), -1);
    assert_int_equal(json_get_int(o, "big", -1), -1);
    assert_int_equal(json_get_int(o, "t", -1), -1);
    assert_true(json_get_real(o, "r", 0) == 7.5);
    assert_true(json_get_bool(o, "b", false));
    assert_true(json_get_bool(o, "n", true));
    assert_int_equal(json_get_int(NULL, "n", -1), -1);
    scope_done(&sc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commas_and_brackets_come_by_themselves),
        cmocka_unit_test(strings_are_escaped_and_repaired),
        cmocka_unit_test(a_real_is_as_short_as_it_can_be_read_back),
        cmocka_unit_test(json_is_read_strictly),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(members_of_another_type_count_as_absent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
