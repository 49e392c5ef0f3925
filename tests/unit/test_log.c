#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char captured[65536];

/* What `write_line` puts on stderr. */
static const char *capture(void (*write_line)(void))
{
    int ends[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    write_line();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(ends[0], captured + len, sizeof captured - 1 - len)) > 0;)
        len += (size_t)n;
    close(ends[0]);
    captured[len] = '\0';
    return captured;
}

static void write_all_kinds(void)
{
    log_info("kinds", log_text("text", "a \"quoted\"\nline"), log_int("count", -3), log_real("share", 0.5),
             log_bool("done", true), log_text("none", NULL));
}

static void a_line_is_one_json_object_with_typed_fields(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, NULL);
    clock_set_for_tests(1000);
    const char *line = capture(write_all_kinds);
    clock_set_for_tests(-1);
    assert_true(line[strlen(line) - 1] == '\n' && strchr(line, '\n') == line + strlen(line) - 1);
    scoped(cJSON) *json = NULL;
    assert_int_equal(json_parse(&sc, line, strlen(line), &json), STATUS_OK);
    assert_string_equal(json_get_text(json, "time", ""), "1970-01-01T00:00:01.000000Z");
    assert_string_equal(json_get_text(json, "level", ""), "info");
    assert_string_equal(json_get_text(json, "program", ""), "test");
    assert_string_equal(json_get_text(json, "event", ""), "kinds");
    assert_string_equal(json_get_text(json, "text", ""), "a \"quoted\"\nline");
    assert_int_equal(json_get_int(json, "count", 0), -3);
    assert_true(json_get_real(json, "share", 0) == 0.5);
    assert_true(json_get_bool(json, "done", false));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "none")));
    scope_done(&sc);
}

static void write_three_levels(void)
{
    log_debug("d");
    log_info("i");
    log_error("e");
}

static void levels_below_the_lowest_are_left_out(void **state)
{
    (void)state;
    assert_true(log_set_level("WARNING"));
    assert_false(log_set_level("loud"));
    const char *lines = capture(write_three_levels);
    assert_null(strstr(lines, "\"event\":\"i\""));
    assert_non_null(strstr(lines, "\"event\":\"e\""));
    assert_true(log_set_level("debug"));
    lines = capture(write_three_levels);
    assert_non_null(strstr(lines, "\"event\":\"d\""));
    assert_true(log_set_level("info"));
}

static void write_long_line(void)
{
    static char text[40000];
    memset(text, 'x', sizeof text - 1);
    log_info("long", log_text("text", text), log_int("after", 1));
}

static void a_long_field_is_cut_and_the_line_stays_json(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, NULL);
    const char *line = capture(write_long_line);
    assert_true(strlen(line) < 20000);
    assert_true(line[strlen(line) - 1] == '\n');
    scoped(cJSON) *json = NULL;
    assert_int_equal(json_parse(&sc, line, strlen(line), &json), STATUS_OK);
    assert_string_equal(json_get_text(json, "event", ""), "long");
    scope_done(&sc);
}

static int set_program(void **state)
{
    (void)state;
    log_set_program("test");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_json_object_with_typed_fields),
        cmocka_unit_test(levels_below_the_lowest_are_left_out),
        cmocka_unit_test(a_long_field_is_cut_and_the_line_stays_json),
    };
    return cmocka_run_group_tests(tests, set_program, NULL);
}
