#include "tests/support/golden.h"
#include "worker/embed/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct embed_model *model;

static int open_model(void **state)
{
    (void)state;
    char error[256] = "";
    model = embed_model_open(golden_model_dir(), error, sizeof error);
    if (!model)
        print_error("%s\n", error);
    return model ? 0 : -1;
}

static int close_model(void **state)
{
    (void)state;
    embed_model_close(model);
    return 0;
}

/* Vectors of all texts, as one batch; caller frees. */
static float *run_backend(const struct embed_backend_api *api, int threads, const struct token_list *ids,
                          const int32_t *offsets, int count)
{
    char error[256] = "";
    struct embed_backend *b = api->open(&model->bert, 0, threads, error, sizeof error);
    assert_non_null(b);
    float *vectors = must_calloc((size_t)count * (size_t)model->dim, sizeof *vectors);
    struct embed_batch batch = {.ids = ids->ids, .offsets = offsets, .count = count};
    assert_int_equal(api->run(b, &batch, vectors), EMBED_OK);
    api->close(b);
    return vectors;
}

static double cosine(const float *a, const float *b, int dim)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < dim; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

static void expect_golden(const struct embed_backend_api *api, int threads)
{
    scoped(cJSON) *golden = golden_json("tests/golden/embed_vectors.json");
    int count = cJSON_GetArraySize(golden), n = 0;
    int32_t *offsets = must_calloc((size_t)count + 1, sizeof *offsets);
    struct token_list ids = {0};
    for (const cJSON *c = golden->child; c; c = c->next) {
        size_t len;
        char *text = golden_unhex(json_get_text(c, "text", ""), &len);
        tokenizer_encode(model->tokenizer, text, len, (size_t)model->max_tokens, &ids);
        offsets[++n] = (int32_t)ids.count;
        free(text);
    }
    assert_true(count >= 24);
    float *vectors = run_backend(api, threads, &ids, offsets, count);
    n = 0;
    for (const cJSON *c = golden->child; c; c = c->next, n++) {
        float expected[1024];
        int dim = 0;
        for (const cJSON *x = cJSON_GetObjectItem(c, "vector")->child; x; x = x->next)
            expected[dim++] = (float)x->valuedouble;
        assert_int_equal(dim, model->dim);
        double similarity = cosine(vectors + (size_t)n * (size_t)dim, expected, dim);
        if (!(similarity >= 0.9999))
            fail_msg("text %d: cosine %.6f", n, similarity);
        double norm = cosine(expected, vectors + (size_t)n * (size_t)dim, dim);
        assert_true(norm > 0);
        for (int i = 0; i < dim; i++)
            assert_true(fabs((double)vectors[(size_t)n * (size_t)dim + (size_t)i] - (double)expected[i]) < 2e-5);
    }
    free(vectors);
    free(offsets);
    token_list_free(&ids);
}

static void the_reference_backend_agrees_with_sentence_transformers(void **state)
{
    (void)state;
    expect_golden(embed_backend_reference(), 1);
}

static void the_cpu_backend_agrees_with_sentence_transformers(void **state)
{
    (void)state;
    expect_golden(embed_backend_cpu(), 1);
    expect_golden(embed_backend_cpu(), 3);
}

static void every_instruction_set_gives_the_same_vectors(void **state)
{
    (void)state;
    static const char *const sets[] = {"generic", "avx2"};
    for (size_t i = 0; i < array_len(sets); i++) {
        setenv("OPSTREAM_CPU_KERNELS", sets[i], 1);
        expect_golden(embed_backend_cpu(), 2);
    }
    unsetenv("OPSTREAM_CPU_KERNELS");
}

static void ids_and_lengths_out_of_range_are_refused(void **state)
{
    (void)state;
    const struct embed_backend_api *const apis[] = {embed_backend_reference(), embed_backend_cpu()};
    int32_t long_offsets[] = {0, 513}, empty_offsets[] = {0, 0};
    int32_t *ids = must_calloc(513, sizeof *ids);
    float vector[384];
    for (size_t i = 0; i < array_len(apis); i++) {
        char error[256] = "";
        struct embed_backend *b = apis[i]->open(&model->bert, 0, 1, error, sizeof error);
        assert_int_equal(apis[i]->run(b, &(struct embed_batch){ids, long_offsets, 1}, vector), EMBED_BAD_INPUT);
        assert_int_equal(apis[i]->run(b, &(struct embed_batch){ids, empty_offsets, 1}, vector), EMBED_BAD_INPUT);
        ids[0] = 30522;
        assert_int_equal(apis[i]->run(b, &(struct embed_batch){ids, (int32_t[]){0, 1}, 1}, vector), EMBED_BAD_INPUT);
        ids[0] = -1;
        assert_int_equal(apis[i]->run(b, &(struct embed_batch){ids, (int32_t[]){0, 1}, 1}, vector), EMBED_BAD_INPUT);
        ids[0] = 0;
        apis[i]->close(b);
    }
    free(ids);
}

static void a_text_alone_and_in_company_has_the_same_vector(void **state)
{
    (void)state;
    struct token_list ids = {0};
    int32_t offsets[4] = {0};
    static const char *const texts[] = {"short", "a somewhat longer text about packing", "short"};
    for (int i = 0; i < 3; i++) {
        tokenizer_encode(model->tokenizer, texts[i], strlen(texts[i]), 256, &ids);
        offsets[i + 1] = (int32_t)ids.count;
    }
    float *together = run_backend(embed_backend_cpu(), 2, &ids, offsets, 3);
    float *alone = run_backend(embed_backend_cpu(), 2, &ids, offsets, 1);
    for (int i = 0; i < model->dim; i++) {
        assert_true(fabsf(together[i] - alone[i]) < 1e-6f);
        assert_true(fabsf(together[i] - together[2 * model->dim + i]) < 1e-6f);
    }
    free(together);
    free(alone);
    token_list_free(&ids);
}

static void an_unusable_folder_is_refused_with_a_sentence(void **state)
{
    (void)state;
    char error[256] = "";
    assert_null(embed_model_open("/nonexistent", error, sizeof error));
    assert_non_null(strstr(error, "config.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_backend_agrees_with_sentence_transformers),
        cmocka_unit_test(the_cpu_backend_agrees_with_sentence_transformers),
        cmocka_unit_test(every_instruction_set_gives_the_same_vectors),
        cmocka_unit_test(ids_and_lengths_out_of_range_are_refused),
        cmocka_unit_test(a_text_alone_and_in_company_has_the_same_vector),
        cmocka_unit_test(an_unusable_folder_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
