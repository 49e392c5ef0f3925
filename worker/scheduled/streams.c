#include "worker/scheduled/streams.h"

#include "build/queries.h"
#include "common/message.h"

#include <string.h>

enum { KEYS_A_LOOK = 500, UUID_LEN = 36, DAY_SECONDS = 86400 };

static const char STREAM[] = "operation-progress:";

/* Of keys without an end of life: those; KEYS as given. */
static const char ENDLESS[] =
    "local r = {} for _, k in ipairs(KEYS) do if redis.call('TTL', k) == -1 then r[#r + 1] = k end end "
    "return r";

/* The UUID in a stream's name; NULL when it is none. */
static const char *uuid_of(struct scope *sc, const char *key, size_t len)
{
    const char *at = memmem(key, len, STREAM, strlen(STREAM));
    if (!at || len - (size_t)(at - key) < strlen(STREAM) + UUID_LEN)
        return NULL;
    const char *uuid = arena_strndup(&sc->arena, at + strlen(STREAM), UUID_LEN);
    return uuid_is_valid(uuid) ? uuid : NULL;
}

static bool is_live(const PGresult *rows, const char *uuid)
{
    for (int r = 0; r < PQntuples(rows); r++) {
        if (strcmp(db_text(rows, r, "uuid"), uuid) == 0)
            return true;
    }
    return false;
}

/* `keys`: an array of names. */
static enum status let_end(struct scope *sc, struct scheduled *s, const redisReply *keys, int64_t *io_count)
{
    scoped_text uuids = {0};
    scoped(PGresult) *rows = NULL;
    for (size_t i = 0; i < keys->elements; i++) {
        const char *uuid = uuid_of(sc, keys->element[i]->str, keys->element[i]->len);
        if (uuid)
            db_array_put(&uuids, uuid);
    }
    if (!uuids.len)
        return STATUS_OK;
    enum status status = db_run(sc, s->db, SQL_RETENTION_LIVE, &rows, db_array_end(&uuids));
    for (size_t i = 0; i < keys->elements && status == STATUS_OK; i++) {
        scoped(redisReply) *reply = NULL;
        const char *uuid = uuid_of(sc, keys->element[i]->str, keys->element[i]->len);
        if (!uuid || is_live(rows, uuid))
            continue;
        status = redis_run(sc, s->events, &reply, "EXPIRE %b %d", keys->element[i]->str, keys->element[i]->len,
                           (int)DAY_SECONDS);
        *io_count += status == STATUS_OK;
    }
    return status;
}

static enum status look_at(struct scope *sc, struct scheduled *s, const redisReply *keys, int64_t *io_count)
{
    scoped(redisReply) *endless = NULL;
    const char *argv[KEYS_A_LOOK * 4];
    size_t lengths[KEYS_A_LOOK * 4], count = 0;
    for (size_t i = 0; i < keys->elements && count < array_len(argv); i++) {
        if (keys->element[i]->type == REDIS_REPLY_STRING) {
            argv[count] = keys->element[i]->str;
            lengths[count++] = keys->element[i]->len;
        }
    }
    if (count == 0)
        return STATUS_OK;
    enum status status = redis_script(sc, s->events, ENDLESS, (int)count, (int)count, argv, lengths, &endless);
    return status == STATUS_OK && endless->type == REDIS_REPLY_ARRAY ? let_end(sc, s, endless, io_count) : status;
}

/* A round of SCAN; *io_cursor is "0" after the last. */
static enum status one_round(struct scope *sc, struct scheduled *s, char io_cursor[32], int64_t *io_count)
{
    scoped(redisReply) *reply = NULL;
    enum status status = redis_run(sc, s->events, &reply, "SCAN %s MATCH %s COUNT %d", io_cursor,
                                   redis_key(sc, s->events, "%s*", STREAM), (int)KEYS_A_LOOK);
    if (status != STATUS_OK)
        return status;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY)
        return fail(sc, STATUS_INTERNAL, "Redis answers SCAN in an unknown way");
    status = look_at(sc, s, reply->element[1], io_count);
    size_t len = strnlen(reply->element[0]->str, 31);
    memcpy(io_cursor, reply->element[0]->str, len);
    io_cursor[len] = '\0';
    return status;
}

enum status streams_let_end(struct scope *sc, struct scheduled *s, int64_t *out_count)
{
    char cursor[32] = "0";
    enum status status;
    *out_count = 0;
    do {
        struct scope own;
        scope_init(&own, NULL);
        status = s->has_to_stop(s->stop_context) ? fail(sc, STATUS_CANCELLED, "told to stop") : STATUS_OK;
        if (status == STATUS_OK && (status = one_round(&own, s, cursor, out_count)) != STATUS_OK)
            status = fail(sc, status, "%s", own.problem_text ? own.problem_text : status_text(status));
        scope_done(&own);
    } while (status == STATUS_OK && strcmp(cursor, "0") != 0);
    return status;
}
