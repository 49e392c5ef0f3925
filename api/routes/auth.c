/* Accounts and tokens (contract, section 3). */
#include "api/limit.h"
#include "api/router.h"
#include "common/clock.h"
#include "common/jwt.h"
#include "common/log.h"
#include "common/password.h"
#include "common/store/audit_store.h"
#include "common/store/user_store.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

/* A hash takes 19 MiB and 50 ms of a core: two at a time, a few wait, the rest come back later. The handler threads are
 * for everybody. */
enum { HASHES_AT_ONCE = 2, MAY_WAIT = 4 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t has_room;
    int running, waiting;
} hashing = {.lock = PTHREAD_MUTEX_INITIALIZER, .has_room = PTHREAD_COND_INITIALIZER};

static enum status hashing_begin(struct scope *sc)
{
    pthread_mutex_lock(&hashing.lock);
    bool has_room = hashing.running < HASHES_AT_ONCE || hashing.waiting < MAY_WAIT;
    if (has_room) {
        hashing.waiting++;
        while (hashing.running >= HASHES_AT_ONCE)
            pthread_cond_wait(&hashing.has_room, &hashing.lock);
        hashing.waiting--;
        hashing.running++;
    }
    pthread_mutex_unlock(&hashing.lock);
    return has_room ? STATUS_OK : fail(sc, STATUS_BUSY, "too many passwords to check at once");
}

static void hashing_end(void)
{
    pthread_mutex_lock(&hashing.lock);
    hashing.running--;
    pthread_cond_signal(&hashing.has_room);
    pthread_mutex_unlock(&hashing.lock);
}

static enum status hash_password(struct scope *sc, const char *password, const char **out)
{
    enum status s = hashing_begin(sc);
    if (s != STATUS_OK)
        return s;
    s = password_hash(sc, password, out);
    hashing_end();
    return s;
}

/* Never a password, nor a name that is no account's: people type passwords there. What is lost here is in the log. */
static void audit(struct request *r, int64_t user_id, const char *action)
{
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "address", r->client_address);
    json_close(&t, '}');
    struct scope own;
    scope_init(&own, r->sc->trace_id);
    own.deadline_ms = r->sc->deadline_ms;
    if (audit_store_add(&own, r->db, user_id, action, NULL, NULL, text_str(&t)) != STATUS_OK)
        log_warning("not_audited", log_text("action", action), log_int("user_id", user_id),
                    log_text("problem", own.problem_text));
    scope_done(&own);
}

static void write_user(struct text *t, const struct user_row *u)
{
    json_open(t, NULL, '{');
    json_int(t, "id", u->id);
    json_text(t, "username", u->username);
    json_text(t, "email", u->email);
    json_text(t, "full_name", u->full_name);
    json_bool(t, "is_active", u->is_active);
    json_bool(t, "is_superuser", u->is_superuser);
    json_text(t, "created_at", u->created_at);
    json_text(t, "updated_at", u->updated_at);
    json_text(t, "last_login", u->last_login);
    json_close(t, '}');
}

static bool is_username(const char *s)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    return s[strspn(s, allowed)] == '\0';
}

/* Something, an @, a domain with a dot; no blanks, no control characters. Whether mail arrives there only a mail would
 * tell. */
static bool is_email(const char *s)
{
    const char *at = strrchr(s, '@');
    const char *dot = at ? strrchr(at, '.') : NULL;
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7F || strchr("<>()[],;:\\\"", *p))
            return false;
    }
    return at && at > s && strchr(s, '@') == at && dot && dot > at + 1 && dot[1] != '\0';
}

static enum status check_new_user(struct request *r, const struct user_new *u)
{
    enum status s = STATUS_OK;
    if (!is_username(u->username))
        s = request_invalid(r, "body", "username", "value_error",
                            "Username must contain only letters, digits and underscores");
    if (!is_email(u->email))
        s = request_invalid(r, "body", "email", "value_error", "value is not a valid email address");
    return s;
}

enum status auth_register(struct request *r)
{
    const char *mode = r->api->settings->registration;
    struct user_new u = {
        .username = json_get_text(r->json, "username", ""),
        .email = json_get_text(r->json, "email", ""),
        .full_name = json_get_text(r->json, "full_name", NULL),
        .must_be_first = strcasecmp(mode, "first") == 0,
    };
    struct user_row row;
    if (strcasecmp(mode, "closed") == 0)
        return fail(r->sc, STATUS_FORBIDDEN, "Registration is closed");
    enum status s = check_new_user(r, &u);
    if (s == STATUS_OK)
        s = hash_password(r->sc, json_get_text(r->json, "password", ""), &u.password_hash);
    if (s == STATUS_OK)
        s = user_store_insert(r->sc, r->db, &u, &row);
    if (s != STATUS_OK)
        return s;
    log_info("user_registered", log_int("user_id", row.id), log_bool("is_superuser", row.is_superuser));
    audit(r, row.id, "user_registered");
    write_user(reply_json(r, 200), &row);
    return STATUS_OK;
}

/* Signs both tokens and stores the refresh token's hash. `family` is NULL at a login. */
static enum status give_tokens(struct request *r, const struct user_row *user, const char *family)
{
    const struct settings *settings = r->api->settings;
    int64_t now = clock_wall_ms() / 1000;
    struct jwt_claims access = {.subject = user->username,
                                .user_id = user->id,
                                .expires_at = now + settings->access_token_seconds,
                                .type = "access"};
    struct jwt_claims refresh = access;
    refresh.type = "refresh";
    refresh.expires_at = now + settings->refresh_token_seconds;
    refresh.jti = arena_printf(&r->sc->arena, "%s.%s", family ? family : random_hex(r->sc, 16), random_hex(r->sc, 16));
    const char *access_token = jwt_sign(r->sc, settings->jwt_secret_key, &access);
    const char *refresh_token = jwt_sign(r->sc, settings->jwt_secret_key, &refresh);
    char hash[65];
    sha256_hex(refresh_token, strlen(refresh_token), hash);
    enum status s = user_store_token_insert(r->sc, r->db, user->id, refresh.jti, hash, refresh.expires_at);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_text(t, "access_token", access_token);
    json_text(t, "refresh_token", refresh_token);
    json_text(t, "token_type", "bearer");
    json_close(t, '}');
    return STATUS_OK;
}

/* Takes as long for a name that does not exist as for one that does. */
static const char nobody[] =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

static enum status verify(struct request *r, const char *password, const struct user_row *user,
                          const char **out_new_hash)
{
    enum status s = hashing_begin(r->sc);
    if (s != STATUS_OK)
        return s;
    bool should_rehash = false;
    bool is_right = password_verify(password, user ? user->password_hash : nobody, &should_rehash) && user;
    if (is_right && should_rehash && password_hash(r->sc, password, out_new_hash) != STATUS_OK)
        scope_forgive(r->sc); /* the old hash is as good as it was */
    hashing_end();
    return is_right ? STATUS_OK : fail(r->sc, STATUS_UNAUTHENTICATED, "Incorrect username or password");
}

enum status auth_login(struct request *r)
{
    const char *login = json_get_text(r->json, "username", "");
    const char *new_hash = NULL;
    struct user_row user;
    enum status found = user_store_find(r->sc, r->db, login, &user);
    if (found != STATUS_OK && found != STATUS_NOT_FOUND)
        return found;
    scope_forgive(r->sc);
    const char *account = found == STATUS_OK ? user.username
                                             : login; /* name and address of one account are one account */
    enum status s = limit_guess(r, account);
    if (s == STATUS_OK)
        s = verify(r, json_get_text(r->json, "password", ""), found == STATUS_OK ? &user : NULL, &new_hash);
    if (s == STATUS_UNAUTHENTICATED && found == STATUS_OK)
        audit(r, user.id, "login_failed"); /* as many as limit_guess() lets through */
    if (s != STATUS_OK)
        return s;
    if (!user.is_active)
        return fail(r->sc, STATUS_FORBIDDEN, "Inactive user");
    limit_guess_forget(r, account);
    audit(r, user.id, "login");
    s = user_store_logged_in(r->sc, r->db, user.id, new_hash);
    return s == STATUS_OK ? give_tokens(r, &user, NULL) : s;
}

static const char *refresh_token_of(struct request *r)
{
    const char *token = r->json ? json_get_text(r->json, "refresh_token", NULL) : NULL;
    if (!token || !*token)
        token = request_query(r, "refresh_token");
    return token && *token ? token : NULL;
}

static enum status use_token(struct request *r, const char *token, struct jwt_claims *claims, struct user_row *user)
{
    char hash[65];
    enum status s = jwt_verify(r->sc, r->api->settings->jwt_secret_key, token, "refresh", claims);
    if (s != STATUS_OK || !claims->jti)
        return STATUS_UNAUTHENTICATED;
    sha256_hex(token, strlen(token), hash);
    s = user_store_get(r->sc, r->db, claims->user_id, claims->subject, user);
    return s == STATUS_OK ? user_store_token_use(r->sc, r->db, user->id, claims->jti, hash) : s;
}

enum status auth_refresh(struct request *r)
{
    const char *token = refresh_token_of(r);
    struct jwt_claims claims = {0};
    struct user_row user;
    if (!token)
        return fail(r->sc, STATUS_INVALID, "Refresh token is required");
    enum status s = use_token(r, token, &claims, &user);
    if (s == STATUS_UNAUTHENTICATED || s == STATUS_NOT_FOUND) {
        scope_forgive(r->sc);
        return fail(r->sc, STATUS_UNAUTHENTICATED, "Invalid refresh token");
    }
    if (s != STATUS_OK)
        return s;
    if (!user.is_active)
        return fail(r->sc, STATUS_FORBIDDEN, "Inactive user");
    return give_tokens(r, &user, arena_strndup(&r->sc->arena, claims.jti, strcspn(claims.jti, ".")));
}

enum status auth_logout(struct request *r)
{
    const char *token = refresh_token_of(r);
    if (token) {
        char hash[65];
        sha256_hex(token, strlen(token), hash);
        enum status s = user_store_token_revoke(r->sc, r->db, r->user.id, hash);
        if (s != STATUS_OK)
            return s;
    }
    return reply_constant(r, 200, "{\"message\":\"Logged out successfully\"}");
}

enum status auth_me(struct request *r)
{
    struct user_row user;
    enum status s = user_store_get(r->sc, r->db, r->user.id, NULL, &user);
    if (s == STATUS_OK)
        write_user(reply_json(r, 200), &user);
    return s;
}
