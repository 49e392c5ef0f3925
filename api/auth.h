/* Who is asking: access tokens (JWT) and API keys. A token with exactly two dots is a JWT, anything else an API key. */
#pragma once

#include "api/api.h"

struct user {
    int64_t id;
    const char *username; /* in the arena */
    bool is_active, is_superuser;
    int64_t token_expires_at; /* seconds since 1970; 0 = never (API keys without an end) */
    int64_t api_key_id;       /* 0 = it was a signed token */
};

/* Who a token says it is of, before the database was asked. */
struct credential {
    bool is_key;
    int64_t user_id;        /* of a signed token; 0 = by its name */
    const char *username;   /* in the arena */
    int64_t expires_at;     /* seconds since 1970 */
    const char *key_prefix; /* of an API key, in the arena; NULL = a signed token */
    char key_hash[65];      /* SHA-256 of the whole key */
};

/* Form, signature and expiry alone. STATUS_UNAUTHENTICATED with the contract's sentence. */
enum status auth_read(struct scope *sc, const struct settings *settings, const char *token,
                      struct credential *out) must_check;
/* STATUS_UNAUTHENTICATED with the contract's sentence, for a credential that nobody has. */
enum status auth_refuse(struct scope *sc, bool is_key) must_check;
/* Verifies the token and loads the user's row. STATUS_UNAUTHENTICATED with the contract's sentence; STATUS_FORBIDDEN
 * "Inactive user"; STATUS_UNAVAILABLE when the database is away (never 401 then). API keys are never superuser. */
enum status auth_check(struct scope *sc, const struct settings *settings, struct db *db, const char *token,
                       struct user *out) must_check;
