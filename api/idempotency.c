#include "api/idempotency.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/password.h"

#include <string.h>

enum { LONGEST_KEY = 255 };

static const char *key_of(struct request *r)
{
    const char *key = request_header(r, "Idempotency-Key");
    return key && *key ? key : NULL;
}

static const char *hash_of(struct request *r)
{
    scoped_text all = {0};
    text_printf(&all, "%s %s%s%s\n", r->method, r->path, r->query ? "?" : "", r->query ? r->query : "");
    if (r->body_len)
        text_append(&all, r->body, r->body_len);
    char hex[65];
    sha256_hex(text_str(&all), all.len, hex);
    return arena_strdup(&r->sc->arena, hex);
}

static enum status check_key(struct request *r, const char *key)
{
    size_t len = strlen(key);
    bool is_plain = true;
    for (size_t i = 0; i < len; i++)
        is_plain = is_plain && key[i] >= 0x20 && key[i] < 0x7F;
    if (len <= LONGEST_KEY && is_plain)
        return STATUS_OK;
    return request_invalid(r, "header", "Idempotency-Key", "value_error", "at most %d printable ASCII characters",
                           LONGEST_KEY);
}

enum status idempotency_replay(struct request *r, bool *out_is_done)
{
    *out_is_done = false;
    const char *key = key_of(r);
    if (!key)
        return STATUS_OK;
    enum status s = check_key(r, key);
    if (s != STATUS_OK)
        return s;
    scoped(PGresult) *rows = NULL;
    s = db_run(r->sc, r->db, SQL_IDEMPOTENCY_FIND, &rows, db_number(r->sc, r->user.id), key);
    if (s != STATUS_OK || PQntuples(rows) == 0)
        return s;
    if (strcmp(db_text(rows, 0, "request_hash"), hash_of(r)) != 0)
        return request_invalid(r, "header", "Idempotency-Key", "value_error",
                               "this key was used with another request; use a new one");
    text_puts(reply_json(r, (int)db_int(rows, 0, "status", 200)), db_text(rows, 0, "body"));
    reply_header(r, "Idempotency-Replayed", "true");
    *out_is_done = true;
    return STATUS_OK;
}

static enum status take(struct request *r, const char *key, bool *out_is_known)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_IDEMPOTENCY_TAKE, &rows, db_number(r->sc, r->user.id), key, hash_of(r));
    *out_is_known = s == STATUS_OK && PQntuples(rows) == 0;
    return s;
}

static enum status keep(struct request *r, const char *key)
{
    return db_run(r->sc, r->db, SQL_IDEMPOTENCY_KEEP, NULL, db_number(r->sc, r->user.id), key,
                  db_number(r->sc, r->reply.http), text_str(&r->reply.body));
}

/* The first one with this key has neither been committed nor rolled back for as long as a statement may take. */
static void reply_in_progress(struct request *r)
{
    scope_forgive(r->sc);
    struct text *t = reply_json(r, 409);
    json_open(t, NULL, '{');
    json_text(t, "detail", "A request with this Idempotency-Key is in progress; send it again later");
    json_close(t, '}');
    reply_header(r, "Retry-After", "2");
}

enum status idempotency_run(struct request *r, enum status (*work)(struct request *r, void *context), void *context,
                            bool *out_is_done)
{
    const char *key = key_of(r);
    bool is_known = false;
    *out_is_done = false;
    enum status s = db_begin(r->sc, r->db);
    if (s == STATUS_OK && key)
        s = take(r, key, &is_known);
    if (s == STATUS_TIMEOUT && key) {
        db_rollback(r->db);
        reply_in_progress(r);
        *out_is_done = true;
        return STATUS_OK;
    }
    (void)FAULT(IDEMPOTENCY_TAKEN, r->path);
    if (s == STATUS_OK && is_known) {
        db_rollback(r->db);
        return idempotency_replay(r, out_is_done);
    }
    if (s == STATUS_OK)
        s = work(r, context);
    (void)FAULT(WORK_ACCEPTED, r->path);
    if (s == STATUS_OK && key)
        s = keep(r, key);
    (void)FAULT(BEFORE_ACCEPT_COMMIT, r->path);
    if (s == STATUS_OK)
        return db_commit(r->sc, r->db);
    db_rollback(r->db);
    return s;
}
