#include "common/password.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct scope sc;

static int start(void **state)
{
    (void)state;
    scope_init(&sc, NULL);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    scope_done(&sc);
    return 0;
}

static void a_password_verifies_against_its_own_hash_alone(void **state)
{
    (void)state;
    const char *hash, *again;
    bool should_rehash = true;
    assert_int_equal(password_hash(&sc, "correct horse", &hash), STATUS_OK);
    assert_int_equal(strncmp(hash, "$argon2id$v=19$m=19456,t=2,p=1$", 31), 0);
    assert_true(password_verify("correct horse", hash, &should_rehash));
    assert_false(should_rehash);
    assert_false(password_verify("correct horse ", hash, NULL));
    assert_int_equal(password_hash(&sc, "correct horse", &again), STATUS_OK);
    assert_string_not_equal(hash, again);
}

static void a_bcrypt_hash_of_the_ancestor_verifies_and_asks_for_a_new_one(void **state)
{
    (void)state;
    static const char hash[] = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"; /* of "U*U" */
    bool should_rehash = false;
    assert_true(password_verify("U*U", hash, &should_rehash));
    assert_true(should_rehash);
    assert_false(password_verify("U*V", hash, NULL));
    assert_false(password_verify("", hash, NULL));
}

static void a_hash_that_is_not_understood_verifies_nothing(void **state)
{
    (void)state;
    static const char *const hashes[] = {"",
                                         "x",
                                         "none",
                                         "$2",
                                         "$2b$",
                                         "$2b$12$short",
                                         "$1$salt$hash",
                                         "$argon2id$",
                                         "$argon2id$v=19$m=8",
                                         "*0",
                                         "$argon2i$v=19$m=8"};
    for (size_t i = 0; i < array_len(hashes); i++) {
        assert_false(password_verify("", hashes[i], NULL));
        assert_false(password_verify(hashes[i], hashes[i], NULL));
    }
}

static void a_password_without_bound_is_refused(void **state)
{
    (void)state;
    const char *hash;
    const char *endless = arena_printf(&sc.arena, "%02000d", 1);
    assert_int_equal(password_hash(&sc, endless, &hash), STATUS_INVALID);
    assert_false(password_verify(endless, "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", NULL));
}

static void digests_are_those_of_the_standards(void **state)
{
    (void)state;
    char sha256[65], sha1[41];
    sha256_hex("abc", 3, sha256);
    assert_string_equal(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha1_hex("abc", 3, sha1);
    assert_string_equal(sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
}

static void random_hex_never_repeats(void **state)
{
    (void)state;
    const char *a = random_hex(&sc, 16), *b = random_hex(&sc, 16);
    assert_int_equal(strlen(a), 32);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
}

#define test(name) cmocka_unit_test_setup_teardown(name, start, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_password_verifies_against_its_own_hash_alone),
        test(a_bcrypt_hash_of_the_ancestor_verifies_and_asks_for_a_new_one),
        test(a_hash_that_is_not_understood_verifies_nothing),
        test(a_password_without_bound_is_refused),
        test(digests_are_those_of_the_standards),
        test(random_hex_never_repeats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
