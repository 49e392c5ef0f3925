#include "worker/status.h"

#include "common/json.h"
#include "worker/listing.h"

#include <string.h>

enum { SHOWN_WAITING = 20, SHOWN_RUNNING = 200 };

static const char *or_dash(const char *value)
{
    return value && *value ? value : "-";
}

static void head(struct text *out, const char *title, int64_t count)
{
    text_printf(out, "\n%s (%lld)\n", title, (long long)count);
}

static void put_rest(struct text *out, int64_t total, int shown)
{
    if (total > shown)
        text_printf(out, "… and %lld more; --json shows them\n", (long long)(total - shown));
}

/* ---- workers ---- */

static const char *lease_of(struct arena *arena, double seconds)
{
    return seconds < 0 ? arena_printf(arena, "LAPSED %s ago", listing_age(arena, -seconds))
                       : listing_age(arena, seconds);
}

/* What the worker itself shows in Redis; a row alone does not tell of children that do not start. */
static const char *children_of(struct arena *arena, const char *doing)
{
    struct scope sc;
    int busy = 0, idle = 0, starting = 0;
    const char *text = "?";
    scope_init(&sc, NULL);
    scoped(cJSON) *slots = NULL;
    if (doing && json_parse(&sc, doing, strlen(doing), &slots) == STATUS_OK) {
        const cJSON *slot;
        cJSON_ArrayForEach(slot, slots)
        {
            const char *state = json_get_text(slot, "state", "");
            busy += strcmp(state, "busy") == 0;
            idle += strcmp(state, "idle") == 0;
            starting += strcmp(state, "starting") == 0;
        }
        text = starting ? arena_printf(arena, "%d busy, %d idle, %d starting", busy, idle, starting)
                        : arena_printf(arena, "%d busy, %d idle", busy, idle);
    }
    scope_done(&sc);
    return text;
}

static bool is_same(const PGresult *rows, int row, const char *column)
{
    return row > 0 && strcmp(db_text(rows, row, column), db_text(rows, row - 1, column)) == 0;
}

static bool begins_group(const PGresult *rows, int row)
{
    return !is_same(rows, row, "queues") || !is_same(rows, row, "models") || !is_same(rows, row, "devices");
}

static void put_group(struct text *out, const struct status_report *r, int from, int to)
{
    static const struct listing_column columns[] = {{"WORKER (host and a number of its own)", false, 24, true},
                                                    {"PID", true, 0, false},
                                                    {"VERSION", false, 6, false},
                                                    {"UP", true, 0, false},
                                                    {"LEASE", true, 0, false},
                                                    {"STATE", false, 0, false},
                                                    {"SLOTS", true, 0, false},
                                                    {"CHILDREN", false, 8, false}};
    struct listing t = listing_new(r->arena, columns, array_len(columns));
    for (int i = from; i < to; i++) {
        double lease = db_real(r->workers, i, "lease_seconds", 0);
        const char *cells[] = {
            db_text(r->workers, i, "id"),
            db_text(r->workers, i, "pid"),
            db_text(r->workers, i, "version"),
            listing_age(r->arena, db_real(r->workers, i, "up_seconds", 0)),
            lease_of(r->arena, lease),
            lease < 0                            ? "lost"
            : db_bool(r->workers, i, "draining") ? "drains"
                                                 : "works",
            arena_printf(r->arena, "%s/%s", db_text(r->workers, i, "busy"), db_text(r->workers, i, "slots")),
            children_of(r->arena, r->redis.doing[i])};
        listing_add(&t, cells);
    }
    listing_line(
        out, r->arena,
        arena_printf(r->arena, "queues %s; models %s; devices %s", or_dash(db_text(r->workers, from, "queues")),
                     or_dash(db_text(r->workers, from, "models")), or_dash(db_text(r->workers, from, "devices"))));
    listing_print(out, &t);
    listing_done(&t);
}

static void put_workers(struct text *out, const struct status_report *r)
{
    int count = PQntuples(r->workers);
    head(out, "WORKERS", count);
    if (count == 0)
        text_puts(out, "none: nothing that waits will be done until one is started\n");
    for (int from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count && !begins_group(r->workers, to);)
            to++;
        put_group(out, r, from, to);
    }
}

/* ---- operations ---- */

static const char *holder_of(const struct status_report *r, int row)
{
    const char *worker = or_dash(db_text(r->running, row, "worker"));
    const char *holder = db_text(r->running, row, "holder");
    return strcmp(holder, "alive") == 0 ? worker : arena_printf(r->arena, "%s (%s)", worker, holder);
}

static void put_running(struct text *out, const struct status_report *r)
{
    static const struct listing_column columns[] = {
        {"OPERATION", false, 0, false}, {"TYPE", false, 7, false}, {"COLLECTION", false, 12, false},
        {"ATTEMPT", true, 0, false},    {"%", true, 0, false},     {"FOR", true, 0, false},
        {"WORKER", false, 14, true}};
    struct listing t = listing_new(r->arena, columns, array_len(columns));
    int count = PQntuples(r->running);
    int64_t total = count ? db_int(r->running, 0, "total_rows", 0) : 0;
    int shown = count > SHOWN_RUNNING ? SHOWN_RUNNING : count;
    for (int i = 0; i < shown; i++) {
        const char *cells[] = {db_text(r->running, i, "operation"),
                               db_text(r->running, i, "type"),
                               or_dash(db_text(r->running, i, "collection")),
                               db_text(r->running, i, "attempt"),
                               arena_printf(r->arena, "%.1f", db_real(r->running, i, "percent", 0)),
                               listing_age(r->arena, db_real(r->running, i, "seconds", 0)),
                               holder_of(r, i)};
        listing_add(&t, cells);
    }
    head(out, "RUNNING", total);
    listing_print(out, &t);
    put_rest(out, total, shown);
    listing_done(&t);
}

static void put_waiting(struct text *out, const struct status_report *r)
{
    static const struct listing_column columns[] = {{"OPERATION", false, 0, false},   {"TYPE", false, 7, false},
                                                    {"COLLECTION", false, 10, false}, {"FAILURES", true, 0, false},
                                                    {"NEXT TRY IN", true, 0, false},  {"REASON", false, 16, false}};
    struct listing t = listing_new(r->arena, columns, array_len(columns));
    int count = PQntuples(r->waiting);
    int64_t total = count ? db_int(r->waiting, 0, "total_rows", 0) : 0;
    int shown = count > SHOWN_WAITING ? SHOWN_WAITING : count;
    for (int i = 0; i < shown; i++) {
        double seconds = db_real(r->waiting, i, "in_seconds", 0);
        const char *cells[] = {db_text(r->waiting, i, "operation"),
                               db_text(r->waiting, i, "type"),
                               or_dash(db_text(r->waiting, i, "collection")),
                               arena_printf(r->arena, "%s of %s", db_text(r->waiting, i, "failures"),
                                            db_text(r->waiting, i, "max_attempts")),
                               seconds <= 0 ? "due" : listing_age(r->arena, seconds),
                               or_dash(db_text(r->waiting, i, "reason"))};
        listing_add(&t, cells);
    }
    head(out, "WAITING FOR ANOTHER TRY", total);
    listing_print(out, &t);
    put_rest(out, total, shown);
    listing_done(&t);
}

/* ---- queues, Redis ---- */

static const char *age_or_dash(struct arena *arena, const PGresult *rows, int row)
{
    return db_text(rows, row, "oldest_seconds") ? listing_age(arena, db_real(rows, row, "oldest_seconds", 0)) : "-";
}

static void put_queues(struct text *out, const struct status_report *r)
{
    static const struct listing_column columns[] = {
        {"QUEUE", false, 16, false},   {"DUE", true, 0, false},    {"LATER", true, 0, false},
        {"RUNNING", true, 0, false},   {"OLDEST", true, 0, false}, {"IN REDIS", true, 0, false},
        {"TAKEN BY", false, 0, false},
    };
    struct listing t = listing_new(r->arena, columns, array_len(columns));
    for (int i = 0; i < PQntuples(r->queues); i++) {
        int64_t workers = db_int(r->queues, i, "workers", 0);
        const char *cells[] = {
            db_text(r->queues, i, "queue"),
            db_text(r->queues, i, "due"),
            db_text(r->queues, i, "later"),
            db_text(r->queues, i, "processing"),
            age_or_dash(r->arena, r->queues, i),
            r->redis.lengths[i] < 0 ? "?" : arena_printf(r->arena, "%lld", (long long)r->redis.lengths[i]),
            workers == 0 ? "NOBODY"
                         : arena_printf(r->arena, "%lld worker%s", (long long)workers, workers == 1 ? "" : "s")};
        listing_add(&t, cells);
    }
    head(out, "QUEUES", PQntuples(r->queues));
    listing_print(out, &t);
    listing_done(&t);
}

static void put_redis(struct text *out, const struct status_report *r)
{
    const struct status_redis *redis = &r->redis;
    const char *megabytes = arena_printf(r->arena, "%.0f MiB", (double)redis->used_bytes / 1048576);
    text_puts(out, "\n");
    if (!redis->answers)
        listing_line(out, r->arena,
                     arena_printf(r->arena, "Redis does not answer (%s); work goes on from PostgreSQL, more slowly",
                                  or_dash(redis->problem)));
    else if (redis->is_full)
        listing_line(
            out, r->arena,
            arena_printf(r->arena,
                         "Redis is FULL: %s of maxmemory are used, jobs and events are refused; work goes on from "
                         "PostgreSQL",
                         megabytes));
    else if (redis->most_bytes > 0)
        text_printf(out, "Redis answers in %.1f ms; %s of %.0f MiB used\n", redis->milliseconds, megabytes,
                    (double)redis->most_bytes / 1048576);
    else
        text_printf(out, "Redis answers in %.1f ms; %s used, no limit set\n", redis->milliseconds, megabytes);
}

static void put_unannounced(struct text *out, const struct status_report *r)
{
    int64_t count = db_int(r->unannounced, 0, "operations", 0);
    if (count == 0)
        text_puts(out, "Every end is announced\n");
    else
        text_printf(out, "%lld end%s not announced yet, the oldest for %s; the reconciler publishes what is missing\n",
                    (long long)count, count == 1 ? " is" : "s are",
                    listing_age(r->arena, db_real(r->unannounced, 0, "oldest_seconds", 0)));
}

void status_write_text(struct text *out, const struct status_report *r)
{
    text_printf(out, "Opstream at %.19sZ\n", r->time);
    put_workers(out, r);
    put_running(out, r);
    put_queues(out, r);
    put_waiting(out, r);
    put_redis(out, r);
    put_unannounced(out, r);
}
