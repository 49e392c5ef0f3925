#include "worker/tasks/seen.h"

#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void what_was_met_is_found_in_whatever_order_it_came(void **state)
{
    struct seen s = {0};
    (void)state;
    assert_false(seen_has(&s, 1));
    for (int64_t i = 0; i < 5000; i++)
        seen_add(&s, (i * 7919) % 5000 * 2);
    for (int64_t id = 0; id < 10000; id++)
        assert_int_equal(seen_has(&s, id), id % 2 == 0);
    seen_add(&s, 4242424242); /* after it was asked */
    assert_true(seen_has(&s, 4242424242));
    assert_false(seen_has(&s, -1));
    seen_done(&s);
    assert_false(seen_has(&s, 0));
}

static void what_lies_below_an_unreadable_directory_is_hidden(void **state)
{
    static const struct {
        const char *path;
        bool is_hidden;
    } table[] = {
        {"/data/shut/a.txt", true},
        {"/data/shut/deep/er/a.txt", true},
        {"/data/shut", false},
        {"/data/shutter/a.txt", false},
        {"/data/open/a.txt", false},
        {"/data/sh\xFFut/a.txt", true},
        {"a.txt", false},
        {"", false},
    };
    struct seen s = {0};
    (void)state;
    assert_false(seen_is_hidden(&s, "/data/a.txt", 11));
    seen_add_unreadable(&s, "/data/shut", 10);
    seen_add_unreadable(&s, "/data/sh\xFFut", 11);
    for (int i = 0; i < 40; i++)
        seen_add_unreadable(&s, "/other", 6);
    for (size_t i = 0; i < array_len(table); i++)
        assert_int_equal(seen_is_hidden(&s, table[i].path, strlen(table[i].path)), table[i].is_hidden);
    seen_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_met_is_found_in_whatever_order_it_came),
        cmocka_unit_test(what_lies_below_an_unreadable_directory_is_hidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
