/* The task's side: keeps a helper process and asks it. */
#include "common/clock.h"
#include "common/text.h"
#include "worker/extract/extract.h"
#include "worker/extract/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILES_A_HELPER = 500, GRACE_MS = 10000, WAIT_STEP_MS = 100, MOST_TRIES = 2, EXIT_NOT_STARTED = 127 };

struct extractor {
    struct extract_limits limits;
    char *executable;
    int fd; /* -1 = no helper runs */
    pid_t pid;
    int served;
    bool (*should_stop)(void *context);
    void *context;
};

struct extractor *extractor_new(const struct extract_limits *limits, const char *executable)
{
    struct extractor *e = must_calloc(1, sizeof *e);
    e->limits = *limits;
    e->executable = must_strdup(executable);
    e->fd = -1;
    return e;
}

/* Its parsers die with it. */
static void stop(struct extractor *e)
{
    if (e->fd < 0)
        return;
    kill(e->pid, SIGKILL);
    close(e->fd);
    e->fd = -1;
    while (waitpid(e->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    e->served = 0;
}

void extractor_on_wait(struct extractor *e, bool (*should_stop)(void *context), void *context)
{
    e->should_stop = should_stop;
    e->context = context;
}

void extractor_free(struct extractor *e)
{
    if (!e)
        return;
    stop(e);
    free(e->executable);
    free(e);
}

/* In the new process: only calls that are safe after fork() in a program with threads. No setting or secret is
 * inherited. */
static void become_helper(char **arguments, int socket_fd, pid_t parent)
{
    static char *environment[] = {"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", NULL};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (getppid() == parent && null >= 0 && dup2(socket_fd, STDIN_FILENO) == STDIN_FILENO &&
        dup2(null, STDOUT_FILENO) == STDOUT_FILENO && close_range(STDERR_FILENO + 1, ~0U, 0) == 0)
        execve(arguments[0], arguments, environment);
    _exit(EXIT_NOT_STARTED);
}

static enum status start(struct scope *sc, struct extractor *e)
{
    if (e->fd >= 0)
        return STATUS_OK;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return fail(sc, STATUS_BUSY, "no process could be started to read documents");
    char *arguments[] = {e->executable,
                         "--extractor",
                         arena_printf(&sc->arena, "%llu", (unsigned long long)e->limits.max_file_bytes),
                         arena_printf(&sc->arena, "%llu", (unsigned long long)e->limits.max_text_bytes),
                         arena_printf(&sc->arena, "%d", e->limits.seconds),
                         arena_printf(&sc->arena, "%d", e->limits.memory_mb),
                         NULL};
    pid_t parent = getpid();
    e->pid = fork();
    if (e->pid == 0)
        become_helper(arguments, pair[1], parent);
    close(pair[1]);
    if (e->pid < 0) {
        close(pair[0]);
        return fail(sc, STATUS_BUSY, "no process could be started to read documents");
    }
    e->fd = pair[0];
    return STATUS_OK;
}

static bool send_request(const struct extractor *e, int fd, const char *name)
{
    size_t name_len = strlen(name);
    if (name_len >= EXTRACT_MOST_NAME) { /* its ending is what matters */
        name += name_len - EXTRACT_MOST_NAME + 1;
        name_len = EXTRACT_MOST_NAME - 1;
    }
    struct extract_request head = {EXTRACT_MAGIC, (uint32_t)name_len};
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&head, sizeof head};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    return sendmsg(e->fd, &m, MSG_NOSIGNAL) == (ssize_t)sizeof head &&
           (name_len == 0 || send(e->fd, name, name_len, MSG_NOSIGNAL) == (ssize_t)name_len);
}

static enum status receive(struct scope *sc, const struct extractor *e, int64_t deadline_ms, void *into, size_t len)
{
    for (size_t have = 0; have < len;) {
        struct pollfd p = {.fd = e->fd, .events = POLLIN};
        int64_t left = deadline_ms - clock_monotonic_ms();
        if (left <= 0)
            return fail(sc, STATUS_TIMEOUT, "reading it took longer than EXTRACT_SECONDS (%d s)", e->limits.seconds);
        if (e->should_stop && e->should_stop(e->context))
            return fail(sc, STATUS_CANCELLED, "told to stop while reading a document");
        if (poll(&p, 1, (int)(left < WAIT_STEP_MS ? left : WAIT_STEP_MS)) <= 0)
            continue;
        ssize_t n = recv(e->fd, (char *)into + have, len - have, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return STATUS_LOST;
        have += (size_t)n;
    }
    return STATUS_OK;
}

static enum status receive_string(struct scope *sc, const struct extractor *e, int64_t deadline_ms, size_t len,
                                  const char **out)
{
    char *s = arena_alloc(&sc->arena, len + 1);
    enum status r = receive(sc, e, deadline_ms, s, len);
    s[len] = '\0';
    *out = s;
    return r;
}

/* STATUS_LOST: the helper is gone. */
static enum status ask(struct scope *sc, struct extractor *e, int fd, const char *name, struct extract_result *out)
{
    struct extract_answer head = {0};
    int64_t deadline_ms = clock_monotonic_ms() + (int64_t)e->limits.seconds * 1000 + GRACE_MS;
    if (!send_request(e, fd, name))
        return STATUS_LOST;
    enum status s = receive(sc, e, deadline_ms, &head, sizeof head);
    if (s != STATUS_OK)
        return s;
    if (head.magic != EXTRACT_MAGIC || head.mime_len > EXTRACT_MOST_SMALL || head.title_len > EXTRACT_MOST_SMALL ||
        head.problem_len > EXTRACT_MOST_SMALL || head.text_len > e->limits.max_text_bytes)
        return STATUS_LOST;
    struct extract_result r = {.text_len = head.text_len};
    const char *problem = NULL;
    s = receive_string(sc, e, deadline_ms, head.mime_len, &r.mime_type);
    if (s == STATUS_OK)
        s = receive_string(sc, e, deadline_ms, head.title_len, &r.title);
    if (s == STATUS_OK)
        s = receive_string(sc, e, deadline_ms, head.problem_len, &problem);
    if (s == STATUS_OK)
        s = receive_string(sc, e, deadline_ms, head.text_len, &r.text);
    if (s != STATUS_OK)
        return s;
    r.mime_type = head.mime_len > 0 ? r.mime_type : NULL;
    r.title = head.title_len > 0 ? r.title : NULL;
    *out = r;
    return head.status == STATUS_OK ? STATUS_OK : fail(sc, (enum status)head.status, "%s", problem);
}

enum status extractor_run(struct scope *sc, struct extractor *e, int fd, const char *name, struct extract_result *out)
{
    *out = (struct extract_result){0};
    enum status s = STATUS_LOST;
    for (int i = 0; i < MOST_TRIES && s == STATUS_LOST; i++) {
        s = start(sc, e);
        if (s != STATUS_OK)
            return s;
        s = ask(sc, e, fd, name, out);
        bool is_out_of_step = s == STATUS_LOST || s == STATUS_CANCELLED || (s == STATUS_TIMEOUT && !out->mime_type);
        if (is_out_of_step || ++e->served >= FILES_A_HELPER)
            stop(e);
    }
    if (s == STATUS_LOST)
        return fail(sc, STATUS_BUSY, "the process that reads documents ended unexpectedly");
    return s;
}
