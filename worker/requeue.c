#include "build/queries.h"
#include "common/json.h"
#include "common/message.h"
#include "common/store/operation_store.h"
#include "sql/migrate.h"
#include "worker/listing.h"
#include "worker/operator.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STATEMENT_MS = 10000, REDIS_MS = 500 };

struct requeue {
    const struct settings *settings;
    const char *uuid;
    bool is_forced;
    struct db *db;
    PGresult *found; /* the operation's whereabouts */
};

static const char *fact(const struct requeue *q, const char *column)
{
    const char *value = db_text(q->found, 0, column);
    return value ? value : "";
}

static bool is_in(const struct requeue *q, const char *status)
{
    return strcmp(fact(q, "status"), status) == 0;
}

static enum status look(struct scope *sc, struct requeue *q)
{
    enum status s = migrate_check(sc, q->db);
    if (s == STATUS_OK)
        s = db_run(sc, q->db, SQL_OPERATION_WHEREABOUTS, &q->found, q->uuid);
    if (s == STATUS_OK && PQntuples(q->found) == 0)
        return fail(sc, STATUS_NOT_FOUND, "there is no operation %s", q->uuid);
    return s;
}

static enum status refuse_final(struct scope *sc, const struct requeue *q)
{
    return fail(sc, STATUS_CONFLICT,
                "operation %s is %s, and what is final stays so. To do the work again start a new one: add the source "
                "again (POST /api/v2/collections/%s/sources), which reads what is new, changed or failed",
                q->uuid, fact(q, "status"), *fact(q, "collection_uuid") ? fact(q, "collection_uuid") : "{id}");
}

static enum status refuse_held(struct scope *sc, const struct requeue *q)
{
    return fail(sc, STATUS_CONFLICT,
                "operation %s is being worked on: attempt %s at %.1f %%, for %s, by worker %s (pid %s on %s), whose "
                "lease is good. It needs no help; --force takes it from there: what that attempt has not committed is "
                "done again",
                q->uuid, fact(q, "attempt"), db_real(q->found, 0, "percent", 0),
                listing_age(&sc->arena, db_real(q->found, 0, "seconds", 0)), fact(q, "worker_id"), fact(q, "pid"),
                fact(q, "host"));
}

/* A processing one whose worker is gone would be swept anyway, by the first worker that has watched for a whole lease.
 */
static enum status check(struct scope *sc, const struct requeue *q)
{
    if (is_in(q, "pending"))
        return STATUS_OK;
    if (!is_in(q, "processing"))
        return refuse_final(sc, q);
    bool is_held = db_real(q->found, 0, "lease_seconds", -1) > 0;
    return is_held && !q->is_forced ? refuse_held(sc, q) : STATUS_OK;
}

static const char *details(struct scope *sc, const struct requeue *q)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_text(&t, "by", "opstream-worker --requeue");
    json_text(&t, "host", host);
    json_bool(&t, "forced", q->is_forced);
    json_text(&t, "was", fact(q, "status"));
    json_text(&t, "worker", db_text(q->found, 0, "worker_id"));
    json_text(&t, "was_due_at", db_text(q->found, 0, "not_before"));
    json_close(&t, '}');
    return arena_strdup(&sc->arena, text_str(&t));
}

/* Both are hints: the worker compares its rows each second, and the reconciler pushes what no queue holds. */
static void tell(struct scope *sc, const struct requeue *q)
{
    const struct settings *s = q->settings;
    struct scope own;
    scope_init(&own, sc->trace_id);
    struct redis_options options = {.url = s->redis_url, .prefix = s->redis_prefix, .timeout_ms = REDIS_MS};
    options.database = (int)s->redis_queue_db;
    struct redis *queue = redis_new(&options);
    options.database = (int)s->redis_stream_db;
    struct redis *events = redis_new(&options);
    if (is_in(q, "processing") && message_control(&own, events, fact(q, "worker_id"), "cancel", q->uuid) != STATUS_OK)
        scope_forgive(&own);
    if (redis_push(&own, queue, fact(q, "queue"), q->uuid) == STATUS_OK)
        printf("operation %s is due now and in queue %s\n", q->uuid, fact(q, "queue"));
    else
        printf("operation %s is due now; Redis does not take it (%s), so it starts when the reconciler or a worker "
               "finds it, within %lld s of each other\n",
               q->uuid, own.problem_text, (long long)s->reconcile_seconds * 2);
    redis_free(queue);
    redis_free(events);
    scope_done(&own);
}

static enum status requeue(struct scope *sc, struct requeue *q)
{
    scoped(PGresult) *rows = NULL;
    enum status s = look(sc, q);
    if (s == STATUS_OK)
        s = check(sc, q);
    if (s == STATUS_OK)
        s = db_run(sc, q->db, SQL_OPERATION_REQUEUE, &rows, q->uuid,
                   is_in(q, "processing") ? db_text(q->found, 0, "task_id") : NULL, details(sc, q));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        s = fail(sc, STATUS_CONFLICT, "operation %s has just changed; look at --status and ask again", q->uuid);
    if (s == STATUS_OK)
        tell(sc, q);
    return s;
}

int operator_requeue(const struct settings *settings, const char *uuid, bool is_forced)
{
    struct scope sc;
    scope_init(&sc, uuid);
    struct requeue q = {.settings = settings, .uuid = uuid, .is_forced = is_forced};
    q.db = db_new(&(struct db_options){.url = settings->database_url,
                                       .application_name = "opstream-worker requeue",
                                       .statement_timeout_ms = STATEMENT_MS});
    enum status s = requeue(&sc, &q);
    if (s != STATUS_OK)
        fprintf(stderr, "opstream-worker: %s\n", sc.problem_text);
    PQclear(q.found);
    db_free(q.db);
    scope_done(&sc);
    return s == STATUS_OK && fflush(stdout) == 0 ? 0 : 1;
}
