#include "worker/listing.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <wchar.h>

#include <cmocka.h>

static const struct listing_column columns[] = {
    {"ID", false, 0, false}, {"N", true, 0, false}, {"NAME", false, 8, false}, {"WORKER", false, 8, true}};

/* The printed table; the caller frees it. */
static char *printed(const char *const rows[][4], size_t count)
{
    struct arena arena = {0};
    struct text out = {0};
    struct listing t = listing_new(&arena, columns, array_len(columns));
    for (size_t i = 0; i < count; i++)
        listing_add(&t, rows[i]);
    listing_print(&out, &t);
    listing_done(&t);
    arena_reset(&arena);
    return text_take(&out);
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
    (void)state;
    static const char *const rows[][4] = {{"a", "1", "x", "w"}, {"abc", "1234", NULL, "w2"}};
    scoped_memory char *out = printed(rows, 2);
    assert_string_equal(out, "ID      N  NAME  WORKER\n"
                             "a       1  x     w\n"
                             "abc  1234        w2\n");
    scoped_memory char *empty = printed(rows, 0);
    assert_string_equal(empty, "");
}

static void what_is_too_wide_is_cut_where_it_tells_least(void **state)
{
    (void)state;
    char name[200], worker[200];
    memset(name, 'n', sizeof name - 1);
    memset(worker, 'w', sizeof worker - 1);
    name[199] = worker[199] = '\0';
    memcpy(name, "start", 5);
    memcpy(worker + 196, "end", 3);
    const char *const rows[][4] = {{"8d634e6e-cf59-4485-8931-75cfac70cafc", "1", name, worker}};
    scoped_memory char *out = printed(rows, 1);
    const char *line = strchr(out, '\n') + 1;
    assert_non_null(strstr(line, "8d634e6e-cf59-4485-8931-75cfac70cafc  1  startn"));
    assert_non_null(strstr(line, "n…  …w"));
    assert_non_null(strstr(line, "end\n"));
    assert_int_equal(strlen(line) - 1 - 2 * 2, LISTING_WIDTH); /* two marks of three bytes */
}

static void wide_characters_take_two_columns_and_controls_none(void **state)
{
    (void)state;
    static const char *const rows[][4] = {{"\x1b[31mred", "1", "日本", "w"}, {"x", "2", "a\u202e\xff", "v"}};
    scoped_memory char *out = printed(rows, 2);
    assert_string_equal(out, "ID        N  NAME  WORKER\n"
                             "?[31mred  1  日本  w\n"
                             "x         2  a?    v\n");
}

static void ages_are_short(void **state)
{
    (void)state;
    struct arena arena = {0};
    assert_string_equal(listing_age(&arena, 1.25), "1.2 s");
    assert_string_equal(listing_age(&arena, 90), "90 s");
    assert_string_equal(listing_age(&arena, 600), "10 min");
    assert_string_equal(listing_age(&arena, 86400), "24 h");
    assert_string_equal(listing_age(&arena, 864000), "10 d");
    assert_string_equal(listing_age(&arena, -1), "0.0 s");
    arena_reset(&arena);
}

int main(void)
{
    setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(what_is_too_wide_is_cut_where_it_tells_least),
        cmocka_unit_test(wide_characters_take_two_columns_and_controls_none),
        cmocka_unit_test(ages_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
