#include "common/chunking.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Texts of the configuration live in the JSON, which lives until the next call. */
static enum status read_keys(struct scope *sc, const char *strategy, const char *json, struct chunking_config *out)
{
    static cJSON *kept; /* until the next one */
    cJSON_Delete(kept);
    kept = json ? cJSON_Parse(json) : NULL;
    scope_init(sc, NULL);
    return chunking_read(sc, strategy, kept, out);
}

static void what_is_not_given_has_its_default(void **state)
{
    (void)state;
    struct scope sc;
    struct chunking_config c;
    assert_int_equal(read_keys(&sc, "semantic", NULL, &c), STATUS_OK);
    assert_int_equal(c.chunk_size, CHUNKING_UNSET);
    assert_true(c.breakpoint_percentile == 95);
    assert_string_equal(c.breakpoint_type, "percentile");
    assert_int_equal(c.separators.count, 0);
    scope_done(&sc);
    assert_int_equal(read_keys(&sc, "semantic", "{\"buffer_size\":null}", &c), STATUS_OK);
    assert_int_equal(c.buffer_size, 2);
    scope_done(&sc);
}

static void what_is_given_is_read(void **state)
{
    (void)state;
    struct scope sc;
    struct chunking_config c;
    assert_int_equal(read_keys(&sc, "hybrid",
                               "{\"breakpoint_type\":\"interquartile\",\"breakpoint_factor\":0.5,\"semantic_from\":99}",
                               &c),
                     STATUS_OK);
    assert_string_equal(c.breakpoint_type, "interquartile");
    assert_true(c.breakpoint_factor == 0.5);
    assert_int_equal(c.semantic_from, 99);
    scope_done(&sc);
    assert_int_equal(read_keys(&sc, NULL, "{\"separators\":[\"a\",\"b\"]}", &c), STATUS_OK);
    assert_int_equal(c.separators.count, 2);
    assert_string_equal(c.separators.items[1], "b");
    scope_done(&sc);
}

static void keys_of_other_strategies_and_unknown_ones_are_left_alone(void **state)
{
    (void)state;
    struct scope sc;
    struct chunking_config c;
    assert_int_equal(read_keys(&sc, "character", "{\"buffer_size\":\"x\",\"keep\":[1]}", &c), STATUS_OK);
    assert_int_equal(c.buffer_size, 2);
    scope_done(&sc);
}

static void a_value_that_cannot_be_is_refused_and_its_default_stands(void **state)
{
    (void)state;
    static const struct {
        const char *strategy, *json, *words;
    } cases[] = {
        {"recursive", "{\"chunk_size\":9}", "from 10 to 10000"},
        {"recursive", "{\"chunk_size\":10001}", "chunk_size"},
        {"recursive", "{\"chunk_size\":10.5}", "whole"},
        {"recursive", "{\"chunk_size\":\"10\"}", "whole"},
        {"recursive", "{\"chunk_size\":1e400}", "whole"},
        {"recursive", "{\"separators\":[]}", "1 to 16"},
        {"recursive", "{\"separators\":[1]}", "separators"},
        {"recursive", "{\"separators\":[\"0123456789012345678901234567890123456789012345678901234567890123x\"]}", "64"},
        {"semantic", "{\"breakpoint_type\":\"percentile standard_deviation\"}", "one of"},
        {"semantic", "{\"breakpoint_type\":\"\"}", "one of"},
        {"semantic", "{\"breakpoint_type\":\"percent\"}", "one of"},
        {"semantic", "{\"breakpoint_percentile\":100}", "99.9"},
        {"hierarchical", "{\"parent_chunk_size\":true}", "parent_chunk_size"},
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        struct scope sc;
        struct chunking_config c;
        assert_int_equal(read_keys(&sc, cases[i].strategy, cases[i].json, &c), STATUS_INVALID);
        if (!strstr(sc.problem_text, cases[i].words))
            fail_msg("%s: %s", cases[i].json, sc.problem_text);
        assert_int_equal(c.chunk_size, CHUNKING_UNSET);
        assert_string_equal(c.breakpoint_type, "percentile");
        scope_done(&sc);
    }
}

static void sizes_that_do_not_fit_each_other_are_refused(void **state)
{
    (void)state;
    struct scope sc;
    struct chunking_config c;
    assert_int_equal(read_keys(&sc, "hierarchical", NULL, &c), STATUS_OK);
    assert_int_equal(chunking_check_sizes(&sc, &c, 100, 99), STATUS_OK);
    assert_int_equal(chunking_check_sizes(&sc, &c, 100, 100), STATUS_INVALID);
    c.parent_chunk_size = 100;
    assert_int_equal(chunking_check_sizes(&sc, &c, 100, 0), STATUS_INVALID);
    c.parent_chunk_size = 101;
    assert_int_equal(chunking_check_sizes(&sc, &c, 100, 0), STATUS_OK);
    c.min_chunk_size = 101;
    assert_int_equal(chunking_check_sizes(&sc, &c, 100, 0), STATUS_INVALID);
    scope_done(&sc);
}

static void every_key_belongs_to_a_strategy_and_its_default_lies_within_its_bounds(void **state)
{
    (void)state;
    size_t key_count, count;
    const struct chunking_key *keys = chunking_keys(&key_count);
    const struct chunking_strategy *strategies = chunking_strategies(&count);
    for (size_t k = 0; k < key_count; k++) {
        size_t owners = 0, words = 1;
        for (size_t i = 0; i < count; i++)
            owners += chunking_key_is_of(&keys[k], strategies[i].name);
        for (const char *p = keys[k].strategies; *p; p++)
            words += *p == ' ';
        assert_int_equal(owners, words);
        bool is_number = keys[k].kind == CHUNKING_INT || keys[k].kind == CHUNKING_REAL;
        if (is_number && keys[k].fallback != CHUNKING_UNSET)
            assert_true(keys[k].fallback >= keys[k].least && keys[k].fallback <= keys[k].most);
    }
    assert_true(chunking_is_known("hybrid"));
    assert_false(chunking_is_known("hybri"));
    assert_false(chunking_is_known(NULL));
}

static void the_list_is_told_as_json(void **state)
{
    (void)state;
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    chunking_write_strategies(&t, "strategies");
    json_close(&t, '}');
    scoped(cJSON) *json = cJSON_Parse(text_str(&t));
    assert_non_null(json);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "strategies")), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_given_has_its_default),
        cmocka_unit_test(what_is_given_is_read),
        cmocka_unit_test(keys_of_other_strategies_and_unknown_ones_are_left_alone),
        cmocka_unit_test(a_value_that_cannot_be_is_refused_and_its_default_stands),
        cmocka_unit_test(sizes_that_do_not_fit_each_other_are_refused),
        cmocka_unit_test(every_key_belongs_to_a_strategy_and_its_default_lies_within_its_bounds),
        cmocka_unit_test(the_list_is_told_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
