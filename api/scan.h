/* Looks into a directory without indexing it: how many files, how many bytes, which ones. Bounded in files and time, so
 * that neither a huge tree nor a slow disk holds a thread for long. Used by POST /api/v2/directory-scan/preview and by
 * the scan sockets. */
#pragma once

#include "common/config.h"
#include "common/db.h"
#include "common/source/directory.h"

struct scan_totals {
    int64_t files, bytes; /* of what can be read */
    int64_t problems;     /* entries that cannot */
    const char *cut;      /* why it stopped early, a constant sentence; NULL = it saw everything */
};

struct scan_request {
    const char *roots, *path;
    struct source_options options; /* its on_step is the scan's own */
    int64_t most_files;            /* 0 = 100,000 */
    int64_t deadline_ms;           /* on clock_monotonic_ms(), looked at for every name; 0 = none */
    /* Called for every entry, after it was counted; a status other than STATUS_OK ends the scan and is returned. May be
     * NULL. */
    enum status (*on_file)(struct scope *sc, void *context, const struct source_file *file,
                           const struct scan_totals *so_far);
    void *context;
};

/* The directories that this user may look into, separated by colons: the source roots or, with
 * SOURCE_ROOTS_FOR=granted, what the user's grants leave of them. STATUS_FORBIDDEN: none. */
enum status scan_roots(struct scope *sc, struct db *db, const struct settings *settings, int64_t user_id,
                       bool is_superuser, struct text *out) must_check;
/* What two directories have in common: the inner one, or NULL. */
const char *scan_inner(const char *a, const char *b);

/* Statuses as source_walk. */
enum status scan_run(struct scope *sc, const struct scan_request *request, struct scan_totals *out) must_check;
