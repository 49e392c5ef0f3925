#include "common/clock.h"
#include "common/jwt.h"
#include "common/text.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct scope sc;
static const char secret[] = "0123456789abcdef0123456789abcdef";
static const struct jwt_claims alice = {.subject = "alice", .user_id = 7, .expires_at = 4102444800, .type = "access"};

static int start(void **state)
{
    (void)state;
    scope_init(&sc, NULL);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    clock_set_for_tests(-1);
    scope_done(&sc);
    return 0;
}

static enum status verify(const char *token)
{
    struct jwt_claims out;
    enum status s = jwt_verify(&sc, secret, token, "access", &out);
    scope_forgive(&sc);
    return s;
}

static const char *base64url(const void *bytes, size_t len)
{
    unsigned char *out = arena_alloc(&sc.arena, len * 2 + 8);
    int n = EVP_EncodeBlock(out, bytes, (int)len);
    while (n > 0 && out[n - 1] == '=')
        n--;
    out[n] = '\0';
    for (int i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    return (const char *)out;
}

/* A token of any content, signed rightly: what an attacker who knows no secret cannot make, but a confused issuer
 * could. */
static const char *token_of(const char *header, const char *payload)
{
    const char *text = arena_printf(&sc.arena, "%s.%s", base64url(header, strlen(header)),
                                    base64url(payload, strlen(payload)));
    unsigned char mac[32];
    unsigned len = sizeof mac;
    assert_non_null(
        HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)text, strlen(text), mac, &len));
    return arena_printf(&sc.arena, "%s.%s", text, base64url(mac, len));
}

static const char good_header[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
static const char good_payload[] = "{\"sub\":\"alice\",\"user_id\":7,\"exp\":4102444800,\"type\":\"access\"}";

static void what_was_signed_is_read_back(void **state)
{
    (void)state;
    struct jwt_claims claims = alice, out;
    claims.subject = "al\"ice \xC3\xA9";
    claims.type = "refresh";
    claims.jti = "j1";
    assert_int_equal(jwt_verify(&sc, secret, jwt_sign(&sc, secret, &claims), "refresh", &out), STATUS_OK);
    assert_string_equal(out.subject, claims.subject);
    assert_int_equal(out.user_id, 7);
    assert_int_equal(out.expires_at, 4102444800);
    assert_string_equal(out.jti, "j1");
}

static void a_token_of_another_implementation_is_understood(void **state)
{
    (void)state;
    static const char token[] = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."
                                "eyJzdWIiOiJhbGljZSIsInVzZXJfaWQiOjcsImV4cCI6NDEwMjQ0NDgwMCwidHlwZSI6ImFjY2VzcyJ9."
                                "WCFwPHNT4-x15yZUKdYqGqCd0zr_Vqi-3gfjAKNttzE";
    struct jwt_claims out;
    assert_int_equal(jwt_verify(&sc, secret, token, "access", &out), STATUS_OK);
    assert_string_equal(out.subject, "alice");
    assert_int_equal(out.user_id, 7);
    assert_null(out.jti);
}

static void only_hs256_is_accepted(void **state)
{
    (void)state;
    static const char *const headers[] = {"{\"alg\":\"none\"}",
                                          "{\"alg\":\"HS384\"}",
                                          "{\"alg\":\"RS256\"}",
                                          "{\"alg\":\"hs256\"}",
                                          "{\"alg\":[\"HS256\"]}",
                                          "{}",
                                          "[]",
                                          "\"HS256\"",
                                          "null",
                                          "not json"};
    assert_int_equal(verify(token_of(good_header, good_payload)), STATUS_OK);
    for (size_t i = 0; i < array_len(headers); i++) {
        if (verify(token_of(headers[i], good_payload)) != STATUS_UNAUTHENTICATED)
            fail_msg("accepted: %s", headers[i]);
    }
    /* "none" as it is meant: no signature at all */
    const char *unsigned_token = arena_printf(&sc.arena, "%s.%s.", base64url("{\"alg\":\"none\"}", 14),
                                              base64url(good_payload, strlen(good_payload)));
    assert_int_equal(verify(unsigned_token), STATUS_UNAUTHENTICATED);
}

static void a_changed_character_anywhere_is_noticed(void **state)
{
    (void)state;
    char *token = arena_strdup(&sc.arena, jwt_sign(&sc, secret, &alice));
    for (size_t i = 0; token[i]; i++) {
        char kept = token[i];
        token[i] = kept == 'A' ? 'B' : 'A';
        if (verify(token) != STATUS_UNAUTHENTICATED)
            fail_msg("accepted with character %zu changed", i);
        token[i] = kept;
    }
    assert_int_equal(verify(token), STATUS_OK);
}

static void another_secret_is_refused(void **state)
{
    (void)state;
    assert_int_equal(verify(jwt_sign(&sc, "another secret of thirty-two chars", &alice)), STATUS_UNAUTHENTICATED);
}

static void a_refresh_token_is_no_access_token(void **state)
{
    (void)state;
    struct jwt_claims refresh = alice;
    refresh.type = "refresh";
    assert_int_equal(verify(jwt_sign(&sc, secret, &refresh)), STATUS_UNAUTHENTICATED);
    assert_int_equal(verify(token_of(good_header, "{\"sub\":\"alice\",\"exp\":4102444800}")), STATUS_UNAUTHENTICATED);
    assert_int_equal(verify(token_of(good_header, "{\"sub\":\"alice\",\"exp\":4102444800,\"type\":[\"access\"]}")),
                     STATUS_UNAUTHENTICATED);
}

static void a_token_ends_with_its_last_second(void **state)
{
    (void)state;
    struct jwt_claims claims = alice;
    claims.expires_at = 1000;
    const char *token = jwt_sign(&sc, secret, &claims);
    clock_set_for_tests(999999);
    assert_int_equal(verify(token), STATUS_OK);
    clock_set_for_tests(1000000);
    assert_int_equal(verify(token), STATUS_UNAUTHENTICATED);
}

static void claims_of_a_wrong_form_are_refused(void **state)
{
    (void)state;
    static const char *const payloads[] = {
        "{}",
        "[]",
        "7",
        "not json",
        "{\"user_id\":7,\"exp\":4102444800,\"type\":\"access\"}",            /* nobody */
        "{\"sub\":7,\"exp\":4102444800,\"type\":\"access\"}",                /* a number */
        "{\"sub\":\"alice\",\"type\":\"access\"}",                           /* for ever */
        "{\"sub\":\"alice\",\"exp\":\"4102444800\",\"type\":\"access\"}",    /* a string */
        "{\"sub\":\"alice\",\"exp\":1e400,\"type\":\"access\"}",             /* infinite */
        "{\"sub\":\"alice\",\"exp\":4102444800,\"type\":\"access\"} {}",     /* more */
        "{\"sub\":\"al\\u0000ice\",\"exp\":4102444800,\"type\":\"access\"}", /* NUL */
    };
    for (size_t i = 0; i < array_len(payloads); i++) {
        if (verify(token_of(good_header, payloads[i])) != STATUS_UNAUTHENTICATED)
            fail_msg("accepted: %s", payloads[i]);
    }
}

static void what_is_no_token_is_refused(void **state)
{
    (void)state;
    const char *good = jwt_sign(&sc, secret, &alice);
    static const char *const bad[] = {"", ".", "..", "...", "a.b.c", "a.b", "====.====.===="};
    for (size_t i = 0; i < array_len(bad); i++)
        assert_int_equal(verify(bad[i]), STATUS_UNAUTHENTICATED);
    assert_int_equal(verify(arena_printf(&sc.arena, "%s=", good)), STATUS_UNAUTHENTICATED);
    assert_int_equal(verify(arena_printf(&sc.arena, " %s", good)), STATUS_UNAUTHENTICATED);
    assert_int_equal(verify(arena_printf(&sc.arena, "%s.x", good)), STATUS_UNAUTHENTICATED);
    struct jwt_claims large = alice;
    large.subject = arena_printf(&sc.arena, "%04000d", 1);
    assert_int_equal(verify(jwt_sign(&sc, secret, &large)), STATUS_UNAUTHENTICATED);
}

#define test(name) cmocka_unit_test_setup_teardown(name, start, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(what_was_signed_is_read_back),
        test(a_token_of_another_implementation_is_understood),
        test(only_hs256_is_accepted),
        test(a_changed_character_anywhere_is_noticed),
        test(another_secret_is_refused),
        test(a_refresh_token_is_no_access_token),
        test(a_token_ends_with_its_last_second),
        test(claims_of_a_wrong_form_are_refused),
        test(what_is_no_token_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
