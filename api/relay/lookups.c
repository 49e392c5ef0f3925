/* What the relay asks of PostgreSQL and Redis, as jobs: gather on the loop, ask on a look-up thread, answer on the
 * loop. */
#include "api/relay/hub.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>

/* ---- one page of history, the state before it ---- */

struct page_job {
    struct job job;
    struct client *client;
    unsigned generation;
    enum frame_format format;
    bool wants_state, was_truncated, is_explicit;
    char target[65];
    int64_t user_id;
    char *stream;
    struct event_id after;
    enum status status;
    struct history_page page;
    struct frame *state;
};

struct frame *lookup_state_frame(const PGresult *rows, int row)
{
    char now[28];
    clock_iso(now);
    const char *uuid = db_text(rows, row, "uuid"), *collection = db_text(rows, row, "collection_uuid");
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "timestamp", now);
    json_text(&json, "type", "current_state");
    json_text(&json, "operation_id", uuid);
    json_text(&json, "collection_id", collection);
    json_text(&json, "status", db_text(rows, row, "status"));
    json_real(&json, "progress", db_real(rows, row, "percent", 0));
    json_open(&json, "data", '{');
    json_text(&json, "operation_id", uuid);
    json_text(&json, "collection_id", collection);
    json_text(&json, "status", db_text(rows, row, "status"));
    json_text(&json, "operation_type", db_text(rows, row, "type"));
    json_text(&json, "created_at", db_text(rows, row, "created_at"));
    json_text(&json, "started_at", db_text(rows, row, "started_at"));
    json_text(&json, "completed_at", db_text(rows, row, "completed_at"));
    json_text(&json, "error_message", db_text(rows, row, "error_message"));
    json_real(&json, "progress", db_real(rows, row, "percent", 0));
    json_close(&json, '}');
    json_close(&json, '}');
    return frame_text(json.data, json.len);
}

enum status lookup_may_watch(struct scope *sc, const PGresult *rows, int row, const char *uuid)
{
    if (!db_text(rows, row, "uuid"))
        return fail(sc, STATUS_NOT_FOUND, "Operation '%s' not found", uuid);
    if (!db_bool(rows, row, "may_see"))
        return fail(sc, STATUS_FORBIDDEN, "You don't have access to this operation");
    if (db_bool(rows, row, "is_deleted"))
        return fail(sc, STATUS_FORBIDDEN, "The collection of this operation was deleted");
    return STATUS_OK;
}

/* The statement of those that open, for one who is known. */
static enum status read_state(struct scope *sc, struct page_job *j, struct lookup_tools *tools)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run_kept(sc, tools->db, SQL_RELAY_OPEN, &rows,
                                arena_printf(&sc->arena, "{%lld}", (long long)j->user_id), "{NULL}", "{NULL}", "{NULL}",
                                arena_printf(&sc->arena, "{%s}", j->target));
    if (s == STATUS_OK)
        s = lookup_may_watch(sc, rows, 0, j->target);
    if (s == STATUS_OK) {
        frame_unref(j->state); /* older */
        j->state = lookup_state_frame(rows, 0);
    }
    return s;
}

/* These frames are for one client: what it takes to compress them is done here, and not on the loop. */
static void render_ahead(struct page_job *j)
{
    for (int i = 0; i < j->page.count; i++)
        frame_rendered(j->page.frames[i], j->format);
    if (j->state)
        frame_rendered(j->state, j->format);
}

static void run_page(struct job *job, struct lookup_tools *tools)
{
    struct page_job *j = (struct page_job *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    /* The state first: what happens after it is in the page or comes live. */
    j->status = j->wants_state ? read_state(&sc, j, tools) : STATUS_OK;
    (void)FAULT(BEFORE_HISTORY, j->stream);
    if (j->status == STATUS_OK)
        j->status = history_read(&sc, tools->events, j->stream, &j->after, j->is_explicit, &j->page);
    if (j->status == STATUS_OK && (j->was_truncated || j->page.is_truncated) && j->target[0])
        j->status = read_state(&sc, j, tools); /* it has to tell what events do not tell any more */
    if (j->status != STATUS_OK)
        log_debug("relay_page_failed", log_text("status", status_name(j->status)),
                  log_text("problem", sc.problem_text));
    render_ahead(j);
    scope_done(&sc);
}

static void end_page(struct job *job)
{
    struct page_job *j = (struct page_job *)job;
    client_paged(j->client, j->status, j->generation, &j->page, j->state);
    client_unref(j->client);
    history_page_done(&j->page);
    frame_unref(j->state);
    free(j->stream);
    free(j);
}

bool lookup_page(struct client *c)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct page_job *j = must_calloc(1, sizeof *j);
    j->job = (struct job){.run = run_page, .end = end_page};
    j->client = c;
    j->generation = c->replay.generation;
    j->format = c->format;
    j->state = c->answer.state; /* as it was when it opened, which is before this page */
    c->answer.state = NULL;
    j->wants_state = c->needs_state && !j->state;
    j->was_truncated = c->was_truncated;
    j->is_explicit = c->is_explicit;
    j->user_id = c->user_id;
    j->stream = must_strdup(hub_stream_name(&sc, c));
    j->after = c->replay.position;
    j->status = STATUS_UNAVAILABLE;
    if (c->kind == WS_OPERATION)
        memcpy(j->target, c->target, sizeof j->target);
    scope_done(&sc);
    client_ref(c);
    if (lookup_submit(c->hub->lookup, &j->job, true))
        return true;
    client_unref(c);
    frame_unref(j->state);
    free(j->stream);
    free(j);
    return false;
}

/* ---- the last word of a directory scan ---- */

struct word_job {
    struct job job;
    struct client *client;
    char target[65];
    char *json;
    size_t len;
};

static void run_word(struct job *job, struct lookup_tools *tools)
{
    struct word_job *j = (struct word_job *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(redisReply) *reply = NULL;
    const char *key = redis_key(&sc, tools->events, "directory-scan:%s:last", j->target);
    if (redis_run(&sc, tools->events, &reply, "GET %s", key) == STATUS_OK && reply->type == REDIS_REPLY_STRING) {
        j->json = must_strdup(reply->str);
        j->len = strlen(j->json);
    }
    scope_done(&sc);
}

static void end_word(struct job *job)
{
    struct word_job *j = (struct word_job *)job;
    struct frame *f = j->json ? frame_event(j->json, j->len, NULL) : NULL;
    if (f && !j->client->has_last_word)
        client_deliver(j->client, f);
    frame_unref(f);
    client_unref(j->client);
    free(j->json);
    free(j);
}

bool lookup_last_word(struct client *c)
{
    struct word_job *j = must_calloc(1, sizeof *j);
    j->job = (struct job){.run = run_word, .end = end_word};
    j->client = c;
    memcpy(j->target, c->target, sizeof j->target);
    client_ref(c);
    if (lookup_submit(c->hub->lookup, &j->job, true))
        return true;
    client_unref(c);
    free(j);
    return false;
}

/* ---- the registry ---- */

struct registry_job {
    struct job job;
    struct hub *hub;
    bool is_leaving;
    int count;
    struct registration list[];
};

static void run_registry(struct job *job, struct lookup_tools *tools)
{
    struct registry_job *j = (struct registry_job *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    enum status s = j->is_leaving ? registry_leave(&sc, tools->events, &j->list[0])
                                  : registry_renew(&sc, tools->events, j->list, j->count);
    if (s != STATUS_OK)
        log_debug("relay_registry_failed", log_text("problem", sc.problem_text)); /* it heals by itself */
    scope_done(&sc);
}

static void submit_leave(struct hub *hub, const struct registration *r);

/* Who left while its renewal was on its way may have been entered again by it: once more. */
static void leave_again(struct hub *hub)
{
    struct registration *left = hub->left;
    int count = hub->left_count;
    hub->left = NULL;
    hub->left_count = hub->left_capacity = 0;
    for (int i = 0; i < count; i++)
        submit_leave(hub, &left[i]);
    free(left);
}

static void end_registry(struct job *job)
{
    const struct registry_job *j = (const struct registry_job *)job;
    if (!j->is_leaving && --j->hub->renewals == 0)
        leave_again(j->hub);
    free(job);
}

static struct registry_job *registry_job(struct hub *hub, bool is_leaving, int capacity)
{
    struct registry_job *j = must_malloc(sizeof *j + (size_t)capacity * sizeof(struct registration));
    j->job = (struct job){.run = run_registry, .end = end_registry};
    j->hub = hub;
    j->is_leaving = is_leaving;
    j->count = 0;
    return j;
}

static void submit_leave(struct hub *hub, const struct registration *r)
{
    struct registry_job *j = registry_job(hub, true, 1);
    j->list[j->count++] = *r;
    if (!lookup_submit(hub->lookup, &j->job, true))
        free(j);
}

void lookup_leave(struct client *c)
{
    struct hub *hub = c->hub;
    if (!c->is_registered)
        return;
    c->is_registered = false;
    submit_leave(hub, &c->registration);
    if (hub->renewals == 0)
        return;
    if (hub->left_count == hub->left_capacity) {
        hub->left_capacity = hub->left_capacity ? hub->left_capacity * 2 : 8;
        hub->left = must_realloc(hub->left, (size_t)hub->left_capacity * sizeof *hub->left);
    }
    hub->left[hub->left_count++] = c->registration;
}

/* Connections that opened while Redis was away are entered here, too. */
void lookup_renew(struct hub *hub)
{
    struct client *c = hub->clients;
    while (c) {
        struct registry_job *j = registry_job(hub, false, REGISTRY_BATCH);
        for (; c && j->count < REGISTRY_BATCH; c = c->next) {
            if (!c->is_counted || client_is_poll(c))
                continue;
            c->is_registered = true;
            j->list[j->count++] = c->registration;
        }
        if (j->count > 0 && lookup_submit(hub->lookup, &j->job, true))
            hub->renewals++;
        else
            free(j);
    }
}

/* ---- the pulse: something for the subscriber to hear ---- */

struct pulse_job {
    struct job job;
    char *channel;
};

static void run_pulse(struct job *job, struct lookup_tools *tools)
{
    struct pulse_job *j = (struct pulse_job *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    if (redis_run(&sc, tools->events, NULL, "PUBLISH %s .", j->channel) != STATUS_OK)
        log_debug("relay_pulse_failed", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void end_pulse(struct job *job)
{
    struct pulse_job *j = (struct pulse_job *)job;
    free(j->channel);
    free(j);
}

void lookup_pulse(struct hub *hub, const char *channel)
{
    struct pulse_job *j = must_calloc(1, sizeof *j);
    j->job = (struct job){.run = run_pulse, .end = end_pulse};
    j->channel = must_strdup(channel);
    if (!lookup_submit(hub->lookup, &j->job, true))
        end_pulse(&j->job);
}

/* ---- the position check of a channel ---- */

struct check_job {
    struct job job;
    struct hub *hub;
    char *channel, *stream;
    enum status status;
    struct history_page page;
};

static void run_check(struct job *job, struct lookup_tools *tools)
{
    struct check_job *j = (struct check_job *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    j->status = history_end(&sc, tools->events, j->stream, &j->page);
    scope_done(&sc);
}

static void take_end(struct channel *channel, const struct history_page *page)
{
    channel->end = page->end;
    memcpy(channel->end.epoch, page->epoch, sizeof channel->end.epoch);
    channel->checked_at_ms = clock_monotonic_ms();
    for (struct listener *l = channel->first; l; l = l->next)
        client_checked(client_of(l), &channel->end, false);
}

static void free_check(struct check_job *j)
{
    free(j->channel);
    free(j->stream);
    free(j);
}

static void end_check(struct job *job)
{
    struct check_job *j = (struct check_job *)job;
    struct channel *channel = channel_find(&j->hub->channels, j->channel);
    if (channel)
        channel->is_checking = false;
    if (channel && j->status == STATUS_OK)
        take_end(channel, &j->page);
    free_check(j);
}

bool lookup_check(struct hub *hub, struct channel *channel)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct check_job *j = must_calloc(1, sizeof *j);
    j->job = (struct job){.run = run_check, .end = end_check};
    j->hub = hub;
    j->status = STATUS_UNAVAILABLE;
    j->channel = must_strdup(channel->node.name);
    j->stream = must_strdup(hub_stream_name(&sc, client_of(channel->first)));
    scope_done(&sc);
    channel->is_checking = lookup_submit(hub->lookup, &j->job, false);
    if (!channel->is_checking)
        free_check(j);
    return channel->is_checking;
}
