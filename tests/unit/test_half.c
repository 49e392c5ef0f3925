#include "common/store/vector_store.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The value of a finite half, by the definition of the format. */
static float float_of(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    float magnitude = exponent ? ldexpf((float)(1024 + mantissa), exponent - 25) : ldexpf((float)mantissa, -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

static void every_half_is_kept(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        if ((h & 0x7C00) != 0x7C00 && half_from_float(float_of((uint16_t)h)) != h)
            fail_msg("%04x became %04x", h, half_from_float(float_of((uint16_t)h)));
    }
}

static void what_lies_between_goes_to_the_nearer_one_and_the_middle_to_the_even_one(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7BFF; h++) {
        float low = float_of((uint16_t)h), high = float_of((uint16_t)(h + 1)), middle = low + (high - low) / 2;
        assert_int_equal(half_from_float(middle), h % 2 ? h + 1 : h);
        assert_int_equal(half_from_float(nextafterf(middle, 0)), h);
        assert_int_equal(half_from_float(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(half_from_float(-middle), 0x8000 | (h % 2 ? h + 1 : h));
    }
}

static void what_is_too_large_becomes_infinite(void **state)
{
    (void)state;
    assert_int_equal(half_from_float(65504), 0x7BFF);
    assert_int_equal(half_from_float(65519), 0x7BFF);
    assert_int_equal(half_from_float(65520), 0x7C00);
    assert_int_equal(half_from_float(1e30f), 0x7C00);
    assert_int_equal(half_from_float(-INFINITY), 0xFC00);
    uint16_t nan = half_from_float(NAN);
    assert_true((nan & 0x7C00) == 0x7C00 && (nan & 0x3FF) != 0);
}

static void what_is_too_small_becomes_zero_with_its_sign(void **state)
{
    (void)state;
    assert_int_equal(half_from_float(1e-30f), 0);
    assert_int_equal(half_from_float(-1e-30f), 0x8000);
    assert_int_equal(half_from_float(ldexpf(1, -25)), 0); /* the middle: even */
    assert_int_equal(half_from_float(ldexpf(1.5f, -25)), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_kept),
        cmocka_unit_test(what_lies_between_goes_to_the_nearer_one_and_the_middle_to_the_even_one),
        cmocka_unit_test(what_is_too_large_becomes_infinite),
        cmocka_unit_test(what_is_too_small_becomes_zero_with_its_sign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
