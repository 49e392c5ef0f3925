/* The relay benchmark's load client: a mistake of its own must not pass for one of the server. */
#include "tests/bench/relay/load_client.h"

#include "common/arena.h"
#include "common/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- frames ---- */

static void put_frame(struct text *out, int first, size_t len, char fill)
{
    unsigned char head[10] = {(unsigned char)first, (unsigned char)len};
    size_t head_len = 2;
    if (len >= 65536) {
        head[1] = 127;
        for (int i = 0; i < 8; i++)
            head[2 + i] = (unsigned char)((uint64_t)len >> (56 - 8 * i));
        head_len = 10;
    } else if (len >= 126) {
        head[1] = 126;
        head[2] = (unsigned char)(len >> 8);
        head[3] = (unsigned char)len;
        head_len = 4;
    }
    text_append(out, (const char *)head, head_len);
    for (size_t i = 0; i < len; i++)
        text_putc(out, fill);
}

static void a_frame_is_read_when_its_last_byte_is_there_and_not_before(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 70000};
    (void)state;
    for (size_t i = 0; i < array_len(sizes); i++) {
        scoped_text bytes = {0};
        struct load_frame frame;
        put_frame(&bytes, 0x81, sizes[i], 'a');
        size_t whole = bytes.len;
        text_append(&bytes, "\x81\x01z", 3);
        for (size_t len = 0; len < whole; len += len < 20 || len + 20 > whole ? 1 : 977)
            assert_int_equal(load_frame_read(bytes.data, len, &frame), 0);
        for (size_t len = whole; len <= bytes.len; len++) {
            assert_int_equal(load_frame_read(bytes.data, len, &frame), (long)whole);
            assert_int_equal(frame.opcode, FRAME_TEXT);
            assert_int_equal(frame.len, sizes[i]);
            assert_ptr_equal(frame.payload, bytes.data + whole - sizes[i]);
        }
    }
}

static void what_a_server_may_not_send_is_refused(void **state)
{
    static const char *const wrong[] = {
        "\x01\x01x",                                                /* the first of several parts */
        "\x80\x01x",                                                /* a further part */
        "\xC1\x01x",                                                /* compressed, which nobody asked for */
        "\x82\x01x",                                                /* binary */
        "\x83\x01x",                                                /* unknown */
        "\x8B\x01x",    "\x81\x81xxxx",                             /* masked */
        "\x89\x7E\x01",                                             /* a ping of more than 125 bytes */
        "\x88\x7F\x01", "\x81\x7F\x01\x01\x01\x01\x01\x01\x01\x01", /* larger than anything here */
    };
    struct load_frame frame;
    (void)state;
    for (size_t i = 0; i < array_len(wrong); i++)
        assert_int_equal(load_frame_read(wrong[i], strlen(wrong[i]), &frame), -1);
}

static void what_the_client_sends_is_masked(void **state)
{
    char out[131];
    (void)state;
    assert_int_equal(load_frame_write(out, FRAME_PONG, "hello", 5), 11);
    assert_int_equal((unsigned char)out[0], 0x8A);
    assert_int_equal((unsigned char)out[1], 0x85);
    for (int i = 0; i < 5; i++)
        assert_int_equal(out[6 + i] ^ out[2 + i % 4], "hello"[i]);
    assert_int_equal(load_frame_write(out, FRAME_CLOSE, "", 0), 6);
}

/* ---- marks and ids ---- */

static void a_mark_is_found_wherever_it_stands(void **state)
{
    char json[200];
    struct load_mark mark;
    size_t guess = 0;
    (void)state;
    for (int shift = 40; shift >= 0; shift -= 5) {
        snprintf(json, sizeof json, "{\"%.*s\":\"" LOAD_MARK "\"}", shift, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                 4294967295u, 999u, 1234567890123456789ULL);
        for (int again = 0; again < 2; again++) {
            assert_true(load_mark_find(json, strlen(json), &guess, &mark));
            assert_int_equal(mark.number, 4294967295u);
            assert_int_equal(mark.channel, 999);
            assert_int_equal(mark.sent_ns, 1234567890123456789ULL);
        }
        size_t end = strlen(json) - 2;
        for (size_t len = 0; len < end; len++)
            assert_false(load_mark_find(json, len, &guess, &mark)); /* cut off */
    }
    static const char *const none[] = {
        "", "{}", "{\"type\":\"current_state\",\"data\":{\"note\":\"no mark is in this one at all\"}}",
        "{\"mark\":\"bench=000000000x 000000 0000000000000000000\"}"};
    for (size_t i = 0; i < array_len(none); i++)
        assert_false(load_mark_find(none[i], strlen(none[i]), &guess, &mark));
}

static void ids_rise_by_their_numbers(void **state)
{
    static const struct {
        const char *a, *b;
        int order;
    } table[] = {
        {"ab-5-0", "ab-5-0", 0},     {"ab-5-0", "ab-5-1", -1}, {"ab-5-9", "ab-5-10", -1},
        {"ab-99-9", "ab-100-0", -1}, {"ff-2-0", "00-1-7", 1},  {"ab-1-0", "", 1},
    };
    const char *id = NULL, json[] = "{\"id\":\"ab-12-3\",\"type\":\"x\"}";
    (void)state;
    for (size_t i = 0; i < array_len(table); i++) {
        int order = load_id_compare(table[i].a, strlen(table[i].a), table[i].b, strlen(table[i].b));
        assert_int_equal((order > 0) - (order < 0), table[i].order);
        order = load_id_compare(table[i].b, strlen(table[i].b), table[i].a, strlen(table[i].a));
        assert_int_equal((order > 0) - (order < 0), -table[i].order);
    }
    assert_int_equal(load_event_id(json, strlen(json), &id), 7);
    assert_memory_equal(id, "ab-12-3", 7);
    assert_int_equal(load_event_id(json, 10, &id), 0);
    assert_int_equal(load_event_id("{\"type\":\"x\"}", 12, &id), 0);
}

/* ---- figures ---- */

static void lost_late_and_doubled_numbers_are_told_apart(void **state)
{
    struct sequence s = {0};
    (void)state;
    assert_int_equal(sequence_take(&s, 1), SEQUENCE_NEXT);
    assert_int_equal(sequence_take(&s, 2), SEQUENCE_NEXT);
    assert_int_equal(sequence_take(&s, 10), SEQUENCE_JUMP);
    assert_int_equal(sequence_missing(&s, 10), 7);
    assert_int_equal(sequence_missing(&s, 12), 9);
    assert_int_equal(sequence_take(&s, 10), SEQUENCE_TWICE);
    assert_int_equal(sequence_take(&s, 5), SEQUENCE_LATE);
    assert_int_equal(sequence_take(&s, 5), SEQUENCE_TWICE);
    assert_int_equal(sequence_take(&s, 3), SEQUENCE_LATE);
    assert_int_equal(sequence_take(&s, 9), SEQUENCE_LATE);
    assert_int_equal(sequence_missing(&s, 10), 4); /* 4 6 7 8 */
    assert_int_equal(sequence_take(&s, 11), SEQUENCE_NEXT);
    assert_int_equal(sequence_take(&s, 1), SEQUENCE_TWICE);
    assert_int_equal(sequence_missing(&s, 11), 4);
    sequence_free(&s);
}

static void more_gaps_than_are_kept_are_still_counted(void **state)
{
    struct sequence s = {0};
    (void)state;
    for (uint32_t i = 2; i <= 400; i += 2)
        assert_int_equal(sequence_take(&s, i), SEQUENCE_JUMP);
    assert_int_equal(sequence_missing(&s, 400), 200);
    sequence_free(&s);
}

static void a_histogram_is_right_to_three_percent(void **state)
{
    struct histogram *h = must_calloc(1, sizeof *h);
    (void)state;
    for (uint64_t us = 1; us <= 100000; us++)
        histogram_add(h, us * 1000);
    for (int percent = 1; percent < 100; percent++) {
        double got = histogram_at(h, percent / 100.0), wanted = percent;
        assert_true(got > wanted * 0.969 && got < wanted * 1.031);
    }
    histogram_add(h, 7200000000000ULL); /* two hours */
    assert_true(histogram_at(h, 1) > 7100000);
    assert_int_equal(h->max_ns, 7200000000000ULL);
    free(h);
}

/* ---- a conversation ---- */

struct talk {
    struct load load;
    int server;
};

static void talk_begin(struct talk *t)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    *t = (struct talk){.server = pair[1]};
    t->load.epoll = epoll_create1(0);
    t->load.buffer = must_malloc(LOAD_BUFFER_BYTES + MOST_FRAME_BYTES);
    t->load.conns = must_calloc(1, sizeof *t->load.conns);
    t->load.count = 1;
    t->load.opening = 1;
    *t->load.conns = (struct conn){.fd = pair[0], .state = CONN_SHAKING, .path = "/", .token = "-"};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = t->load.conns};
    assert_int_equal(epoll_ctl(t->load.epoll, EPOLL_CTL_ADD, pair[0], &e), 0);
}

static void talk_end(struct talk *t)
{
    conn_close(&t->load, t->load.conns, false);
    sequence_free(&t->load.conns->seen);
    free(t->load.conns);
    free(t->load.buffer);
    close(t->load.epoll);
    close(t->server);
}

static void say(struct talk *t, const char *bytes, size_t len, size_t at_once)
{
    while (len > 0) {
        size_t n = len < at_once ? len : at_once;
        assert_int_equal(send(t->server, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
        load_turn(&t->load, 1000);
        bytes += n;
        len -= n;
    }
}

static const char handshake[] =
    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void put_event(struct text *out, unsigned number, size_t pad)
{
    scoped_text json = {0};
    text_printf(&json, "{\"id\":\"ab-%u-0\",\"data\":{\"mark\":\"" LOAD_MARK "\",\"pad\":\"", number, number, 0u, 5ULL);
    for (size_t i = 0; i < pad; i++)
        text_putc(&json, 'p');
    text_append(&json, "\"}}", 3);
    scoped_text frame = {0};
    put_frame(&frame, 0x81, json.len, ' ');
    memcpy(frame.data + frame.len - json.len, json.data, json.len);
    text_append(out, frame.data, frame.len);
}

static void every_event_is_counted_once_however_the_bytes_are_cut(void **state)
{
    static const size_t pieces[] = {1, 2, 3, 7, 100, 479, 4096, 100000};
    (void)state;
    for (size_t i = 0; i < array_len(pieces); i++) {
        struct talk t;
        scoped_text bytes = {0};
        talk_begin(&t);
        text_append(&bytes, handshake, sizeof handshake - 1);
        for (unsigned number = 1; number <= 12; number++)
            put_event(&bytes, number, number == 7 ? 70000 : number * 13);
        if (pieces[i] < 100)
            bytes.len = 2000; /* a send a byte takes its time */
        say(&t, bytes.data, bytes.len, pieces[i]);
        for (int turn = 0; turn < 5; turn++)
            load_turn(&t.load, 0);
        unsigned expected = pieces[i] < 100 ? (unsigned)t.load.now.delivered : 12;
        assert_int_equal(t.load.ready, 1);
        assert_true(expected >= 6);
        assert_int_equal(t.load.now.delivered, expected);
        assert_int_equal(t.load.conns->seen.last, expected);
        assert_int_equal(t.load.now.twice + t.load.now.late + t.load.now.wrong_frames + t.load.now.closed, 0);
        assert_int_equal(sequence_missing(&t.load.conns->seen, expected), 0);
        talk_end(&t);
    }
}

static void doubled_and_missing_events_show_in_the_figures(void **state)
{
    static const unsigned numbers[] = {1, 2, 2, 5, 4, 6};
    struct talk t;
    scoped_text bytes = {0};
    (void)state;
    talk_begin(&t);
    text_append(&bytes, handshake, sizeof handshake - 1);
    for (size_t i = 0; i < array_len(numbers); i++)
        put_event(&bytes, numbers[i], 0);
    say(&t, bytes.data, bytes.len, bytes.len);
    assert_int_equal(t.load.now.twice, 1);
    assert_int_equal(t.load.now.late, 1);
    assert_int_equal(t.load.now.published_twice, 0);
    assert_int_equal(sequence_missing(&t.load.conns->seen, 6), 1);
    talk_end(&t);
}

static void pings_are_answered_and_a_close_is_kept_with_its_code(void **state)
{
    struct talk t;
    scoped_text bytes = {0};
    unsigned char got[64] = {0};
    (void)state;
    talk_begin(&t);
    text_append(&bytes, handshake, sizeof handshake - 1);
    text_append(&bytes,
                "\x89\x02hi\x88\x05\x03\xF0"
                "bye",
                4 + 7);
    say(&t, bytes.data, bytes.len, bytes.len);
    assert_int_equal(recv(t.server, got, sizeof got, 0), 8 + 8);
    assert_int_equal(got[0], 0x8A);
    assert_int_equal(got[1], 0x82);
    assert_int_equal(got[6] ^ got[2], 'h');
    assert_int_equal(got[8], 0x88);
    assert_int_equal(t.load.now.pings, 1);
    assert_int_equal(t.load.now.closed, 1);
    assert_int_equal(t.load.now.cut, 0);
    assert_int_equal(t.load.conns->close_code, 1008);
    talk_end(&t);
}

static void a_refused_handshake_says_why(void **state)
{
    static const char *const answers[] = {
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: something else\r\n\r\n"};
    (void)state;
    for (size_t i = 0; i < array_len(answers); i++) {
        struct talk t;
        talk_begin(&t);
        say(&t, answers[i], strlen(answers[i]), 1000);
        assert_int_equal(t.load.refused, 1);
        assert_int_equal(t.load.ready, 0);
        assert_memory_equal(t.load.first_refusal, answers[i], strcspn(answers[i], "\r"));
        talk_end(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_is_read_when_its_last_byte_is_there_and_not_before),
        cmocka_unit_test(what_a_server_may_not_send_is_refused),
        cmocka_unit_test(what_the_client_sends_is_masked),
        cmocka_unit_test(a_mark_is_found_wherever_it_stands),
        cmocka_unit_test(ids_rise_by_their_numbers),
        cmocka_unit_test(lost_late_and_doubled_numbers_are_told_apart),
        cmocka_unit_test(more_gaps_than_are_kept_are_still_counted),
        cmocka_unit_test(a_histogram_is_right_to_three_percent),
        cmocka_unit_test(every_event_is_counted_once_however_the_bytes_are_cut),
        cmocka_unit_test(doubled_and_missing_events_show_in_the_figures),
        cmocka_unit_test(pings_are_answered_and_a_close_is_kept_with_its_code),
        cmocka_unit_test(a_refused_handshake_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
