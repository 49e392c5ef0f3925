/* Who opens a socket, and may it? Those that wait at the same time are asked about together: one statement in
 * PostgreSQL (user, operation, rights and the state that is told first) and one script in Redis (the limits over all
 * instances) for up to BATCH of them, so that a storm of handshakes costs the servers little more a second than a few.
 * Nothing of the answers is kept: a right that was withdrawn is never found in a cache.
 *
 * A batch is whatever waits when a look-up thread is free: alone when it is quiet. */
#include "api/relay/hub.h"

#include "api/auth.h"
#include "api/rate.h"
#include "build/queries.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { BATCH = 64, MOST_WAITING = 8192 };

struct opening {
    struct opening *next;
    struct client *client;
    enum ws_kind kind;
    bool wants_end, is_again;
    bool is_known; /* came over HTTP, which found out who it is */
    bool is_poll;
    char *token;
    char target[65];
    int64_t number;
    struct registration registration;
    struct open_answer answer;
    char reason[124];
    /* while it runs */
    struct credential who;
};

struct batch_job {
    struct job job;
    struct hub *hub;
    int count;
    struct opening *list[BATCH];
};

struct openings {
    pthread_mutex_t lock; /* guards what follows */
    struct opening *first, **last;
    int count;
    bool is_closed;
};

struct openings *openings_new(void)
{
    struct openings *o = must_calloc(1, sizeof *o);
    pthread_mutex_init(&o->lock, NULL);
    o->last = &o->first;
    return o;
}

void openings_free(struct openings *o)
{
    if (!o)
        return;
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static bool add(struct openings *o, struct opening *one)
{
    pthread_mutex_lock(&o->lock);
    bool is_taken = !o->is_closed && o->count < MOST_WAITING;
    if (is_taken) {
        *o->last = one;
        o->last = &one->next;
        o->count++;
    }
    pthread_mutex_unlock(&o->lock);
    return is_taken;
}

static int take(struct openings *o, struct opening **out, int most)
{
    int count = 0;
    pthread_mutex_lock(&o->lock);
    while (o->first && count < most) {
        struct opening *one = o->first;
        o->first = one->next;
        out[count++] = one;
    }
    if (!o->first)
        o->last = &o->first;
    o->count -= count;
    pthread_mutex_unlock(&o->lock);
    return count;
}

/* ---- on a look-up thread ---- */

static void refuse(struct opening *o, enum status s, const char *why, const char *reason)
{
    o->answer.status = s;
    o->answer.why = why;
    snprintf(o->reason, sizeof o->reason, "%.*s", (int)utf8_floor(reason, strlen(reason), 123), reason);
}

static void refuse_by_scope(struct opening *o, struct scope *sc, enum status s, const char *why)
{
    bool is_ours = status_http(s) >= 500 || !sc->problem_text; /* no internals to a client */
    if (is_ours)
        log_warning("relay_lookup_failed", log_text("status", status_name(s)), log_text("problem", sc->problem_text));
    refuse(o, s, why, is_ours ? status_text(s) : sc->problem_text);
    scope_forgive(sc);
}

static bool is_on(const struct opening *o)
{
    return o->answer.status == STATUS_OK;
}

static void read_tokens(struct scope *sc, struct batch_job *j)
{
    for (int i = 0; i < j->count; i++) {
        struct opening *o = j->list[i];
        o->answer.status = STATUS_OK;
        if (o->is_known)
            continue;
        if (!o->token || !*o->token) {
            refuse(o, STATUS_UNAUTHENTICATED, "no_token", "Not authenticated");
            continue;
        }
        enum status s = auth_read(sc, j->hub->settings, o->token, &o->who);
        if (s != STATUS_OK)
            refuse_by_scope(o, sc, s, o->who.is_key ? "bad_key" : "bad_token");
        else if (o->kind == WS_OPERATION && !uuid_is_valid(o->target))
            refuse(o, STATUS_NOT_FOUND, "not_found",
                   arena_printf(&sc->arena, "Operation '%.64s' not found", o->target));
    }
}

static enum status ask_database(struct scope *sc, const struct batch_job *j, struct db *db, PGresult **out)
{
    scoped_text ids = {0}, names = {0}, prefixes = {0}, hashes = {0}, operations = {0};
    for (int i = 0; i < j->count; i++) {
        const struct opening *o = j->list[i];
        if (!is_on(o))
            continue;
        db_array_put(&ids, db_number(sc, o->who.user_id));
        db_array_put(&names, o->who.username);
        db_array_put(&prefixes, o->who.key_prefix);
        db_array_put(&hashes, o->who.key_prefix ? o->who.key_hash : NULL);
        db_array_put(&operations, o->kind == WS_OPERATION ? o->target : NULL);
    }
    if (ids.len == 0)
        return STATUS_OK;
    return db_run_kept(sc, db, SQL_RELAY_OPEN, out, db_array_end(&ids), db_array_end(&names), db_array_end(&prefixes),
                       db_array_end(&hashes), db_array_end(&operations));
}

static void take_operation(struct scope *sc, struct opening *o, const PGresult *rows, int row)
{
    enum status s = lookup_may_watch(sc, rows, row, o->target);
    if (s != STATUS_OK) {
        refuse_by_scope(o, sc, s, s == STATUS_NOT_FOUND ? "not_found" : "no_access");
        return;
    }
    const char *collection = db_text(rows, row, "collection_uuid");
    snprintf(o->answer.collection_id, sizeof o->answer.collection_id, "%s", collection ? collection : "");
    o->answer.operation_type = relay_operation_type(db_text(rows, row, "type"));
    o->answer.is_announced = db_bool(rows, row, "is_announced");
    o->answer.state = lookup_state_frame(rows, row);
}

static void take_row(struct scope *sc, struct opening *o, const PGresult *rows, int row)
{
    bool is_key = o->who.is_key;
    if (!db_text(rows, row, "user_id")) {
        refuse_by_scope(o, sc, auth_refuse(sc, is_key), is_key ? "bad_key" : "bad_token");
        return;
    }
    if (!db_bool(rows, row, "is_active")) {
        refuse(o, STATUS_FORBIDDEN, "inactive", "Inactive user");
        return;
    }
    o->answer.user_id = o->registration.user_id = db_int(rows, row, "user_id", 0);
    if (o->is_known) {
        if (o->kind == WS_OPERATION)
            take_operation(sc, o, rows, row);
        return;
    }
    o->answer.is_superuser = !is_key && db_bool(rows, row, "is_superuser");
    o->answer.api_key_id = db_int(rows, row, "api_key_id", 0);
    o->answer.expires_at = is_key ? db_int(rows, row, "api_key_expires_at", 0) : o->who.expires_at;
    if (o->kind == WS_OPERATION)
        take_operation(sc, o, rows, row);
}

static void look_up_rights(struct scope *sc, struct batch_job *j, struct lookup_tools *tools)
{
    scoped(PGresult) *rows = NULL;
    enum status s = ask_database(sc, j, tools->db, &rows);
    bool is_told = false;
    for (int i = 0, row = 0; i < j->count; i++) {
        struct opening *o = j->list[i];
        if (!is_on(o))
            continue;
        if (s == STATUS_OK) {
            take_row(sc, o, rows, row++);
            continue;
        }
        if (!is_told)
            log_warning("relay_lookup_failed", log_text("status", status_name(s)),
                        log_text("problem", sc->problem_text));
        is_told = true;
        refuse(o, s, "fault", status_text(s));
    }
    scope_forgive(sc);
}

static void count_users(struct scope *sc, struct batch_job *j)
{
    const struct settings *settings = j->hub->settings;
    if (strcasecmp(settings->rate_limits, "off") == 0)
        return;
    struct rate rate = rate_of(settings->ws_connects_per_user, 60000000);
    for (int i = 0; i < j->count; i++) {
        struct opening *o = j->list[i];
        if (!is_on(o) || o->is_again || o->is_poll)
            continue;
        int64_t wait_us = rate_table_step(j->hub->api->user_connects, &rate, db_number(sc, o->answer.user_id),
                                          clock_monotonic_us(), NULL);
        if (wait_us > 0)
            refuse(o, STATUS_RATE_LIMITED, "user_rate",
                   arena_printf(&sc->arena, "too many new connections of this user; try again in %lld s",
                                (long long)wait_us / 1000000 + 1));
    }
}

static void check_scans(struct scope *sc, struct batch_job *j, struct lookup_tools *tools)
{
    for (int i = 0; i < j->count; i++) {
        struct opening *o = j->list[i];
        if (!is_on(o) || o->kind != WS_DIRECTORY_SCAN)
            continue;
        scoped(redisReply) *reply = NULL;
        enum status s = redis_run(sc, tools->events, &reply, "GET %s",
                                  redis_key(sc, tools->events, "directory-scan:%s:user", o->target));
        if (s != STATUS_OK)
            refuse_by_scope(o, sc, s, "fault");
        else if (reply->type != REDIS_REPLY_STRING || strtoll(reply->str, NULL, 10) != o->answer.user_id)
            refuse(o, STATUS_NOT_FOUND, "not_found", arena_printf(&sc->arena, "Scan '%s' not found", o->target));
    }
}

/* Redis being away lets everyone in; the instance's own limits hold then. */
static void enter_registry(struct scope *sc, struct batch_job *j, struct lookup_tools *tools)
{
    struct opening *entering[BATCH];
    const struct registration *list[BATCH];
    enum registry_answer answers[BATCH];
    const struct settings *settings = j->hub->settings;
    int count = 0;
    for (int i = 0; i < j->count; i++) {
        struct opening *o = j->list[i];
        if (!is_on(o) || o->is_poll)
            continue; /* a poll comes and goes too fast; this instance counts it */
        registry_name(&o->registration, j->hub->api->instance_id, o->number, clock_wall_ms());
        list[count] = &o->registration;
        entering[count++] = o;
    }
    if (count == 0 || registry_enter(sc, tools->events, list, count, settings->ws_max_per_user,
                                     settings->ws_max_per_operation, answers) != STATUS_OK) {
        scope_forgive(sc);
        return;
    }
    for (int i = 0; i < count; i++) {
        entering[i]->answer.is_registered = answers[i] == REGISTRY_ENTERED;
        if (answers[i] == REGISTRY_USER_FULL)
            refuse(entering[i], STATUS_RATE_LIMITED, "user_limit", "too many connections of this user");
        else if (answers[i] == REGISTRY_OPERATION_FULL)
            refuse(entering[i], STATUS_RATE_LIMITED, "operation_limit", "too many connections to this operation");
    }
}

/* A live-only socket begins where the user's stream ends now, so that what is published before it is subscribed reaches
 * it too. */
static void find_ends(struct scope *sc, struct batch_job *j, struct lookup_tools *tools)
{
    for (int i = 0; i < j->count; i++) {
        struct opening *o = j->list[i];
        struct history_page page;
        if (!is_on(o) || !o->wants_end)
            continue;
        const char *stream = redis_key(sc, tools->events, MESSAGE_USER_STREAM, (long long)o->answer.user_id);
        o->answer.has_position = history_end(sc, tools->events, stream, &page) == STATUS_OK;
        if (o->answer.has_position) {
            o->answer.position = page.end;
            memcpy(o->answer.position.epoch, page.epoch, sizeof page.epoch);
        }
    }
}

static void run_batch(struct job *job, struct lookup_tools *tools)
{
    struct batch_job *j = (struct batch_job *)job;
    struct scope sc;
    j->count = take(j->hub->openings, j->list, BATCH);
    if (j->count == 0)
        return; /* others took what this one was to do */
    scope_init(&sc, NULL);
    read_tokens(&sc, j);
    look_up_rights(&sc, j, tools);
    count_users(&sc, j);
    check_scans(&sc, j, tools);
    enter_registry(&sc, j, tools);
    find_ends(&sc, j, tools);
    scope_done(&sc);
}

/* ---- on the loop ---- */

static void finish(struct opening *o)
{
    o->client->registration = o->registration;
    client_opened(o->client, &o->answer, o->reason);
    client_unref(o->client);
    free(o->token);
    free(o);
}

static void end_batch(struct job *job)
{
    struct batch_job *j = (struct batch_job *)job;
    for (int i = 0; i < j->count; i++)
        finish(j->list[i]);
    free(j);
}

void openings_close(struct openings *o)
{
    pthread_mutex_lock(&o->lock);
    o->is_closed = true;
    pthread_mutex_unlock(&o->lock);
    struct opening *one;
    while (take(o, &one, 1) == 1) {
        refuse(one, STATUS_UNAVAILABLE, "fault", "this server restarts");
        finish(one);
    }
}

static void drop(struct opening *o)
{
    client_unref(o->client);
    free(o->token);
    free(o);
}

bool lookup_open(struct client *c)
{
    struct hub *hub = c->hub;
    struct opening *o = must_calloc(1, sizeof *o);
    *o = (struct opening){
        .client = c,
        .kind = c->kind,
        .wants_end = c->kind == WS_OPERATIONS && !(c->arrival->head.last_id && *c->arrival->head.last_id),
        .is_again = c->was_held,
        .is_known = c->user_id != 0,
        .is_poll = client_is_poll(c),
        .who = {.user_id = c->user_id},
        .answer = {.api_key_id = c->api_key_id, .expires_at = c->expires_at, .is_superuser = c->is_superuser},
        .token = c->arrival->head.token ? must_strdup(c->arrival->head.token) : NULL,
        .number = atomic_fetch_add(&hub->shared->last_number, 1) + 1,
    };
    c->access_round = access_round(hub);
    memcpy(o->target, c->target, sizeof o->target);
    if (c->kind == WS_OPERATION)
        snprintf(o->registration.operation_id, sizeof o->registration.operation_id, "%.36s", c->target);
    client_ref(c);
    if (!add(hub->openings, o)) {
        drop(o);
        return false;
    }
    /* A job for each, so that as many threads take them as are free; the number of those that wait bounds both. */
    struct batch_job *j = must_calloc(1, sizeof *j);
    j->job = (struct job){.run = run_batch, .end = end_batch};
    j->hub = hub;
    if (!lookup_submit(hub->lookup, &j->job, true))
        free(j); /* it stops: openings_close() ends what waits */
    return true;
}
