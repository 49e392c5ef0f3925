#include "worker/embed/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int forget_plugin(void **state)
{
    (void)state;
    unsetenv("OPSTREAM_CUDA_PLUGIN");
    return 0;
}

/* Not there; no library; a library that is no plugin. */
static const char *const unusable[] = {"/nonexistent/libopstream-cuda.so", "tests/unit/test_backend.c", "libm.so.6"};

static void auto_takes_the_cpu_where_the_plugin_is_unusable(void **state)
{
    (void)state;
    char error[256] = "";
    for (size_t i = 0; i < sizeof unusable / sizeof *unusable; i++) {
        setenv("OPSTREAM_CUDA_PLUGIN", unusable[i], 1);
        assert_ptr_equal(embed_backend_choose("auto", error, sizeof error), embed_backend_cpu());
        assert_string_equal(error, "");
    }
}

static void cuda_is_an_error_sentence_where_the_plugin_is_unusable(void **state)
{
    (void)state;
    static const char *const sentences[] = {"cannot be loaded", "cannot be loaded",
                                            "libm.so.6 is no plugin of this version"};
    for (size_t i = 0; i < sizeof unusable / sizeof *unusable; i++) {
        char error[256] = "";
        setenv("OPSTREAM_CUDA_PLUGIN", unusable[i], 1);
        assert_null(embed_backend_choose("cuda", error, sizeof error));
        assert_non_null(strstr(error, sentences[i]));
    }
}

static void the_plugin_is_looked_for_beside_the_program(void **state)
{
    (void)state;
    char error[512] = "";
    unsetenv("OPSTREAM_CUDA_PLUGIN");
    assert_null(embed_backend_choose("cuda", error, sizeof error));
    assert_non_null(strstr(error, "/tests/unit/../lib/libopstream-cuda.so"));
}

static void a_backend_of_another_name_is_refused(void **state)
{
    (void)state;
    char error[256] = "";
    assert_null(embed_backend_choose("tpu", error, sizeof error));
    assert_non_null(strstr(error, "there is no backend 'tpu'"));
    assert_ptr_equal(embed_backend_find("cpu"), embed_backend_cpu());
    assert_ptr_equal(embed_backend_find("reference"), embed_backend_reference());
    assert_null(embed_backend_find(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(auto_takes_the_cpu_where_the_plugin_is_unusable, forget_plugin),
        cmocka_unit_test_teardown(cuda_is_an_error_sentence_where_the_plugin_is_unusable, forget_plugin),
        cmocka_unit_test(the_plugin_is_looked_for_beside_the_program),
        cmocka_unit_test(a_backend_of_another_name_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
