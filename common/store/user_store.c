#include "common/store/user_store.h"

#include "build/queries.h"

#include <string.h>

static struct user_row read_user(struct scope *sc, const PGresult *rows)
{
    struct arena *a = &sc->arena;
    return (struct user_row){
        .id = db_int(rows, 0, "id", 0),
        .username = arena_strdup(a, db_text(rows, 0, "username")),
        .email = arena_strdup(a, db_text(rows, 0, "email")),
        .full_name = arena_strdup(a, db_text(rows, 0, "full_name")),
        .password_hash = arena_strdup(a, db_text(rows, 0, "password_hash")),
        .is_active = db_bool(rows, 0, "is_active"),
        .is_superuser = db_bool(rows, 0, "is_superuser"),
        .created_at = arena_strdup(a, db_text(rows, 0, "created_at")),
        .updated_at = arena_strdup(a, db_text(rows, 0, "updated_at")),
        .last_login = arena_strdup(a, db_text(rows, 0, "last_login")),
    };
}

static enum status take_user(struct scope *sc, const PGresult *rows, struct user_row *out)
{
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "no such user");
    *out = read_user(sc, rows);
    return STATUS_OK;
}

static enum status insert_under_lock(struct scope *sc, struct db *db, const struct user_new *u, struct user_row *out)
{
    scoped(PGresult) *any = NULL;
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_USER_LOCK, NULL);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_USER_ANY, &any);
    if (s != STATUS_OK)
        return s;
    bool is_first = !db_bool(any, 0, "any");
    if (u->must_be_first && !is_first)
        return fail(sc, STATUS_FORBIDDEN, "Registration is closed");
    s = db_run(sc, db, SQL_USER_INSERT, &rows, u->username, u->email, u->full_name, u->password_hash,
               is_first ? "true" : "false");
    if (s == STATUS_CONFLICT) {
        scope_forgive(sc);
        bool is_email = strcmp(db_constraint(db), "users_email_key") == 0;
        return fail(sc, s, "%s already registered", is_email ? "Email" : "Username");
    }
    return s == STATUS_OK ? take_user(sc, rows, out) : s;
}

enum status user_store_insert(struct scope *sc, struct db *db, const struct user_new *u, struct user_row *out)
{
    enum status s = db_begin(sc, db);
    if (s != STATUS_OK)
        return s;
    s = insert_under_lock(sc, db, u, out);
    if (s == STATUS_OK)
        return db_commit(sc, db);
    db_rollback(db);
    return s;
}

enum status user_store_find(struct scope *sc, struct db *db, const char *login, struct user_row *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_USER_FIND, &rows, login);
    return s == STATUS_OK ? take_user(sc, rows, out) : s;
}

enum status user_store_get(struct scope *sc, struct db *db, int64_t id, const char *username, struct user_row *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, db, SQL_USER_GET, &rows, db_number(sc, id), username);
    return s == STATUS_OK ? take_user(sc, rows, out) : s;
}

enum status user_store_logged_in(struct scope *sc, struct db *db, int64_t id, const char *new_hash)
{
    return db_run(sc, db, SQL_USER_LOGGED_IN, NULL, db_number(sc, id), new_hash);
}

enum status user_store_token_insert(struct scope *sc, struct db *db, int64_t user_id, const char *jti,
                                    const char *token_hash, int64_t expires_at)
{
    return db_run(sc, db, SQL_USER_TOKEN_INSERT, NULL, jti, db_number(sc, user_id), token_hash,
                  db_number(sc, expires_at));
}

enum status user_store_token_use(struct scope *sc, struct db *db, int64_t user_id, const char *jti,
                                 const char *token_hash)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_USER_TOKEN_USE, &rows, jti, db_number(sc, user_id), token_hash);
    if (s != STATUS_OK || PQntuples(rows) == 1)
        return s;
    s = user_store_token_revoke(sc, db, user_id, token_hash);
    return s == STATUS_OK ? fail(sc, STATUS_NOT_FOUND, "the refresh token cannot be used") : s;
}

enum status user_store_token_revoke(struct scope *sc, struct db *db, int64_t user_id, const char *token_hash)
{
    return db_run(sc, db, SQL_USER_FAMILY_REVOKE, NULL, db_number(sc, user_id), token_hash);
}

enum status user_store_find_key(struct scope *sc, struct db *db, const char *prefix, const char *secret_hash,
                                struct user_row *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_USER_FIND_KEY, &rows, prefix, secret_hash);
    if (s == STATUS_OK)
        s = take_user(sc, rows, out);
    if (s != STATUS_OK)
        return s;
    out->api_key_id = db_int(rows, 0, "api_key_id", 0);
    out->api_key_expires_at = db_int(rows, 0, "api_key_expires_at", 0);
    return STATUS_OK;
}
