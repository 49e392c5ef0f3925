#include "common/store/user_store.h"

#include "common/clock.h"
#include "common/password.h"
#include "tests/support/store.h"

#include <pthread.h>
#include <string.h>

enum { AT_ONCE = 6 };

static int start_without_users(void **state)
{
    (void)state;
    store_sql("TRUNCATE users CASCADE");
    return 0;
}

static struct user_row insert(const char *name)
{
    struct user_row row;
    struct user_new u = {
        .username = name, .email = arena_printf(&store.sc.arena, "%s@example.org", name), .password_hash = "hash"};
    assert_ok(user_store_insert(&store.sc, store.db, &u, &row));
    return row;
}

static void the_first_user_becomes_superuser(void **state)
{
    (void)state;
    struct user_row first = insert("anna"), second = insert("bert");
    assert_true(first.is_superuser);
    assert_false(second.is_superuser);
    assert_true(second.is_active);
    assert_null(second.full_name);
    assert_null(second.last_login);
}

struct attempt {
    int number;
    enum status status;
    bool is_superuser;
};

static void *register_one(void *cls)
{
    struct attempt *a = cls;
    struct scope sc;
    struct user_row row;
    scope_init(&sc, NULL);
    struct db *db = store_connect("register");
    const char *name = arena_printf(&sc.arena, "user%d", a->number);
    struct user_new u = {
        .username = name, .email = arena_printf(&sc.arena, "%s@example.org", name), .password_hash = "hash"};
    a->status = user_store_insert(&sc, db, &u, &row);
    a->is_superuser = a->status == STATUS_OK && row.is_superuser;
    db_free(db);
    scope_done(&sc);
    return NULL;
}

static void of_many_first_users_at_once_exactly_one_is_the_first(void **state)
{
    pthread_t threads[AT_ONCE];
    struct attempt attempts[AT_ONCE];
    int superusers = 0;
    (void)state;
    for (int i = 0; i < AT_ONCE; i++) {
        attempts[i] = (struct attempt){.number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, register_one, &attempts[i]), 0);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(attempts[i].status, STATUS_OK);
        superusers += attempts[i].is_superuser;
    }
    assert_int_equal(superusers, 1);
}

static void a_second_user_is_refused_where_only_the_first_may_register(void **state)
{
    struct user_row row;
    struct user_new u = {.username = "anna", .email = "a@example.org", .password_hash = "hash", .must_be_first = true};
    (void)state;
    assert_ok(user_store_insert(&store.sc, store.db, &u, &row));
    u.username = "bert";
    u.email = "b@example.org";
    assert_status(STATUS_FORBIDDEN, user_store_insert(&store.sc, store.db, &u, &row));
    assert_int_equal(store_sql_int("SELECT count(*) FROM users"), 1);
}

static void a_taken_name_or_address_is_a_conflict_in_any_case(void **state)
{
    struct user_row row;
    struct user_new u = {.username = "ANNA", .email = "other@example.org", .password_hash = "hash"};
    (void)state;
    insert("anna");
    assert_int_equal(user_store_insert(&store.sc, store.db, &u, &row), STATUS_CONFLICT);
    assert_string_equal(store.sc.problem_text, "Username already registered");
    scope_forgive(&store.sc);
    u.username = "other";
    u.email = "Anna@Example.org";
    assert_int_equal(user_store_insert(&store.sc, store.db, &u, &row), STATUS_CONFLICT);
    assert_string_equal(store.sc.problem_text, "Email already registered");
    scope_forgive(&store.sc);
}

static void a_user_is_found_by_name_and_by_address(void **state)
{
    struct user_row row;
    (void)state;
    int64_t id = insert("anna").id;
    assert_ok(user_store_find(&store.sc, store.db, "Anna", &row));
    assert_int_equal(row.id, id);
    assert_ok(user_store_find(&store.sc, store.db, "anna@EXAMPLE.org", &row));
    assert_int_equal(row.id, id);
    assert_ok(user_store_get(&store.sc, store.db, id, NULL, &row));
    assert_ok(user_store_get(&store.sc, store.db, 0, "anna", &row));
    assert_status(STATUS_NOT_FOUND, user_store_find(&store.sc, store.db, "nobody", &row));
    assert_status(STATUS_NOT_FOUND, user_store_get(&store.sc, store.db, id + 1000, "anna", &row));
}

static void a_login_is_noted_and_may_replace_the_hash(void **state)
{
    struct user_row row;
    (void)state;
    int64_t id = insert("anna").id;
    assert_ok(user_store_logged_in(&store.sc, store.db, id, NULL));
    assert_ok(user_store_get(&store.sc, store.db, id, NULL, &row));
    assert_non_null(row.last_login);
    assert_string_equal(row.password_hash, "hash");
    assert_ok(user_store_logged_in(&store.sc, store.db, id, "better"));
    assert_ok(user_store_get(&store.sc, store.db, id, NULL, &row));
    assert_string_equal(row.password_hash, "better");
}

static int64_t in_an_hour(void)
{
    return clock_wall_ms() / 1000 + 3600;
}

static void a_refresh_token_is_used_once(void **state)
{
    (void)state;
    int64_t id = insert("anna").id, other = insert("bert").id;
    assert_ok(user_store_token_insert(&store.sc, store.db, id, "f1.a", "hash-a", in_an_hour()));
    assert_status(STATUS_NOT_FOUND, user_store_token_use(&store.sc, store.db, other, "f1.a", "hash-a"));
    assert_status(STATUS_NOT_FOUND, user_store_token_use(&store.sc, store.db, id, "f1.a", "hash-b"));
    assert_ok(user_store_token_use(&store.sc, store.db, id, "f1.a", "hash-a"));
    assert_status(STATUS_NOT_FOUND, user_store_token_use(&store.sc, store.db, id, "f1.a", "hash-a"));
}

static void a_second_use_revokes_what_came_from_the_same_login(void **state)
{
    (void)state;
    int64_t id = insert("anna").id;
    assert_ok(user_store_token_insert(&store.sc, store.db, id, "f1.a", "hash-a", in_an_hour()));
    assert_ok(user_store_token_insert(&store.sc, store.db, id, "f2.a", "hash-other", in_an_hour()));
    assert_ok(user_store_token_use(&store.sc, store.db, id, "f1.a", "hash-a"));
    assert_ok(user_store_token_insert(&store.sc, store.db, id, "f1.b", "hash-b", in_an_hour()));
    assert_status(STATUS_NOT_FOUND, user_store_token_use(&store.sc, store.db, id, "f1.a", "hash-a"));
    assert_status(STATUS_NOT_FOUND, user_store_token_use(&store.sc, store.db, id, "f1.b", "hash-b"));
    assert_ok(user_store_token_use(&store.sc, store.db, id, "f2.a", "hash-other"));
}

static void an_expired_refresh_token_cannot_be_used(void **state)
{
    (void)state;
    int64_t id = insert("anna").id;
    assert_ok(user_store_token_insert(&store.sc, store.db, id, "f1.a", "hash-a", clock_wall_ms() / 1000 - 10));
    assert_status(STATUS_NOT_FOUND, user_store_token_use(&store.sc, store.db, id, "f1.a", "hash-a"));
}

static void revoking_needs_ones_own_token(void **state)
{
    (void)state;
    int64_t id = insert("anna").id, other = insert("bert").id;
    assert_ok(user_store_token_insert(&store.sc, store.db, id, "f1.a", "hash-a", in_an_hour()));
    assert_ok(user_store_token_revoke(&store.sc, store.db, other, "hash-a"));
    assert_int_equal(store_sql_int("SELECT count(*) FROM refresh_tokens WHERE revoked_at IS NULL"), 1);
    assert_ok(user_store_token_revoke(&store.sc, store.db, id, "hash-a"));
    assert_int_equal(store_sql_int("SELECT count(*) FROM refresh_tokens WHERE revoked_at IS NULL"), 0);
    assert_ok(user_store_token_revoke(&store.sc, store.db, id, "unknown"));
}

static void an_api_key_names_its_owner_while_it_lives(void **state)
{
    struct user_row row;
    char hash[65];
    (void)state;
    int64_t id = insert("anna").id;
    sha256_hex("smtk_abc_secret", 15, hash);
    store_sql("INSERT INTO api_keys (user_id, name, prefix, secret_hash) VALUES (%lld, 'k', 'abc', '%s')",
              (long long)id, hash);
    assert_ok(user_store_find_key(&store.sc, store.db, "abc", hash, &row));
    assert_int_equal(row.id, id);
    assert_int_equal(store_sql_int("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL"), 1);
    assert_status(STATUS_NOT_FOUND, user_store_find_key(&store.sc, store.db, "abd", hash, &row));
    assert_status(STATUS_NOT_FOUND, user_store_find_key(&store.sc, store.db, "abc", "other", &row));
    store_sql("UPDATE api_keys SET expires_at = now() - interval '1 second'");
    assert_status(STATUS_NOT_FOUND, user_store_find_key(&store.sc, store.db, "abc", hash, &row));
    store_sql("UPDATE api_keys SET expires_at = NULL, revoked_at = now()");
    assert_status(STATUS_NOT_FOUND, user_store_find_key(&store.sc, store.db, "abc", hash, &row));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_first_user_becomes_superuser, start_without_users),
        cmocka_unit_test_setup(of_many_first_users_at_once_exactly_one_is_the_first, start_without_users),
        cmocka_unit_test_setup(a_second_user_is_refused_where_only_the_first_may_register, start_without_users),
        cmocka_unit_test_setup(a_taken_name_or_address_is_a_conflict_in_any_case, start_without_users),
        cmocka_unit_test_setup(a_user_is_found_by_name_and_by_address, start_without_users),
        cmocka_unit_test_setup(a_login_is_noted_and_may_replace_the_hash, start_without_users),
        cmocka_unit_test_setup(a_refresh_token_is_used_once, start_without_users),
        cmocka_unit_test_setup(a_second_use_revokes_what_came_from_the_same_login, start_without_users),
        cmocka_unit_test_setup(an_expired_refresh_token_cannot_be_used, start_without_users),
        cmocka_unit_test_setup(revoking_needs_ones_own_token, start_without_users),
        cmocka_unit_test_setup(an_api_key_names_its_owner_while_it_lives, start_without_users),
    };
    return cmocka_run_group_tests(tests, store_setup, store_teardown);
}
