/* Token life: connections whose user, API key, operation or collection is not there for them any more are closed with
 * 1008. A change is announced on relay:access; the announcements of a moment are answered together, by one walk over
 * the connections and one query for up to a thousand of them, however many there were. */
#include "api/relay/hub.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/log.h"

#include <string.h>

enum {
    MOST_CHANGES = 32, /* remembered one by one; beyond that everyone is looked at */
    BATCH = 1000,
    ROUND_MS = 200,       /* between two rounds at least */
    RETRY_MS = 1000,      /* after a round that PostgreSQL did not answer */
    SWEEP_MS = 30 * 1000, /* without an announcement */
};

struct access_rounds {
    struct access_change changes[MOST_CHANGES];
    int change_count;
    bool is_everyone, is_running, has_marks, is_unknown;
    unsigned round; /* counts changes */
    int64_t next_ms, next_sweep_ms;
    char *channel;
};

void access_start(struct hub *hub)
{
    struct scope sc;
    scope_init(&sc, NULL);
    hub->access = must_calloc(1, sizeof *hub->access);
    hub->access->channel = must_strdup(redis_key(&sc, hub->shared->names, MESSAGE_ACCESS));
    hub->access->next_sweep_ms = clock_monotonic_ms() + SWEEP_MS;
    scope_done(&sc);
}

void access_done(struct hub *hub)
{
    if (!hub->access)
        return;
    free(hub->access->channel);
    free(hub->access);
    hub->access = NULL;
}

unsigned access_round(const struct hub *hub)
{
    return hub->access->round;
}

/* ---- one round ---- */

struct look {
    struct job job;
    struct hub *hub;
    int count;
    struct text users, keys, operations;
    bool is_answered;
    struct client *clients[BATCH];
    char why[BATCH]; /* first letter of relay_access.sql's `why`; 0 = it may stay */
};

static const char *reason_of(char why)
{
    switch (why) {
    case 'u':
        return "you don't have access any more: this account is not active";
    case 'k':
        return "you don't have access any more: the API key is not valid";
    case 'd':
        return "the collection of this operation was deleted";
    default:
        return "You don't have access to this operation";
    }
}

static void run_look(struct job *job, struct lookup_tools *tools)
{
    struct look *l = (struct look *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(&sc, tools->db, SQL_RELAY_ACCESS, &rows, l->users.data, l->keys.data, l->operations.data);
    l->is_answered = s == STATUS_OK;
    for (int i = 0; l->is_answered && i < PQntuples(rows); i++) {
        int64_t number = db_int(rows, i, "number", -1);
        if (number >= 0 && number < l->count)
            l->why[number] = db_text(rows, i, "why")[0];
    }
    if (!l->is_answered)
        log_debug("relay_access_unknown", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

static void free_look(struct look *l)
{
    for (int i = 0; i < l->count; i++)
        client_unref(l->clients[i]);
    text_free(&l->users);
    text_free(&l->keys);
    text_free(&l->operations);
    free(l);
}

static void end_look(struct job *job)
{
    struct look *l = (struct look *)job;
    struct access_rounds *a = l->hub->access;
    a->is_running = false;
    if (!l->is_answered && !a->is_unknown)
        log_warning("relay_access_unknown"); /* once: it is asked again and again until it is known */
    a->is_unknown = !l->is_answered;
    if (!l->is_answered) {
        a->has_marks = true;
        a->next_ms = clock_monotonic_ms() + RETRY_MS;
    }
    for (int i = 0; i < l->count; i++) {
        if (!l->is_answered)
            l->clients[i]->needs_look = true;
        else if (l->why[i])
            client_close(l->clients[i], CLOSE_POLICY, reason_of(l->why[i]));
    }
    free_look(l);
}

static void add_client(struct look *l, struct client *c)
{
    char bracket = l->count ? ',' : '{';
    c->needs_look = false;
    client_ref(c);
    l->clients[l->count++] = c;
    text_printf(&l->users, "%c%lld", bracket, (long long)c->user_id);
    text_printf(&l->keys, "%c%lld", bracket, (long long)c->api_key_id);
    text_printf(&l->operations, "%c%s", bracket, c->kind == WS_OPERATION ? c->target : "NULL");
}

/* Takes up to a batch of those that are marked; the rest has its turn when this one is answered. */
static struct look *gather(struct hub *hub)
{
    struct look *l = must_calloc(1, sizeof *l);
    l->job = (struct job){.run = run_look, .end = end_look};
    l->hub = hub;
    hub->access->has_marks = false;
    for (struct client *c = hub->clients; c; c = c->next) {
        if (!c->needs_look)
            continue;
        if (l->count == BATCH) {
            hub->access->has_marks = true;
            break;
        }
        add_client(l, c);
    }
    text_putc(&l->users, '}');
    text_putc(&l->keys, '}');
    text_putc(&l->operations, '}');
    return l;
}

static bool is_concerned(const struct access_rounds *a, const struct client *c)
{
    for (int i = 0; i < a->change_count; i++) {
        const struct access_change *change = &a->changes[i];
        if ((change->user_id && change->user_id == c->user_id) ||
            (change->api_key_id && change->api_key_id == c->api_key_id) ||
            (change->collection_id[0] && strcmp(change->collection_id, c->answer.collection_id) == 0))
            return true;
    }
    return a->is_everyone;
}

static void mark_concerned(struct hub *hub)
{
    struct access_rounds *a = hub->access;
    for (struct client *c = hub->clients; c; c = c->next) {
        bool is_there = c->state == CLIENT_OPEN || c->state == CLIENT_SUBSCRIBING;
        if (is_there && is_concerned(a, c))
            c->needs_look = a->has_marks = true;
    }
    a->change_count = 0;
    a->is_everyone = false;
}

static void go_on(struct hub *hub, int64_t now)
{
    struct access_rounds *a = hub->access;
    if (a->is_running || now < a->next_ms || hub->is_stopping)
        return;
    if (a->change_count || a->is_everyone)
        mark_concerned(hub);
    if (!a->has_marks)
        return;
    a->next_ms = now + ROUND_MS;
    struct look *l = gather(hub);
    a->is_running = l->count > 0 && lookup_submit(hub->lookup, &l->job, false);
    if (a->is_running)
        return;
    for (int i = 0; i < l->count; i++)
        l->clients[i]->needs_look = a->has_marks = true; /* too many look-ups wait: with the next tick */
    free_look(l);
}

/* ---- what begins one ---- */

enum status access_user(struct scope *sc, struct db *db, int64_t user_id, int64_t api_key_id, bool *out_is_superuser)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_RELAY_USER, &rows, db_number(sc, user_id), db_number(sc, api_key_id));
    if (s == STATUS_OK && PQntuples(rows) == 0)
        s = fail(sc, STATUS_FORBIDDEN, "You don't have access any more");
    if (s == STATUS_OK)
        *out_is_superuser = db_bool(rows, 0, "is_superuser");
    return s;
}

void access_up(struct hub *hub)
{
    port_add(hub->port, hub->access->channel);
    hub->access->is_everyone = true;
    hub->access->round++;
}

bool access_listens(const struct hub *hub, const char *channel)
{
    return strcmp(channel, hub->access->channel) == 0;
}

bool access_message(struct hub *hub, const char *channel, const char *bytes, size_t len)
{
    struct access_rounds *a = hub->access;
    struct access_change change;
    struct scope sc;
    if (!access_listens(hub, channel))
        return false;
    scope_init(&sc, NULL);
    if (message_access_parse(&sc, bytes, len, &change) == STATUS_OK) {
        a->round++;
        if (a->change_count < MOST_CHANGES)
            a->changes[a->change_count++] = change;
        else
            a->is_everyone = true;
        go_on(hub, clock_monotonic_ms());
    }
    scope_done(&sc);
    return true;
}

void access_opened(struct client *c)
{
    if (c->access_round == c->hub->access->round)
        return;
    c->needs_look = c->hub->access->has_marks = true;
    go_on(c->hub, clock_monotonic_ms());
}

void access_tick(struct hub *hub, int64_t now_ms)
{
    struct access_rounds *a = hub->access;
    if (now_ms >= a->next_sweep_ms) {
        a->next_sweep_ms = now_ms + SWEEP_MS;
        a->is_everyone = true;
    }
    go_on(hub, now_ms);
}
