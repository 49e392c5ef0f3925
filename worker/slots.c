#include "worker/slots.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_PAUSE_MS = 1000, SOCKET_BUFFER_BYTES = 1 << 20 };

static void enter(struct slot *slot, enum slot_state state)
{
    slot->state = state;
    slot->changed_ms = slot->heard_ms = clock_monotonic_ms();
}

static int page_new(struct batch_page **out)
{
    int fd = memfd_create("opstream-batch", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    *out = ftruncate(fd, sizeof **out) == 0 ? mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                                            : MAP_FAILED;
    if (*out != MAP_FAILED)
        return fd;
    *out = NULL;
    close(fd);
    return -1;
}

static void page_free(struct batch_page *page)
{
    if (page)
        munmap(page, sizeof *page);
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
    struct batch_page *page = NULL;
    const int fds[] = {pair[1], page_new(&page)};
    const char *argv[] = {"opstream-worker", "--child", embedder_socket, NULL};
    pid_t pid = fds[1] >= 0 ? spawn_self(argv, fds, array_len(fds), true) : -1;
    close(pair[1]);
    if (fds[1] >= 0)
        close(fds[1]);
    if (pid < 0) {
        log_error("child_not_started", log_text("reason", strerror(errno)));
        close(pair[0]);
        page_free(page);
        slot->start_at_ms = clock_monotonic_ms() + START_PAUSE_MS;
        return;
    }
    bool is_fast_only = slot->is_fast_only;
    *slot = (struct slot){.pid = pid, .fd = pair[0], .is_fast_only = is_fast_only, .page = page};
    enter(slot, SLOT_STARTING);
}

static void forget_items(struct slot *slot)
{
    free(slot->items);
    slot->items = NULL;
    slot->item_count = 0;
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
    slot->tasks_done++; /* a batch counts as one: each of its operations does next to nothing */
    forget_items(slot);
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

void slot_take_item(struct slot *slot, uint32_t item)
{
    const struct slot_item *it = &slot->items[item];
    memcpy(slot->operation_id, it->operation_id, sizeof slot->operation_id);
    memcpy(slot->task_id, it->task_id, sizeof slot->task_id);
    slot->type = it->type;
    slot->attempt = it->attempt;
}

bool slot_run_batch(struct slot *slot, struct slot_item *items, uint32_t count, const char *worker_id)
{
    struct batch_order order = {.kind = ORDER_BATCH, .count = count};
    snprintf(order.worker_id, sizeof order.worker_id, "%s", worker_id);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(order.items[i].operation_id, items[i].operation_id, sizeof items[i].operation_id);
        memcpy(order.items[i].task_id, items[i].task_id, sizeof items[i].task_id);
    }
    atomic_store(&slot->page->began_ms, clock_monotonic_ms());
    atomic_store(&slot->page->cursor, batch_cursor(count, 0));
    size_t len = offsetof(struct batch_order, items) + count * sizeof order.items[0];
    slot->items = items;
    slot->item_count = count;
    if (send(slot->fd, &order, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len) {
        enter(slot, SLOT_RETIRING);
        slot_kill(slot);
        return false;
    }
    slot_take_item(slot, 0);
    slot->stop = STOP_NONE;
    slot->kill_at_ms = 0;
    enter(slot, SLOT_BUSY);
    return true;
}

bool slot_look(struct slot *slot, uint32_t *out_item)
{
    uint32_t begun = slot->items ? batch_begun(atomic_load(&slot->page->cursor)) : 0;
    if (begun == 0 || begun > slot->item_count)
        return false;
    *out_item = begun - 1;
    slot_take_item(slot, begun - 1);
    slot->changed_ms = atomic_load(&slot->page->began_ms);
    return true;
}

bool slot_recall(struct slot *slot, uint32_t *out_first, uint32_t *out_end)
{
    if (!slot->items)
        return false;
    uint64_t cursor = atomic_load(&slot->page->cursor);
    do {
        *out_first = batch_begun(cursor);
        *out_end = batch_limit(cursor);
        if (*out_first >= *out_end || *out_end > slot->item_count)
            return false;
    } while (!atomic_compare_exchange_weak(&slot->page->cursor, &cursor, batch_cursor(*out_first, *out_first)));
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
    page_free(slot->page);
    slot->page = NULL;
    slot->fd = -1;
    slot->pid = 0;
    slot->state = SLOT_EMPTY;
    slot->kill_at_ms = 0;
    slot->is_killed = false;
    slot->start_at_ms = clock_monotonic_ms() + pause_ms;
    return death;
}

void slot_forget_dead(struct slot *slot)
{
    forget_items(slot);
    slot->operation_id[0] = slot->task_id[0] = '\0';
    slot->stop = STOP_NONE;
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
