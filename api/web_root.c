#include "api/web_root.h"

#include "common/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <unistd.h>

/* The kernel lets a ".." go back to the folder, where not everything need be meant for strangers. */
static bool goes_up(const char *path)
{
    for (const char *p = path; (p = strstr(p, "..")); p += 2) {
        if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
            return true;
    }
    return false;
}

enum status web_root_file(struct scope *sc, int root, const char *path, int *out_fd, struct stat *out)
{
    if (goes_up(path))
        return fail(sc, STATUS_NOT_FOUND, "Not Found");
    int fd = open_beneath(root, path, O_RDONLY | O_NONBLOCK /* a pipe would wait for its writer */,
                          RESOLVE_NO_SYMLINKS);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return fail(sc, STATUS_BUSY, "%s: %s", path, strerror(errno));
    if (fd < 0)
        return fail(sc, STATUS_NOT_FOUND, "Not Found");
    if (fstat(fd, out) != 0 || !S_ISREG(out->st_mode)) {
        close(fd);
        return fail(sc, STATUS_NOT_FOUND, "Not Found");
    }
    *out_fd = fd;
    return STATUS_OK;
}

enum status web_root_open(struct scope *sc, const char *folder, int *out_fd)
{
    struct stat facts;
    int index = -1;
    *out_fd = -1;
    if (!folder || !*folder)
        return STATUS_OK;
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(sc, STATUS_INVALID, "WEB_ROOT: %s: %s", folder, strerror(errno));
    if (web_root_file(sc, fd, "index.html", &index, &facts) != STATUS_OK) {
        close(fd);
        scope_forgive(sc);
        return fail(sc, STATUS_INVALID, "WEB_ROOT: there is no index.html in %s that can be read", folder);
    }
    close(index);
    *out_fd = fd;
    return STATUS_OK;
}
