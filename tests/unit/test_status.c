#include "common/clock.h"
#include "common/scope.h"
#include "common/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#undef fail

static void every_status_has_a_name_a_text_and_an_answer(void **state)
{
    (void)state;
    for (int s = STATUS_OK; s <= STATUS_CANCELLED; s++) {
        assert_true(strlen(status_name((enum status)s)) > 1);
        assert_true(strlen(status_text((enum status)s)) > 1);
        int http = status_http((enum status)s);
        assert_true(s == STATUS_OK ? http == 200 : http >= 400 && http < 600);
        assert_true((status_class((enum status)s) == ERROR_NONE) == (s == STATUS_OK));
    }
    assert_string_equal(status_name(STATUS_UNAVAILABLE), "UNAVAILABLE");
}

static void what_passes_is_tried_again_and_what_stays_is_not(void **state)
{
    (void)state;
    assert_string_equal(error_class_name(status_class(STATUS_UNAVAILABLE)), "transient");
    assert_string_equal(error_class_name(status_class(STATUS_INVALID)), "permanent");
    assert_string_equal(error_class_name(status_class(STATUS_NO_SPACE)), "resource");
    assert_string_equal(error_class_name(status_class(STATUS_LOST)), "cancelled");
    assert_string_equal(error_class_name(status_class(STATUS_INTERNAL)), "internal");
    assert_string_equal(error_class_name(status_class(STATUS_OK)), "none");
}

static void the_first_problem_of_a_scope_wins_until_it_is_forgiven(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, "trace");
    assert_int_equal(fail(&sc, STATUS_INVALID, "first %d", 1), STATUS_INVALID);
    assert_int_equal(fail(&sc, STATUS_INTERNAL, "second"), STATUS_INTERNAL);
    assert_int_equal(sc.problem, STATUS_INVALID);
    assert_string_equal(sc.problem_text, "first 1");
    scope_forgive(&sc);
    assert_null(sc.problem_text);
    assert_int_equal(fail(&sc, STATUS_BUSY, "third"), STATUS_BUSY);
    assert_string_equal(sc.problem_text, "third");
    assert_string_equal(sc.trace_id, "trace");
    scope_done(&sc);
}

static void a_trace_id_that_is_too_long_is_cut(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, "0123456789012345678901234567890123456789");
    assert_int_equal(strlen(sc.trace_id), 36);
    scope_done(&sc);
}

static void the_clock_can_be_frozen(void **state)
{
    (void)state;
    char iso[28];
    clock_set_for_tests(1795931591123);
    clock_iso(iso);
    assert_string_equal(iso, "2026-11-29T05:53:11.123000Z");
    assert_int_equal(clock_wall_ms(), 1795931591123);
    assert_int_equal(clock_monotonic_us(), 1795931591123000);
    clock_set_for_tests(-1);
    assert_true(clock_monotonic_ms() <= clock_monotonic_ms());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_a_text_and_an_answer),
        cmocka_unit_test(what_passes_is_tried_again_and_what_stays_is_not),
        cmocka_unit_test(the_first_problem_of_a_scope_wins_until_it_is_forgiven),
        cmocka_unit_test(a_trace_id_that_is_too_long_is_cut),
        cmocka_unit_test(the_clock_can_be_frozen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
