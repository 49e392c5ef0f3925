/* A scan's walk through a directory. Its thread belongs to it until the end; so it ends when its time is over, when it
 * is cancelled, and when the client does not read what was found. */
#include "api/relay/scan.h"

#include "api/scan.h"
#include "common/clock.h"
#include "common/log.h"

#include <string.h>

enum {
    MOST_FILES = 2000000,
    PROGRESS_MS = 250,
    LONGEST_MS = 300 * 1000,
    RENEW_MS = SCAN_CLAIM_SECONDS * 1000 / 3,
    MOST_AHEAD = 4,         /* frames */
    STALLED_MS = 10 * 1000, /* until a client that reads nothing loses its scan */
    NAMES_AT_ONCE = 16384,
};

static void tell(struct scan *scan, struct text *json, bool is_last)
{
    struct scan_word *w = must_malloc(sizeof *w);
    *w = (struct scan_word){.scan = scan, .json = text_take(json), .is_last = is_last};
    pthread_mutex_lock(&scan->lock);
    scan->ahead++;
    pthread_mutex_unlock(&scan->lock);
    lookup_tell(scan->pool, scan_hear, w); /* the job, which holds the scan, ends after this */
}

/* Waits until the client has taken most of what it was sent. */
static bool wait_for_room(struct scan *scan)
{
    const struct timespec until = clock_in_ms(STALLED_MS);
    int waited = 0;
    pthread_mutex_lock(&scan->lock);
    while (scan->ahead >= MOST_AHEAD && !scan->is_cancelled && waited == 0)
        waited = pthread_cond_timedwait(&scan->has_room, &scan->lock, &until);
    bool has_room = scan->ahead < MOST_AHEAD;
    pthread_mutex_unlock(&scan->lock);
    return has_room;
}

static enum status tell_files(struct scope *sc, struct scan *scan, bool is_last)
{
    scoped_text frame = {0};
    if (!scan_list_take_batch(&scan->list, is_last, &frame))
        return STATUS_OK;
    if (!wait_for_room(scan))
        return scan->is_cancelled ? fail(sc, STATUS_CANCELLED, "cancelled")
                                  : fail(sc, STATUS_TOO_LARGE, "the files that were found are not being read");
    tell(scan, &frame, false);
    return STATUS_OK;
}

/* Progress is left out where what was found waits already. */
static void tell_progress(struct scan *scan, const struct source_file *file)
{
    scoped_text frame = {0};
    pthread_mutex_lock(&scan->lock);
    bool has_room = scan->ahead < MOST_AHEAD;
    pthread_mutex_unlock(&scan->lock);
    if (!has_room)
        return;
    scan_list_progress(&scan->list, file, &frame);
    tell(scan, &frame, false);
}

static void renew(struct scan *scan)
{
    struct scope sc;
    scope_init(&sc, NULL);
    if (scan_claim_renew(&sc, scan->tools->events, &scan->claim) != STATUS_OK)
        log_debug("scan_not_renewed", log_text("problem", sc.problem_text));
    scope_done(&sc);
}

/* For every name, not only for those of files: a tree of directories and hidden names is walked for long, too. */
static enum status on_step(struct scope *sc, void *context)
{
    struct scan *scan = context;
    int64_t now = clock_monotonic_ms();
    if (scan->is_cancelled)
        return fail(sc, STATUS_CANCELLED, "cancelled");
    if (now >= scan->until_ms) {
        scan->end = "the scan took too long; there may be more files";
        return STATUS_BUSY;
    }
    if (now - scan->renewed_ms >= RENEW_MS) {
        scan->renewed_ms = now;
        renew(scan);
    }
    return STATUS_OK;
}

static enum status on_file(struct scope *sc, void *context, const struct source_file *file)
{
    struct scan *scan = context;
    int64_t now = clock_monotonic_ms();
    if (scan->list.count + scan->list.warning_count >= MOST_FILES) {
        scan->end = "there are more files than a scan counts";
        return STATUS_BUSY;
    }
    scan_list_add(&scan->list, file);
    if (now - scan->told_ms >= PROGRESS_MS) {
        scan->told_ms = now;
        tell_progress(scan, file);
    }
    return tell_files(sc, scan, false);
}

/* Of what lies outside the roots not even the existence is told. */
static enum status walk(struct scope *sc, struct scan *scan)
{
    const struct settings *settings = scan->tools->settings;
    scoped_text roots = {0};
    struct source_options options = {.recursive = scan->is_recursive,
                                     .names_at_once = NAMES_AT_ONCE,
                                     .hidden = &scan->list.hidden,
                                     .on_step = on_step};
    enum status s = scan_roots(sc, scan->tools->db, settings, scan->claim.user_id, scan->is_superuser, &roots);
    if (s == STATUS_OK)
        s = source_check(sc, text_str(&roots), scan->path);
    if (s == STATUS_OK)
        s = source_walk(sc, text_str(&roots), scan->path, &options, on_file, scan);
    if (s == STATUS_OK || scan->end) {
        scope_forgive(sc);
        s = tell_files(sc, scan, true);
    }
    return s;
}

/* Without Redis each instance counts for itself (scan.c). */
static enum status claim(struct scope *sc, struct scan *scan, bool *out_has_claim)
{
    enum status s = scan_claim_take(sc, scan->tools->events, &scan->claim);
    *out_has_claim = s == STATUS_OK;
    if (s == STATUS_CONFLICT || s == STATUS_RATE_LIMITED)
        return s;
    scope_forgive(sc);
    return STATUS_OK;
}

static enum status run(struct scope *sc, struct scan *scan)
{
    bool has_claim = false;
    bool is_superuser = false;
    enum status s = access_user(sc, scan->tools->db, scan->claim.user_id, scan->api_key_id, &is_superuser);
    scan->is_superuser = scan->is_superuser && is_superuser; /* of when it opened, and still */
    if (s == STATUS_OK)
        s = claim(sc, scan, &has_claim);
    if (s == STATUS_OK)
        s = walk(sc, scan);
    struct scope apart;
    scope_init(&apart, NULL);
    if (has_claim && scan_claim_leave(&apart, scan->tools->events, &scan->claim) != STATUS_OK)
        log_debug("scan_not_left", log_text("problem", apart.problem_text)); /* it is free by itself soon */
    scope_done(&apart);
    return s;
}

static void write_problem(struct text *out, const struct scope *sc, enum status s)
{
    const char *reason = status_http(s) >= 500 || !sc->problem_text ? status_text(s) : sc->problem_text;
    scoped_text message = {0};
    text_printf(&message, "Failed to scan directory: %s", reason);
    json_open(out, NULL, '{');
    json_text(out, "type", "error");
    json_text(out, "message", message.data);
    json_close(out, '}');
}

void scan_walk(struct job *job, struct lookup_tools *tools)
{
    struct scan *scan = (struct scan *)job;
    struct scope sc;
    scoped_text last = {0};
    if (scan->is_cancelled)
        return; /* while it waited */
    scope_init(&sc, NULL);
    scan->tools = tools;
    scan->told_ms = scan->renewed_ms = clock_monotonic_ms();
    scan->until_ms = scan->told_ms + LONGEST_MS;
    enum status s = run(&sc, scan);
    if (s == STATUS_OK)
        scan_list_completed(&scan->list, scan->end, &last);
    else
        write_problem(&last, &sc, s);
    scan->has_ended = true;
    tell(scan, &last, true);
    scope_done(&sc);
}
