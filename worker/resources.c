#include "worker/resources.h"

#include "common/machine.h"
#include "common/metrics.h"

#include <stdlib.h>

enum { BYTES_A_MB = 1 << 20 };

static enum status check(struct scope *sc, const char *kind, const char *what, int64_t is_free, int64_t least_mb,
                         const char *setting)
{
    if (is_free < 0 || least_mb <= 0 || is_free / BYTES_A_MB >= least_mb)
        return STATUS_OK;
    metrics_add(METRIC_RESOURCE_REFUSALS, kind, NULL, 1);
    return fail(sc, STATUS_BUSY, "the worker has only %lld MB of %s left, less than %s (%lld)",
                (long long)(is_free / BYTES_A_MB), what, setting, (long long)least_mb);
}

enum status resources_check(struct scope *sc, const struct settings *settings)
{
    struct machine m;
    const char *folder = getenv("TMPDIR");
    machine_look(folder && *folder ? folder : "/tmp", &m);
    enum status s = check(sc, "worker_memory", "memory", m.memory_free, settings->min_free_memory_mb,
                          "MIN_FREE_MEMORY_MB");
    return s == STATUS_OK ? check(sc, "worker_disk", "space for temporary files", m.disk_free,
                                  settings->min_free_disk_mb, "MIN_FREE_DISK_MB")
                          : s;
}
