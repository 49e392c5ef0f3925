#include "common/machine.h"

#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { LONGEST_FILE = 8192 };

static bool read_file(const char *path, char out[LONGEST_FILE])
{
    scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, LONGEST_FILE - 1) : -1;
    out[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static int64_t number(const char *s)
{
    char *end;
    errno = 0;
    long long n = strtoll(s, &end, 10);
    return end == s || errno || n < 0 ? -1 : n;
}

int64_t machine_line(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, len) == 0 && strchr(": \t", line[len]) && line[len])
            return number(line + len + 1);
    }
    return -1;
}

static int64_t kilobytes(const char *text, const char *name)
{
    int64_t n = machine_line(text, name);
    return n < 0 || n > INT64_MAX / 1024 ? -1 : n * 1024;
}

static int64_t cgroup_number(const char *folder, const char *file)
{
    char path[PATH_MAX], text[LONGEST_FILE];
    int n = snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", folder, file);
    return n > 0 && (size_t)n < sizeof path && read_file(path, text) ? number(text) : -1; /* "max" = -1 */
}

/* What the kernel gives back before it kills: pages of files (a model that is mapped is one), and what it keeps to be
 * fast. Pages in memory alone (tmpfs) are not among them. */
static int64_t cgroup_cache(const char *folder)
{
    static const char *const kinds[] = {"inactive_file", "active_file", "slab_reclaimable"};
    char path[PATH_MAX], text[LONGEST_FILE];
    int64_t sum = 0;
    int n = snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", folder);
    if (n <= 0 || (size_t)n >= sizeof path || !read_file(path, text))
        return 0;
    for (size_t i = 0; i < array_len(kinds); i++) {
        int64_t bytes = machine_line(text, kinds[i]);
        sum += bytes > 0 && bytes < INT64_MAX / 8 ? bytes : 0;
    }
    return sum;
}

/* Every level may be the tightest. */
static void look_at_cgroups(struct machine *out)
{
    char text[LONGEST_FILE];
    if (!read_file("/proc/self/cgroup", text) || strncmp(text, "0::", 3) != 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    char *folder = text + 3;
    if (strcmp(folder, "/") == 0)
        *folder = '\0';
    for (;;) {
        int64_t most = cgroup_number(folder, "memory.max"), used = cgroup_number(folder, "memory.current");
        if (most >= 0 && used >= 0) {
            used -= cgroup_cache(folder);
            int64_t is_free = most > used ? most - (used > 0 ? used : 0) : 0;
            if (out->memory_free < 0 || is_free < out->memory_free)
                out->memory_free = is_free;
            if (out->memory_total < 0 || most < out->memory_total)
                out->memory_total = most;
        }
        char *slash = strrchr(folder, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

void machine_look(const char *folder, struct machine *out)
{
    char text[LONGEST_FILE];
    struct statvfs disk;
    *out = (struct machine){-1, -1, -1, -1};
    if (read_file("/proc/meminfo", text)) {
        out->memory_total = kilobytes(text, "MemTotal");
        out->memory_free = kilobytes(text, "MemAvailable");
    }
    look_at_cgroups(out);
    if (statvfs(folder, &disk) == 0) {
        out->disk_total = (int64_t)disk.f_blocks * (int64_t)disk.f_frsize;
        out->disk_free = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize;
    }
}

int64_t machine_peak(void)
{
    char text[LONGEST_FILE];
    return read_file("/proc/self/status", text) ? kilobytes(text, "VmHWM") : -1;
}

void machine_forget_peak(void)
{
    scoped_fd int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? write(fd, "5", 1) : -1;
    (void)n; /* then it is the peak of the process's life */
}
