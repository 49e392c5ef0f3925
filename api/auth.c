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

static enum status find_by_jwt(struct scope *sc, const struct settings *settings, struct db *db, const char *token,
                               struct user_row *row, int64_t *out_expires_at)
{
    struct jwt_claims claims;
    enum status s = jwt_verify(sc, settings->jwt_secret_key, token, "access", &claims);
    if (s != STATUS_OK)
        return s;
    *out_expires_at = claims.expires_at;
    return user_store_get(sc, db, claims.user_id, claims.subject, row);
}

static enum status find_by_key(struct scope *sc, struct db *db, const char *token, struct user_row *row)
{
    size_t start = sizeof key_start - 1;
    if (strncmp(token, key_start, start) != 0 || strlen(token) > LONGEST_KEY)
        return STATUS_NOT_FOUND;
    size_t prefix_len = strcspn(token + start, "_");
    if (prefix_len == 0 || token[start + prefix_len] != '_')
        return STATUS_NOT_FOUND;
    char hash[65];
    sha256_hex(token, strlen(token), hash);
    return user_store_find_key(sc, db, arena_strndup(&sc->arena, token + start, prefix_len), hash, row);
}

enum status auth_check(struct scope *sc, const struct settings *settings, struct db *db, const char *token,
                       struct user *out)
{
    struct user_row row;
    int64_t expires_at = 0;
    bool is_key = !is_jwt(token);
    if (!utf8_is_valid(token, strlen(token)))
        return fail(sc, STATUS_UNAUTHENTICATED, "Invalid authentication credentials");
    enum status s = is_key ? find_by_key(sc, db, token, &row) : find_by_jwt(sc, settings, db, token, &row, &expires_at);
    if (s == STATUS_NOT_FOUND || s == STATUS_UNAUTHENTICATED) {
        scope_forgive(sc);
        return fail(sc, STATUS_UNAUTHENTICATED, "%s",
                    is_key ? "Invalid API key" : "Invalid authentication credentials");
    }
    if (s != STATUS_OK)
        return s;
    if (!row.is_active)
        return fail(sc, STATUS_FORBIDDEN, "Inactive user");
    *out = (struct user){.id = row.id,
                         .username = row.username,
                         .is_active = true,
                         .is_superuser = row.is_superuser && !is_key,
                         .token_expires_at = is_key ? row.api_key_expires_at : expires_at,
                         .api_key_id = is_key ? row.api_key_id : 0};
    return STATUS_OK;
}
