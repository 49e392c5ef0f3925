/* Directories that documents come from. Everything stays below the configured roots: paths are resolved by
 * openat2(RESOLVE_BENEATH), symbolic links are never followed out of a root, and names are bytes (not all are UTF-8).
 * Used by ingestion, by previews and to serve a document's content. */
#pragma once

#include "common/json.h"

/* One entry of a walk. A file that cannot be taken (special, unreadable) comes with a reason instead of being left out.
 */
struct source_file {
    const char *path; /* absolute; valid during the call */
    size_t path_len;
    int64_t size, mtime_ns;
    const char *problem; /* NULL = a regular file that may be read */
};

struct source_options {
    bool recursive;
    const cJSON *include,
        *exclude; /* lists of globs over the path below the source ("*.md", and two stars for any depth), or NULL */
    size_t names_at_once; /* of a directory that are held and sorted at a time, so that memory is bounded and the first
                             file of a huge directory comes soon; 0 = all, the only way to have them all in order */
    int64_t *hidden;      /* counts the entries that were left out for their name; NULL = they are not counted */
    /* Called for every name that is read and for every entry that is taken, also for those that `on_file` never hears
     * of: directories, hidden ones, what the patterns leave out. A status other than STATUS_OK ends the walk. With the
     * walk's context. NULL = nobody asks. */
    enum status (*on_step)(struct scope *sc, void *context);
};

/* STATUS_INVALID: `path` is not absolute or not below one of `roots` (colon-separated directories); STATUS_NOT_FOUND:
 * nothing is there or its root is away; STATUS_OK: a directory (or file) that can be opened. The sentence tells what to
 * do. */
enum status source_check(struct scope *sc, const char *roots, const char *path) must_check;
/* Calls `on_file` for every file below `path`, in the order of their names, hidden ones (".git", ".DS_Store") left out;
 * the walk ends with the first status of it, or of `on_step`, that is not STATUS_OK. Same statuses as source_check. A
 * loop of mounts or a depth of more than 64 is reported as a file with a problem. */
enum status source_walk(struct scope *sc, const char *roots, const char *path, const struct source_options *options,
                        enum status (*on_file)(struct scope *sc, void *context, const struct source_file *file),
                        void *context) must_check;
/* Opens a regular file below one of `roots` for reading, close-on-exec, without ever blocking on a FIFO.
 * STATUS_NOT_FOUND: gone; STATUS_FORBIDDEN: outside the roots or not permitted; STATUS_INVALID: not a regular file. The
 * sentence holds no path outside the source. */
enum status source_open_file(struct scope *sc, const char *roots, const char *path, size_t path_len,
                             int *out_fd) must_check;
/* Hex SHA-256 of what is left to read; the offset is back at 0 afterwards. STATUS_UNAVAILABLE for a read error. */
enum status source_hash_fd(struct scope *sc, int fd, char out[65]) must_check;
