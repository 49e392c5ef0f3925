/* Rates, the gate before the relay, and the labels of what it counts: on given clocks. */
#include "api/rate.h"
#include "api/relay/gate.h"
#include "api/relay/relay_metrics.h"
#include "common/metrics.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SECOND = 1000000 };

/* ---- rates ---- */

static void a_burst_passes_and_then_one_an_interval(void **state)
{
    (void)state;
    struct rate rate = rate_of(10, SECOND);
    int64_t tat = 0, now = 5 * SECOND;
    for (int i = 0; i < 10; i++)
        assert_int_equal(rate_step(&rate, now, &tat), 0);
    assert_int_equal(rate_step(&rate, now, &tat), SECOND / 10);
    assert_int_equal(rate_step(&rate, now + SECOND / 10, &tat), 0);
    assert_true(rate_step(&rate, now + SECOND / 10, &tat) > 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(rate_step(&rate, now + 10 * SECOND, &tat), 0);
}

static void a_refused_try_costs_nothing(void **state)
{
    (void)state;
    struct rate rate = rate_of(1, SECOND);
    int64_t tat = 0;
    assert_int_equal(rate_step(&rate, SECOND, &tat), 0);
    for (int i = 0; i < 100; i++)
        assert_true(rate_step(&rate, SECOND + i, &tat) > 0);
    assert_int_equal(rate_step(&rate, 2 * SECOND, &tat), 0);
}

static void nonsense_of_a_setting_means_one(void **state)
{
    (void)state;
    assert_int_equal(rate_of(0, SECOND).burst, 1);
    assert_int_equal(rate_of(-5, SECOND).interval, SECOND);
    assert_int_equal(rate_of(INT64_MAX, SECOND).interval, 1);
}

static void keys_are_counted_apart(void **state)
{
    (void)state;
    struct rate_table *t = rate_table_new(64);
    struct rate rate = rate_of(2, SECOND);
    int64_t ahead = 0;
    assert_int_equal(rate_table_step(t, &rate, "a", SECOND, &ahead), 0);
    assert_int_equal(ahead, SECOND / 2);
    assert_int_equal(rate_table_step(t, &rate, "a", SECOND, NULL), 0);
    assert_true(rate_table_step(t, &rate, "a", SECOND, &ahead) > 0);
    assert_int_equal(ahead, SECOND);
    assert_int_equal(rate_table_step(t, &rate, "b", SECOND, NULL), 0);
    rate_table_free(t);
}

static void a_flood_of_keys_refuses_nobody_who_is_new(void **state)
{
    (void)state;
    struct rate_table *t = rate_table_new(64);
    struct rate rate = rate_of(1, SECOND);
    char key[32];
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(rate_table_step(t, &rate, key, SECOND + i, NULL), 0);
    }
    rate_table_free(t);
}

/* ---- the gate ---- */

static struct settings settings = {.rate_limits = "on", .ws_accept_rate = 20, .ws_connects_per_address = 60};

static struct guest guest_of(const char *address)
{
    static char head[] = "GET /ws/operations HTTP/1.1\r\n\r\n";
    return (struct guest){
        .fd = open("/dev/null", O_RDONLY | O_CLOEXEC), .head = head, .len = sizeof head - 1, .address = address};
}

static enum gate_answer knock(struct gate *g, const char *address, int64_t now, struct guest *out, int *out_retry)
{
    *out = guest_of(address);
    enum gate_answer answer = gate_knock(g, out, now, out_retry);
    if (answer != GATE_WAIT)
        close(out->fd);
    return answer;
}

static void handshakes_beyond_the_rate_wait_in_order_and_further_ones_are_told_to_come_again(void **state)
{
    (void)state;
    struct settings s = settings;
    s.rate_limits = "off";
    struct gate *g = gate_new(&s);
    struct guest guest, next;
    int retry = 0, passed = 0, waiting = 0, fds[64];
    assert_int_equal(gate_wait_ms(g, SECOND), -1);
    for (int i = 0; i < 21; i++) {
        enum gate_answer answer = knock(g, "198.51.100.1", SECOND, &guest, &retry);
        if (answer == GATE_PASS)
            passed++;
        if (answer == GATE_WAIT)
            fds[waiting++] = guest.fd;
    }
    assert_int_equal(passed, 1);
    assert_int_equal(waiting, 20);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(knock(g, "198.51.100.1", SECOND, &guest, &retry), GATE_BUSY);
        assert_in_range(retry, 1, 5);
    }
    assert_false(gate_next(g, SECOND, &next));
    assert_int_equal(gate_wait_ms(g, SECOND), 50);
    for (int i = 0; i < waiting; i++) {
        int64_t now = SECOND + (i + 1) * SECOND / 20;
        assert_true(gate_next(g, now, &next));
        assert_int_equal(next.fd, fds[i]);
        assert_null(next.refusal);
        assert_memory_equal(next.head, "GET /ws", 7);
        free(next.head);
        close(next.fd);
        assert_false(gate_next(g, now, &next));
    }
    gate_free(g);
}

static void nobody_overtakes_those_who_wait(void **state)
{
    (void)state;
    struct settings s = settings;
    s.rate_limits = "off";
    struct gate *g = gate_new(&s);
    struct guest guest;
    int retry;
    assert_int_equal(knock(g, "::1", SECOND, &guest, &retry), GATE_PASS);
    assert_int_equal(knock(g, "::1", SECOND, &guest, &retry), GATE_WAIT);
    assert_int_equal(knock(g, "::1", 9 * SECOND, &guest, &retry), GATE_WAIT);
    gate_free(g);
}

static void an_address_is_refused_beyond_its_rate_and_turned_away_beyond_twice_that(void **state)
{
    (void)state;
    struct settings s = settings;
    s.ws_accept_rate = 1000000;
    struct gate *g = gate_new(&s);
    struct guest guest;
    int retry = 0;
    for (int i = 0; i < 60; i++) {
        assert_int_equal(knock(g, "203.0.113.9", SECOND, &guest, &retry), GATE_PASS);
        assert_null(guest.refusal);
    }
    for (int i = 0; i < 60; i++) {
        assert_int_equal(knock(g, "203.0.113.9", SECOND, &guest, &retry), GATE_PASS);
        assert_non_null(guest.refusal);
    }
    assert_int_equal(knock(g, "203.0.113.9", SECOND, &guest, &retry), GATE_FLOOD);
    assert_int_equal(retry, 61);
    assert_int_equal(knock(g, "203.0.113.10", SECOND, &guest, &retry), GATE_PASS);
    assert_null(guest.refusal);
    assert_int_equal(knock(g, "203.0.113.9", 62 * SECOND + 2 * SECOND, &guest, &retry), GATE_PASS);
    assert_null(guest.refusal);
    gate_free(g);
}

static void addresses_are_not_counted_when_rate_limits_are_off(void **state)
{
    (void)state;
    struct settings s = settings;
    s.rate_limits = "off";
    s.ws_accept_rate = 1000000;
    struct gate *g = gate_new(&s);
    struct guest guest;
    int retry;
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(knock(g, "203.0.113.9", SECOND, &guest, &retry), GATE_PASS);
        assert_null(guest.refusal);
    }
    gate_free(g);
}

static void ipv6_addresses_are_counted_by_their_network(void **state)
{
    (void)state;
    char one[64], other[64];
    gate_network("2001:db8:1:2:3:4:5:6", one);
    gate_network("2001:db8:1:2::9", other);
    assert_string_equal(one, other);
    gate_network("2001:db8:1:3::9", other);
    assert_string_not_equal(one, other);
    gate_network("203.0.113.9", one);
    assert_string_equal(one, "203.0.113.9");
    gate_network("unix", one);
    assert_string_equal(one, "unix");
}

/* ---- what is counted ---- */

static bool has_line(const char *line)
{
    scoped_text text = {0};
    metrics_write(&text);
    return strstr(text_str(&text), line) != NULL;
}

static void labels_come_from_our_own_lists(void **state)
{
    (void)state;
    assert_string_equal(relay_message_type("document_processed"), "document_processed");
    assert_string_equal(relay_message_type("append_completed"), "append_completed");
    assert_string_equal(relay_message_type("validation_complete"), "validation_complete");
    assert_string_equal(relay_message_type("\"} evil 1\n"), "other");
    assert_string_equal(relay_operation_type("reindex"), "reindex");
    assert_string_equal(relay_operation_type("x"), "other");
    assert_string_equal(relay_operation_type(NULL), "unknown");
    relay_count_event("invented", 300, 0, 7);
    relay_count_event("deleting", 300, 0, 0);
    assert_true(has_line("websocket_messages_sent_total{message_type=\"other\"} 7\n"));
    assert_true(has_line("websocket_message_size_bytes_bucket{message_type=\"other\",le=\"256\"} 0\n"));
    assert_true(has_line("websocket_message_size_bytes_bucket{message_type=\"other\",le=\"512\"} 1\n"));
    assert_false(has_line("deleting"));
}

static void a_tally_is_handed_on_once(void **state)
{
    (void)state;
    struct tally t = {.bytes_sent = 100, .watched_operations = 3};
    tally_tell(&t);
    tally_tell(&t);
    assert_true(has_line("websocket_sent_bytes_total 100\n"));
    assert_true(has_line("websocket_watched_operations 3\n"));
    struct tally other = {.watched_operations = 2};
    tally_tell(&other);
    t.watched_operations = 1;
    tally_tell(&t);
    assert_true(has_line("websocket_watched_operations 3\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_passes_and_then_one_an_interval),
        cmocka_unit_test(a_refused_try_costs_nothing),
        cmocka_unit_test(nonsense_of_a_setting_means_one),
        cmocka_unit_test(keys_are_counted_apart),
        cmocka_unit_test(a_flood_of_keys_refuses_nobody_who_is_new),
        cmocka_unit_test(handshakes_beyond_the_rate_wait_in_order_and_further_ones_are_told_to_come_again),
        cmocka_unit_test(nobody_overtakes_those_who_wait),
        cmocka_unit_test(an_address_is_refused_beyond_its_rate_and_turned_away_beyond_twice_that),
        cmocka_unit_test(addresses_are_not_counted_when_rate_limits_are_off),
        cmocka_unit_test(ipv6_addresses_are_counted_by_their_network),
        cmocka_unit_test(labels_come_from_our_own_lists),
        cmocka_unit_test(a_tally_is_handed_on_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
