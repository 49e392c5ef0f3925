#include "common/password.h"

#include "common/text.h"

#include <argon2.h>
#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { PASSES = 2, MEMORY_KIB = 19 * 1024, LANES = 1, SALT_BYTES = 16, HASH_BYTES = 32, LONGEST_PASSWORD = 1024 };

static void random_bytes(void *out, size_t len)
{
    for (char *p = out; len > 0;) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0)
            continue; /* EINTR */
        p += n;
        len -= (size_t)n;
    }
}

enum status password_hash(struct scope *sc, const char *password, const char **out)
{
    unsigned char salt[SALT_BYTES];
    char encoded[256];
    if (strlen(password) > LONGEST_PASSWORD)
        return fail(sc, STATUS_INVALID, "a password has at most %d bytes", LONGEST_PASSWORD);
    random_bytes(salt, sizeof salt);
    int e = argon2id_hash_encoded(PASSES, MEMORY_KIB, LANES, password, strlen(password), salt, sizeof salt, HASH_BYTES,
                                  encoded, sizeof encoded);
    if (e != ARGON2_OK)
        return fail(sc, STATUS_INTERNAL, "argon2: %s", argon2_error_message(e));
    *out = arena_strdup(&sc->arena, encoded);
    return STATUS_OK;
}

bool password_verify(const char *password, const char *hash, bool *out_should_rehash)
{
    if (strlen(password) > LONGEST_PASSWORD)
        return false;
    bool is_bcrypt = strncmp(hash, "$2", 2) == 0;
    if (out_should_rehash)
        *out_should_rehash = is_bcrypt;
    if (!is_bcrypt)
        return strncmp(hash, "$argon2id$", 10) == 0 && argon2id_verify(hash, password, strlen(password)) == ARGON2_OK;
    struct crypt_data *data = must_calloc(1, sizeof *data);
    const char *again = crypt_r(password, hash, data);
    size_t len = strlen(hash);
    bool is_same = again && strlen(again) == len && CRYPTO_memcmp(again, hash, len) == 0;
    free(data);
    return is_same;
}

static void digest_hex(const EVP_MD *kind, const void *bytes, size_t len, char *out)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (EVP_Digest(bytes, len, digest, &n, kind, NULL) != 1)
        abort();
    hex_encode(digest, n, out);
}

void sha256_hex(const void *bytes, size_t len, char out[65])
{
    digest_hex(EVP_sha256(), bytes, len, out);
}

void sha1_hex(const void *bytes, size_t len, char out[41])
{
    digest_hex(EVP_sha1(), bytes, len, out);
}

const char *random_hex(struct scope *sc, size_t bytes)
{
    unsigned char *random = arena_alloc(&sc->arena, bytes);
    char *out = arena_alloc(&sc->arena, bytes * 2 + 1);
    random_bytes(random, bytes);
    hex_encode(random, bytes, out);
    return out;
}
