#include "common/config.h"

#include "common/cron.h"
#include "common/sentinel.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <strings.h>

/* The words that settings.def uses in its flags. */
enum { API = SETTING_API, WORKER = SETTING_WORKER, SECRET = SETTING_SECRET, REQUIRED = SETTING_REQUIRED };

enum setting_type { TYPE_TEXT, TYPE_INT, TYPE_BOOL };

struct setting {
    enum setting_type type;
    size_t offset;
    const char *name;
    const char *alias;
    const char *fallback;
    int flags;
    const char *meaning;
};

static const struct setting table[] = {
#define SETTING(type, field, name, alias, fallback, flags, meaning)                                                    \
    {TYPE_##type, offsetof(struct settings, field), name, alias, fallback, flags, meaning},
#include "common/settings.def"
#undef SETTING
};

/* What else than its type a setting must satisfy. */
static const struct {
    const char *name;
    int64_t min, max;
} ranges[] = {
    {"API_PORT", 0, 65535},
    {"WS_PORT", 0, 65535},
    {"METRICS_PORT", 0, 65535},
    {"WORKER_PORT", 0, 65535},
    {"WORKER_METRICS_PORT", 0, 65535},
    {"REDIS_STREAM_DB", 0, 65535},
    {"REDIS_QUEUE_DB", 0, 65535},
    {"API_THREADS", 1, 1024},
    {"API_QUEUE", 1, 1000000},
    {"RELAY_THREADS", 1, 16},
    {"WORKER_CONCURRENCY", 1, 256},
    {"CELERY_MAX_CONCURRENCY", 1, 1000000},
    {"WORKER_LEASE_SECONDS", 1, 3600},
    {"WORKER_MAX_TASKS_PER_CHILD", 1, INT32_MAX},
    {"WS_HEARTBEAT_INTERVAL", 1, 3600},
    {"RECONCILE_SECONDS", 1, 3600},
    {"VECTOR_UPLOAD_BATCH_SIZE", 1, 512},
    {"DOCUMENT_REMOVAL_BATCH_SIZE", 1, 10000},
    {"EMBEDDING_BATCH_SIZE", 1, 10000},
    {"EMBEDDING_BATCH_TOKENS", 64, INT32_MAX},
    {"DEFAULT_CHUNK_SIZE", 8, 100000},
    {"INGEST_PROCESSES", 1, 256},
    {"ACCESS_TOKEN_SECONDS", 1, INT32_MAX},
    {"REFRESH_TOKEN_SECONDS", 1, INT32_MAX},
    {"MAX_BODY_BYTES", 1024, INT32_MAX},
    {"RETENTION_DAYS", 1, 36500},
};

static const struct {
    const char *name;
    const char *words; /* separated by spaces */
} choices[] = {
    {"LOG_LEVEL", "debug info warning error"},
    {"SOURCE_ROOTS_FOR", "everyone granted"},
    {"REGISTRATION", "open first closed"},
    {"RATE_LIMITS", "on off"},
    {"EMBEDDING_BACKEND", "auto reference cpu cuda"},
};

enum { MIN_SECRET_CHARS = 32 };

static void *field_of(struct settings *s, const struct setting *row)
{
    return (char *)s + row->offset;
}

/* The value and under which name it was found; NULL when neither name is set. */
static const char *from_environment(const struct setting *row, const char **out_name)
{
    const char *names[] = {row->name, row->alias};
    for (size_t i = 0; i < array_len(names); i++) {
        const char *value = names[i] ? getenv(names[i]) : NULL;
        if (value && (*value || row->type == TYPE_TEXT)) {
            *out_name = names[i];
            return value;
        }
    }
    *out_name = row->name;
    return NULL;
}

/* Secrets are never repeated, not even when they are wrong. */
static const char *shown(const struct setting *row, const char *value)
{
    return row->flags & SECRET ? "(not shown)" : value;
}

static void check_int(const struct setting *row, const char *name, const char *value, int64_t *out, struct text *faults)
{
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (end == value || *end || errno || strchr(" \t\n+", *value)) {
        text_printf(faults, "%s: `%s` is not a whole number\n", name, shown(row, value));
        return;
    }
    int64_t min = 0;
    int64_t max = INT64_MAX;
    for (size_t i = 0; i < array_len(ranges); i++) {
        if (strcmp(ranges[i].name, row->name) == 0) {
            min = ranges[i].min;
            max = ranges[i].max;
        }
    }
    if (n < min)
        text_printf(faults, "%s: %lld is less than %lld\n", name, n, (long long)min);
    else if (n > max)
        text_printf(faults, "%s: %lld is more than %lld\n", name, n, (long long)max);
    else
        *out = n;
}

static void check_bool(const struct setting *row, const char *name, const char *value, bool *out, struct text *faults)
{
    static const char *const words[2][4] = {{"false", "0", "no", "off"}, {"true", "1", "yes", "on"}};
    for (int truth = 0; truth < 2; truth++) {
        for (size_t i = 0; i < array_len(words[truth]); i++) {
            if (strcasecmp(value, words[truth][i]) == 0) {
                *out = truth;
                return;
            }
        }
    }
    text_printf(faults, "%s: `%s` is neither true nor false\n", name, shown(row, value));
}

static bool is_one_of(const char *words, const char *value)
{
    size_t len = strlen(value);
    for (const char *w = words; *w; w += strspn(w, " ")) {
        size_t word_len = strcspn(w, " ");
        if (word_len == len && strncasecmp(w, value, len) == 0)
            return true;
        w += word_len;
    }
    return false;
}

/* Reserved characters of a password that are not encoded make a library read parts of it as host, port or database, and
 * name those in its complaints. */
static bool may_tell_its_password(const char *url)
{
    const char *authority = strstr(url, "://");
    if (!authority)
        return false;
    authority += 3;
    size_t len = strcspn(authority, "/?#");
    const char *at = memchr(authority, '@', len);
    const char *rest = authority + len;
    if (at)
        return memchr(at + 1, '@', len - (size_t)(at + 1 - authority)) != NULL;
    /* without a user in front: an @ that follows belongs to a user whose password holds the delimiter, or to a query */
    const char *later = strchr(rest, '@'), *query = strchr(rest, '?');
    return later && (*rest != '/' || !query || later < query);
}

static void check_url(const struct setting *row, const char *name, const char *value, struct text *faults)
{
    bool is_url = strcmp(row->name, "DATABASE_URL") == 0 || strcmp(row->name, "REDIS_URL") == 0;
    const char *problem = is_url && value && sentinels_are_meant(value) ? sentinels_problem(value) : NULL;
    if (problem)
        text_printf(faults, "%s: %s\n", name, problem);
    if (is_url && value && may_tell_its_password(value))
        text_printf(faults,
                    "%s: the characters : / ? # @ and %% in a user's name or password must be percent-encoded\n", name);
}

/* What ends in _CRON says when something runs; empty: never. */
static void check_cron(const struct setting *row, const char *name, const char *value, struct text *faults)
{
    size_t len = strlen(row->name);
    struct cron cron;
    char problem[CRON_PROBLEM_BYTES];
    bool is_cron = len > 5 && strcmp(row->name + len - 5, "_CRON") == 0;
    if (is_cron && value && value[strspn(value, " \t")] && !cron_parse(value, &cron, problem))
        text_printf(faults, "%s: `%.200s` is no cron expression: %s\n", name, value, problem);
}

static void check_text(struct settings *s, const struct setting *row, const char *name, const char *value,
                       struct text *faults)
{
    if (row->flags & REQUIRED && (!value || !*value)) {
        text_printf(faults, "%s: must be set (%s)\n", row->name, row->meaning);
        return;
    }
    for (size_t i = 0; value && i < array_len(choices); i++) {
        if (strcmp(choices[i].name, row->name) == 0 && !is_one_of(choices[i].words, value))
            text_printf(faults, "%s: `%s` is none of: %s\n", name, value, choices[i].words);
    }
    if (value && strcmp(row->name, "JWT_SECRET_KEY") == 0 && strlen(value) < MIN_SECRET_CHARS)
        text_printf(faults, "%s: is shorter than %d characters\n", name, MIN_SECRET_CHARS);
    check_url(row, name, value, faults);
    check_cron(row, name, value, faults);
    *(const char **)field_of(s, row) = arena_strdup(&s->arena, value);
}

static void load_one(struct settings *s, const struct setting *row, bool is_ours, struct text *faults)
{
    const char *name = row->name;
    const char *value = is_ours ? from_environment(row, &name) : NULL;
    if (!value)
        value = row->fallback;
    if (row->type == TYPE_TEXT && (is_ours || value)) {
        check_text(s, row, name, value, faults);
    } else if (row->type == TYPE_INT) {
        int64_t *field = field_of(s, row);
        *field = -1;
        if (value)
            check_int(row, name, value, field, faults);
        else if (is_ours && row->flags & REQUIRED)
            text_printf(faults, "%s: must be set (%s)\n", row->name, row->meaning);
    } else if (row->type == TYPE_BOOL && value) {
        check_bool(row, name, value, field_of(s, row), faults);
    }
}

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && *value;
}

/* Clients of the ancestor name the queues' database in the broker's URL: redis://host:6379/3 */
static void take_queue_db_from_broker(struct settings *s, struct text *faults)
{
    const char *url = s->celery_broker_url;
    if (!url || !*url || is_set("REDIS_QUEUE_DB"))
        return;
    const char *host = strstr(url, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    if (!path || !path[1] || path[1] == '?')
        return;
    char *end;
    errno = 0;
    long n = strtol(path + 1, &end, 10);
    if (errno || end == path + 1 || (*end && *end != '?') || n < 0 || n > 65535)
        text_puts(faults, "CELERY_BROKER_URL: its path is not a database number\n");
    else
        s->redis_queue_db = n;
}

/* The processors this process may use: in a container the affinity mask tells more than the machine's number. */
static int64_t usable_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void compute_concurrency(struct settings *s)
{
    if (s->worker_concurrency < 0) {
        int64_t cores = usable_cores();
        s->worker_concurrency = cores - 1 > 4 ? 4 : cores - 1 < 1 ? 1 : cores - 1;
    }
    if (s->celery_max_concurrency > 0 && s->worker_concurrency > s->celery_max_concurrency)
        s->worker_concurrency = s->celery_max_concurrency;
}

enum status settings_load(struct scope *sc, struct settings *out, enum setting_flag program)
{
    scoped_text faults = {0};
    struct settings s = {0};
    for (size_t i = 0; i < array_len(table); i++)
        load_one(&s, &table[i], (table[i].flags & program) != 0, &faults);
    take_queue_db_from_broker(&s, &faults);
    if (program == SETTING_WORKER)
        compute_concurrency(&s);
    if (faults.len) {
        settings_done(&s);
        faults.data[--faults.len] = '\0';
        return fail(sc, STATUS_INVALID, "%s", faults.data);
    }
    *out = s;
    return STATUS_OK;
}

void settings_done(struct settings *s)
{
    arena_reset(&s->arena);
    memset(s, 0, sizeof *s);
}

static void put_wrapped(struct text *out, const char *words, size_t indent, size_t width)
{
    size_t column = width;
    for (const char *w = words; *w; w += strspn(w, " ")) {
        size_t len = strcspn(w, " ");
        if (column + 1 + len > width) {
            text_printf(out, "%s%*s", column == width && w == words ? "" : "\n", (int)indent, "");
            column = indent;
        } else {
            text_putc(out, ' ');
            column++;
        }
        text_append(out, w, len);
        column += len;
        w += len;
    }
    text_putc(out, '\n');
}

void settings_help(struct text *out, enum setting_flag program)
{
    text_puts(out, "Settings are environment variables:\n\n");
    for (size_t i = 0; i < array_len(table); i++) {
        const struct setting *row = &table[i];
        if (!(row->flags & program))
            continue;
        text_printf(out, "  %s", row->name);
        if (row->alias)
            text_printf(out, " (or %s)", row->alias);
        if (row->flags & REQUIRED)
            text_puts(out, ", required");
        else if (row->fallback && *row->fallback)
            text_printf(out, " = %s", row->fallback);
        text_putc(out, '\n');
        put_wrapped(out, row->meaning, 6, 80);
    }
}

static void put_cell(struct text *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '|')
            text_putc(out, '\\');
        text_putc(out, *s);
    }
}

void settings_markdown(struct text *out)
{
    static const char *const type_names[] = {"text", "number", "yes/no"};
    text_puts(
        out, "# Settings\n\nEvery setting is an environment variable. This page is made from `common/settings.def`.\n\n"
             "| name | type | default | read by | meaning |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < array_len(table); i++) {
        const struct setting *row = &table[i];
        text_printf(out, "| `%s`", row->name);
        if (row->alias)
            text_printf(out, " or `%s`", row->alias);
        text_printf(out, " | %s | ", type_names[row->type]);
        if (row->flags & REQUIRED)
            text_puts(out, "required");
        else if (row->fallback && *row->fallback)
            text_printf(out, "`%s`", row->fallback);
        text_printf(out, " | %s | ", !(row->flags & WORKER) ? "API" : row->flags & API ? "both" : "worker");
        put_cell(out, row->meaning);
        text_puts(out, " |\n");
    }
}

char **settings_list(struct arena *a, const char *value, char separator, size_t *out_count)
{
    static const char blanks[] = " \t\r\n";
    const char *s = value ? value : "";
    size_t most = 1;
    for (const char *p = s; *p; p++)
        most += *p == separator;
    char **items = arena_array(a, most + 1, sizeof *items);
    size_t count = 0;
    while (*s) {
        const char *end = strchrnul(s, separator);
        const char *first = s + strspn(s, blanks);
        const char *last = end;
        while (last > first && strchr(blanks, last[-1]))
            last--;
        if (first < last)
            items[count++] = arena_strndup(a, first, (size_t)(last - first));
        s = *end ? end + 1 : end;
    }
    if (out_count)
        *out_count = count;
    return items;
}
