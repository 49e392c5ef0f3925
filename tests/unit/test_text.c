#include "common/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void a_text_grows_as_it_is_appended_to(void **state)
{
    (void)state;
    scoped_text t = {0};
    assert_string_equal(text_str(&t), "");
    for (int i = 0; i < 1000; i++)
        text_printf(&t, "%d,", i % 10);
    text_puts(&t, "end");
    text_putc(&t, '!');
    text_append(&t, "\0x", 2);
    assert_int_equal(t.len, 2006);
    assert_memory_equal(t.data + 2000, "end!\0x", 7);
}

static void long_formatted_pieces_are_whole(void **state)
{
    (void)state;
    scoped_text t = {0};
    text_printf(&t, "%0*d", 5000, 1);
    assert_int_equal(t.len, 5000);
    assert_int_equal(t.data[4999], '1');
}

static void a_bound_cuts_and_says_so(void **state)
{
    (void)state;
    scoped_text t = {.max_len = 5};
    text_puts(&t, "abc");
    assert_false(t.is_cut);
    text_puts(&t, "defgh");
    assert_true(t.is_cut);
    assert_string_equal(t.data, "abcde");
    text_putc(&t, 'x');
    assert_string_equal(t.data, "abcde");
    text_clear(&t);
    assert_false(t.is_cut);
    assert_string_equal(t.data, "");
}

static void a_text_can_be_given_away(void **state)
{
    (void)state;
    struct text t = {0};
    text_puts(&t, "mine");
    char *taken = text_take(&t);
    assert_string_equal(taken, "mine");
    assert_null(t.data);
    free(taken);
    taken = text_take(&t);
    assert_string_equal(taken, "");
    free(taken);
}

static void every_code_point_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char bytes[4];
        uint32_t back = 0;
        size_t n = utf8_put(bytes, cp);
        bool is_surrogate = cp >= 0xD800 && cp <= 0xDFFF;
        if (utf8_next(bytes, n, &back) != n || back != (is_surrogate ? 0xFFFD : cp))
            fail_msg("U+%04X came back as U+%04X", cp, back);
        for (size_t cut = 1; cut < n; cut++)
            assert_int_equal(utf8_next(bytes, cut, &back), 0);
    }
}

static void what_is_no_utf8_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",             /* continuation alone */
        "\xC0\x80",         /* overlong NUL */
        "\xC1\xBF",         /* overlong */
        "\xE0\x9F\xBF",     /* overlong, three bytes */
        "\xF0\x8F\xBF\xBF", /* overlong, four bytes */
        "\xED\xA0\x80",     /* surrogate */
        "\xED\xBF\xBF",     /* surrogate */
        "\xF4\x90\x80\x80", /* above U+10FFFF */
        "\xF5\x80\x80\x80",
        "\xFF",
        "\xFE",
        "\xC3",     /* cut */
        "\xE2\x82", /* cut */
        "\xC3(",    /* no continuation */
        "\xE2\x28\xA1",
    };
    uint32_t cp;
    for (size_t i = 0; i < array_len(bad); i++) {
        assert_int_equal(utf8_next(bad[i], strlen(bad[i]), &cp), 0);
        assert_false(utf8_is_valid(bad[i], strlen(bad[i])));
    }
    assert_int_equal(utf8_next("", 0, &cp), 0);
    assert_true(utf8_is_valid("", 0));
    assert_true(utf8_is_valid("a\0\xC3\xA9\xF0\x9F\x98\x80", 8));
    assert_int_equal(utf8_put((char[4]){0}, 0x110000), 3);
}

static void a_cut_never_lies_inside_a_code_point(void **state)
{
    (void)state;
    const char s[] = "a\xC3\xA9\xF0\x9F\x98\x80z";
    static const size_t expected[] = {0, 1, 1, 3, 3, 3, 3, 7, 8, 8};
    for (size_t at = 0; at < array_len(expected); at++)
        assert_int_equal(utf8_floor(s, strlen(s), at), expected[at]);
}

static void repaired_text_is_valid_and_keeps_what_was(void **state)
{
    (void)state;
    scoped_text t = {0};
    text_append_repaired(&t,
                         "a\xFF"
                         "b\0c\xE2\x82",
                         7);
    assert_string_equal(t.data, "a\xEF\xBF\xBD"
                                "bc\xEF\xBF\xBD\xEF\xBF\xBD");
    assert_true(utf8_is_valid(t.data, t.len));
}

static void a_path_is_shown_with_its_odd_bytes_escaped(void **state)
{
    (void)state;
    scoped_text t = {0};
    text_append_escaped(&t, "caf\xC3\xA9\xFF\n\x7F/x", 10);
    assert_string_equal(t.data, "caf\xC3\xA9\\xFF\\x0A\\x7F/x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_grows_as_it_is_appended_to),
        cmocka_unit_test(long_formatted_pieces_are_whole),
        cmocka_unit_test(a_bound_cuts_and_says_so),
        cmocka_unit_test(a_text_can_be_given_away),
        cmocka_unit_test(every_code_point_survives_a_round_trip),
        cmocka_unit_test(what_is_no_utf8_is_refused),
        cmocka_unit_test(a_cut_never_lies_inside_a_code_point),
        cmocka_unit_test(repaired_text_is_valid_and_keeps_what_was),
        cmocka_unit_test(a_path_is_shown_with_its_odd_bytes_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
