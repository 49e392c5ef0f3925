#include "worker/embedder_process.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/embed/flight.h"
#include "worker/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOLDER_PREFIX "opstream-worker."
enum { NEW_FOLDER_SECONDS = 60 }; /* its worker may not have locked it yet */
enum { FIRST_PAUSE_MS = 100, LONGEST_PAUSE_MS = 10000, LONG_LIFE_MS = 30000, END_MS = 2000, END_STEP_MS = 20 };

/* The lock goes with its process, however that ends. */
static void remove_if_deserted(int parent, const char *name)
{
    struct stat st;
    scoped_fd int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_uid != geteuid() || time(NULL) - st.st_mtime < NEW_FOLDER_SECONDS ||
        flock(fd, LOCK_EX | LOCK_NB) != 0)
        return;
    unlinkat(fd, "embed", 0);
    unlinkat(parent, name, AT_REMOVEDIR);
}

static void remove_deserted(const char *parent)
{
    DIR *dir = opendir(parent);
    for (struct dirent *d; dir && (d = readdir(dir));) {
        if (strncmp(d->d_name, FOLDER_PREFIX, strlen(FOLDER_PREFIX)) == 0)
            remove_if_deserted(dirfd(dir), d->d_name);
    }
    if (dir)
        closedir(dir);
}

enum status embedder_process_init(struct scope *sc, struct embedder_process *e)
{
    *e = (struct embedder_process){.pause_ms = FIRST_PAUSE_MS, .folder_fd = -1, .flight_fd = flight_memory()};
    const char *candidates[] = {getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
    for (size_t i = 0; i < array_len(candidates); i++) {
        if (!candidates[i] || *candidates[i] != '/')
            continue;
        int len = snprintf(e->folder, sizeof e->folder, "%s/" FOLDER_PREFIX "XXXXXX", candidates[i]);
        if (len < 0 || (size_t)len >= sizeof e->folder - 8 || !mkdtemp(e->folder))
            continue;
        snprintf(e->socket, sizeof e->socket, "%s/embed", e->folder);
        e->folder_fd = open(e->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (e->folder_fd >= 0 && flock(e->folder_fd, LOCK_EX | LOCK_NB) != 0)
            log_debug("folder_not_locked", log_text("reason", strerror(errno)));
        remove_deserted(candidates[i]);
        return STATUS_OK;
    }
    e->folder[0] = '\0';
    return fail(sc, STATUS_UNAVAILABLE,
                "no folder for the embedder's socket can be made below XDG_RUNTIME_DIR, TMPDIR or /tmp");
}

void embedder_process_start(struct embedder_process *e)
{
    if (e->pid > 0 || clock_monotonic_ms() < e->start_at_ms)
        return;
    const char *argv[] = {"opstream-worker", "--embedder", "0", e->socket, NULL};
    pid_t pid = spawn_self(argv, e->flight_fd, false);
    e->started_ms = clock_monotonic_ms();
    if (pid < 0) {
        log_error("embedder_not_started", log_text("reason", strerror(errno)));
        e->start_at_ms = e->started_ms + LONGEST_PAUSE_MS;
        return;
    }
    e->pid = pid;
}

bool embedder_process_reap(struct embedder_process *e)
{
    int status = 0;
    if (e->pid <= 0 || waitpid(e->pid, &status, WNOHANG) != e->pid)
        return false;
    int64_t now = clock_monotonic_ms();
    if (now - e->started_ms > LONG_LIFE_MS)
        e->pause_ms = FIRST_PAUSE_MS;
    log_error("embedder_died", log_int("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
              log_int("exit_status", WIFEXITED(status) ? WEXITSTATUS(status) : 0), log_int("pause_ms", e->pause_ms));
    e->pid = 0;
    e->start_at_ms = now + e->pause_ms;
    e->pause_ms = e->pause_ms * 2 < LONGEST_PAUSE_MS ? e->pause_ms * 2 : LONGEST_PAUSE_MS;
    return true;
}

void embedder_process_done(struct embedder_process *e)
{
    if (e->pid > 0) {
        kill(e->pid, SIGTERM);
        for (int waited = 0; waited < END_MS && waitpid(e->pid, NULL, WNOHANG) == 0; waited += END_STEP_MS)
            poll(NULL, 0, END_STEP_MS);
        if (kill(e->pid, 0) == 0 && waitpid(e->pid, NULL, WNOHANG) == 0) {
            kill(e->pid, SIGKILL);
            waitpid(e->pid, NULL, 0);
        }
        e->pid = 0;
    }
    close_scoped_fd(&e->flight_fd);
    e->flight_fd = -1;
    if (*e->folder) {
        unlink(e->socket);
        rmdir(e->folder);
        close_scoped_fd(&e->folder_fd);
        e->folder_fd = -1;
    }
    e->folder[0] = '\0';
}
