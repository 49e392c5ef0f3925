/* The tables users, refresh_tokens and api_keys. Strings of results are in the scope's arena. */
#pragma once

#include "common/db.h"

struct user_row {
    int64_t id;
    const char *username, *email, *full_name, *password_hash; /* full_name may be NULL */
    bool is_active, is_superuser;
    const char *created_at, *updated_at, *last_login; /* ISO 8601; the last two may be NULL */
    int64_t api_key_id, api_key_expires_at;           /* of user_store_find_key; seconds since 1970, 0 = never */
};

struct user_new {
    const char *username, *email, *full_name, *password_hash;
    bool must_be_first; /* STATUS_FORBIDDEN when there is a user already */
};

/* One transaction under a lock, so that of several at once exactly one finds itself the first user, who becomes
 * superuser. STATUS_CONFLICT "… already registered" when the name or the address is taken. */
enum status user_store_insert(struct scope *sc, struct db *db, const struct user_new *u,
                              struct user_row *out) must_check;
/* By username or e-mail address, upper and lower case being the same. STATUS_NOT_FOUND. */
enum status user_store_find(struct scope *sc, struct db *db, const char *login, struct user_row *out) must_check;
/* By number, or by name when the number is 0. STATUS_NOT_FOUND. */
enum status user_store_get(struct scope *sc, struct db *db, int64_t id, const char *username,
                           struct user_row *out) must_check;
/* Notes the login; `new_hash` (may be NULL) replaces the password's hash. */
enum status user_store_logged_in(struct scope *sc, struct db *db, int64_t id, const char *new_hash) must_check;

/* A refresh token's jti is "<family>.<random>": what came from one login is one family. */
enum status user_store_token_insert(struct scope *sc, struct db *db, int64_t user_id, const char *jti,
                                    const char *token_hash, int64_t expires_at) must_check;
/* Uses a token up, in one statement: of two at once exactly one succeeds. STATUS_NOT_FOUND: unknown, expired, revoked
 * or used; in that case, when it had been known, its family is revoked, for somebody has a copy. */
enum status user_store_token_use(struct scope *sc, struct db *db, int64_t user_id, const char *jti,
                                 const char *token_hash) must_check;
/* Revokes a token's family, if the token is this user's; STATUS_OK also when there is nothing to revoke. */
enum status user_store_token_revoke(struct scope *sc, struct db *db, int64_t user_id,
                                    const char *token_hash) must_check;

/* The owner of a live API key smtk_<prefix>_<secret>; secret_hash is the hex SHA-256 of the whole key.
 * STATUS_NOT_FOUND. */
enum status user_store_find_key(struct scope *sc, struct db *db, const char *prefix, const char *secret_hash,
                                struct user_row *out) must_check;
