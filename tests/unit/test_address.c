#include "api/address.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct scope sc;
static const struct proxies *trusted;

static int set_up(void **state)
{
    (void)state;
    scope_init(&sc, NULL);
    return proxies_parse(&sc, "10.0.0.0/8, 192.0.2.7,fd00::/8", &trusted) == STATUS_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    scope_done(&sc);
    return 0;
}

static void assert_client(const char *peer, const char *forwarded_for, const char *expected)
{
    assert_string_equal(address_of_client(&sc.arena, trusted, peer, forwarded_for), expected);
}

static void a_stranger_cannot_say_who_he_is(void **state)
{
    (void)state;
    assert_client("203.0.113.5", "1.2.3.4", "203.0.113.5");
    assert_client("11.0.0.1", "1.2.3.4", "11.0.0.1");
    assert_client("fe80::1", "1.2.3.4", "fe80::1");
}

static void a_trusted_proxy_names_the_client(void **state)
{
    (void)state;
    assert_client("10.1.2.3", "203.0.113.5", "203.0.113.5");
    assert_client("192.0.2.7", "2001:db8::1", "2001:db8::1");
    assert_client("fd12::9", "203.0.113.5:4711", "203.0.113.5");
    assert_client("10.1.2.3", "[2001:db8::1]:443", "2001:db8::1");
    assert_client("10.1.2.3", NULL, "10.1.2.3");
}

static void only_the_last_hop_outside_counts(void **state)
{
    (void)state;
    assert_client("10.1.2.3", "6.6.6.6, 203.0.113.5, 10.9.9.9", "203.0.113.5");
    assert_client("10.1.2.3", "10.8.8.8, 10.9.9.9", "10.8.8.8");
    assert_client("10.1.2.3", "6.6.6.6, nonsense", "10.1.2.3");
    assert_client("10.1.2.3", "6.6.6.6, nonsense, 10.9.9.9", "10.9.9.9");
    assert_client("10.1.2.3", " , ,", "10.1.2.3");
}

/* However much a client wrote before it. */
static void what_the_proxy_wrote_at_the_end_counts(void **state)
{
    (void)state;
    static const char *const made_up[] = {"6.6.6.6", "10.0.0.1", "nonsense"};
    for (size_t i = 0; i < array_len(made_up); i++) {
        scoped_text forwarded = {0};
        while (forwarded.len < 10000)
            address_join_forwarded(&forwarded, made_up[i], strlen(made_up[i]));
        address_join_forwarded(&forwarded, "203.0.113.5", 11);
        assert_client("10.1.2.3", forwarded.data, "203.0.113.5");
        address_join_forwarded(&forwarded, "10.0.0.7", 8);
        assert_client("10.1.2.3", forwarded.data, "203.0.113.5");
    }
}

static void an_address_that_is_cut_is_not_believed(void **state)
{
    scoped_text forwarded = {0};
    (void)state;
    text_puts(&forwarded, "203.0.113.5");
    while (forwarded.len < 4096 + 4) /* the cut goes through the first address: "0.113.5" or the like is left of it */
        text_puts(&forwarded, ",10.0.0.1");
    assert_client("10.1.2.3", forwarded.data, "10.0.0.1");
    text_clear(&forwarded);
    while (forwarded.len < 5000)
        text_putc(&forwarded, '1');
    assert_client("10.1.2.3", forwarded.data, "10.1.2.3");
}

static void one_client_is_written_in_one_way(void **state)
{
    (void)state;
    assert_client("10.1.2.3", "::ffff:203.0.113.7", "203.0.113.7");
    assert_client("10.1.2.3", "[::FFFF:cb00:7107]:443", "203.0.113.7");
    assert_client("10.1.2.3", "203.0.113.7, ::ffff:10.9.9.9", "203.0.113.7");
    assert_client("10.1.2.3", "2001:DB8:0:0::1", "2001:db8::1");
}

static void what_is_no_network_is_named(void **state)
{
    static const char *const bad[] = {"10.0.0.0/33", "proxy.example.org", "10.0.0.0/x", "::1/129", "10.0.0.0/",
                                      "/8",          "10.0.0.0/-1"};
    const struct proxies *p;
    (void)state;
    for (size_t i = 0; i < array_len(bad); i++) {
        assert_int_equal(proxies_parse(&sc, bad[i], &p), STATUS_INVALID);
        assert_non_null(strstr(sc.problem_text, bad[i]));
        scope_forgive(&sc);
    }
    assert_int_equal(proxies_parse(&sc, "", &p), STATUS_OK);
}

static void addresses_read_the_same_over_both_families(void **state)
{
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    char text[64];
    (void)state;
    inet_pton(AF_INET6, "::ffff:203.0.113.5", &mapped.sin6_addr);
    inet_pton(AF_INET, "203.0.113.5", &v4.sin_addr);
    address_text((struct sockaddr *)&mapped, text);
    assert_string_equal(text, "203.0.113.5");
    address_text((struct sockaddr *)&v4, text);
    assert_string_equal(text, "203.0.113.5");
    address_text(NULL, text);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_stranger_cannot_say_who_he_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_trusted_proxy_names_the_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_the_last_hop_outside_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_the_proxy_wrote_at_the_end_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_address_that_is_cut_is_not_believed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_client_is_written_in_one_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_network_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(addresses_read_the_same_over_both_families, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
