#include "worker/slots.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_PAUSE_MS = 1000, SOCKET_BUFFER_BYTES = 1 << 20 };

static void enter(struct slot *slot, enum slot_state state)
{
    slot->state = state;
    slot->changed_ms = slot->heard_ms = clock_monotonic_ms();
}

void slot_start(struct slot *slot, const char *embedder_socket)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        log_error("child_not_started", log_text("reason", strerror(errno)));
        slot->start_at_ms = clock_monotonic_ms() + START_PAUSE_MS;
        return;
    }
    int bytes = SOCKET_BUFFER_BYTES;
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    const char *argv[] = {"opstream-worker", "--child", embedder_socket, NULL};
    pid_t pid = spawn_self(argv, pair[1], true);
    close(pair[1]);
    if (pid < 0) {
        log_error("child_not_started", log_text("reason", strerror(errno)));
        close(pair[0]);
        slot->start_at_ms = clock_monotonic_ms() + START_PAUSE_MS;
        return;
    }
    bool is_fast_only = slot->is_fast_only;
    *slot = (struct slot){.pid = pid, .fd = pair[0], .is_fast_only = is_fast_only};
    enter(slot, SLOT_STARTING);
}

bool slot_has_task(const struct slot *slot)
{
    return slot->task_id[0] != '\0';
}

void slot_forget_task(struct slot *slot)
{
    slot->operation_id[0] = slot->task_id[0] = '\0';
    slot->stop = STOP_NONE;
    slot->kill_at_ms = 0;
    slot->tasks_done++;
    enter(slot, SLOT_READY);
}

static bool give_order(const struct slot *slot, const struct order *order)
{
    return send(slot->fd, order, sizeof *order, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof *order;
}

bool slot_run(struct slot *slot, const struct order *order, enum operation_type type, int attempt)
{
    if (!give_order(slot, order)) {
        enter(slot, SLOT_RETIRING);
        slot_kill(slot);
        return false;
    }
    memcpy(slot->operation_id, order->operation_id, sizeof slot->operation_id);
    memcpy(slot->task_id, order->task_id, sizeof slot->task_id);
    slot->type = type;
    slot->attempt = attempt;
    slot->stop = STOP_NONE;
    slot->kill_at_ms = 0;
    enter(slot, SLOT_BUSY);
    return true;
}

void slot_stop(struct slot *slot, enum stop_reason reason, int64_t grace_ms)
{
    if (slot->state != SLOT_BUSY || slot->stop != STOP_NONE)
        return;
    slot->stop = reason;
    if (grace_ms <= 0) {
        slot_kill(slot);
        return;
    }
    struct order order = {.kind = ORDER_STOP};
    give_order(slot, &order);
    kill(slot->pid, SIGTERM);
    slot->kill_at_ms = clock_monotonic_ms() + grace_ms;
}

void slot_kill(struct slot *slot)
{
    if (slot->pid <= 0 || slot->is_killed)
        return;
    slot->is_killed = true;
    slot->kill_at_ms = 0;
    if (kill(-slot->pid, SIGKILL) != 0) /* its helpers too */
        kill(slot->pid, SIGKILL);
}

void slot_retire(struct slot *slot)
{
    if (slot->state != SLOT_READY && slot->state != SLOT_STARTING)
        return;
    shutdown(slot->fd, SHUT_WR);
    enter(slot, SLOT_RETIRING);
}

bool slot_read(struct slot *slot, struct report *out)
{
    if (slot->fd < 0 || slot->state == SLOT_EMPTY)
        return false;
    ssize_t n = recv(slot->fd, out, sizeof *out, MSG_DONTWAIT);
    if (n != (ssize_t)sizeof *out)
        return false;
    slot->heard_ms = clock_monotonic_ms();
    if (out->kind == REPORT_READY && slot->state == SLOT_STARTING)
        enter(slot, SLOT_READY);
    return true;
}

bool slot_has_died(const struct slot *slot)
{
    siginfo_t info = {0};
    return slot->pid > 0 && waitid(P_PID, (id_t)slot->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == slot->pid;
}

struct slot_death slot_reap(struct slot *slot, int64_t pause_ms)
{
    struct slot_death death = {0};
    int status = 0;
    kill(-slot->pid, SIGKILL); /* what is left of its group, while its id still stands for it */
    waitpid(slot->pid, &status, 0);
    if (WIFSIGNALED(status))
        death.signal = WTERMSIG(status);
    else
        death.exit_status = WEXITSTATUS(status);
    close(slot->fd);
    slot->fd = -1;
    slot->pid = 0;
    slot->state = SLOT_EMPTY;
    slot->kill_at_ms = 0;
    slot->is_killed = false;
    slot->start_at_ms = clock_monotonic_ms() + pause_ms;
    return death;
}

int64_t slot_memory_mb(const struct slot *slot)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/statm", (int)slot->pid);
    FILE *f = fopen(path, "re");
    long long total = 0, resident = 0;
    if (!f)
        return 0;
    int n = fscanf(f, "%lld %lld", &total, &resident);
    fclose(f);
    return n == 2 ? resident * (sysconf(_SC_PAGESIZE) / 1024) / 1024 : 0;
}
