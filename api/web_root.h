/* WEB_ROOT: the built files of another front end in a folder, served in place of the page that is part of the program.
 */
#pragma once

#include "common/scope.h"

#include <sys/stat.h>

/* -1 in *out_fd when `folder` is empty or NULL. STATUS_INVALID with a sentence when it is no folder, or without an
 * index.html. The descriptor is the caller's. */
enum status web_root_open(struct scope *sc, const char *folder, int *out_fd) must_check;
/* A regular file below it, `path` being relative. The kernel resolves it: nothing outside is reached, whatever stands
 * in `path`, and no symbolic link is followed. STATUS_NOT_FOUND for all that cannot be served. The descriptor is the
 * caller's. */
enum status web_root_file(struct scope *sc, int root, const char *path, int *out_fd, struct stat *out) must_check;
