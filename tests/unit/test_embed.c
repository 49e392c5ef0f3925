#include "tests/support/golden.h"
#include "worker/embed/model.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
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

struct running {
    const struct embed_backend_api *api;
    struct embed_backend *backend;
    const struct embed_batch *batch;
    float *vectors;
    atomic_bool is_over;
    atomic_int rounds;
};

static void *run_again_and_again(void *cls)
{
    struct running *r = cls;
    while (!r->is_over) {
        if (r->api->run(r->backend, r->batch, r->vectors) != EMBED_OK)
            abort();
        r->rounds++;
    }
    return NULL;
}

static void a_batch_beside_a_run_has_the_vectors_that_it_has_alone(void **state)
{
    (void)state;
    enum { BULK = 24, BULK_TOKENS = 40 };
    static int32_t bulk_ids[BULK * BULK_TOKENS], bulk_offsets[BULK + 1];
    static const int32_t ids[] = {101, 2129, 2079, 102, 101, 7592, 102, 101, 2088, 2003, 1037, 2307, 102};
    static const int32_t offsets[] = {0, 4, 7, 13};
    for (int i = 0; i < BULK * BULK_TOKENS; i++)
        bulk_ids[i] = 1000 + i;
    for (int i = 0; i <= BULK; i++)
        bulk_offsets[i] = i * BULK_TOKENS;
    const struct embed_backend_api *api = embed_backend_cpu();
    char error[256] = "";
    struct embed_backend *b = api->open(&model->bert, 0, 3, error, sizeof error);
    assert_non_null(b);
    size_t floats = 3 * (size_t)model->dim, bulk_floats = BULK * (size_t)model->dim;
    float *alone = must_calloc(floats, sizeof *alone), *beside = must_calloc(floats, sizeof *beside);
    float *bulk_alone = must_calloc(bulk_floats, sizeof *bulk_alone);
    const struct embed_batch batch = {ids, offsets, 3}, bulk = {bulk_ids, bulk_offsets, BULK};
    assert_int_equal(api->run(b, &batch, alone), EMBED_OK);
    assert_int_equal(api->run(b, &bulk, bulk_alone), EMBED_OK);
    struct running r = {.api = api, .backend = b, .batch = &bulk};
    r.vectors = must_calloc(bulk_floats, sizeof *r.vectors);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_again_and_again, &r), 0);
    for (int i = 0; i < 10 || r.rounds < 2; i++) {
        memset(beside, 0, floats * sizeof *beside);
        assert_int_equal(api->run_beside(b, &batch, beside), EMBED_OK);
        for (size_t k = 0; k < floats; k++)
            assert_true(fabsf(beside[k] - alone[k]) <= 1e-6f);
    }
    r.is_over = true;
    pthread_join(thread, NULL);
    assert_memory_equal(r.vectors, bulk_alone, bulk_floats * sizeof *bulk_alone);
    assert_int_equal(
        api->run_beside(b, &(struct embed_batch){(const int32_t[]){-1}, (const int32_t[]){0, 1}, 1}, beside),
        EMBED_BAD_INPUT);
    api->close(b);
    free(alone);
    free(beside);
    free(bulk_alone);
    free(r.vectors);
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
        cmocka_unit_test(a_batch_beside_a_run_has_the_vectors_that_it_has_alone),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
