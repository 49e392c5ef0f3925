/* What a directory holds, without indexing it. The answer tells it; sockets on /ws/directory-scan/{scan_id}, on any
 * instance, are told how it goes and how it ended, also those that come after the end. */
#include "api/router.h"
#include "api/scan.h"
#include "api/source_request.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/message.h"

#include <string.h>

enum {
    PREVIEW_MS = 3000,
    PREVIEW_FILES_SHOWN = 1000,
    PREVIEW_WARNINGS = 20,
    PROGRESS_MS = 250,
    SCAN_TOLD_SECONDS = 300,
    SCAN_RUNNING_SECONDS = 30,
    NAMES_AT_ONCE = 16384,
    LONGEST_PATTERN = 1024, /* comparing one with a name takes as long as both together: pattern times path */
};

struct preview {
    struct request *r;
    const char *path, *scan_id;
    bool is_told; /* to the sockets of its id, which is this user's */
    int64_t told_ms, hidden;
    struct text files, warnings; /* the inside of the lists */
    int shown, warned;
};

/* ---- what its sockets are told ---- */

static const char *key_of(struct preview *p, const char *what)
{
    return redis_key(p->r->sc, p->r->events, "directory-scan:%s%s", p->scan_id, what);
}

static enum status publish(struct scope *sc, struct preview *p, struct text *json)
{
    return redis_run(sc, p->r->events, NULL, "PUBLISH %s %s", key_of(p, ""), text_str(json));
}

static void open_word(struct text *t, const struct preview *p, const char *type)
{
    char now[28];
    clock_iso(now);
    json_open(t, NULL, '{');
    json_text(t, "timestamp", now);
    json_text(t, "type", type);
    json_text(t, "scan_id", p->scan_id);
    json_open(t, "data", '{');
}

static void close_word(struct text *t)
{
    json_close(t, '}');
    json_close(t, '}');
}

/* A hint: when it cannot be told, nothing more is tried until the end. */
static void tell_progress(struct preview *p, const struct scan_totals *so_far)
{
    scoped_text t = {0};
    struct scope sc;
    int64_t now = clock_monotonic_ms();
    if (!p->is_told || p->told_ms < 0 || now - p->told_ms < PROGRESS_MS)
        return;
    scope_init(&sc, NULL);
    open_word(&t, p, "progress");
    json_int(&t, "total_files", so_far->files);
    json_int(&t, "total_size", so_far->bytes);
    json_null(&t, "percentage");
    close_word(&t);
    p->told_ms = publish(&sc, p, &t) == STATUS_OK ? now : -1;
    scope_done(&sc);
}

/* Kept for sockets that open after the answer, published to those that are there. */
static void tell_end(struct preview *p, enum status s, const struct scan_totals *totals)
{
    scoped_text t = {0};
    struct scope sc;
    scope_init(&sc, NULL);
    if (s == STATUS_OK) {
        open_word(&t, p, "completed");
        json_int(&t, "total_files", totals->files);
        json_int(&t, "total_size", totals->bytes);
        json_int(&t, "percentage", 100);
    } else {
        const char *sentence = p->r->sc->problem_text;
        open_word(&t, p, "error");
        json_text(&t, "reason", status_http(s) >= 500 || !sentence ? status_text(s) : sentence);
    }
    close_word(&t);
    s = redis_run(&sc, p->r->events, NULL, "SET %s %s EX %d", key_of(p, ":last"), text_str(&t), SCAN_TOLD_SECONDS);
    if (s == STATUS_OK)
        s = publish(&sc, p, &t);
    if (s == STATUS_OK)
        s = redis_run(&sc, p->r->events, NULL, "DEL %s", key_of(p, ":running"));
    if (s != STATUS_OK)
        log_info("preview_not_told", log_text("scan", p->scan_id), log_text("problem", sc.problem_text));
    scope_done(&sc);
}

/* ---- whose it is ---- */

/* KEYS: whose the id is, whether it runs, its last word. ARGV: user, seconds that it is kept, seconds that it runs.
 * Answer: 0 = another user's, 1 = runs already, 2 = runs from now on. */
static const char begin_script[] = "local owner = redis.call('GET', KEYS[1])\n"
                                   "if owner and owner ~= ARGV[1] then return 0 end\n"
                                   "if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[3]) then return 1 end\n"
                                   "redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])\n"
                                   "redis.call('DEL', KEYS[3])\n"
                                   "return 2\n";

/* /ws/directory-scan/{scan_id} lets in whom the first key names. An id that is another user's stays his, and this user
 * does not learn of it: the answer itself tells all, as it does without Redis. */
static enum status begin(struct preview *p)
{
    struct scope *sc = p->r->sc;
    const char *argv[] = {key_of(p, ":user"),
                          key_of(p, ":running"),
                          key_of(p, ":last"),
                          arena_printf(&sc->arena, "%lld", (long long)p->r->user.id),
                          arena_printf(&sc->arena, "%d", SCAN_TOLD_SECONDS),
                          arena_printf(&sc->arena, "%d", SCAN_RUNNING_SECONDS)};
    scoped(redisReply) *reply = NULL;
    enum status s = redis_script(sc, p->r->events, begin_script, 3, (int)array_len(argv), argv, NULL, &reply);
    if (s == STATUS_OK && reply->integer == 1)
        return fail(sc, STATUS_CONFLICT, "A preview with this scan_id is running: wait for it, or use another id");
    p->is_told = s == STATUS_OK && reply->integer == 2;
    scope_forgive(sc);
    return STATUS_OK;
}

/* ---- what is found ---- */

static const char *shown_bytes(struct scope *sc, const char *bytes, size_t len)
{
    scoped_text t = {0};
    text_append_escaped(&t, bytes, len);
    return arena_strdup(&sc->arena, text_str(&t));
}

static void show_file(struct scope *sc, struct preview *p, const struct source_file *file)
{
    const char *slash = memrchr(file->path, '/', file->path_len);
    const char *name = slash ? slash + 1 : file->path;
    char modified[32];
    json_open(&p->files, NULL, '{');
    json_text(&p->files, "file_path", shown_bytes(sc, file->path, file->path_len));
    json_text(&p->files, "file_name", shown_bytes(sc, name, file->path_len - (size_t)(name - file->path)));
    json_int(&p->files, "file_size", file->size);
    json_null(&p->files, "mime_type");
    json_null(&p->files, "content_hash");
    clock_iso_of_ns(file->mtime_ns, modified);
    json_text(&p->files, "modified_at", *modified ? modified : NULL);
    json_close(&p->files, '}');
}

static enum status take_file(struct scope *sc, void *context, const struct source_file *file,
                             const struct scan_totals *so_far)
{
    struct preview *p = context;
    if (file->problem && p->warned++ < PREVIEW_WARNINGS)
        json_text(&p->warnings, NULL,
                  arena_printf(&sc->arena, "%s: %s", shown_bytes(sc, file->path, file->path_len), file->problem));
    if (!file->problem && p->shown++ < PREVIEW_FILES_SHOWN)
        show_file(sc, p, file);
    tell_progress(p, so_far);
    return STATUS_OK;
}

static void write_count(struct preview *p, int64_t count, const char *what)
{
    if (count > 0)
        json_text(&p->warnings, NULL, arena_printf(&p->r->sc->arena, "%lld %s", (long long)count, what));
}

static void write_preview(struct preview *p, const struct scan_totals *totals)
{
    if (totals->cut)
        json_text(&p->warnings, NULL, totals->cut);
    write_count(p, p->shown - PREVIEW_FILES_SHOWN, "more files are not listed");
    write_count(p, p->hidden, "hidden entries (their names begin with a dot) are left out");
    write_count(p, p->warned - PREVIEW_WARNINGS, "more warnings");
    struct text *t = reply_json(p->r, 200);
    json_open(t, NULL, '{');
    json_text(t, "scan_id", p->scan_id);
    json_text(t, "path", p->path);
    json_open(t, "files", '[');
    text_puts(t, text_str(&p->files));
    json_close(t, ']');
    json_int(t, "total_files", totals->files);
    json_int(t, "total_size", totals->bytes);
    json_open(t, "warnings", '[');
    text_puts(t, text_str(&p->warnings));
    json_close(t, ']');
    json_close(t, '}');
}

/* ---- the request ---- */

static enum status check_patterns(struct request *r, const char *field)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(r->json, field);
    for (const cJSON *i = cJSON_IsArray(list) ? list->child : NULL; i; i = i->next) {
        if (!cJSON_IsString(i))
            return request_invalid(r, "body", field, "string_type", "%s must be a list of patterns such as \"*.md\"",
                                   field);
        if (strlen(i->valuestring) > LONGEST_PATTERN)
            return request_invalid(r, "body", field, "string_too_long", "%s must not be longer than %d bytes each",
                                   field, LONGEST_PATTERN);
    }
    return STATUS_OK;
}

static enum status look(struct preview *p, const char *roots, struct scan_totals *out)
{
    struct scan_request scan = {
        .roots = roots,
        .path = p->path,
        .options = {.recursive = json_get_bool(p->r->json, "recursive", true),
                    .include = cJSON_GetObjectItemCaseSensitive(p->r->json, "include_patterns"),
                    .exclude = cJSON_GetObjectItemCaseSensitive(p->r->json, "exclude_patterns"),
                    .names_at_once = NAMES_AT_ONCE,
                    .hidden = &p->hidden},
        .deadline_ms = clock_monotonic_ms() + PREVIEW_MS,
        .on_file = take_file,
        .context = p,
    };
    return scan_run(p->r->sc, &scan, out);
}

static enum status run(struct preview *p, const char *roots)
{
    struct scan_totals totals = {0};
    enum status s = begin(p);
    if (s != STATUS_OK)
        return s;
    s = look(p, roots, &totals);
    if (s == STATUS_OK)
        write_preview(p, &totals);
    if (p->is_told)
        tell_end(p, s, &totals);
    return s;
}

enum status directory_scan_preview(struct request *r)
{
    char made_id[37];
    uuid_make(made_id);
    scoped_text roots = {0};
    struct preview p = {.r = r,
                        .path = json_get_text(r->json, "path", ""),
                        .scan_id = json_get_text(r->json, "scan_id", made_id),
                        .told_ms = clock_monotonic_ms()};
    enum status s = check_patterns(r, "include_patterns");
    if (s == STATUS_OK)
        s = check_patterns(r, "exclude_patterns");
    if (s == STATUS_OK)
        s = source_request_may_read(r->sc, r->db, r->api->settings, &r->user, p.path);
    if (s == STATUS_OK)
        s = scan_roots(r->sc, r->db, r->api->settings, r->user.id, r->user.is_superuser, &roots);
    if (s == STATUS_OK)
        s = run(&p, text_str(&roots));
    text_free(&p.files);
    text_free(&p.warnings);
    return s;
}
