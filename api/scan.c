#include "api/scan.h"

#include "build/queries.h"
#include "common/clock.h"

#include <stdio.h>
#include <string.h>

enum { MOST_FILES = 100000 };

struct scan {
    const struct scan_request *request;
    struct scan_totals totals;
};

/* Also where nothing is found: matching many names with many patterns takes its time. */
static enum status on_step(struct scope *sc, void *context)
{
    struct scan *scan = context;
    const struct scan_request *q = scan->request;
    (void)sc;
    if (q->deadline_ms && clock_monotonic_ms() >= q->deadline_ms)
        scan->totals.cut = "counting took too long; there may be more files";
    return scan->totals.cut ? STATUS_BUSY : STATUS_OK; /* ends the walk */
}

static enum status on_entry(struct scope *sc, void *context, const struct source_file *file)
{
    struct scan *scan = context;
    const struct scan_request *q = scan->request;
    struct scan_totals *t = &scan->totals;
    if (t->files + t->problems >= (q->most_files ? q->most_files : MOST_FILES)) {
        t->cut = "there are more files than a preview counts";
        return STATUS_BUSY;
    }
    if (file->problem) {
        t->problems++;
    } else {
        t->files++;
        t->bytes += file->size;
    }
    return q->on_file ? q->on_file(sc, q->context, file, t) : STATUS_OK;
}

/* ---- where a user may look ---- */

static bool is_below(const char *path, const char *directory)
{
    size_t len = strlen(directory);
    while (len > 0 && directory[len - 1] == '/')
        len--;
    return strncmp(path, directory, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

const char *scan_inner(const char *a, const char *b)
{
    return is_below(a, b) ? a : is_below(b, a) ? b : NULL;
}

/* Also where a grant reaches beyond the roots, or they have been changed since. */
static void add_granted(struct scope *sc, const char *grant, const char *roots, struct text *out)
{
    char *copy = arena_strdup(&sc->arena, roots), *state = NULL;
    for (char *root = strtok_r(copy, ":", &state); root; root = strtok_r(NULL, ":", &state)) {
        const char *inner = root[0] == '/' ? scan_inner(root, grant) : NULL;
        if (inner)
            text_printf(out, "%s%s", out->len ? ":" : "", inner);
    }
}

/* "2f646f6373" -> "/docs". NULL for one that cannot stand in a list of roots, or that leads elsewhere. */
static const char *decoded(struct scope *sc, const char *hex)
{
    scoped_text path = {0};
    for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2)
        text_putc(&path, (char)byte);
    const char *p = text_str(&path);
    return p[0] == '/' && strlen(p) == path.len && !strchr(p, ':') && !strstr(p, "/..") ? arena_strdup(&sc->arena, p)
                                                                                        : NULL;
}

enum status scan_roots(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                       bool is_superuser, struct text *out)
{
    if (strcmp(settings->source_roots_for, "granted") != 0 || is_superuser) {
        text_puts(out, settings->source_roots);
        return STATUS_OK;
    }
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_RELAY_GRANTS, &rows, db_number(sc, user_id));
    for (int i = 0; s == STATUS_OK && i < PQntuples(rows); i++) {
        const char *grant = decoded(sc, db_text(rows, i, "root"));
        if (grant)
            add_granted(sc, grant, settings->source_roots, out);
    }
    if (s == STATUS_OK && !out->len && *settings->source_roots)
        s = fail(sc, STATUS_FORBIDDEN, "You may not read this directory; ask an administrator for a grant");
    return s;
}

/* ---- the walk ---- */

enum status scan_run(struct scope *sc, const struct scan_request *request, struct scan_totals *out)
{
    struct scan scan = {.request = request};
    struct source_options options = request->options;
    options.on_step = on_step;
    enum status s = source_walk(sc, request->roots, request->path, &options, on_entry, &scan);
    if (s != STATUS_OK && !scan.totals.cut)
        return s;
    if (scan.totals.cut)
        scope_forgive(sc);
    *out = scan.totals;
    return STATUS_OK;
}
