/* The helper process: takes files from its task one by one, and forks a parser for each. It looks at no file itself. */
#include "common/clock.h"
#include "common/fault.h"
#include "common/log.h"
#include "worker/extract/extract.h"
#include "worker/extract/format.h"
#include "worker/extract/lockdown.h"
#include "worker/extract/pdf.h"
#include "worker/extract/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MOST_MESSAGE_BYTES = 8192,
    MOST_INFO_BYTES = 1 << 16,
    READ_BYTES = 1 << 16,
    EXIT_BAD_ARGUMENTS = 2,
    EXIT_NOT_LOADED = 3
};

struct job {
    const struct extract_limits *limits;
    int fd;
    char name[EXTRACT_MOST_NAME];
    int64_t deadline_ms;
    enum pdf_tool tool;
};

/* What a process wrote, and how it ended. */
struct harvest {
    struct text out, messages;
    int wait_status;
    bool is_late;
};

/* ---- the parser's process ---- */

static char *read_file(const struct job *job, size_t *out_len)
{
    size_t len = 0, capacity = READ_BYTES;
    struct stat info;
    if (fstat(STDIN_FILENO, &info) == 0 && info.st_size > 0)
        capacity = (size_t)info.st_size + 1;
    char *bytes = must_malloc(capacity);
    while (len <= job->limits->max_file_bytes) { /* it may grow meanwhile */
        if (len == capacity) {
            capacity *= 2;
            bytes = must_realloc(bytes, capacity);
        }
        ssize_t n = pread(STDIN_FILENO, bytes + len, capacity - len, (off_t)len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            free(bytes);
            return NULL;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *out_len = len;
    return bytes;
}

static enum status parse(struct scope *sc, const struct job *job, struct extraction *x, bool *out_is_pdf)
{
    struct lockdown_limits limits = {job->limits->seconds, job->limits->memory_mb};
    *out_is_pdf = false;
    const char *problem = lockdown_parser(&limits);
    if (problem)
        return fail(sc, STATUS_UNAVAILABLE, "the parser cannot be locked down: %s", problem);
    x->name = job->name;
    x->max_text_bytes = job->limits->max_text_bytes;
    x->bytes = read_file(job, &x->len);
    if (!x->bytes)
        return fail(sc, STATUS_UNAVAILABLE, "the file cannot be read to its end");
    if (x->len > job->limits->max_file_bytes)
        return fail(sc, STATUS_TOO_LARGE, "the file has more bytes than MAX_FILE_BYTES (%llu)",
                    (unsigned long long)job->limits->max_file_bytes);
    return format_extract(sc, x, out_is_pdf);
}

static bool write_all(int fd, const void *bytes, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = write(fd, (const char *)bytes + sent, len - sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

static uint32_t small_len(const char *s)
{
    size_t len = s ? strlen(s) : 0;
    return (uint32_t)(len > EXTRACT_MOST_SMALL ? utf8_floor(s, len, EXTRACT_MOST_SMALL) : len);
}

static bool write_answer(int fd, uint32_t status, const char *mime, const char *title, const char *problem,
                         const struct text *text)
{
    struct extract_answer head = {.magic = EXTRACT_MAGIC,
                                  .status = status,
                                  .mime_len = small_len(mime),
                                  .title_len = small_len(title),
                                  .problem_len = small_len(problem),
                                  .text_len = status == STATUS_OK && text ? text->len : 0};
    return write_all(fd, &head, sizeof head) && write_all(fd, mime, head.mime_len) &&
           write_all(fd, title, head.title_len) && write_all(fd, problem, head.problem_len) &&
           write_all(fd, text ? text->data : NULL, head.text_len);
}

static void be_parser(const struct job *job)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct extraction x = {0};
    bool is_pdf;
    enum status s = parse(&sc, job, &x, &is_pdf);
    bool is_told = write_answer(STDOUT_FILENO, is_pdf ? ANSWER_IS_PDF : (uint32_t)s, x.mime, text_str(&x.title),
                                sc.problem_text, &x.text);
    _exit(is_told ? 0 : 1);
}

static void be_pdf_tool(const struct job *job)
{
    const char *path = pdf_tool_path(job->tool);
    struct lockdown_limits limits = {job->limits->seconds, job->limits->memory_mb};
    if (!path || lseek(STDIN_FILENO, 0, SEEK_SET) != 0)
        _exit(126);
    if (lockdown_tool(&limits, path))
        _exit(126);
    pdf_exec(job->tool, path);
}

/* ---- processes ---- */

/* File, result and messages become descriptors 0, 1 and 2; nothing else stays open. */
static void become(const struct job *job, int out, int messages, pid_t parent, void (*role)(const struct job *job))
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(job->fd, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(messages, STDERR_FILENO) < 0)
        _exit(1);
    close_range(STDERR_FILENO + 1, ~0U, 0);
    role(job);
    _exit(1);
}

/* False at the end of the pipe. */
static bool gather(int fd, struct text *into, char *buffer)
{
    ssize_t n = read(fd, buffer, READ_BYTES);
    if (n > 0)
        text_append(into, buffer, (size_t)n);
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static void read_pipes(struct harvest *h, int64_t deadline_ms, int out, int messages)
{
    struct pollfd p[] = {{.fd = out, .events = POLLIN}, {.fd = messages, .events = POLLIN}};
    scoped_memory char *buffer = must_malloc(READ_BYTES);
    while ((p[0].fd >= 0 || p[1].fd >= 0) && !h->out.is_cut) {
        int64_t left = deadline_ms - clock_monotonic_ms();
        h->is_late = left <= 0;
        if (h->is_late)
            return;
        if (poll(p, 2, (int)(left < 1000 ? left : 1000)) <= 0)
            continue;
        if (p[0].fd >= 0 && p[0].revents && !gather(out, &h->out, buffer))
            p[0].fd = -1;
        if (p[1].fd >= 0 && p[1].revents && !gather(messages, &h->messages, buffer))
            p[1].fd = -1;
    }
}

/* Runs one process to its end. False when none could be started. */
static bool run_process(const struct job *job, void (*role)(const struct job *job), size_t most_bytes,
                        struct harvest *h)
{
    int out[2], messages[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return false;
    if (pipe2(messages, O_CLOEXEC) != 0) {
        close(out[0]);
        close(out[1]);
        return false;
    }
    *h = (struct harvest){.out.max_len = most_bytes, .messages.max_len = MOST_MESSAGE_BYTES};
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(job, out[1], messages[1], parent, role);
    close(out[1]);
    close(messages[1]);
    if (pid > 0) {
        read_pipes(h, job->deadline_ms, out[0], messages[0]);
        if (h->is_late || h->out.is_cut)
            kill(pid, SIGKILL);
        while (waitpid(pid, &h->wait_status, 0) < 0 && errno == EINTR)
            ;
    }
    close(out[0]);
    close(messages[0]);
    return pid > 0;
}

static void harvest_free(struct harvest *h)
{
    text_free(&h->out);
    text_free(&h->messages);
}

static bool is_out_of_memory(const struct harvest *h)
{
    const char *m = text_str(&h->messages);
    return strstr(m, "out_of_memory") || strstr(m, "bad_alloc") || strstr(m, "ut of memory");
}

/* STATUS_OK when it ended by itself with the exit status *out_code. */
static enum status verdict(struct scope *sc, const struct job *job, const struct harvest *h, int *out_code)
{
    if (h->is_late)
        return fail(sc, STATUS_TIMEOUT, "reading it took longer than EXTRACT_SECONDS (%d s)", job->limits->seconds);
    if (WIFEXITED(h->wait_status)) {
        *out_code = WEXITSTATUS(h->wait_status);
        return STATUS_OK;
    }
    if (is_out_of_memory(h))
        return fail(sc, STATUS_TOO_LARGE, "reading it takes more memory than EXTRACT_MEMORY_MB (%d MB)",
                    job->limits->memory_mb);
    int number = WTERMSIG(h->wait_status);
    if (number == SIGKILL) /* not by us: the machine ran out of memory, or somebody stops everything */
        return fail(sc, STATUS_BUSY, "the parser was killed");
    return fail(sc, STATUS_UNPROCESSABLE, "the parser ended by signal %d", number);
}

/* ---- answers ---- */

struct outcome {
    struct scope sc;
    enum status status;
    const char *mime, *title;
    struct text text;
};

static bool is_allowed(uint32_t status)
{
    return status == STATUS_OK || status == STATUS_UNPROCESSABLE || status == STATUS_TOO_LARGE ||
           status == STATUS_BUSY || status == STATUS_UNAVAILABLE || status == ANSWER_IS_PDF;
}

static const char *small(struct scope *sc, const char **at, uint32_t len)
{
    scoped_text t = {0};
    text_append_repaired(&t, *at, len);
    *at += len;
    return arena_strdup(&sc->arena, text_str(&t));
}

/* A parser may have been taken over by the file that it read, so nothing it says is taken for granted. */
static enum status read_answer(const struct job *job, const struct harvest *h, struct outcome *o, bool *out_is_pdf)
{
    struct extract_answer head;
    if (h->out.len < sizeof head)
        return fail(&o->sc, STATUS_UNPROCESSABLE, "the parser gave no answer");
    memcpy(&head, h->out.data, sizeof head);
    if (head.magic != EXTRACT_MAGIC || !is_allowed(head.status) || head.mime_len > EXTRACT_MOST_SMALL ||
        head.title_len > EXTRACT_MOST_SMALL || head.problem_len > EXTRACT_MOST_SMALL ||
        head.text_len > job->limits->max_text_bytes ||
        sizeof head + head.mime_len + head.title_len + head.problem_len + head.text_len != h->out.len)
        return fail(&o->sc, STATUS_UNPROCESSABLE, "the parser's answer is damaged");
    const char *at = h->out.data + sizeof head;
    o->mime = small(&o->sc, &at, head.mime_len);
    o->title = small(&o->sc, &at, head.title_len);
    const char *problem = small(&o->sc, &at, head.problem_len);
    *out_is_pdf = head.status == ANSWER_IS_PDF;
    if (*out_is_pdf)
        return STATUS_OK;
    if (head.status != STATUS_OK)
        return fail(&o->sc, (enum status)head.status, "%s", *problem ? problem : "it cannot be read");
    text_append_repaired(&o->text, at, head.text_len);
    if (o->text.len > job->limits->max_text_bytes) /* only what was not UTF-8 grows */
        return fail(&o->sc, STATUS_UNPROCESSABLE, "the parser's answer is damaged");
    return STATUS_OK;
}

static enum status run_parser(const struct job *job, struct outcome *o, bool *out_is_pdf)
{
    struct harvest h;
    size_t most = (size_t)job->limits->max_text_bytes + sizeof(struct extract_answer) + (size_t)3 * EXTRACT_MOST_SMALL;
    if (!run_process(job, be_parser, most, &h))
        return fail(&o->sc, STATUS_BUSY, "no process could be started to read it");
    int code = 0;
    enum status s = verdict(&o->sc, job, &h, &code);
    if (s == STATUS_OK && code != 0)
        s = fail(&o->sc, STATUS_UNPROCESSABLE, "the parser ended with exit status %d", code);
    if (s == STATUS_OK)
        s = read_answer(job, &h, o, out_is_pdf);
    harvest_free(&h);
    return s;
}

/* A PDF without a title is as good: nothing here is a failure. */
static void find_pdf_title(struct job *job, struct outcome *o)
{
    struct harvest h;
    job->tool = PDF_INFO;
    if (!pdf_tool_path(PDF_INFO) || !run_process(job, be_pdf_tool, MOST_INFO_BYTES, &h))
        return;
    struct text title = {0};
    pdf_title(&h.out, &title);
    clean_title(&title);
    o->title = arena_strdup(&o->sc.arena, text_str(&title));
    text_free(&title);
    harvest_free(&h);
}

static enum status run_pdf_tool(struct job *job, struct outcome *o)
{
    struct harvest h;
    job->tool = PDF_TO_TEXT;
    if (!pdf_tool_path(PDF_TO_TEXT))
        return fail(&o->sc, STATUS_UNAVAILABLE, "pdftotext (poppler-utils) is not installed");
    if (!run_process(job, be_pdf_tool, (size_t)job->limits->max_text_bytes + 1, &h))
        return fail(&o->sc, STATUS_BUSY, "no process could be started to read it");
    int code = 0;
    enum status s = h.out.is_cut ? STATUS_OK : verdict(&o->sc, job, &h, &code);
    if (s == STATUS_OK && !h.out.is_cut)
        s = pdf_verdict(&o->sc, code, text_str(&h.messages));
    if (s == STATUS_OK) {
        pdf_tidy(&h.out);
        clean_text(&h.out);
        s = check_text(&o->sc, &h.out, job->limits->max_text_bytes);
        text_free(&o->text);
        o->text = h.out;
        h.out = (struct text){0};
    }
    harvest_free(&h);
    if (s == STATUS_OK)
        find_pdf_title(job, o);
    return s;
}

static enum status read_one(struct job *job, struct outcome *o)
{
    struct stat info;
    if (fstat(job->fd, &info) != 0 || !S_ISREG(info.st_mode))
        return fail(&o->sc, STATUS_UNPROCESSABLE, "it is not a regular file");
    if ((uint64_t)info.st_size > job->limits->max_file_bytes)
        return fail(&o->sc, STATUS_TOO_LARGE, "the file has %lld bytes, more than MAX_FILE_BYTES (%llu)",
                    (long long)info.st_size, (unsigned long long)job->limits->max_file_bytes);
    bool is_pdf = false;
    enum status s = run_parser(job, o, &is_pdf);
    return s == STATUS_OK && is_pdf ? run_pdf_tool(job, o) : s;
}

static bool serve(struct job *job)
{
    struct outcome o = {0};
    scope_init(&o.sc, NULL);
    job->deadline_ms = clock_monotonic_ms() + (int64_t)job->limits->seconds * 1000;
    (void)FAULT(FILE_RECEIVED, job->name);
    o.status = read_one(job, &o);
    (void)FAULT(FILE_PARSED, job->name);
    bool is_told = write_answer(STDIN_FILENO, (uint32_t)o.status, o.mime, o.title, o.sc.problem_text, &o.text);
    text_free(&o.text);
    scope_done(&o.sc);
    return is_told;
}

/* ---- requests ---- */

static bool receive_descriptor(struct extract_request *head, int *out_fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {head, sizeof *head};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n;
    do
        n = recvmsg(STDIN_FILENO, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    while (n < 0 && errno == EINTR);
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(out_fd, CMSG_DATA(c), sizeof *out_fd);
    return n == (ssize_t)sizeof *head && *out_fd >= 0 && head->magic == EXTRACT_MAGIC &&
           head->name_len < EXTRACT_MOST_NAME;
}

static bool receive(struct job *job)
{
    struct extract_request head;
    job->fd = -1;
    if (!receive_descriptor(&head, &job->fd))
        return false;
    size_t have = 0;
    while (have < head.name_len) {
        ssize_t n = recv(STDIN_FILENO, job->name + have, head.name_len - have, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    job->name[have] = '\0';
    return true;
}

static bool read_arguments(int argc, char **argv, struct extract_limits *out)
{
    if (argc != 6)
        return false;
    long long values[4];
    for (int i = 0; i < 4; i++) {
        char *end;
        values[i] = strtoll(argv[i + 2], &end, 10);
        if (*end || end == argv[i + 2] || values[i] <= 0 || (i >= 2 && values[i] > INT32_MAX))
            return false;
    }
    *out = (struct extract_limits){(uint64_t)values[0], (uint64_t)values[1], (int)values[2], (int)values[3]};
    return true;
}

int extractor_main(int argc, char **argv)
{
    struct extract_limits limits;
    if (!read_arguments(argc, argv, &limits)) {
        fprintf(stderr, "usage: %s --extractor MAX_FILE_BYTES MAX_TEXT_BYTES SECONDS MEMORY_MB\n", argv[0]);
        return EXIT_BAD_ARGUMENTS;
    }
    signal(SIGPIPE, SIG_IGN);
    if (!formats_load()) {
        log_error("extractor_not_loaded");
        return EXIT_NOT_LOADED;
    }
    struct job *job = must_calloc(1, sizeof *job);
    job->limits = &limits;
    bool goes_on = true;
    while (goes_on && receive(job)) {
        goes_on = serve(job);
        close(job->fd);
    }
    free(job);
    formats_unload();
    return 0;
}
