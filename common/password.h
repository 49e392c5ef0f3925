/* Password hashes: argon2id is written, bcrypt (of the ancestor) is verified too. */
#pragma once

#include "common/scope.h"

/* Encoded argon2id string in the arena; about 50 ms and 19 MiB (OWASP's second profile: m=19 MiB, t=2, p=1). */
enum status password_hash(struct scope *sc, const char *password, const char **out) must_check;
/* Constant time; false for a hash that is not understood. `*out_should_rehash` (may be NULL): it verified but was not
 * argon2id. */
bool password_verify(const char *password, const char *hash, bool *out_should_rehash);
/* Hex SHA-256, 65 bytes with the NUL: how refresh tokens and API keys are stored. */
void sha256_hex(const void *bytes, size_t len, char out[65]);
/* Hex SHA-1, 41 bytes with the NUL: how Redis names scripts. No security rests on it. */
void sha1_hex(const void *bytes, size_t len, char out[41]);
/* `bytes` random bytes as hex in the arena. */
const char *random_hex(struct scope *sc, size_t bytes);
