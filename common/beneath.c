#include "common/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_TRIES = 16 };

int open_beneath(int at, const char *path, int flags, uint64_t more_resolve)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY)),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | more_resolve};
    long fd = -1;
    for (int i = 0; i < MOST_TRIES; i++) { /* EAGAIN: a rename elsewhere made the kernel unsure about a ".." */
        fd = syscall(SYS_openat2, at, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return (int)fd;
}
