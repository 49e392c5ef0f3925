/* The cuda backend against the reference, on the emulation (the plugin of tests/cuda_emu beside this program) or, with
 * OPSTREAM_CUDA_PLUGIN, on a GPU. Tests that make the device fail run on the emulation only: a GPU cannot be asked to.
 */
#include "tests/support/golden.h"
#include "worker/embed/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700 };

static const struct embed_backend_api *cuda;

static int find_backend(void **state)
{
    (void)state;
    cuda = embed_backend_find("cuda");
    if (!cuda)
        print_error("no GPU answers\n");
    return cuda ? 0 : -1;
}

/* ---- models and batches ---- */

static uint32_t seed;

static uint32_t next_random(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

/* A small model with random weights; large ones for queries and keys, so that softmax has something to decide. */
struct small_model {
    struct bert_model bert;
    struct bert_layer layers[4];
    float *weights;
};

struct shape {
    int layers, hidden, heads, ffn, max_positions;
    enum embed_pooling pooling;
    int normalise;
};

enum { VOCAB = 211 };

static float *take(float **at, size_t count, float centre, float spread)
{
    float *begin = *at;
    for (size_t i = 0; i < count; i++)
        begin[i] = centre + spread * ((float)next_random() / (float)(1 << 23) - 1);
    *at += count;
    return begin;
}

static void fill_layer(struct bert_layer *l, float **at, size_t h, size_t f)
{
    float wide = 3 / sqrtf((float)h), narrow = 1 / sqrtf((float)h);
    l->query_w = take(at, h * h, 0, wide), l->query_b = take(at, h, 0, 0.5f);
    l->key_w = take(at, h * h, 0, wide), l->key_b = take(at, h, 0, 0.5f);
    l->value_w = take(at, h * h, 0, narrow), l->value_b = take(at, h, 0, 0.5f);
    l->attention_out_w = take(at, h * h, 0, narrow), l->attention_out_b = take(at, h, 0, 0.5f);
    l->attention_norm_w = take(at, h, 1, 0.5f), l->attention_norm_b = take(at, h, 0, 0.2f);
    l->up_w = take(at, f * h, 0, wide), l->up_b = take(at, f, 0, 0.5f);
    l->down_w = take(at, h * f, 0, 1 / sqrtf((float)f)), l->down_b = take(at, h, 0, 0.5f);
    l->output_norm_w = take(at, h, 1, 0.5f), l->output_norm_b = take(at, h, 0, 0.2f);
}

static struct small_model *model_new(struct shape s)
{
    struct small_model *m = must_calloc(1, sizeof *m);
    size_t h = (size_t)s.hidden, f = (size_t)s.ffn;
    seed = (uint32_t)(s.hidden * 31 + s.heads);
    m->weights = must_malloc(
        (((size_t)VOCAB + (size_t)s.max_positions + 3) * h + (size_t)s.layers * (4 * h * h + 2 * h * f + 9 * h + f)) *
        sizeof(float));
    float *at = m->weights;
    m->bert = (struct bert_model){.layers = s.layers,
                                  .hidden = s.hidden,
                                  .heads = s.heads,
                                  .ffn = s.ffn,
                                  .vocab = VOCAB,
                                  .max_positions = s.max_positions,
                                  .norm_epsilon = 1e-12f,
                                  .pooling = s.pooling,
                                  .normalise = s.normalise,
                                  .layer = m->layers};
    m->bert.word_embeddings = take(&at, (size_t)VOCAB * h, 0, 1);
    m->bert.position_embeddings = take(&at, (size_t)s.max_positions * h, 0, 0.5f);
    m->bert.type_embeddings = take(&at, h, 0, 0.5f);
    m->bert.embeddings_norm_w = take(&at, h, 1, 0.5f);
    m->bert.embeddings_norm_b = take(&at, h, 0, 0.2f);
    for (int i = 0; i < s.layers; i++)
        fill_layer(&m->layers[i], &at, h, f);
    return m;
}

static void model_free(struct small_model *m)
{
    free(m->weights);
    free(m);
}

/* Random ids for these lengths. */
struct input {
    struct embed_batch batch;
    int32_t *ids, *offsets;
};

static struct input input_new(const int *lengths, int count)
{
    struct input in = {.offsets = must_calloc((size_t)count + 1, sizeof *in.offsets)};
    for (int i = 0; i < count; i++)
        in.offsets[i + 1] = in.offsets[i] + lengths[i];
    in.ids = must_malloc((size_t)in.offsets[count] * sizeof *in.ids);
    for (int i = 0; i < in.offsets[count]; i++)
        in.ids[i] = (int32_t)(next_random() % VOCAB);
    in.batch = (struct embed_batch){in.ids, in.offsets, count};
    return in;
}

static void input_free(struct input *in)
{
    free(in->ids);
    free(in->offsets);
}

static struct embed_backend *open_one(const struct embed_backend_api *api, const struct bert_model *m)
{
    char error[256] = "";
    struct embed_backend *b = api->open(m, 0, 1, error, sizeof error);
    if (!b)
        fail_msg("%s", error);
    return b;
}

static float *vectors_of(const struct embed_backend_api *api, const struct bert_model *m,
                         const struct embed_batch *batch)
{
    struct embed_backend *b = open_one(api, m);
    float *vectors = must_calloc((size_t)batch->count * (size_t)m->hidden, sizeof *vectors);
    assert_int_equal(api->run(b, batch, vectors), EMBED_OK);
    api->close(b);
    return vectors;
}

static void expect_close(const float *got, const float *wanted, int count, int h, double tolerance)
{
    for (int s = 0; s < count; s++) {
        double ab = 0, aa = 0, bb = 0, largest = 0;
        for (int k = 0; k < h; k++) {
            double a = (double)got[(size_t)s * (size_t)h + (size_t)k],
                   b = (double)wanted[(size_t)s * (size_t)h + (size_t)k];
            ab += a * b, aa += a * a, bb += b * b;
            largest = fmax(largest, fabs(a - b));
        }
        if (!(ab / sqrt(aa * bb) >= 0.99999) || !(largest <= tolerance) || isnan(aa))
            fail_msg("sequence %d: cosine %.7f, largest difference %g", s, ab / sqrt(aa * bb), largest);
    }
}

static void expect_like_reference(struct shape s, const int *lengths, int count)
{
    struct small_model *m = model_new(s);
    struct input in = input_new(lengths, count);
    float *wanted = vectors_of(embed_backend_reference(), &m->bert, &in.batch);
    float *got = vectors_of(cuda, &m->bert, &in.batch);
    expect_close(got, wanted, count, s.hidden, s.normalise ? 2e-5 : 2e-4);
    free(got);
    free(wanted);
    input_free(&in);
    model_free(m);
}

/* ---- vectors ---- */

static void models_of_all_shapes_agree_with_the_reference(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 8, 1, 16, 64, EMBED_POOLING_MEAN, 1},    {2, 48, 3, 100, 64, EMBED_POOLING_CLS, 1},
        {3, 96, 12, 40, 64, EMBED_POOLING_MEAN, 0},  {2, 33, 3, 7, 64, EMBED_POOLING_MEAN, 1},
        {1, 128, 2, 65, 64, EMBED_POOLING_CLS, 0},   {1, 128, 1, 130, 64, EMBED_POOLING_MEAN, 1},
        {2, 130, 2, 200, 64, EMBED_POOLING_MEAN, 1}, {1, 384, 12, 1536, 64, EMBED_POOLING_MEAN, 1},
    };
    static const int lengths[] = {5, 1, 33, 2, 31, 17};
    for (size_t i = 0; i < array_len(shapes); i++)
        expect_like_reference(shapes[i], lengths, array_len(lengths));
}

static void lengths_around_every_tile_agree_with_the_reference(void **state)
{
    (void)state;
    static const int lengths[] = {1,  2,  15, 16, 17, 31,  32,  33,  47,  48,  49,
                                  63, 64, 65, 95, 97, 129, 255, 257, 511, 512, 3};
    expect_like_reference((struct shape){2, 24, 3, 48, 512, EMBED_POOLING_MEAN, 1}, lengths, array_len(lengths));
    expect_like_reference((struct shape){1, 40, 1, 30, 512, EMBED_POOLING_CLS, 0}, lengths, array_len(lengths));
}

static void many_short_sequences_agree_with_the_reference(void **state)
{
    (void)state;
    int lengths[700];
    for (int i = 0; i < 700; i++)
        lengths[i] = 1 + i % 3;
    expect_like_reference((struct shape){1, 16, 2, 20, 8, EMBED_POOLING_MEAN, 1}, lengths, 700);
}

/* As with more tokens than memory is taken for: the boundaries fall after the third, the fourth (longer than a step)
 * and the eighth sequence. */
static void a_batch_of_several_steps_agrees_with_the_reference(void **state)
{
    (void)state;
    static const int lengths[] = {30, 30, 40, 128, 10, 60, 1, 29, 100, 3};
    setenv("OPSTREAM_CUDA_STEP_TOKENS", "100", 1);
    expect_like_reference((struct shape){1, 8, 2, 8, 128, EMBED_POOLING_MEAN, 1}, lengths, array_len(lengths));
    unsetenv("OPSTREAM_CUDA_STEP_TOKENS");
}

static void a_sequence_alone_and_in_company_has_the_same_vector(void **state)
{
    (void)state;
    struct small_model *m = model_new((struct shape){2, 48, 4, 64, 64, EMBED_POOLING_MEAN, 1});
    struct input in = input_new((const int[]){21, 40, 7}, 3);
    float *together = vectors_of(cuda, &m->bert, &in.batch);
    for (int s = 0; s < 3; s++) {
        int32_t offsets[] = {0, in.offsets[s + 1] - in.offsets[s]};
        float *alone = vectors_of(cuda, &m->bert, &(struct embed_batch){in.ids + in.offsets[s], offsets, 1});
        expect_close(together + (size_t)s * 48, alone, 1, 48, 1e-6);
        free(alone);
    }
    free(together);
    input_free(&in);
    model_free(m);
}

/* Buffers that were grown for a large batch serve a small one, and the other way round. */
static void batches_of_changing_size_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct small_model *m = model_new((struct shape){1, 32, 2, 40, 64, EMBED_POOLING_MEAN, 1});
    struct embed_backend *b = open_one(cuda, &m->bert);
    static const int sizes[][3] = {{3, 2, 1}, {60, 64, 50}, {1, 1, 1}, {64, 64, 64}, {9, 33, 2}};
    for (size_t i = 0; i < array_len(sizes); i++) {
        struct input in = input_new(sizes[i], 3);
        float got[3 * 32], *wanted = vectors_of(embed_backend_reference(), &m->bert, &in.batch);
        assert_int_equal(cuda->run(b, &in.batch, got), EMBED_OK);
        expect_close(got, wanted, 3, 32, 2e-5);
        free(wanted);
        input_free(&in);
    }
    cuda->close(b);
    model_free(m);
}

/* On the emulation each order is another legal interleaving, and a barrier that is missing shows; on a GPU this is
 * plain repetition. */
static void results_do_not_depend_on_the_order_of_threads(void **state)
{
    (void)state;
    static const char *const orders[] = {"forward", "reverse", "1", "2", "3"};
    struct small_model *m = model_new((struct shape){2, 96, 3, 70, 128, EMBED_POOLING_MEAN, 1});
    struct input in = input_new((const int[]){1, 70, 100, 33, 17}, 5);
    float *first = NULL;
    for (size_t i = 0; i < array_len(orders); i++) {
        setenv("CUDA_EMU_ORDER", orders[i], 1);
        float *vectors = vectors_of(cuda, &m->bert, &in.batch);
        if (!first) {
            first = vectors;
            continue;
        }
        assert_memory_equal(vectors, first, 5 * 96 * sizeof *vectors);
        free(vectors);
    }
    unsetenv("CUDA_EMU_ORDER");
    free(first);
    input_free(&in);
    model_free(m);
}

#if defined(__SANITIZE_ADDRESS__)
enum { LONGEST_GOLDEN_TEXT = 120 }; /* the long ones take minutes here, and run in the plain build */
#else
enum { LONGEST_GOLDEN_TEXT = 1 << 20 };
#endif

static void the_model_agrees_with_sentence_transformers(void **state)
{
    (void)state;
    char error[256] = "";
    struct embed_model *model = embed_model_open(golden_model_dir(), error, sizeof error);
    assert_non_null(model);
    scoped(cJSON) *golden = golden_json("tests/golden/embed_vectors.json");
    int count = cJSON_GetArraySize(golden), n = 0;
    int32_t *offsets = must_calloc((size_t)count + 1, sizeof *offsets);
    float *wanted = must_calloc((size_t)count * (size_t)model->dim, sizeof *wanted);
    struct token_list ids = {0};
    for (const cJSON *c = golden->child; c; c = c->next) {
        size_t len;
        char *text = golden_unhex(json_get_text(c, "text", ""), &len);
        size_t before = ids.count;
        if (len <= LONGEST_GOLDEN_TEXT)
            tokenizer_encode(model->tokenizer, text, len, (size_t)model->max_tokens, &ids);
        free(text);
        if (len > LONGEST_GOLDEN_TEXT)
            continue;
        int k = 0;
        for (const cJSON *x = cJSON_GetObjectItem(c, "vector")->child; x && k < model->dim; x = x->next)
            wanted[(size_t)n * (size_t)model->dim + (size_t)k++] = (float)x->valuedouble;
        assert_int_equal(k, model->dim);
        assert_true(ids.count > before);
        offsets[++n] = (int32_t)ids.count;
    }
    assert_true(n >= 20);
    float *got = vectors_of(cuda, &model->bert, &(struct embed_batch){ids.ids, offsets, n});
    expect_close(got, wanted, n, model->dim, 2e-5);
    free(got);
    free(wanted);
    free(offsets);
    token_list_free(&ids);
    embed_model_close(model);
}

/* ---- what is refused ---- */

static void the_device_has_a_name(void **state)
{
    (void)state;
    struct small_model *m = model_new((struct shape){1, 8, 1, 16, 64, EMBED_POOLING_MEAN, 1});
    struct embed_backend *b = open_one(cuda, &m->bert);
    assert_true(strlen(cuda->device_name(b)) > 0);
    print_message("device: %s\n", cuda->device_name(b));
    cuda->close(b);
    cuda->close(NULL);
    model_free(m);
}

static void bad_batches_are_refused_and_an_empty_one_is_not(void **state)
{
    (void)state;
    struct small_model *m = model_new((struct shape){1, 8, 1, 16, 64, EMBED_POOLING_MEAN, 1});
    struct embed_backend *b = open_one(cuda, &m->bert);
    static const int32_t ids[65] = {0}, too_large[] = {1, VOCAB}, negative[] = {-1};
    const struct embed_batch bad[] = {
        {ids, (const int32_t[]){0, 65}, 1},      {ids, (const int32_t[]){0, 0}, 1},
        {ids, (const int32_t[]){1, 2}, 1},       {ids, (const int32_t[]){0, 3, 2}, 2},
        {too_large, (const int32_t[]){0, 2}, 1}, {negative, (const int32_t[]){0, 1}, 1},
        {ids, (const int32_t[]){0}, -1},
    };
    float vectors[16], untouched[16];
    memset(vectors, 0x5a, sizeof vectors);
    memcpy(untouched, vectors, sizeof vectors);
    for (size_t i = 0; i < array_len(bad); i++)
        assert_int_equal(cuda->run(b, &bad[i], vectors), EMBED_BAD_INPUT);
    assert_int_equal(cuda->run(b, &(struct embed_batch){ids, (const int32_t[]){0}, 0}, vectors), EMBED_OK);
    assert_memory_equal(vectors, untouched, sizeof vectors);
    assert_int_equal(cuda->run(b, &(struct embed_batch){ids, (const int32_t[]){0, 64}, 1}, vectors), EMBED_OK);
    cuda->close(b);
    model_free(m);
}

static void what_it_cannot_run_is_refused_with_a_sentence(void **state)
{
    (void)state;
    char error[256] = "";
    struct small_model *wide = model_new((struct shape){1, 129, 1, 16, 8, EMBED_POOLING_MEAN, 1});
    assert_null(cuda->open(&wide->bert, 0, 0, error, sizeof error));
    assert_non_null(strstr(error, "128 columns"));
    model_free(wide);
    struct small_model *m = model_new((struct shape){1, 8, 1, 16, 8, EMBED_POOLING_MEAN, 1});
    assert_null(cuda->open(&m->bert, cuda->device_count(), 0, error, sizeof error));
    assert_non_null(strstr(error, "no GPU of this number"));
    assert_null(cuda->open(&m->bert, -1, 0, error, sizeof error));
    assert_null(cuda->open(NULL, 0, 0, error, sizeof error));
    model_free(m);
}

/* ---- a device that fails (emulation only) ---- */

static struct small_model *tiny;
static struct input two;

static int make_tiny(void **state)
{
    (void)state;
    tiny = model_new((struct shape){1, 8, 2, 16, 64, EMBED_POOLING_MEAN, 1});
    two = input_new((const int[]){20, 30}, 2);
    return 0;
}

static int drop_tiny(void **state)
{
    (void)state;
    unsetenv("CUDA_EMU_FAIL");
    unsetenv("CUDA_EMU_FAIL_BLAS");
    unsetenv("CUDA_EMU_MEMORY");
    unsetenv("CUDA_EMU_DEVICES");
    unsetenv("OPSTREAM_CUBLAS");
    input_free(&two);
    model_free(tiny);
    return 0;
}

static void fail_call(int n, int code)
{
    char setting[32];
    snprintf(setting, sizeof setting, "%d:%d", n, code);
    setenv("CUDA_EMU_FAIL", setting, 1);
}

/* Every call of a run fails once, each in a run of its own: the run says so, leaves the vectors alone, and after a lack
 * of memory goes on. */
static void every_call_of_a_run_that_fails_ends_it(void **state)
{
    (void)state;
    static const int codes[] = {OUT_OF_MEMORY, ILLEGAL_ADDRESS};
    float *wanted = vectors_of(embed_backend_reference(), &tiny->bert, &two.batch), got[16];
    for (size_t c = 0; c < array_len(codes); c++) {
        int n = 1;
        for (enum embed_result result = EMBED_OUT_OF_MEMORY; result != EMBED_OK; n++) {
            struct embed_backend *b = open_one(cuda, &tiny->bert);
            memset(got, 0, sizeof got);
            fail_call(n, codes[c]);
            result = cuda->run(b, &two.batch, got);
            if (result != EMBED_OK) {
                assert_int_equal(result, codes[c] == OUT_OF_MEMORY ? EMBED_OUT_OF_MEMORY : EMBED_DEVICE_LOST);
                for (int i = 0; i < 16; i++)
                    assert_true(got[i] == 0);
                unsetenv("CUDA_EMU_FAIL");
                bool is_lost = result == EMBED_DEVICE_LOST;
                assert_int_equal(cuda->run(b, &two.batch, got), is_lost ? EMBED_DEVICE_LOST : EMBED_OK);
            }
            unsetenv("CUDA_EMU_FAIL");
            if (result != EMBED_DEVICE_LOST)
                expect_close(got, wanted, 2, 8, 2e-5);
            cuda->close(b);
        }
        assert_true(n > 15); /* allocations, copies, kernels, waits */
    }
    free(wanted);
}

static void every_call_of_opening_that_fails_is_told(void **state)
{
    (void)state;
    static const int codes[] = {OUT_OF_MEMORY, ILLEGAL_ADDRESS};
    for (size_t c = 0; c < array_len(codes); c++) {
        int n = 1;
        for (bool is_open = false; !is_open; n++) {
            char error[256] = "";
            fail_call(n, codes[c]);
            struct embed_backend *b = cuda->open(&tiny->bert, 0, 0, error, sizeof error);
            unsetenv("CUDA_EMU_FAIL");
            is_open = b != NULL;
            assert_true(is_open || strlen(error) > 10);
            cuda->close(b);
        }
        assert_true(n > 30);
    }
}

static void a_batch_too_large_for_the_device_leaves_it_usable(void **state)
{
    (void)state;
    struct embed_backend *b = open_one(cuda, &tiny->bert);
    int lengths[40];
    for (int i = 0; i < 40; i++)
        lengths[i] = 64;
    struct input large = input_new(lengths, 40);
    float vectors[40 * 8];
    setenv("CUDA_EMU_MEMORY", "150000", 1);
    assert_int_equal(cuda->run(b, &large.batch, vectors), EMBED_OUT_OF_MEMORY);
    assert_int_equal(cuda->run(b, &two.batch, vectors), EMBED_OK);
    unsetenv("CUDA_EMU_MEMORY");
    assert_int_equal(cuda->run(b, &large.batch, vectors), EMBED_OK);
    cuda->close(b);
    input_free(&large);
}

static void failures_of_cublas_end_the_run(void **state)
{
    (void)state;
    char error[256] = "";
    float vectors[16];
    struct embed_backend *b = open_one(cuda, &tiny->bert);
    setenv("CUDA_EMU_FAIL_BLAS", "3", 1);
    assert_int_equal(cuda->run(b, &two.batch, vectors), EMBED_OUT_OF_MEMORY);
    setenv("CUDA_EMU_FAIL_BLAS", "13", 1);
    assert_int_equal(cuda->run(b, &two.batch, vectors), EMBED_DEVICE_LOST);
    cuda->close(b);
    assert_null(cuda->open(&tiny->bert, 0, 0, error, sizeof error));
    assert_true(strlen(error) > 10);
    unsetenv("CUDA_EMU_FAIL_BLAS");
}

static void without_a_device_auto_takes_the_cpu(void **state)
{
    (void)state;
    char error[256] = "";
    setenv("CUDA_EMU_DEVICES", "0", 1);
    assert_int_equal(cuda->device_count(), 0);
    assert_ptr_equal(embed_backend_find("auto"), embed_backend_cpu());
    assert_null(embed_backend_choose("cuda", error, sizeof error));
    assert_non_null(strstr(error, "no CUDA-capable device"));
    unsetenv("CUDA_EMU_DEVICES");
    assert_string_equal(embed_backend_find("auto")->name, "cuda");
}

int main(void)
{
    const struct CMUnitTest anywhere[] = {
        cmocka_unit_test(the_device_has_a_name),
        cmocka_unit_test(models_of_all_shapes_agree_with_the_reference),
        cmocka_unit_test(lengths_around_every_tile_agree_with_the_reference),
        cmocka_unit_test(many_short_sequences_agree_with_the_reference),
        cmocka_unit_test(a_batch_of_several_steps_agrees_with_the_reference),
        cmocka_unit_test(a_sequence_alone_and_in_company_has_the_same_vector),
        cmocka_unit_test(batches_of_changing_size_do_not_disturb_each_other),
        cmocka_unit_test(results_do_not_depend_on_the_order_of_threads),
        cmocka_unit_test(the_model_agrees_with_sentence_transformers),
        cmocka_unit_test(bad_batches_are_refused_and_an_empty_one_is_not),
        cmocka_unit_test(what_it_cannot_run_is_refused_with_a_sentence),
    };
    const struct CMUnitTest emulated[] = {
        cmocka_unit_test_setup_teardown(every_call_of_a_run_that_fails_ends_it, make_tiny, drop_tiny),
        cmocka_unit_test_setup_teardown(every_call_of_opening_that_fails_is_told, make_tiny, drop_tiny),
        cmocka_unit_test_setup_teardown(a_batch_too_large_for_the_device_leaves_it_usable, make_tiny, drop_tiny),
        cmocka_unit_test_setup_teardown(failures_of_cublas_end_the_run, make_tiny, drop_tiny),
        cmocka_unit_test_setup_teardown(without_a_device_auto_takes_the_cpu, make_tiny, drop_tiny),
    };
    int bad = cmocka_run_group_tests(anywhere, find_backend, NULL);
    if (!getenv("OPSTREAM_CUDA_PLUGIN"))
        bad += cmocka_run_group_tests(emulated, find_backend, NULL);
    return bad;
}
