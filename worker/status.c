#include "worker/status.h"

#include "build/queries.h"
#include "common/clock.h"
#include "sql/migrate.h"
#include "worker/operator.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

enum { STATEMENT_MS = 10000, REDIS_MS = 500, MOST_RUNNING = 2000, MOST_WAITING = 2000 };

static enum status read_rows(struct scope *sc, struct db *db, struct status_report *r)
{
    enum status s = migrate_check(sc, db);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_STATUS_WORKERS, &r->workers);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_STATUS_RUNNING, &r->running, db_number(sc, MOST_RUNNING));
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_STATUS_QUEUES, &r->queues);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_STATUS_WAITING, &r->waiting, db_number(sc, MOST_WAITING));
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_STATUS_UNANNOUNCED, &r->unannounced);
    return s;
}

/* ---- Redis ---- */

static int64_t number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoll(at + strlen(name), NULL, 10) : 0;
}

static enum status read_memory(struct scope *sc, struct redis *r, struct status_redis *out)
{
    scoped(redisReply) *pong = NULL;
    scoped(redisReply) *info = NULL;
    double started = (double)clock_monotonic_us();
    enum status s = redis_run(sc, r, &pong, "PING");
    out->milliseconds = ((double)clock_monotonic_us() - started) / 1000;
    if (s == STATUS_OK)
        s = redis_run(sc, r, &info, "INFO memory");
    if (s != STATUS_OK || info->type != REDIS_REPLY_STRING)
        return s;
    out->used_bytes = number_after(info->str, "\nused_memory:");
    out->most_bytes = number_after(info->str, "\nmaxmemory:");
    out->is_full = out->most_bytes > 0 && out->used_bytes >= out->most_bytes;
    return STATUS_OK;
}

static enum status read_lengths(struct scope *sc, struct redis *r, const PGresult *queues, int64_t *out)
{
    for (int i = 0; i < PQntuples(queues); i++) {
        scoped(redisReply) *reply = NULL;
        enum status s = redis_run(sc, r, &reply, "LLEN %s", redis_key(sc, r, "queue:%s", db_text(queues, i, "queue")));
        if (s != STATUS_OK)
            return s;
        out[i] = reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;
    }
    return STATUS_OK;
}

static enum status read_doing(struct scope *sc, struct redis *r, const PGresult *workers, const char **out)
{
    for (int i = 0; i < PQntuples(workers); i++) {
        scoped(redisReply) *reply = NULL;
        enum status s = redis_run(sc, r, &reply, "HGET %s doing",
                                  redis_key(sc, r, "worker:%s", db_text(workers, i, "id")));
        if (s != STATUS_OK)
            return s;
        out[i] = reply->type == REDIS_REPLY_STRING ? arena_strndup(&sc->arena, reply->str, reply->len) : NULL;
    }
    return STATUS_OK;
}

static void read_redis(struct scope *sc, const struct settings *settings, struct status_report *r)
{
    struct redis_options options = {
        .url = settings->redis_url, .prefix = settings->redis_prefix, .timeout_ms = REDIS_MS};
    options.database = (int)settings->redis_queue_db;
    struct redis *queue = redis_new(&options);
    options.database = (int)settings->redis_stream_db;
    struct redis *events = redis_new(&options);
    int queues = PQntuples(r->queues), workers = PQntuples(r->workers);
    r->redis.lengths = arena_array(&sc->arena, (size_t)queues + 1, sizeof *r->redis.lengths);
    r->redis.doing = arena_array(&sc->arena, (size_t)workers + 1, sizeof *r->redis.doing);
    for (int i = 0; i < queues; i++)
        r->redis.lengths[i] = -1;
    enum status s = read_memory(sc, queue, &r->redis);
    if (s == STATUS_OK)
        s = read_lengths(sc, queue, r->queues, r->redis.lengths);
    if (s == STATUS_OK)
        s = read_doing(sc, events, r->workers, r->redis.doing);
    r->redis.answers = s == STATUS_OK;
    r->redis.problem = s == STATUS_OK ? NULL : sc->problem_text;
    redis_free(queue);
    redis_free(events);
}

/* ---- all of it ---- */

static void clear(struct status_report *r)
{
    PQclear(r->workers);
    PQclear(r->running);
    PQclear(r->queues);
    PQclear(r->waiting);
    PQclear(r->unannounced);
}

int operator_status(const struct settings *settings, bool is_json)
{
    struct scope sc;
    char now[28];
    scope_init(&sc, NULL);
    clock_iso(now);
    setlocale(LC_CTYPE, "C.UTF-8"); /* how wide characters are */
    struct status_report r = {.arena = &sc.arena, .time = now};
    struct db *db = db_new(&(struct db_options){.url = settings->database_url,
                                                .application_name = "opstream-worker status",
                                                .statement_timeout_ms = STATEMENT_MS});
    enum status s = read_rows(&sc, db, &r);
    if (s == STATUS_OK) {
        scoped_text t = {0};
        read_redis(&sc, settings, &r);
        if (is_json)
            status_write_json(&t, &r);
        else
            status_write_text(&t, &r);
        fwrite(t.data, 1, t.len, stdout);
    } else {
        fprintf(stderr, "opstream-worker: the state cannot be read: %s\n", sc.problem_text);
    }
    clear(&r);
    db_free(db);
    scope_done(&sc);
    return s == STATUS_OK && fflush(stdout) == 0 ? 0 : 1;
}
