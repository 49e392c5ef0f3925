/* What a scan tells of what it found, and below which directories it may look. */
#include "api/relay/scan_list.h"
#include "api/scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void add(struct scan_list *l, const char *path, size_t len, int64_t size, const char *problem)
{
    struct source_file f = {.path = path, .path_len = len, .size = size, .problem = problem};
    scan_list_add(l, &f);
}

static void add_many(struct scan_list *l, int from, int count)
{
    for (int i = from; i < from + count; i++) {
        char path[32];
        int len = snprintf(path, sizeof path, "/d/%07d.txt", i);
        add(l, path, (size_t)len, 2, NULL);
    }
}

static cJSON *parsed(const struct text *t)
{
    struct scope sc;
    scope_init(&sc, NULL);
    cJSON *json = NULL;
    assert_int_equal(json_parse(&sc, t->data, t->len, &json), STATUS_OK);
    scope_done(&sc);
    return json;
}

static cJSON *completed(struct scan_list *l, const char *end)
{
    scoped_text out = {0};
    scan_list_completed(l, end, &out);
    return parsed(&out);
}

static int files_of(const cJSON *json)
{
    return cJSON_GetArraySize(cJSON_GetObjectItem(json, "files"));
}

static const char *warning(const cJSON *json, int i)
{
    const cJSON *w = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "warnings"), i);
    return w ? w->valuestring : NULL;
}

static void a_small_tree_stands_in_completed_alone(void **state)
{
    (void)state;
    struct scan_list l;
    scoped_text batch = {0};
    scan_list_init(&l, 0, false);
    add_many(&l, 0, SCAN_FIRST_FILES);
    assert_false(scan_list_take_batch(&l, true, &batch));
    scoped(cJSON) *json = completed(&l, NULL);
    assert_int_equal(files_of(json), SCAN_FIRST_FILES);
    assert_int_equal(json_get_int(json, "count", 0), SCAN_FIRST_FILES);
    assert_int_equal(json_get_int(json, "total_size", 0), 2 * SCAN_FIRST_FILES);
    assert_null(warning(json, 0));
    scan_list_done(&l);
}

static void what_comes_after_the_first_files_goes_out_in_batches_each_file_once(void **state)
{
    (void)state;
    struct scan_list l;
    int total = SCAN_FIRST_FILES + 3 * SCAN_BATCH_FILES + 7, next = SCAN_FIRST_FILES;
    scan_list_init(&l, 0, false);
    for (int i = 0; i <= total; i++) {
        scoped_text frame = {0};
        if (i < total)
            add_many(&l, i, 1);
        if (!scan_list_take_batch(&l, i == total, &frame))
            continue;
        scoped(cJSON) *json = parsed(&frame);
        assert_string_equal(json_get_text(json, "type", ""), "files");
        assert_int_equal(json_get_int(json, "from", -1), next);
        assert_true(frame.len < SCAN_BATCH_BYTES + 1024);
        char path[32];
        snprintf(path, sizeof path, "/d/%07d.txt", next);
        assert_string_equal(json_get_text(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "files"), 0), "path", ""), path);
        next += files_of(json);
    }
    assert_int_equal(next, total);
    scoped(cJSON) *json = completed(&l, NULL);
    assert_int_equal(files_of(json), SCAN_FIRST_FILES);
    assert_int_equal(json_get_int(json, "streamed", 0), total - SCAN_FIRST_FILES);
    assert_string_equal(warning(json, 0), "1507 more files were listed in frames of the type files");
    scan_list_done(&l);
}

static void memory_is_bounded_however_long_the_paths_are(void **state)
{
    (void)state;
    struct scan_list l;
    char path[4000];
    memset(path, 'p', sizeof path);
    scan_list_init(&l, 0, false);
    for (int i = 0; i < 2000; i++) {
        scoped_text frame = {0};
        add(&l, path, sizeof path, 1, NULL);
        if (scan_list_take_batch(&l, false, &frame))
            assert_true(frame.len < SCAN_BATCH_BYTES + 3 * sizeof path);
        assert_true(l.first.len < SCAN_FIRST_BYTES + 3 * sizeof path && l.batch.len < SCAN_BATCH_BYTES);
    }
    scoped(cJSON) *json = completed(&l, NULL);
    assert_true(files_of(json) > 20 && files_of(json) < 40);
    scan_list_done(&l);
}

static void a_quiet_client_learns_how_many_are_not_listed(void **state)
{
    (void)state;
    struct scan_list l;
    scoped_text batch = {0};
    scan_list_init(&l, 0, true);
    add_many(&l, 0, SCAN_FIRST_FILES + 3);
    assert_false(scan_list_take_batch(&l, true, &batch));
    scoped(cJSON) *json = completed(&l, "the scan took too long");
    assert_int_equal(json_get_int(json, "count", 0), SCAN_FIRST_FILES + 3);
    assert_string_equal(warning(json, 0), "the scan took too long");
    assert_string_equal(warning(json, 1), "3 more files are not listed");
    scan_list_done(&l);
}

static void problems_are_warnings_and_bounded(void **state)
{
    (void)state;
    struct scan_list l;
    scan_list_init(&l, 10, false);
    add(&l, "/d/big", 6, 11, NULL);
    add(&l, "/d/fits", 7, 10, NULL);
    for (int i = 0; i < SCAN_MOST_WARNINGS + 4; i++)
        add(&l, "/d/pipe", 7, 0, "it is a named pipe, not a file");
    l.hidden = 2;
    scoped(cJSON) *json = completed(&l, NULL);
    assert_int_equal(json_get_int(json, "count", 0), 2);
    assert_string_equal(warning(json, 0), "it is larger than MAX_FILE_BYTES and would be recorded as failed: /d/big");
    assert_string_equal(warning(json, 1), "it is a named pipe, not a file: /d/pipe");
    assert_string_equal(warning(json, SCAN_MOST_WARNINGS),
                        "2 hidden entries (their names begin with a dot) are left out");
    assert_string_equal(warning(json, SCAN_MOST_WARNINGS + 1), "5 more warnings");
    assert_null(warning(json, SCAN_MOST_WARNINGS + 2));
    scan_list_done(&l);
}

static void names_need_not_be_utf_8(void **state)
{
    (void)state;
    static const struct {
        const char *path, *shown, *extension;
    } cases[] = {{"/d/a.txt", "/d/a.txt", ".txt"}, {"/d.x/a", "/d.x/a", ""},
                 {"/d/.hidden", "/d/.hidden", ""}, {"/d/a.", "/d/a.", "."},
                 {"/d/a.b.c", "/d/a.b.c", ".c"},   {"/d/\xe9.\xe9x", "/d/\\xE9.\\xE9x", ".\\xE9x"},
                 {"/d/\"\n", "/d/\"\n", ""}};
    for (size_t i = 0; i < array_len(cases); i++) {
        struct scan_list l;
        scan_list_init(&l, 0, false);
        add(&l, cases[i].path, strlen(cases[i].path), 1, NULL);
        scoped(cJSON) *json = completed(&l, NULL);
        const cJSON *file = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "files"), 0);
        assert_string_equal(json_get_text(file, "extension", "?"), cases[i].extension);
        if (cases[i].path[3] != '"')
            assert_string_equal(json_get_text(file, "path", ""), cases[i].shown);
        scan_list_done(&l);
    }
}

static void the_inner_of_two_directories_is_what_they_have_in_common(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b, *inner;
    } cases[] = {{"/docs", "/docs/mine", "/docs/mine"},
                 {"/docs/mine", "/docs", "/docs/mine"},
                 {"/docs", "/", "/docs"},
                 {"/", "/docs", "/docs"},
                 {"/docs", "/docs/", "/docs"},
                 {"/docs", "/docsx", NULL},
                 {"/docs/a", "/docs/b", NULL},
                 {"/docs", "/docs", "/docs"}};
    for (size_t i = 0; i < array_len(cases); i++) {
        const char *inner = scan_inner(cases[i].a, cases[i].b);
        assert_true(inner ? cases[i].inner && strcmp(inner, cases[i].inner) == 0 : !cases[i].inner);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_tree_stands_in_completed_alone),
        cmocka_unit_test(what_comes_after_the_first_files_goes_out_in_batches_each_file_once),
        cmocka_unit_test(memory_is_bounded_however_long_the_paths_are),
        cmocka_unit_test(a_quiet_client_learns_how_many_are_not_listed),
        cmocka_unit_test(problems_are_warnings_and_bounded),
        cmocka_unit_test(names_need_not_be_utf_8),
        cmocka_unit_test(the_inner_of_two_directories_is_what_they_have_in_common),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
