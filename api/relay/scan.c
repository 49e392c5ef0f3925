/* /ws/scan/{id}: {"action":"scan","path":…,"recursive":…} lists a directory below the allowed roots,
 * {"action":"cancel"} stops that. One scan a connection at a time, on a thread of its own kind, bounded in time and
 * files. The thread (scan_walk.c) hands over frames; here, on the loop, they wait until the client has read what came
 * before, and the thread waits with them. */
#include "api/relay/scan.h"

#include "common/clock.h"

#include <stdio.h>
#include <string.h>

enum {
    SEND_AHEAD_BYTES = 64 << 10, /* that may wait in the client's queue before the next frame of a scan joins them */
    LATE_MS = 15 * 1000, /* a thread that does not notice the time limit in this time hangs in the file system */
};

/* ---- frames ---- */

static void send_json(struct client *c, const char *json)
{
    struct frame *f = frame_text(json, strlen(json));
    client_send(c, f);
    frame_unref(f);
}

static void send_word(struct client *c, const char *type, const char *message)
{
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "type", type);
    json_text(&json, "message", message);
    json_close(&json, '}');
    send_json(c, json.data);
}

/* ---- its life ---- */

static void unref(struct scan *scan)
{
    if (--scan->refs > 0)
        return;
    for (struct scan_word *w; (w = scan->held);) {
        scan->held = w->next;
        free(w->json);
        free(w);
    }
    scan_list_done(&scan->list);
    pthread_cond_destroy(&scan->has_room);
    pthread_mutex_destroy(&scan->lock);
    free(scan->path);
    free(scan);
}

static void make_room(struct scan *scan)
{
    pthread_mutex_lock(&scan->lock);
    scan->ahead--;
    pthread_cond_signal(&scan->has_room);
    pthread_mutex_unlock(&scan->lock);
}

/* The client has nothing to do with it any more; the thread stops at the next entry. */
static void detach(struct scan *scan)
{
    struct client *c = scan->client;
    pthread_mutex_lock(&scan->lock);
    scan->is_cancelled = true;
    pthread_cond_signal(&scan->has_room);
    pthread_mutex_unlock(&scan->lock);
    *scan->link = scan->next;
    if (scan->next)
        scan->next->link = scan->link;
    c->scan = NULL;
    unref(scan);
}

/* Sends what waits, as far as the client keeps up. The last word ends the scan. */
static void go_on(struct client *c)
{
    struct scan *scan = c->scan;
    bool is_last = false;
    scan->refs++; /* a client that is cut lets go of it */
    while (!is_last && c->scan == scan && scan->held && c->pending_bytes < SEND_AHEAD_BYTES && !wire_is_busy(c) &&
           c->state == CLIENT_OPEN) {
        struct scan_word *w = scan->held;
        scan->held = w->next;
        if (!scan->held)
            scan->last_held = &scan->held;
        send_json(c, w->json);
        is_last = w->is_last;
        free(w->json);
        free(w);
        make_room(scan);
    }
    if (is_last && c->scan == scan)
        detach(scan);
    else if (c->scan == scan && scan->held)
        wire_want_write(c);
    unref(scan);
}

void scan_writeable(struct client *c)
{
    if (c->scan && c->scan->held)
        go_on(c);
}

void scan_hear(void *context)
{
    struct scan_word *w = context;
    struct scan *scan = w->scan;
    if (scan->client->scan != scan) { /* it was abandoned meanwhile */
        make_room(scan);
        free(w->json);
        free(w);
        return;
    }
    w->next = NULL;
    *scan->last_held = w;
    scan->last_held = &w->next;
    go_on(scan->client);
}

/* Under which the hub counts a user's scans. */
static const char *scan_counter(const struct client *c, char out[64])
{
    snprintf(out, 64, "scans:%lld", (long long)c->user_id);
    return out;
}

static void end_scan(struct job *job)
{
    struct scan *scan = (struct scan *)job;
    struct client *c = scan->client;
    char name[64];
    hub_count_down(c->hub, scan_counter(c, name));
    if (c->scan == scan && !scan->has_ended) /* it was never run: the instance stops */
        detach(scan);
    unref(scan);
    client_unref(c);
}

static struct scan *new_scan(struct client *c, const char *path, bool is_recursive, bool is_quiet)
{
    struct scan *scan = must_calloc(1, sizeof *scan);
    pthread_condattr_t attr;
    scan->job = (struct job){.run = scan_walk, .end = end_scan};
    scan->refs = 2; /* the job, the client */
    scan->client = c;
    scan->pool = c->hub->scans;
    scan->path = must_strdup(path);
    scan->is_recursive = is_recursive;
    scan->is_superuser = c->is_superuser;
    scan->api_key_id = c->api_key_id;
    scan->last_held = &scan->held;
    scan->asked_ms = clock_monotonic_ms();
    scan->claim.user_id = c->user_id;
    scan->claim.number = ++c->hub->shared->last_number;
    memcpy(scan->claim.scan_id, c->target, sizeof scan->claim.scan_id);
    memcpy(scan->claim.connection, c->registration.member, sizeof scan->claim.connection);
    pthread_mutex_init(&scan->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&scan->has_room, &attr);
    pthread_condattr_destroy(&attr);
    scan_list_init(&scan->list, c->hub->settings->max_file_bytes, is_quiet);
    return scan;
}

static void attach(struct client *c, struct scan *scan)
{
    client_ref(c);
    c->scan = scan;
    scan->next = c->hub->scan_list;
    if (scan->next)
        scan->next->link = &scan->next;
    scan->link = &c->hub->scan_list;
    c->hub->scan_list = scan;
}

static void start_scan(struct client *c, const cJSON *json)
{
    char name[64];
    const cJSON *recursive = cJSON_GetObjectItemCaseSensitive(json, "recursive");
    const char *path = json_get_text(json, "path", NULL);
    const char *problem = NULL;
    if (c->scan)
        problem = "a scan is running already";
    else if (!path || !*path)
        problem = "path is missing: the absolute path of a directory, as a string";
    else if (recursive && !cJSON_IsBool(recursive) && !cJSON_IsNull(recursive))
        problem = "recursive must be true or false";
    else if (c->hub->is_draining)
        problem = "this server restarts: connect again";
    else if (!hub_count_up(c->hub, scan_counter(c, name), SCANS_OF_USER + 1)) /* one that was cancelled may hang */
        problem = "too many scans of yours at once: wait until one ends";
    if (problem) {
        send_word(c, "error", problem);
        return;
    }
    struct scan *scan = new_scan(c, path, json_get_bool(json, "recursive", true), !json_get_bool(json, "stream", true));
    attach(c, scan);
    if (lookup_submit(c->hub->scans, &scan->job, false))
        return;
    end_scan(&scan->job);
    send_word(c, "error", "too many scans at once: try again later");
}

/* ---- what the client says ---- */

void scan_message(struct client *c, const char *text, size_t len)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *json = NULL;
    if (json_parse(&sc, text, len, &json) == STATUS_OK) {
        const char *action = json_get_text(json, "action", json_get_text(json, "type", ""));
        if (strcmp(action, "scan") == 0) {
            start_scan(c, json);
        } else if (strcmp(action, "cancel") == 0) {
            bool is_running = c->scan != NULL;
            scan_abandon(c); /* also one whose thread hangs: the client need not wait for it */
            send_word(c, "cancelled", is_running ? "Scan cancelled" : "No scan is running");
        } else if (*action) {
            send_word(c, "error",
                      "unknown action: say {\"action\":\"scan\",\"path\":\"/…\"} or {\"action\":\"cancel\"}");
        }
    }
    scope_done(&sc);
}

/* ---- how it ends otherwise ---- */

void scan_abandon(struct client *c)
{
    if (c->scan)
        detach(c->scan);
}

static void end_with(struct client *c, const char *reason)
{
    scoped_text message = {0};
    text_printf(&message, "Failed to scan directory: %s", reason);
    scan_abandon(c);
    send_word(c, "error", message.data);
}

bool scan_dismiss(struct client *c)
{
    if (!c->scan)
        return false;
    end_with(c, "this server restarts: connect again and scan again");
    return true;
}

void scan_tick(struct hub *hub, int64_t now_ms)
{
    for (struct scan *scan = hub->scan_list, *next; scan; scan = next) {
        next = scan->next;
        int64_t until_ms = scan->until_ms;
        if (scan->has_ended)
            continue; /* its last word waits for the client to read */
        if (until_ms == 0 && now_ms - scan->asked_ms > SCAN_WAIT_MS)
            end_with(scan->client, "too many scans at once: try again later");
        else if (until_ms != 0 && now_ms > until_ms + LATE_MS)
            end_with(scan->client, "the directory does not answer");
    }
}
