/* The relay's pure parts: request heads, timers, tables, frames, replay. */
#include "api/relay/history.h"
#include "api/relay/table.h"
#include "api/relay/upgrade.h"
#include "api/relay/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define UPGRADE                                                                                                        \
    "Host: h:1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n" KEY

static int set_up(void **state)
{
    struct scope *sc = must_calloc(1, sizeof *sc);
    scope_init(sc, NULL);
    *state = sc;
    return 0;
}

static int tear_down(void **state)
{
    scope_done(*state);
    free(*state);
    return 0;
}

static enum status parse(void **state, const char *head, struct ws_head *out)
{
    return ws_head_parse(*state, head, strlen(head), out);
}

static void the_first_protocol_with_a_token_is_taken_whole(void **state)
{
    struct ws_head h;
    assert_int_equal(parse(state,
                           "GET /ws/operations HTTP/1.1\r\n" UPGRADE
                           "Sec-WebSocket-Protocol: chat, access_token.a.b.c , access_token.x\r\n\r\nrest",
                           &h),
                     STATUS_OK);
    assert_string_equal(h.echo, "access_token.a.b.c");
    assert_string_equal(h.token, "a.b.c");
    assert_int_equal(h.kind, WS_OPERATIONS);
    assert_null(h.last_id);
    assert_string_equal(h.host, "h:1");
}

static void a_token_of_the_query_is_percent_decoded_and_comes_second(void **state)
{
    struct ws_head h;
    assert_int_equal(
        parse(state, "GET /ws/operations/?token=a%2Eb&last_id=&format=flat&x HTTP/1.1\r\n" UPGRADE "\r\n", &h),
        STATUS_OK);
    assert_string_equal(h.token, "a.b");
    assert_string_equal(h.last_id, "");
    assert_true(h.is_flat);
    assert_null(h.echo);
    assert_int_equal(
        parse(state, "GET /ws/operations?token=q HTTP/1.1\r\n" UPGRADE "Sec-WebSocket-Protocol: access_token.p\r\n\r\n",
              &h),
        STATUS_OK);
    assert_string_equal(h.token, "p");
}

static void paths_name_their_endpoint(void **state)
{
    static const struct {
        const char *path;
        enum ws_kind kind;
        const char *target;
    } cases[] = {{"/ws/operations/ABC-1", WS_OPERATION, "abc-1"},
                 {"/ws/scan/a_B-1", WS_SCAN, "a_B-1"},
                 {"/ws/directory-scan/x", WS_DIRECTORY_SCAN, "x"},
                 {"/ws/scan/", WS_UNKNOWN, ""},
                 {"/ws/scan/a%2Fb", WS_UNKNOWN, ""},
                 {"/ws/", WS_UNKNOWN, ""},
                 {"/ws/operationsx", WS_UNKNOWN, ""}};
    for (size_t i = 0; i < array_len(cases); i++) {
        struct ws_head h;
        char head[512];
        snprintf(head, sizeof head, "GET %s HTTP/1.1\r\n" UPGRADE "\r\n", cases[i].path);
        assert_int_equal(parse(state, head, &h), STATUS_OK);
        assert_int_equal(h.kind, cases[i].kind);
        assert_string_equal(h.target, cases[i].target);
    }
}

static void malformed_heads_are_invalid_and_plain_requests_need_an_upgrade(void **state)
{
    static const char *const bad[] = {
        "GET /ws HTTP/1.1\r\nHost: x\r\n",
        "POST /ws HTTP/1.1\r\n" UPGRADE "\r\n",
        "GET /ws HTTP/1.0\r\n" UPGRADE "\r\n",
        "GET /ws HTTP/1.1 x\r\n" UPGRADE "\r\n",
        "GET  HTTP/1.1\r\n" UPGRADE "\r\n",
        "GET /ws HTTP/1.1\r\n" UPGRADE KEY "\r\n",
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 8\r\n" KEY "\r\n",
        "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n" KEY "\r\n",
        "\r\n\r\n",
    };
    struct ws_head h;
    for (size_t i = 0; i < array_len(bad); i++)
        assert_int_equal(parse(state, bad[i], &h), STATUS_INVALID);
    assert_int_equal(parse(state, "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", &h), STATUS_UPGRADE);
}

static void the_rewritten_head_holds_nothing_of_the_client_but_its_key(void **state)
{
    struct ws_head h;
    scoped_text out = {0};
    const char *head = "GET /ws/operations?token=secret HTTP/1.1\r\n" UPGRADE
                       "Cookie: secret\r\nSec-WebSocket-Protocol: access_token.secret\r\n\r\nframes";
    assert_int_equal(parse(state, head, &h), STATUS_OK);
    assert_string_equal(head + h.head_len, "frames");
    ws_head_rewrite(&out, &h);
    assert_null(strstr(out.data, "secret"));
    assert_non_null(strstr(out.data, "dGhlIHNhbXBsZSBub25jZQ=="));
    assert_string_equal(out.data + out.len - 4, "\r\n\r\n");
}

static void an_echo_cannot_smuggle_anything_into_the_answer(void **state)
{
    struct ws_head h;
    assert_int_equal(parse(state,
                           "GET /ws HTTP/1.1\r\n" UPGRADE
                           "Sec-WebSocket-Protocol: access_token.a b, access_token.\x01, access_token.ok\r\n\r\n",
                           &h),
                     STATUS_OK);
    assert_string_equal(h.echo, "access_token.ok");
}

static void origins_are_those_of_the_list_or_the_address_itself(void **state)
{
    (void)state;
    const char *list = "http://a.example:3000, https://b.example/";
    assert_true(ws_origin_is_allowed(list, NULL, "x"));
    assert_true(ws_origin_is_allowed(list, "http://a.example:3000", "x"));
    assert_true(ws_origin_is_allowed(list, "https://b.example", "x"));
    assert_true(ws_origin_is_allowed(list, "http://10.0.0.1:8080", "10.0.0.1:8080"));
    assert_true(ws_origin_is_allowed("", "http://[::1]:8080", "[::1]:8080"));
    assert_true(ws_origin_is_allowed(NULL, "http://10.0.0.1", "10.0.0.1:80"));
    assert_false(ws_origin_is_allowed(list, "http://a.example", "x"));
    assert_false(ws_origin_is_allowed(list, "http://evil.example", "evil.example"));
    assert_false(ws_origin_is_allowed(list, "http://10.0.0.1:8081", "10.0.0.1:8080"));
    assert_false(ws_origin_is_allowed(list, "null", "null"));
    assert_false(ws_origin_is_allowed("", "", ""));
}

struct firing {
    struct wheel *wheel;
    int count;
    int64_t again_ms;
};

static void note_fire(struct wheel_entry *e, void *context)
{
    struct firing *f = context;
    f->count++;
    if (f->again_ms)
        wheel_put(f->wheel, e, f->again_ms);
}

static void a_timer_fires_once_when_due_even_after_many_turns(void **state)
{
    (void)state;
    struct wheel w;
    struct wheel_entry near = {0}, far = {0}, taken = {0};
    struct firing f = {&w, 0, 0};
    wheel_init(&w, 1000);
    wheel_put(&w, &near, 2000);
    wheel_put(&w, &far, 1000 + 3LL * WHEEL_SLOTS * WHEEL_TICK_MS);
    wheel_put(&w, &taken, 1500);
    wheel_put(&w, &taken, 2000);
    wheel_take(&taken);
    wheel_take(&taken);
    wheel_advance(&w, 1999, note_fire, &f);
    assert_int_equal(f.count, 0);
    wheel_advance(&w, 2000, note_fire, &f);
    assert_int_equal(f.count, 1);
    wheel_advance(&w, 1000 + 3LL * WHEEL_SLOTS * WHEEL_TICK_MS - 1, note_fire, &f);
    assert_int_equal(f.count, 1);
    wheel_advance(&w, 1000 + 3LL * WHEEL_SLOTS * WHEEL_TICK_MS, note_fire, &f);
    assert_int_equal(f.count, 2);
}

static void a_timer_may_be_put_again_while_it_fires(void **state)
{
    (void)state;
    struct wheel w;
    struct wheel_entry e = {0};
    wheel_init(&w, 0);
    struct firing f = {&w, 0, (int64_t)WHEEL_SLOTS * WHEEL_TICK_MS + WHEEL_TICK_MS};
    wheel_put(&w, &e, WHEEL_TICK_MS);
    wheel_advance(&w, WHEEL_TICK_MS, note_fire, &f);
    assert_int_equal(f.count, 1);
    f.again_ms = 0;
    wheel_advance(&w, 10LL * WHEEL_SLOTS * WHEEL_TICK_MS, note_fire, &f);
    assert_int_equal(f.count, 2);
}

static void remove_node(struct table_node *node, void *context)
{
    table_remove(context, node);
}

static void a_table_finds_what_was_added_until_it_is_removed(void **state)
{
    (void)state;
    struct table t = {0};
    struct table_node nodes[300] = {0};
    char name[16];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_null(table_find(&t, name));
        table_add(&t, &nodes[i], name);
    }
    assert_ptr_equal(table_find(&t, "n123"), &nodes[123]);
    table_remove(&t, &nodes[123]);
    assert_null(table_find(&t, "n123"));
    assert_int_equal(t.count, 299);
    table_each(&t, remove_node, &t);
    assert_int_equal(t.count, 0);
    table_done(&t);
}

static struct frame *event(const char *epoch, unsigned ms, const char *type)
{
    char json[200];
    int len = snprintf(
        json, sizeof json,
        "{\"id\":\"%s-%u-0\",\"type\":\"%s\",\"operation_id\":\"o\",\"data\":{\"processed\":1,\"total\":2}}", epoch, ms,
        type);
    return frame_event(json, (size_t)len, NULL);
}

static void a_frame_is_a_header_and_the_event_and_knows_its_id(void **state)
{
    (void)state;
    struct frame *f = event("00000000000000aa", 7, "document_processed");
    assert_int_equal(f->bytes[0], 0x81);
    assert_int_equal(f->bytes[1], f->len - 2);
    assert_true(f->is_event && f->is_progress);
    assert_int_equal(f->id.ms, 7);
    assert_string_equal(f->type, "document_processed");
    frame_unref(f);
    assert_null(frame_event("[1]", 3, NULL));
    assert_null(frame_event("{", 1, NULL));
}

static void long_frames_have_long_headers(void **state)
{
    (void)state;
    static char big[70000];
    memset(big, 'x', sizeof big);
    struct frame *f = frame_text(big, 126), *g = frame_text(big, sizeof big);
    assert_int_equal(f->bytes[1], 126);
    assert_int_equal(f->bytes[2] << 8 | f->bytes[3], 126);
    assert_int_equal(f->len, 126 + 4);
    assert_int_equal(g->bytes[1], 127);
    assert_int_equal(g->len, sizeof big + 10);
    frame_unref(f);
    frame_unref(g);
}

static void a_close_frame_is_cut_at_a_character(void **state)
{
    (void)state;
    char reason[200] = "";
    for (int i = 0; i < 70; i++)
        strcat(reason, "ä");
    struct frame *f = frame_close(1008, reason);
    assert_int_equal(f->bytes[0], 0x88);
    assert_int_equal(f->bytes[1], 2 + 122);
    assert_int_equal(f->bytes[2] << 8 | f->bytes[3], 1008);
    frame_unref(f);
}

static void a_flat_document_is_two_frames_and_a_stage_is_none(void **state)
{
    (void)state;
    struct frame *f = event("00000000000000aa", 7, "document_processed");
    const struct frame *flat = frame_rendered(f, FRAME_FLAT);
    assert_non_null(flat);
    assert_non_null(memmem(flat->bytes, flat->len, "file_processing", 15));
    assert_non_null(memmem(flat->bytes, flat->len, "file_completed", 14));
    assert_null(memmem(flat->bytes, flat->len, "\"data\"", 6));
    assert_ptr_equal(frame_rendered(f, FRAME_WS), f);
    frame_unref(f);
    const char *stage = "{\"id\":\"00000000000000aa-8-0\",\"type\":\"staging_created\",\"data\":{}}";
    f = frame_event(stage, strlen(stage), NULL);
    assert_null(frame_rendered(f, FRAME_FLAT));
    frame_unref(f);
}

static enum replay_advice live(struct replay *r, const char *epoch, unsigned ms)
{
    struct frame *f = event(epoch, ms, "x");
    enum replay_advice advice = replay_live(r, f);
    frame_unref(f);
    return advice;
}

#define EPOCH "00000000000000aa"

static void what_comes_during_the_replay_is_held_and_sent_once(void **state)
{
    (void)state;
    struct replay r = {0};
    struct history_page page = {.epoch = EPOCH};
    replay_start(&r, &(struct event_id){.ms = 0});
    assert_int_equal(live(&r, EPOCH, 5), REPLAY_HOLD);
    assert_int_equal(live(&r, EPOCH, 6), REPLAY_HOLD);
    for (unsigned ms = 3; ms <= 5; ms++) {
        struct frame *f = event(EPOCH, ms, "x");
        assert_true(replay_page_event(&r, f));
        assert_false(replay_page_event(&r, f));
        frame_unref(f);
    }
    assert_true(replay_page_end(&r, &page));
    assert_int_equal(r.held_count, 2);
    assert_int_equal(replay_live(&r, r.held[0]), REPLAY_SKIP);
    assert_int_equal(replay_live(&r, r.held[1]), REPLAY_SEND);
    replay_release(&r);
    assert_int_equal(live(&r, EPOCH, 6), REPLAY_SKIP);
    assert_int_equal(live(&r, EPOCH, 7), REPLAY_SEND);
}

static void another_epoch_restarts_the_replay(void **state)
{
    (void)state;
    struct replay r = {0};
    struct history_page page = {.epoch = EPOCH};
    replay_start(&r, &(struct event_id){0});
    assert_true(replay_page_end(&r, &page));
    assert_int_equal(live(&r, EPOCH, 5), REPLAY_SEND);
    assert_int_equal(live(&r, "00000000000000bb", 9), REPLAY_RESTART);
}

static void too_much_held_is_read_from_the_stream_again(void **state)
{
    (void)state;
    struct replay r = {0};
    struct history_page page = {.epoch = EPOCH};
    replay_start(&r, &(struct event_id){0});
    for (unsigned ms = 1; ms < 2000; ms++)
        assert_int_equal(live(&r, EPOCH, ms), REPLAY_HOLD);
    assert_true(r.has_lost_held);
    assert_int_equal(r.held_count, 0);
    assert_false(replay_page_end(&r, &page));
    replay_next(&r, true);
    assert_int_equal(live(&r, EPOCH, 2000), REPLAY_HOLD);
    assert_int_equal(r.held_count, 1);
    page.is_more = true;
    assert_false(replay_page_end(&r, &page));
    page.is_more = false;
    assert_true(replay_page_end(&r, &page));
    replay_release(&r);
}

static void a_page_that_was_read_before_the_subscription_is_not_the_last_one(void **state)
{
    (void)state;
    struct replay r = {0};
    struct history_page page = {.epoch = EPOCH};
    replay_start(&r, &(struct event_id){0});
    replay_next(&r, false);
    assert_false(replay_page_end(&r, &page));
    replay_next(&r, true);
    assert_int_equal(live(&r, EPOCH, 7), REPLAY_HOLD);
    assert_true(replay_page_end(&r, &page));
    assert_int_equal(r.held_count, 1);
    replay_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_protocol_with_a_token_is_taken_whole),
        cmocka_unit_test(a_token_of_the_query_is_percent_decoded_and_comes_second),
        cmocka_unit_test(paths_name_their_endpoint),
        cmocka_unit_test(malformed_heads_are_invalid_and_plain_requests_need_an_upgrade),
        cmocka_unit_test(the_rewritten_head_holds_nothing_of_the_client_but_its_key),
        cmocka_unit_test(an_echo_cannot_smuggle_anything_into_the_answer),
        cmocka_unit_test(origins_are_those_of_the_list_or_the_address_itself),
        cmocka_unit_test(a_timer_fires_once_when_due_even_after_many_turns),
        cmocka_unit_test(a_timer_may_be_put_again_while_it_fires),
        cmocka_unit_test(a_table_finds_what_was_added_until_it_is_removed),
        cmocka_unit_test(a_frame_is_a_header_and_the_event_and_knows_its_id),
        cmocka_unit_test(long_frames_have_long_headers),
        cmocka_unit_test(a_close_frame_is_cut_at_a_character),
        cmocka_unit_test(a_flat_document_is_two_frames_and_a_stage_is_none),
        cmocka_unit_test(what_comes_during_the_replay_is_held_and_sent_once),
        cmocka_unit_test(another_epoch_restarts_the_replay),
        cmocka_unit_test(too_much_held_is_read_from_the_stream_again),
        cmocka_unit_test(a_page_that_was_read_before_the_subscription_is_not_the_last_one),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
