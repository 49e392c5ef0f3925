#include "common/base.h"

#include <unistd.h>

void close_scoped_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
