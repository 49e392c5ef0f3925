/* JSON Web Tokens, HS256 only (RFC 7519, RFC 7515). */
#pragma once

#include "common/scope.h"

struct jwt_claims {
    const char *subject; /* username */
    int64_t user_id;
    int64_t expires_at; /* seconds since 1970 */
    const char *type;   /* "access" or "refresh" */
    const char *jti;    /* NULL for access tokens */
};

/* In the scope's arena. */
const char *jwt_sign(struct scope *sc, const char *secret, const struct jwt_claims *claims);
/* Checks form, algorithm (anything but HS256 is refused), signature (constant time), expiry against the wall clock and
 * that the type is `type`. STATUS_UNAUTHENTICATED otherwise. Strings in the arena. Tokens above 4096 bytes are refused.
 */
enum status jwt_verify(struct scope *sc, const char *secret, const char *token, const char *type,
                       struct jwt_claims *out) must_check;
