#include "api/web_files.h"
#include "api/web_root.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct scope sc;
static char top[] = "/tmp/opstream-web.XXXXXX";
static char root[64];

static void put(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", top, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_folder(void **state)
{
    char path[128];
    (void)state;
    scope_init(&sc, NULL);
    if (!mkdtemp(top))
        return -1;
    snprintf(root, sizeof root, "%s/root", top);
    snprintf(path, sizeof path, "%s/deep", root);
    if (mkdir(root, 0700) != 0 || mkdir(path, 0700) != 0)
        return -1;
    put("secret", "secret");
    put("root/index.html", "page");
    put("root/deep/a.js", "a()");
    snprintf(path, sizeof path, "%s/link", root);
    return symlink("index.html", path);
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    scope_done(&sc);
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command);
}

static void every_embedded_file_is_found_by_its_name(void **state)
{
    size_t count;
    const struct web_file *all = web_file_all(&count);
    (void)state;
    assert_true(count > 2);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(web_file_find(all[i].name), &all[i]);
        assert_true(all[i].len > 0 && strlen(all[i].tag) == 20);
        assert_int_equal(all[i].bytes[all[i].len], 0);
        assert_true(all[i].packed[0] == 0x1F && all[i].packed[1] == 0x8B);
    }
    assert_null(web_file_find("web/"));
    assert_null(web_file_find("/web/index.html"));
}

static void a_name_tells_the_type(void **state)
{
    (void)state;
    assert_string_equal(web_content_type("a.b/c.JS"), "text/javascript; charset=utf-8");
    assert_string_equal(web_content_type("index.html"), "text/html; charset=utf-8");
    assert_string_equal(web_content_type("a.js/plain"), "application/octet-stream");
    assert_string_equal(web_content_type("strange"), "application/octet-stream");
}

static void a_folder_is_opened_when_it_has_an_index(void **state)
{
    int fd = 0;
    (void)state;
    assert_int_equal(web_root_open(&sc, "", &fd), STATUS_OK);
    assert_int_equal(fd, -1);
    assert_int_equal(web_root_open(&sc, root, &fd), STATUS_OK);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(web_root_open(&sc, top, &fd), STATUS_INVALID);
    assert_int_equal(fd, -1);
    assert_non_null(strstr(sc.problem_text, "index.html"));
    scope_forgive(&sc);
    assert_int_equal(web_root_open(&sc, "/nowhere/at/all", &fd), STATUS_INVALID);
    scope_forgive(&sc);
}

static void only_plain_files_below_the_folder_are_opened(void **state)
{
    static const char *const refused[] = {"../secret",
                                          "deep/../../secret",
                                          "/etc/passwd",
                                          "link",
                                          "deep",
                                          "deep/../../root/index.html",
                                          "deep/../index.html",
                                          "deep/..",
                                          "",
                                          "deep/a.js/x",
                                          "none",
                                          "."};
    int folder = -1, fd = -1;
    struct stat facts;
    (void)state;
    assert_int_equal(web_root_open(&sc, root, &folder), STATUS_OK);
    assert_int_equal(web_root_file(&sc, folder, "deep/a.js", &fd, &facts), STATUS_OK);
    assert_int_equal(facts.st_size, 3);
    close(fd);
    for (size_t i = 0; i < array_len(refused); i++) {
        if (web_root_file(&sc, folder, refused[i], &fd, &facts) != STATUS_NOT_FOUND)
            fail_msg("`%s` is served", refused[i]);
        scope_forgive(&sc);
    }
    close(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_embedded_file_is_found_by_its_name),
        cmocka_unit_test(a_name_tells_the_type),
        cmocka_unit_test(a_folder_is_opened_when_it_has_an_index),
        cmocka_unit_test(only_plain_files_below_the_folder_are_opened),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
