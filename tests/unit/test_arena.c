#include "common/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void blocks_are_aligned_and_do_not_overlap(void **state)
{
    (void)state;
    struct arena a = {.newest = NULL};
    unsigned char *blocks[500];
    for (size_t i = 0; i < array_len(blocks); i++) {
        blocks[i] = arena_alloc(&a, i);
        assert_int_equal((uintptr_t)blocks[i] % _Alignof(max_align_t), 0);
        memset(blocks[i], (int)(i & 0xFF), i);
    }
    for (size_t i = 0; i < array_len(blocks); i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_equal(blocks[i][k], i & 0xFF);
    }
    arena_reset(&a);
}

static void one_allocation_may_be_larger_than_any_block(void **state)
{
    (void)state;
    struct arena a = {.newest = NULL};
    char *large = arena_alloc(&a, 5 << 20);
    large[0] = large[(5 << 20) - 1] = 1;
    assert_true(a.used_bytes >= 5 << 20);
    arena_reset(&a);
}

static void zeroed_memory_is_zero_after_a_reset_too(void **state)
{
    (void)state;
    struct arena a = {.newest = NULL};
    memset(arena_alloc(&a, 1000), 0xFF, 1000);
    arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
    const char *p = arena_zalloc(&a, 1000);
    const int *q = arena_array(&a, 100, sizeof *q);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(p[i], 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(q[i], 0);
    arena_reset(&a);
}

static void strings_are_copied_and_null_stays_null(void **state)
{
    (void)state;
    struct arena a = {.newest = NULL};
    char word[] = "word";
    const char *copy = arena_strdup(&a, word), *part = arena_strndup(&a, word, 2);
    word[0] = 'X';
    assert_string_equal(copy, "word");
    assert_string_equal(part, "wo");
    assert_null(arena_strdup(&a, NULL));
    assert_null(arena_strndup(&a, NULL, 3));
    arena_reset(&a);
}

static void printf_takes_texts_of_any_length(void **state)
{
    (void)state;
    struct arena a = {.newest = NULL};
    const char *s = arena_printf(&a, "%s-%0*d", "x", 10000, 7);
    assert_int_equal(strlen(s), 10002);
    assert_string_equal(s + 9999, "007");
    assert_string_equal(arena_printf(&a, "%s", ""), "");
    arena_reset(&a);
}

static void an_empty_arena_can_be_reset(void **state)
{
    (void)state;
    struct arena a = {.newest = NULL};
    arena_reset(&a);
    arena_reset(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_and_do_not_overlap),
        cmocka_unit_test(one_allocation_may_be_larger_than_any_block),
        cmocka_unit_test(zeroed_memory_is_zero_after_a_reset_too),
        cmocka_unit_test(strings_are_copied_and_null_stays_null),
        cmocka_unit_test(printf_takes_texts_of_any_length),
        cmocka_unit_test(an_empty_arena_can_be_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
