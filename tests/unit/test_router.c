#include "api/limit.h"
#include "api/router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define AN_ID "0b6f2a4e-7c1d-4f3a-9e58-1d2c3b4a5f60"

static struct scope sc;
static struct route_match match;

static int set_up(void **state)
{
    (void)state;
    scope_init(&sc, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scope_done(&sc);
    return 0;
}

static void a_path_is_found_with_its_method(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "POST", "/api/auth/login", &match), STATUS_OK);
    assert_ptr_equal(match.route->handler, auth_login);
    assert_int_equal(match.route->access, ACCESS_ANYONE);
}

static void what_is_not_listed_is_not_found(void **state)
{
    static const char *const paths[] = {"/nope",
                                        "//",
                                        "",
                                        "*",
                                        "/api",
                                        "/api/auth/login/more",
                                        "//api/auth/login",
                                        "/api//auth/login",
                                        "/api/auth/logi",
                                        "/API/auth/login",
                                        "/api/auth/login%00"};
    (void)state;
    for (size_t i = 0; i < array_len(paths); i++) {
        assert_int_equal(router_find(&sc, "POST", paths[i], &match), STATUS_NOT_FOUND);
        assert_string_equal(sc.problem_text, "Not Found");
        assert_null(match.allow);
        scope_forgive(&sc);
    }
}

static void another_method_is_refused_and_the_known_ones_are_named(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "DELETE", "/api/auth/me", &match), STATUS_METHOD);
    assert_string_equal(sc.problem_text, "Method Not Allowed");
    assert_string_equal(match.allow, "GET, HEAD");
}

static void head_is_served_where_get_is(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "HEAD", "/api/auth/me", &match), STATUS_OK);
    assert_ptr_equal(match.route->handler, auth_me);
    assert_int_equal(router_find(&sc, "HEAD", "/api/auth/login", &match), STATUS_METHOD);
}

static void a_trailing_slash_makes_no_difference(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "GET", "/api/health/", &match), STATUS_OK);
    assert_int_equal(router_find(&sc, "GET", "/api/health", &match), STATUS_OK);
    assert_int_equal(router_find(&sc, "GET", "/healthz/", &match), STATUS_OK);
    assert_int_equal(router_find(&sc, "GET", "/healthz//", &match), STATUS_NOT_FOUND);
}

static void a_path_longer_than_any_route_is_not_found(void **state)
{
    char path[4096];
    (void)state;
    for (size_t i = 0; i + 1 < sizeof path; i++)
        path[i] = i % 2 ? 'a' : '/';
    path[sizeof path - 1] = '\0';
    assert_int_equal(router_find(&sc, "GET", path, &match), STATUS_NOT_FOUND);
}

static void percent_escapes_are_decoded(void **state)
{
    (void)state;
    assert_string_equal(url_decode(&sc, "a%20b%2Fc%C3%A9+", 16, false), "a b/c\xC3\xA9+");
    assert_string_equal(url_decode(&sc, "a+b", 3, true), "a b");
    assert_string_equal(url_decode(&sc, "", 0, true), "");
}

static void broken_escapes_nul_and_bad_utf8_are_refused(void **state)
{
    static const char *const bad[] = {"%", "%4", "a%zz", "%00", "%C3", "%ED%A0%80", "%C0%80", "\xFF"};
    (void)state;
    for (size_t i = 0; i < array_len(bad); i++)
        assert_null(url_decode(&sc, bad[i], strlen(bad[i]), true));
}

/* Every line of the list is reached by a request of its own, whatever else is in the list. */
static void every_route_is_reached(void **state)
{
    size_t count;
    const struct route *routes = router_all(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        scoped_text path = {0};
        for (const char *p = routes[i].path; *p; p++) {
            if (*p != '{') {
                text_putc(&path, *p);
                continue;
            }
            bool is_number = path.len >= 9 && strcmp(path.data + path.len - 9, "/sources/") == 0;
            text_puts(&path, is_number ? "17" : AN_ID);
            p = strchr(p, '}');
        }
        if (router_find(&sc, routes[i].method, path.data, &match) != STATUS_OK || match.route != &routes[i])
            fail_msg("%s %s is not reached", routes[i].method, routes[i].path);
    }
}

static void every_limit_of_the_list_can_be_read(void **state)
{
    size_t count;
    const struct route *routes = router_all(&count);
    struct limit_rate rate;
    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (*routes[i].limit && limit_parse(routes[i].limit, &rate) != STATUS_OK)
            fail_msg("%s: `%s` is no limit", routes[i].path, routes[i].limit);
    }
}

static void an_id_that_cannot_be_one_is_not_found(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "GET", "/api/v2/collections/42", &match), STATUS_NOT_FOUND);
    assert_string_equal(sc.problem_text, "Collection with ID '42' not found");
    scope_forgive(&sc);
    assert_int_equal(router_find(&sc, "GET", "/api/v2/collections/" AN_ID, &match), STATUS_OK);
    assert_string_equal(match.params[0], AN_ID);
}

static void the_page_takes_any_id_for_it_says_itself_what_is_not_there(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "GET", "/", &match), STATUS_OK);
    assert_ptr_equal(match.route->handler, web_page);
    assert_int_equal(router_find(&sc, "GET", "/collections/42", &match), STATUS_OK);
    assert_string_equal(match.params[0], "42");
}

static void a_path_at_the_end_takes_all_that_follows(void **state)
{
    (void)state;
    assert_int_equal(router_find(&sc, "GET", "/assets/a/b%20c/d.js", &match), STATUS_OK);
    assert_string_equal(match.params[0], "a/b c/d.js");
    assert_int_equal(router_find(&sc, "HEAD", "/assets/..%2Fx", &match), STATUS_OK);
    assert_string_equal(match.params[0], "../x");
    assert_int_equal(router_find(&sc, "GET", "/assets//x", &match), STATUS_NOT_FOUND);
    scope_forgive(&sc);
    assert_int_equal(router_find(&sc, "GET", "/assets/", &match), STATUS_NOT_FOUND);
    scope_forgive(&sc);
    assert_int_equal(router_find(&sc, "GET", "/assets/a/%zz", &match), STATUS_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_path_is_found_with_its_method, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_listed_is_not_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(another_method_is_refused_and_the_known_ones_are_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(head_is_served_where_get_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_trailing_slash_makes_no_difference, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_path_longer_than_any_route_is_not_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(percent_escapes_are_decoded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(broken_escapes_nul_and_bad_utf8_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_route_is_reached, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_limit_of_the_list_can_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_id_that_cannot_be_one_is_not_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_page_takes_any_id_for_it_says_itself_what_is_not_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_path_at_the_end_takes_all_that_follows, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
