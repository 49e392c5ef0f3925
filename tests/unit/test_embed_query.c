#include "api/embed_query.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static enum status parse(struct scope *sc, const char *answer, float **out, int *out_dim)
{
    scope_init(sc, NULL);
    return embed_query_parse(sc, answer, strlen(answer), out, out_dim);
}

static void a_good_answer_is_a_vector_of_length_one(void **state)
{
    (void)state;
    struct scope sc;
    float *v = NULL;
    int dim = 0;
    assert_int_equal(parse(&sc, "{\"model\":\"m\",\"dim\":2,\"vectors\":[[3,4]],\"tokens\":1}", &v, &dim), STATUS_OK);
    assert_int_equal(dim, 2);
    assert_true(fabsf(v[0] - 0.6F) < 1e-6F && fabsf(v[1] - 0.8F) < 1e-6F);
    scope_done(&sc);
}

static void anything_else_is_a_worker_that_does_not_answer(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "null",
        "[]",
        "{}",
        "{\"dim\":2}",
        "{\"dim\":2,\"vectors\":[]}",
        "{\"dim\":2,\"vectors\":[[1,2],[1,2]]}",
        "{\"dim\":2,\"vectors\":[[1]]}",
        "{\"dim\":2,\"vectors\":[[1,2,3]]}",
        "{\"dim\":2,\"vectors\":[[1,\"2\"]]}",
        "{\"dim\":2,\"vectors\":[[0,0]]}",
        "{\"dim\":2,\"vectors\":[[1e999,0]]}",
        "{\"dim\":-2,\"vectors\":[[1,2]]}",
        "{\"dim\":0,\"vectors\":[[]]}",
        "{\"dim\":99999999,\"vectors\":[[1]]}",
        "{\"dim\":2,\"vectors\":[[1,2]]} trailing",
        "{\"dim\":2,\"vectors\":[[1,2]",
    };
    for (size_t i = 0; i < array_len(bad); i++) {
        struct scope sc;
        float *v = NULL;
        int dim = 0;
        if (parse(&sc, bad[i], &v, &dim) != STATUS_UNAVAILABLE)
            fail_msg("taken: %s", bad[i]);
        assert_null(v);
        assert_non_null(sc.problem_text);
        scope_done(&sc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_answer_is_a_vector_of_length_one),
        cmocka_unit_test(anything_else_is_a_worker_that_does_not_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
