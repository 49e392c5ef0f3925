#include "api/auth.h"

#include "common/jwt.h"
#include "common/password.h"
#include "common/store/user_store.h"

#include <string.h>

static const char key_start[] = "smtk_";
enum { LONGEST_KEY = 256 };

static bool is_jwt(const char *token)
{
    int dots = 0;
    for (; *token; token++)
        dots += *token == '.';
    return dots == 2;
}

enum status auth_refuse(struct scope *sc, bool is_key)
{
    scope_forgive(sc);
    return fail(sc, STATUS_UNAUTHENTICATED, "%s", is_key ? "Invalid API key" : "Invalid authentication credentials");
}

static bool read_key(struct scope *sc, const char *token, struct credential *out)
{
    size_t start = sizeof key_start - 1;
    if (strncmp(token, key_start, start) != 0 || strlen(token) > LONGEST_KEY)
        return false;
    size_t prefix_len = strcspn(token + start, "_");
    if (prefix_len == 0 || token[start + prefix_len] != '_')
        return false;
    out->key_prefix = arena_strndup(&sc->arena, token + start, prefix_len);
    sha256_hex(token, strlen(token), out->key_hash);
    return true;
}

enum status auth_read(struct scope *sc, const struct settings *settings, const char *token, struct credential *out)
{
    struct jwt_claims claims;
    *out = (struct credential){.is_key = !is_jwt(token)};
    if (!utf8_is_valid(token, strlen(token)))
        return auth_refuse(sc, false);
    if (out->is_key)
        return read_key(sc, token, out) ? STATUS_OK : auth_refuse(sc, true);
    enum status s = jwt_verify(sc, settings->jwt_secret_key, token, "access", &claims);
    if (s != STATUS_OK)
        return s == STATUS_UNAUTHENTICATED ? auth_refuse(sc, false) : s;
    out->user_id = claims.user_id;
    out->username = claims.subject;
    out->expires_at = claims.expires_at;
    return STATUS_OK;
}

enum status auth_check(struct scope *sc, const struct settings *settings, struct db *db, const char *token,
                       struct user *out)
{
    struct user_row row;
    struct credential who;
    enum status s = auth_read(sc, settings, token, &who);
    if (s != STATUS_OK)
        return s;
    s = who.is_key ? user_store_find_key(sc, db, who.key_prefix, who.key_hash, &row)
                   : user_store_get(sc, db, who.user_id, who.username, &row);
    if (s == STATUS_NOT_FOUND)
        return auth_refuse(sc, who.is_key);
    if (s != STATUS_OK)
        return s;
    if (!row.is_active)
        return fail(sc, STATUS_FORBIDDEN, "Inactive user");
    *out = (struct user){.id = row.id,
                         .username = row.username,
                         .is_active = true,
                         .is_superuser = row.is_superuser && !who.is_key,
                         .token_expires_at = who.is_key ? row.api_key_expires_at : who.expires_at,
                         .api_key_id = who.is_key ? row.api_key_id : 0};
    return STATUS_OK;
}
