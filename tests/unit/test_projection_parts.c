/* What lies between the database and the numbers: vectors in binary, labels. */
#include "common/store/vector_read.h"
#include "worker/tasks/projecting.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void every_half_becomes_its_float_and_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = half_to_float((uint16_t)h);
        if ((h & 0x7C00) == 0x7C00)
            assert_true((h & 1023) ? isnan(f) : isinf(f) && !!signbit(f) == (h > 0x7FFF));
        else if (half_from_float(f) != h)
            fail_msg("%04x became %04x", h, half_from_float(f));
    }
}

static void vectors_are_read_as_postgresql_sends_them(void **state)
{
    (void)state;
    static const unsigned char floats[] = {0, 2, 0, 0, 0x3F, 0x80, 0, 0, 0xC0, 0x20, 0, 0};
    static const unsigned char halves[] = {0, 3, 0, 0, 0x3C, 0x00, 0xC1, 0x00, 0x00, 0x00};
    float out[3];
    assert_true(vector_decode(floats, sizeof floats, false, 2, out));
    assert_true(out[0] == 1 && out[1] == -2.5f);
    assert_true(vector_decode(halves, sizeof halves, true, 3, out));
    assert_true(out[0] == 1 && out[1] == -2.5f && out[2] == 0);
}

static void damaged_vectors_are_refused(void **state)
{
    (void)state;
    static const unsigned char halves[] = {0, 3, 0, 0, 0x3C, 0x00, 0xC1, 0x00, 0x00, 0x00, 0, 0, 0, 0, 0};
    float out[8];
    for (size_t len = 0; len <= sizeof halves; len++) {
        if (len != 10)
            assert_false(vector_decode(halves, len, true, 3, out));
        assert_false(vector_decode(halves, len, true, 2, out));
        assert_false(vector_decode(halves, len, true, 4, out));
        assert_false(vector_decode(halves, len, false, 3, out));
        assert_false(vector_decode(halves, len, true, -1, out));
    }
}

static void labels_are_numbered_by_how_many_have_them(void **state)
{
    (void)state;
    struct projection_point points[] = {
        {1, "b", "Same name", 9}, {2, "a", "Same name", 9}, {3, "c", "\"C\"", 9}, {4, "c", "\"C\"", 9}};
    scoped_text legend = {0};
    projection_label(points, array_len(points), &legend);
    assert_string_equal(text_str(&legend),
                        "[{\"label\":0,\"text\":\"\\\"C\\\"\",\"count\":2},{\"label\":1,\"text\":\"Same "
                        "name\",\"count\":1},{\"label\":2,\"text\":\"Same name\",\"count\":1}]");
    assert_int_equal(points[0].label, 2);
    assert_int_equal(points[1].label, 1);
    assert_int_equal(points[2].label, 0);
    assert_int_equal(points[3].label, 0);
}

static void more_labels_than_a_legend_holds_share_the_last_one(void **state)
{
    (void)state;
    enum { N = PROJECTION_LABELS + 500 };
    static struct projection_point points[N + 1];
    static char names[N][8];
    for (int exact = 0; exact < 2; exact++) {
        size_t count = exact ? PROJECTION_LABELS : N;
        for (size_t i = 0; i < count; i++) {
            snprintf(names[i], sizeof names[i], "%06zu", i);
            points[i] = (struct projection_point){(int64_t)i, names[i], names[i], 0};
        }
        scoped_text legend = {0};
        projection_label(points, count, &legend);
        scoped(cJSON) *json = cJSON_Parse(text_str(&legend));
        assert_int_equal(cJSON_GetArraySize(json), PROJECTION_LABELS);
        const cJSON *last = cJSON_GetArrayItem(json, PROJECTION_LABELS - 1);
        assert_string_equal(json_get_text(last, "text", ""), exact ? "000999" : "other");
        assert_int_equal(json_get_int(last, "count", 0), exact ? 1 : 501);
        assert_int_equal(points[count - 1].label, PROJECTION_LABELS - 1);
    }
}

static void nothing_has_an_empty_legend(void **state)
{
    (void)state;
    scoped_text legend = {0};
    projection_label(NULL, 0, &legend);
    assert_string_equal(text_str(&legend), "[]");
}

#define test(name) cmocka_unit_test(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(every_half_becomes_its_float_and_back),
        test(vectors_are_read_as_postgresql_sends_them),
        test(damaged_vectors_are_refused),
        test(labels_are_numbered_by_how_many_have_them),
        test(more_labels_than_a_legend_holds_share_the_last_one),
        test(nothing_has_an_empty_legend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
