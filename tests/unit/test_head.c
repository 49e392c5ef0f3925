#include "api/head.h"
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct head head;

static enum head_kind parse(const char *s)
{
    return head_parse(s, strlen(s), &head);
}

static const char rest[] = "GET /api/v2/collections?page=1 HTTP/1.1\r\nHost: a\r\nX-A:  b \r\n\r\n";
static const char upgrade[] =
    "GET /ws/operations HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";

static void a_whole_head_is_told_by_its_path(void **state)
{
    (void)state;
    assert_int_equal(parse(rest), HEAD_REST);
    assert_int_equal(head.len, sizeof rest - 1);
    assert_int_equal(parse(upgrade), HEAD_WEBSOCKET);
    assert_int_equal(head.len, sizeof upgrade - 1);
}

static void every_beginning_of_a_head_is_incomplete(void **state)
{
    (void)state;
    for (size_t n = 0; n + 1 < sizeof rest; n++)
        assert_int_equal(head_parse(rest, n, &head), HEAD_INCOMPLETE);
    for (size_t n = 0; n + 1 < sizeof upgrade; n++)
        assert_int_equal(head_parse(upgrade, n, &head), HEAD_INCOMPLETE);
}

static void what_follows_a_head_is_not_part_of_it(void **state)
{
    (void)state;
    assert_int_equal(parse("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{}\n"), HEAD_REST);
    assert_int_equal(head.len, strlen("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"));
}

static void without_upgrade_or_another_way_it_is_rest(void **state)
{
    (void)state;
    assert_int_equal(parse("GET /ws/operations HTTP/1.1\r\nHost: a\r\n\r\n"), HEAD_REST);
    assert_int_equal(parse("POST /ws/operations HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), HEAD_REST);
    assert_int_equal(parse("GET /wsx HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), HEAD_REST);
    assert_int_equal(parse("GET /a/ws/ HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), HEAD_REST);
    assert_int_equal(parse("GET /ws/a HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n"), HEAD_REST);
}

static void an_absolute_url_names_its_path(void **state)
{
    (void)state;
    assert_int_equal(parse("GET http://a:1/ws/operations HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"),
                     HEAD_WEBSOCKET);
    assert_int_equal(parse("GET http://a:1/x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), HEAD_REST);
}

static void empty_lines_before_a_request_are_skipped(void **state)
{
    (void)state;
    assert_int_equal(parse("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), HEAD_REST);
    assert_int_equal(head.start, 4);
    assert_int_equal(parse("\r\n\r\n\r\n\r\n\r\n\r\n"), HEAD_BAD);
    assert_int_equal(parse("\r"), HEAD_INCOMPLETE);
    assert_int_equal(parse("\r\n"), HEAD_INCOMPLETE);
}

static void bare_line_feeds_are_understood(void **state)
{
    (void)state;
    assert_int_equal(parse("GET / HTTP/1.1\nHost: a\n\n"), HEAD_REST);
}

static void what_is_no_request_is_told_early(void **state)
{
    static const char *const bad[] = {
        "\x16\x03\x01",           /* TLS */
        "PRI * HTTP/2.0\r\n\r\n", /* HTTP/2 */
        "SSH-2.0-OpenSSH\r\n",
        "GET  / HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "GET / HTTP/2\r\n",
        "GET / HTTP/1.x\r\n",
        "GET /\r\n",
        "GET\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET /\x01 HTTP/1.1\r\n",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    };
    (void)state;
    for (size_t i = 0; i < array_len(bad); i++) {
        if (parse(bad[i]) != HEAD_BAD)
            fail_msg("%s", bad[i]);
    }
}

static void heads_that_servers_read_differently_are_refused(void **state)
{
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n\r\n", /* no Host */
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x02\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < array_len(bad); i++) {
        if (parse(bad[i]) != HEAD_BAD)
            fail_msg("%s", bad[i]);
    }
    assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n"), HEAD_REST);
}

static void a_head_has_a_largest_size(void **state)
{
    static char big[HEAD_MAX_BYTES + 1];
    static const char start[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    (void)state;
    memset(big, 'a', sizeof big);
    memcpy(big, start, sizeof start - 1);
    assert_int_equal(head_parse(big, HEAD_MAX_BYTES - 1, &head), HEAD_INCOMPLETE);
    assert_int_equal(head_parse(big, HEAD_MAX_BYTES, &head), HEAD_TOO_LARGE);
    memcpy(big + HEAD_MAX_BYTES - 4, "\r\n\r\n", 4);
    assert_int_equal(head_parse(big, HEAD_MAX_BYTES, &head), HEAD_REST);
}

static void fields_are_found_whatever_their_case(void **state)
{
    static const char s[] =
        "GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-for: 1 \r\nX-Forwarded-For:2\r\nX-Empty:\r\n\r\nX-After: 3\r\n";
    size_t len = 9;
    (void)state;
    assert_int_equal(parse(s), HEAD_REST);
    assert_memory_equal(head_field(s, &head, "X-Forwarded-For", 0, &len), "1", 1);
    assert_int_equal(len, 1);
    assert_memory_equal(head_field(s, &head, "X-Forwarded-For", 1, &len), "2", 1);
    assert_null(head_field(s, &head, "X-Forwarded-For", 2, &len));
    assert_non_null(head_field(s, &head, "X-Empty", 0, &len));
    assert_int_equal(len, 0);
    assert_null(head_field(s, &head, "X-After", 0, &len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_head_is_told_by_its_path),
        cmocka_unit_test(every_beginning_of_a_head_is_incomplete),
        cmocka_unit_test(what_follows_a_head_is_not_part_of_it),
        cmocka_unit_test(without_upgrade_or_another_way_it_is_rest),
        cmocka_unit_test(an_absolute_url_names_its_path),
        cmocka_unit_test(empty_lines_before_a_request_are_skipped),
        cmocka_unit_test(bare_line_feeds_are_understood),
        cmocka_unit_test(what_is_no_request_is_told_early),
        cmocka_unit_test(heads_that_servers_read_differently_are_refused),
        cmocka_unit_test(a_head_has_a_largest_size),
        cmocka_unit_test(fields_are_found_whatever_their_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
