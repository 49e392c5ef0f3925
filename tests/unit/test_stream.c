/* Events for those without WebSockets: how they are rendered, and how a long poll's answer is put together. */
#include "api/relay/poll_answer.h"
#include "api/request.h"
#include "common/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ID "5f0c9a1be2d34467-1763790791123-4"
#define EVENT "{\"id\":\"" ID "\",\"type\":\"processing_progress\",\"data\":{\"n\":1}}"
#define END "{\"id\":\"5f0c9a1be2d34467-1763790791124-0\",\"type\":\"operation_failed\",\"data\":{}}"

static struct frame *event(const char *json)
{
    struct frame *f = frame_event(json, strlen(json), NULL);
    assert_non_null(f);
    return f;
}

static void assert_rendered(struct frame *f, enum frame_format format, const char *expected)
{
    const struct frame *rendered = frame_rendered(f, format);
    assert_non_null(rendered);
    assert_int_equal(rendered->len, strlen(expected));
    assert_memory_equal(rendered->bytes, expected, rendered->len);
}

static void an_event_is_one_block_with_its_id(void **state)
{
    (void)state;
    struct frame *f = event(EVENT);
    assert_rendered(f, FRAME_SSE, "id: " ID "\ndata: " EVENT "\n\n");
    frame_unref(f);
}

static void what_is_no_event_leaves_the_id_that_the_browser_knows(void **state)
{
    (void)state;
    const char *json = "{\"type\":\"current_state\"}";
    struct frame *f = frame_text(json, strlen(json));
    assert_rendered(f, FRAME_SSE, "data: {\"type\":\"current_state\"}\n\n");
    assert_rendered(f, FRAME_LINE, "\t\t{\"type\":\"current_state\"}\n");
    frame_unref(f);
}

static void line_breaks_between_tokens_do_not_end_a_block(void **state)
{
    (void)state;
    const char *json = "{\"id\":\"" ID "\",\r\n\n\"type\":\"x\"}";
    struct frame *f = event(json);
    assert_rendered(f, FRAME_SSE, "id: " ID "\ndata: {\"id\":\"" ID "\",   \"type\":\"x\"}\n\n");
    assert_rendered(f, FRAME_LINE, ID "\t\t{\"id\":\"" ID "\",   \"type\":\"x\"}\n");
    frame_unref(f);
}

static void take(struct poll_answer *a, const char *json)
{
    struct frame *f = event(json);
    const struct frame *line = frame_rendered(f, FRAME_LINE);
    poll_answer_take(a, (const char *)line->bytes, line->len);
    frame_unref(f);
}

static void assert_written(const struct poll_answer *a, const char *next, const char *expected)
{
    scoped_text out = {0};
    poll_answer_write(a, &out, next);
    assert_string_equal(text_str(&out), expected);
}

static void an_answer_holds_events_in_their_order(void **state)
{
    (void)state;
    struct poll_answer a = {0};
    assert_written(&a, "0", "{\"events\":[],\"last_id\":\"0\",\"has_ended\":false}");
    take(&a, EVENT);
    assert_string_equal(a.last_id, ID);
    assert_false(a.has_ended);
    take(&a, END);
    assert_string_equal(a.last_id, "5f0c9a1be2d34467-1763790791124-0");
    assert_true(a.has_ended);
    assert_int_equal(a.count, 2);
    assert_written(&a, a.last_id,
                   "{\"events\":[" EVENT "," END
                   "],\"last_id\":\"5f0c9a1be2d34467-1763790791124-0\",\"has_ended\":true}");
    poll_answer_done(&a);
}

static void lines_may_come_in_one_piece(void **state)
{
    (void)state;
    struct poll_answer a = {0};
    const char *lines = "\t\t{\"a\":\"\\t\"}\n" ID "\t\t{\"b\":2}\n";
    poll_answer_take(&a, lines, strlen(lines));
    assert_int_equal(a.count, 2);
    assert_string_equal(a.last_id, ID);
    assert_written(&a, ID, "{\"events\":[{\"a\":\"\\t\"},{\"b\":2}],\"last_id\":\"" ID "\",\"has_ended\":false}");
    poll_answer_done(&a);
}

static void the_first_goodbye_counts_and_is_no_event(void **state)
{
    (void)state;
    struct poll_answer a = {0};
    const char *lines = "!1008 token expired\n!1012 later\n";
    poll_answer_take(&a, lines, strlen(lines));
    assert_int_equal(a.goodbye, 1008);
    assert_string_equal(a.reason, "token expired");
    assert_int_equal(a.count, 0);
    poll_answer_done(&a);
}

static void what_is_no_line_of_ours_is_left_out(void **state)
{
    static const char *const lines[] = {"", "\n", "\t", "abc", "\tx\n", "!", "!\n", "!x\n", "!99\n"};
    (void)state;
    struct poll_answer a = {0};
    for (size_t i = 0; i < array_len(lines); i++)
        poll_answer_take(&a, lines[i], strlen(lines[i]));
    assert_int_equal(a.count, 0);
    assert_string_equal(a.last_id, "");
    poll_answer_done(&a);
}

static void an_answer_is_full_by_events_and_by_bytes(void **state)
{
    (void)state;
    struct poll_answer a = {0};
    for (int i = 0; i < POLL_EVENTS - 1; i++)
        poll_answer_take(&a, "\t\t{}\n", 5);
    assert_false(poll_answer_is_full(&a, 1 << 20));
    assert_true(poll_answer_is_full(&a, 100));
    poll_answer_take(&a, "\t\t{}\n", 5);
    assert_true(poll_answer_is_full(&a, 1 << 20));
    poll_answer_done(&a);
}

static void a_position_reads_as_it_is_written(void **state)
{
    char text[64];
    struct event_id id;
    (void)state;
    assert_int_equal(event_id_parse(ID, &id), STATUS_OK);
    event_id_text(&id, text);
    assert_string_equal(text, ID);
    event_id_text(&(struct event_id){0}, text);
    assert_string_equal(text, "0");
}

static void accept_names_a_type_or_refuses_it(void **state)
{
    static const char type[] = "text/event-stream";
    (void)state;
    assert_true(header_accepts("text/event-stream", type));
    assert_true(header_accepts("application/json, Text/Event-Stream ;q=0.5", type));
    assert_false(header_accepts("text/event-stream;q=0, */*", type));
    assert_false(header_accepts("*/*", type));
    assert_false(header_accepts("text/event-streams, xtext/event-stream", type));
    assert_false(header_accepts(NULL, type));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_one_block_with_its_id),
        cmocka_unit_test(what_is_no_event_leaves_the_id_that_the_browser_knows),
        cmocka_unit_test(line_breaks_between_tokens_do_not_end_a_block),
        cmocka_unit_test(an_answer_holds_events_in_their_order),
        cmocka_unit_test(lines_may_come_in_one_piece),
        cmocka_unit_test(the_first_goodbye_counts_and_is_no_event),
        cmocka_unit_test(what_is_no_line_of_ours_is_left_out),
        cmocka_unit_test(an_answer_is_full_by_events_and_by_bytes),
        cmocka_unit_test(a_position_reads_as_it_is_written),
        cmocka_unit_test(accept_names_a_type_or_refuses_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
