#include "common/operation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const enum operation_event events[] = {OPERATION_CLAIM,  OPERATION_FINISH,    OPERATION_FAIL,
                                              OPERATION_CANCEL, OPERATION_HAND_BACK, OPERATION_SWEEP};

static void a_finished_operation_never_changes(void **state)
{
    (void)state;
    for (int from = 0; from < OPERATION_STATES; from++) {
        for (size_t e = 0; e < array_len(events); e++) {
            enum operation_state next = OPERATION_STATES;
            enum status s = operation_next((enum operation_state)from, events[e], &next);
            if (operation_is_final((enum operation_state)from))
                assert_int_equal(s, STATUS_CONFLICT);
            assert_true((s == STATUS_OK) == (next != OPERATION_STATES)); /* written only on success */
        }
    }
}

static void a_pending_operation_is_claimed_cancelled_or_fails(void **state)
{
    (void)state;
    enum operation_state next;
    assert_int_equal(operation_next(OPERATION_PENDING, OPERATION_CLAIM, &next), STATUS_OK);
    assert_int_equal(next, OPERATION_PROCESSING);
    assert_int_equal(operation_next(OPERATION_PENDING, OPERATION_CANCEL, &next), STATUS_OK);
    assert_int_equal(next, OPERATION_CANCELLED);
    assert_int_equal(operation_next(OPERATION_PENDING, OPERATION_FAIL, &next), STATUS_OK);
    assert_int_equal(operation_next(OPERATION_PENDING, OPERATION_FINISH, &next), STATUS_CONFLICT);
    assert_int_equal(operation_next(OPERATION_PENDING, OPERATION_SWEEP, &next), STATUS_CONFLICT);
}

static void a_lost_or_returned_operation_is_pending_again(void **state)
{
    (void)state;
    enum operation_state next;
    assert_int_equal(operation_next(OPERATION_PROCESSING, OPERATION_SWEEP, &next), STATUS_OK);
    assert_int_equal(next, OPERATION_PENDING);
    assert_int_equal(operation_next(OPERATION_PROCESSING, OPERATION_HAND_BACK, &next), STATUS_OK);
    assert_int_equal(next, OPERATION_PENDING);
    assert_int_equal(operation_next(OPERATION_PROCESSING, OPERATION_CLAIM, &next), STATUS_CONFLICT);
}

static void every_transition_is_listed_once_with_a_reason(void **state)
{
    (void)state;
    size_t count;
    const struct operation_transition *all = operation_transitions(&count);
    for (size_t i = 0; i < count; i++) {
        enum operation_state next;
        assert_true(strlen(all[i].reason) > 5);
        assert_int_equal(operation_next(all[i].from, all[i].event, &next), STATUS_OK);
        assert_int_equal(next, all[i].to);
        for (size_t k = 0; k < i; k++)
            assert_false(all[i].from == all[k].from && all[i].event == all[k].event);
    }
}

static void names_are_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < OPERATION_STATES; i++) {
        enum operation_state s = OPERATION_STATES;
        assert_int_equal(operation_state_parse(operation_state_name((enum operation_state)i), &s), STATUS_OK);
        assert_int_equal(s, i);
    }
    for (int i = 0; i < OPERATION_TYPES; i++) {
        enum operation_type t = OPERATION_TYPES;
        assert_int_equal(operation_type_parse(operation_kind((enum operation_type)i)->name, &t), STATUS_OK);
        assert_int_equal(t, i);
    }
    enum operation_state s;
    enum operation_type t;
    assert_int_equal(operation_state_parse("Pending", &s), STATUS_INVALID);
    assert_int_equal(operation_state_parse("", &s), STATUS_INVALID);
    assert_int_equal(operation_type_parse("INDEX", &t), STATUS_INVALID);
}

static void kinds_that_only_read_do_not_hold_a_collection(void **state)
{
    (void)state;
    assert_false(operation_kind(OPERATION_BENCHMARK)->mutates);
    assert_false(operation_kind(OPERATION_PROJECTION_BUILD)->mutates);
    assert_true(operation_kind(OPERATION_REINDEX)->mutates);
    assert_string_equal(operation_kind(OPERATION_INDEX)->queue, "fast"); /* never behind long work */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finished_operation_never_changes),
        cmocka_unit_test(a_pending_operation_is_claimed_cancelled_or_fails),
        cmocka_unit_test(a_lost_or_returned_operation_is_pending_again),
        cmocka_unit_test(every_transition_is_listed_once_with_a_reason),
        cmocka_unit_test(names_are_read_back),
        cmocka_unit_test(kinds_that_only_read_do_not_hold_a_collection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
