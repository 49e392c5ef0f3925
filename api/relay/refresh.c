/* A client whose access token is about to expire says so with a newer one of the same user, and stays. What the
 * connection may see does not change. */
#include "api/relay/hub.h"

#include "api/auth.h"
#include "common/clock.h"
#include "common/json.h"

#include <string.h>

enum { BETWEEN_MS = 1000 };

struct refresh {
    struct job job;
    struct client *client;
    char *token;
    enum status status;
    int64_t user_id, api_key_id, expires_at;
};

static void say(struct client *c, const char *type, const char *key, const char *value)
{
    char now[28];
    clock_iso(now);
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "timestamp", now);
    json_text(&json, "type", type);
    json_open(&json, "data", '{');
    json_text(&json, key, value);
    json_close(&json, '}');
    json_close(&json, '}');
    struct frame *f = frame_text(json.data, json.len);
    client_send(c, f);
    frame_unref(f);
}

static void refuse(struct client *c, const char *reason)
{
    say(c, "refresh_failed", "reason", reason);
}

static void run_refresh(struct job *job, struct lookup_tools *tools)
{
    struct refresh *r = (struct refresh *)job;
    struct user user = {0};
    struct scope sc;
    scope_init(&sc, NULL);
    r->status = auth_check(&sc, tools->settings, tools->db, r->token, &user);
    r->user_id = user.id;
    r->api_key_id = user.api_key_id;
    r->expires_at = user.token_expires_at;
    scope_done(&sc);
}

static void apply(struct client *c, const struct refresh *r)
{
    char until[32];
    bool is_refused = r->status == STATUS_UNAUTHENTICATED || r->status == STATUS_FORBIDDEN;
    if (r->status != STATUS_OK) {
        refuse(c, is_refused ? "this token is not valid" : "the token cannot be checked now: try again");
    } else if (r->user_id != c->user_id) {
        client_close(c, CLOSE_POLICY, "this token is another user's");
    } else if (r->api_key_id != 0) {
        refuse(c, "an access token is needed, not an API key");
    } else {
        if (r->expires_at > c->expires_at)
            c->expires_at = r->expires_at; /* its timer looks again when the old time has come */
        clock_iso_of_ns(c->expires_at * 1000000000, until);
        say(c, "refreshed", "expires_at", until);
    }
}

static void end_refresh(struct job *job)
{
    struct refresh *r = (struct refresh *)job;
    struct client *c = r->client;
    c->is_refreshing = false;
    if (c->state == CLIENT_OPEN || c->state == CLIENT_SUBSCRIBING)
        apply(c, r);
    client_unref(c);
    memset(r->token, 0, strlen(r->token));
    free(r->token);
    free(r);
}

void refresh_message(struct client *c, const char *token)
{
    int64_t now = clock_monotonic_ms();
    if (c->state != CLIENT_OPEN && c->state != CLIENT_SUBSCRIBING)
        return;
    if (!*token) {
        refuse(c, "token is missing");
        return;
    }
    if (c->api_key_id != 0) {
        refuse(c, "this connection came with an API key and lives as long as the key");
        return;
    }
    if (c->is_refreshing || now < c->next_refresh_ms) {
        refuse(c, "once a second at most");
        return;
    }
    struct refresh *r = must_calloc(1, sizeof *r);
    r->job = (struct job){.run = run_refresh, .end = end_refresh};
    r->client = c;
    r->token = must_strdup(token);
    r->status = STATUS_UNAVAILABLE;
    client_ref(c);
    c->is_refreshing = true;
    c->next_refresh_ms = now + BETWEEN_MS;
    if (!lookup_submit(c->hub->lookup, &r->job, false))
        end_refresh(&r->job); /* says that it was not checked */
}
