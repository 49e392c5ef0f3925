/* /ws/scan/{id}: {"action":"scan","path":…,"recursive":…} lists a directory below the allowed roots,
 * {"action":"cancel"} stops that. One scan a connection at a time, on a thread of its own kind, bounded in time, files
 * and bytes. */
#include "api/relay/hub.h"

#include "build/queries.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/source/directory.h"

#include <stdio.h>
#include <string.h>

enum { MOST_FILES = 100000, LISTED_BYTES = 1 << 20, MOST_WARNINGS = 100, PROGRESS_MS = 250, LONGEST_MS = 60000 };

struct scan {
    struct job job;
    struct client *client;
    struct lookup *pool;
    char *path;
    bool is_recursive, is_superuser;
    int64_t user_id, api_key_id;
    _Atomic bool is_cancelled;
    /* while it runs */
    int64_t count, listed, total_size, until_ms, told_ms;
    int warnings;
    const char *end; /* why it ended early; NULL = it did not */
    struct text files, warning_list, answer;
};

/* ---- frames, in the order of their numbers in the protocol ---- */

struct word {
    struct client *client;
    struct scan *scan;
    char *json;
};

static void send_json(struct client *c, const char *json)
{
    struct frame *f = frame_text(json, strlen(json));
    client_send(c, f);
    frame_unref(f);
}

static void send_error(struct client *c, const char *message)
{
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "type", "error");
    json_text(&json, "message", message);
    json_close(&json, '}');
    send_json(c, json.data);
}

static void on_told(void *context)
{
    struct word *w = context;
    if (w->client->scan == w->scan) /* and not one that was abandoned meanwhile */
        send_json(w->client, w->json);
    free(w->json);
    free(w);
}

static void put_shown(struct text *json, const char *key, const struct source_file *file)
{
    scoped_text shown = {0};
    text_append_escaped(&shown, file->path, file->path_len);
    json_text(json, key, text_str(&shown));
}

static void tell_progress(struct scan *scan, const struct source_file *file)
{
    scoped_text json = {0};
    json_open(&json, NULL, '{');
    json_text(&json, "type", "progress");
    json_int(&json, "scanned", scan->count);
    json_int(&json, "total", scan->count); /* of those known so far */
    put_shown(&json, "current_path", file);
    json_close(&json, '}');
    struct word *w = must_malloc(sizeof *w);
    *w = (struct word){scan->client, scan, text_take(&json)};
    lookup_tell(scan->pool, on_told, w); /* the job, which holds the client, ends after this */
}

/* ---- the walk ---- */

static const char *extension_of(const struct source_file *file)
{
    const char *name = memrchr(file->path, '/', file->path_len);
    name = name ? name + 1 : file->path;
    const char *dot = memrchr(name, '.', (size_t)(file->path + file->path_len - name));
    return dot && dot > name ? dot : "";
}

static void list_file(struct scan *scan, const struct source_file *file)
{
    if (scan->files.len > LISTED_BYTES)
        return;
    char modified[32];
    clock_iso_of_ns(file->mtime_ns, modified);
    const char *extension = extension_of(file);
    json_open(&scan->files, NULL, '{');
    put_shown(&scan->files, "path", file);
    json_int(&scan->files, "size", file->size);
    json_text(&scan->files, "modified", modified);
    json_text_n(&scan->files, "extension", extension,
                *extension ? (size_t)(file->path + file->path_len - extension) : 0);
    json_close(&scan->files, '}');
    scan->listed++;
}

static void list_warning(struct scan *scan, const struct source_file *file)
{
    scoped_text warning = {0};
    if (scan->warnings++ >= MOST_WARNINGS)
        return;
    text_printf(&warning, "%s: ", file->problem);
    text_append_escaped(&warning, file->path, file->path_len);
    json_text(&scan->warning_list, NULL, warning.data);
}

static enum status on_file(struct scope *sc, void *context, const struct source_file *file)
{
    struct scan *scan = context;
    int64_t now = clock_monotonic_ms();
    if (scan->is_cancelled)
        return fail(sc, STATUS_CANCELLED, "cancelled");
    if (scan->count >= MOST_FILES)
        scan->end = "there are more files than a scan counts";
    else if (now >= scan->until_ms)
        scan->end = "the scan took too long";
    if (scan->end)
        return STATUS_BUSY;
    if (file->problem) {
        list_warning(scan, file);
        return STATUS_OK;
    }
    scan->count++;
    scan->total_size += file->size;
    list_file(scan, file);
    if (now - scan->told_ms >= PROGRESS_MS) {
        scan->told_ms = now;
        tell_progress(scan, file);
    }
    return STATUS_OK;
}

/* "2f646f6373" -> ":/docs" */
static void put_root(struct text *roots, const char *hex)
{
    text_puts(roots, roots->len ? ":" : "");
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        text_putc(roots, (char)byte);
}

/* The roots that this user may read; SOURCE_ROOTS_FOR=granted leaves those of the grants. */
static enum status roots_of(struct scope *sc, const struct scan *scan, struct lookup_tools *tools, struct text *out)
{
    if (strcmp(tools->settings->source_roots_for, "granted") != 0 || scan->is_superuser) {
        text_puts(out, tools->settings->source_roots);
        return STATUS_OK;
    }
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, tools->db, SQL_RELAY_GRANTS, &rows, db_number(sc, scan->user_id));
    for (int i = 0; s == STATUS_OK && i < PQntuples(rows); i++)
        put_root(out, db_text(rows, i, "root"));
    return s;
}

static enum status walk(struct scope *sc, struct scan *scan, struct lookup_tools *tools)
{
    scoped_text roots = {0};
    enum status s = lookup_may_stay(sc, tools->db, scan->user_id, scan->api_key_id);
    if (s == STATUS_OK)
        s = roots_of(sc, scan, tools, &roots);
    if (s == STATUS_OK && !roots.len && *tools->settings->source_roots)
        s = fail(sc, STATUS_FORBIDDEN, "You may not read this directory; ask an administrator for a grant");
    if (s == STATUS_OK)
        s = source_check(sc, text_str(&roots), scan->path); /* of what lies elsewhere not even the existence is told */
    if (s == STATUS_OK)
        s = source_walk(sc, text_str(&roots), scan->path, &(struct source_options){.recursive = scan->is_recursive},
                        on_file, scan);
    return scan->end ? STATUS_OK : s;
}

static void write_completed(struct scan *scan)
{
    struct text *t = &scan->answer;
    if (scan->end)
        json_text(&scan->warning_list, NULL, scan->end);
    if (scan->listed < scan->count) {
        scoped_text warning = {0};
        text_printf(&warning, "only the first %lld files are listed", (long long)scan->listed);
        json_text(&scan->warning_list, NULL, warning.data);
    }
    if (scan->warnings > MOST_WARNINGS) {
        scoped_text warning = {0};
        text_printf(&warning, "%d more warnings", scan->warnings - MOST_WARNINGS);
        json_text(&scan->warning_list, NULL, warning.data);
    }
    json_close(&scan->files, ']');
    json_close(&scan->warning_list, ']');
    json_open(t, NULL, '{');
    json_text(t, "type", "completed");
    json_raw(t, "files", scan->files.data);
    json_int(t, "count", scan->count);
    json_int(t, "total_size", scan->total_size);
    json_raw(t, "warnings", scan->warning_list.data);
    json_close(t, '}');
}

static void write_problem(struct scan *scan, const struct scope *sc, enum status s)
{
    bool is_cancelled = s == STATUS_CANCELLED;
    const char *reason = status_http(s) >= 500 || !sc->problem_text ? status_text(s) : sc->problem_text;
    scoped_text message = {0};
    text_printf(&message, "Failed to scan directory: %s", reason);
    json_open(&scan->answer, NULL, '{');
    json_text(&scan->answer, "type", is_cancelled ? "cancelled" : "error");
    json_text(&scan->answer, "message", is_cancelled ? "Scan cancelled" : message.data);
    json_close(&scan->answer, '}');
}

static void run_scan(struct job *job, struct lookup_tools *tools)
{
    struct scan *scan = (struct scan *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    scan->told_ms = clock_monotonic_ms();
    scan->until_ms = scan->told_ms + LONGEST_MS;
    json_open(&scan->files, NULL, '[');
    json_open(&scan->warning_list, NULL, '[');
    enum status s = walk(&sc, scan, tools);
    if (s == STATUS_OK)
        write_completed(scan);
    else
        write_problem(scan, &sc, s);
    scope_done(&sc);
}

static void end_scan(struct job *job)
{
    struct scan *scan = (struct scan *)job;
    struct client *c = scan->client;
    if (c->scan == scan) {
        c->scan = NULL;
        if (scan->answer.len)
            send_json(c, scan->answer.data);
    }
    client_unref(c);
    text_free(&scan->files);
    text_free(&scan->warning_list);
    text_free(&scan->answer);
    free(scan->path);
    free(scan);
}

static void start_scan(struct client *c, const char *path, bool is_recursive)
{
    if (c->scan) {
        send_error(c, "a scan is running already");
        return;
    }
    if (!path || !*path) {
        send_error(c, "path is missing");
        return;
    }
    struct scan *scan = must_calloc(1, sizeof *scan);
    scan->job = (struct job){.run = run_scan, .end = end_scan};
    scan->client = c;
    scan->pool = c->hub->scans;
    scan->path = must_strdup(path);
    scan->is_recursive = is_recursive;
    scan->is_superuser = c->is_superuser;
    scan->user_id = c->user_id;
    scan->api_key_id = c->api_key_id;
    client_ref(c);
    c->scan = scan;
    if (lookup_submit(c->hub->scans, &scan->job, false))
        return;
    end_scan(&scan->job);
    send_error(c, "too many scans at once: try again later");
}

void scan_message(struct client *c, const char *text, size_t len)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *json = NULL;
    if (json_parse(&sc, text, len, &json) == STATUS_OK) {
        const char *action = json_get_text(json, "action", json_get_text(json, "type", ""));
        if (strcmp(action, "scan") == 0)
            start_scan(c, json_get_text(json, "path", NULL), json_get_bool(json, "recursive", true));
        else if (strcmp(action, "cancel") == 0 && c->scan)
            c->scan->is_cancelled = true;
    }
    scope_done(&sc);
}

void scan_abandon(struct client *c)
{
    if (!c->scan)
        return;
    c->scan->is_cancelled = true;
    c->scan = NULL;
}
