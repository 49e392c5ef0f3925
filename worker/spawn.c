#include "worker/spawn.h"

#include "common/base.h"
#include "common/config.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

static const char SELF[] = "/proc/self/exe"; /* the same file, even when an upgrade has replaced it */

/* The words that settings.def uses in its flags. */
enum { API = SETTING_API, WORKER = SETTING_WORKER, SECRET = SETTING_SECRET, REQUIRED = SETTING_REQUIRED };

static const struct {
    const char *name, *alias;
    int flags;
} settings_names[] = {
#define SETTING(type, field, name, alias, fallback, flags, meaning) {name, alias, flags},
#include "common/settings.def"
#undef SETTING
};

/* What else a process needs; a name that ends in * stands for all that begin so. */
static const char *const plain_names[] = {
    "PATH",
    "HOME",
    "LANG",
    "LC_*",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "LD_LIBRARY_PATH",
    "CUDA_*",
    "NVIDIA_*",
    "ASAN_OPTIONS",
    "LSAN_OPTIONS",
    "UBSAN_OPTIONS",
    "TSAN_OPTIONS",
#ifdef OPSTREAM_FAULTS
    "FAULT",
    "FAULT_DIR",
#endif
};

static bool is_named(const char *entry, const char *name)
{
    size_t len = name ? strlen(name) : 0;
    if (len == 0)
        return false;
    if (name[len - 1] == '*')
        return strncmp(entry, name, len - 1) == 0;
    return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

static bool is_passed_on(const char *entry, bool needs_stores)
{
    for (size_t i = 0; i < array_len(plain_names); i++) {
        if (is_named(entry, plain_names[i]))
            return true;
    }
    if (needs_stores && is_named(entry, "PG*"))
        return true; /* libpq's own variables */
    for (size_t i = 0; i < array_len(settings_names); i++) {
        if (!is_named(entry, settings_names[i].name) && !is_named(entry, settings_names[i].alias))
            continue;
        bool is_secret = settings_names[i].flags & SETTING_SECRET;
        bool is_internal_key = strcmp(settings_names[i].name, "INTERNAL_API_KEY") == 0;
        return settings_names[i].flags & SETTING_WORKER && (!is_secret || (needs_stores && !is_internal_key));
    }
    return false;
}

static char **scrubbed_environment(bool needs_stores)
{
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **out = must_calloc(count + 1, sizeof *out);
    for (size_t i = 0; i < count; i++) {
        if (is_passed_on(environ[i], needs_stores))
            out[kept++] = environ[i];
    }
    return out;
}

/* Between fork and exec only calls that are safe after a fork of a program with threads. */
static void become_helper(const char *const *argv, char **env, const int *fds, int count, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127); /* it died before we asked to be told */
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    int kept[MOST_SPAWN_FDS]; /* first out of each other's way */
    for (int i = 0; i < count; i++) {
        kept[i] = fcntl(fds[i], F_DUPFD, SPAWN_FD + MOST_SPAWN_FDS);
        if (kept[i] < 0)
            _exit(127);
    }
    for (int i = 0; i < count; i++) {
        if (dup2(kept[i], SPAWN_FD + i) < 0)
            _exit(127);
    }
    close_range((unsigned)(SPAWN_FD + count), ~0U, CLOSE_RANGE_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(SELF, (char *const *)argv, env);
    _exit(127);
}

pid_t spawn_self(const char *const *argv, const int *fds, int count, bool needs_stores)
{
    char **env = scrubbed_environment(needs_stores);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become_helper(argv, env, fds, count, parent);
    if (pid > 0)
        setpgid(pid, pid); /* in both, so that neither has to wait for the other */
    free(env);
    return pid;
}
