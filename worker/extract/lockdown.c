#include "worker/extract/lockdown.h"

#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A sanitizer reserves terabytes of addresses for itself. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

enum { TOOL_FILES = 64 };

/* What a parser may ask of the kernel, beside what add_checked() allows. */
static const int parser_calls[] = {
    SCMP_SYS(read),         SCMP_SYS(readv),
    SCMP_SYS(pread64),      SCMP_SYS(write),
    SCMP_SYS(writev),       SCMP_SYS(lseek),
    SCMP_SYS(close),        SCMP_SYS(fstat),
    SCMP_SYS(munmap),       SCMP_SYS(mremap),
    SCMP_SYS(brk),          SCMP_SYS(madvise),
    SCMP_SYS(exit),         SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(futex),        SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(getrandom),    SCMP_SYS(getpid),
    SCMP_SYS(gettid),       SCMP_SYS(restart_syscall),
    SCMP_SYS(sched_yield),
};

/* What starting a program takes in addition. */
static const int tool_calls[] = {
    SCMP_SYS(access),          SCMP_SYS(faccessat),       SCMP_SYS(faccessat2), SCMP_SYS(stat),
    SCMP_SYS(lstat),           SCMP_SYS(readlink),        SCMP_SYS(readlinkat), SCMP_SYS(getcwd),
    SCMP_SYS(getdents64),      SCMP_SYS(newfstatat),      SCMP_SYS(statx),      SCMP_SYS(arch_prctl),
    SCMP_SYS(set_tid_address), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),       SCMP_SYS(uname),
    SCMP_SYS(sysinfo),         SCMP_SYS(getuid),          SCMP_SYS(geteuid),    SCMP_SYS(getgid),
    SCMP_SYS(getegid),         SCMP_SYS(fcntl),           SCMP_SYS(dup),        SCMP_SYS(sched_getaffinity),
    SCMP_SYS(statfs),          SCMP_SYS(fstatfs),         SCMP_SYS(fadvise64),
};

static int allow_all(scmp_filter_ctx filter, const int *calls, size_t count)
{
    int r = 0;
    for (size_t i = 0; i < count && r == 0; i++) {
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 0);
        if (r == -EDOM || r == -EFAULT || r == -EINVAL) /* this machine's kind has no such call */
            r = 0;
    }
    return r;
}

/* Memory that is never executable, and signals to oneself only, as abort() sends. */
static int allow_common(scmp_filter_ctx filter)
{
    int r = allow_all(filter, parser_calls, array_len(parser_calls));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (uint64_t)getpid(), 0));
    return r;
}

static int allow_parser(scmp_filter_ctx filter)
{
    int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (r == 0) /* fstat() of an open descriptor in newer C libraries: looks up no name */
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1, SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH, 0));
    return r;
}

static int allow_tool(scmp_filter_ctx filter, const char *path)
{
    int r = allow_all(filter, tool_calls, array_len(tool_calls));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 0);
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
                             SCMP_A2(SCMP_CMP_EQ, 0, 0)); /* asking only */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(execve), 1,
                             SCMP_A0(SCMP_CMP_EQ, (uint64_t)(uintptr_t)path, 0));
    return r;
}

/* Refused calls fail with EPERM instead of killing: libraries ask for much that they can do without. */
static bool install_filter(const char *tool_path)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return false;
    int r = allow_common(filter);
    if (r == 0)
        r = tool_path ? allow_tool(filter, tool_path) : allow_parser(filter);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r == 0;
}

static bool limit(int what, rlim_t most)
{
    struct rlimit r = {most, most}, now;
    if (getrlimit((__rlimit_resource_t)what, &now) == 0 && now.rlim_max < most)
        r.rlim_cur = r.rlim_max = now.rlim_max;
    return setrlimit((__rlimit_resource_t)what, &r) == 0;
}

static bool set_limits(const struct lockdown_limits *limits, rlim_t files)
{
    rlim_t seconds = (rlim_t)(limits->seconds > 0 ? limits->seconds : 1) + 1;
    rlim_t bytes = (rlim_t)(limits->memory_mb > 0 ? limits->memory_mb : 1) << 20;
    return limit(RLIMIT_CORE, 0) && limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_NOFILE, files) && limit(RLIMIT_NPROC, 0) &&
           limit(RLIMIT_CPU, seconds) && (IS_SANITIZED || limit(RLIMIT_AS, bytes));
}

static void allow_reading(int ruleset, const char *path, uint64_t access)
{
    scoped_fd int fd = open(path, O_PATH | O_CLOEXEC);
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    if (fd >= 0)
        syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

/* Only what the system installed can be read. Kernels without Landlock leave the whole tree readable (to this user). */
static void hide_files(void)
{
    uint64_t file = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE,
             tree = file | LANDLOCK_ACCESS_FS_READ_DIR;
    struct landlock_ruleset_attr attr = {.handled_access_fs = tree};
    scoped_fd int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (ruleset < 0)
        return;
    static const char *const trees[] = {"/usr", "/lib", "/lib64", "/bin", "/etc/fonts", "/nix/store"};
    for (size_t i = 0; i < array_len(trees); i++)
        allow_reading(ruleset, trees[i], tree);
    allow_reading(ruleset, "/etc/ld.so.cache", LANDLOCK_ACCESS_FS_READ_FILE);
    syscall(SYS_landlock_restrict_self, ruleset, 0);
}

static const char *lock(const struct lockdown_limits *limits, const char *tool_path)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return "privileges cannot be given up";
    if (tool_path)
        hide_files();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (!set_limits(limits, tool_path ? TOOL_FILES : 0))
        return "limits of time and memory cannot be set";
    return install_filter(tool_path) ? NULL : "the filter of system calls cannot be installed";
}

const char *lockdown_parser(const struct lockdown_limits *limits)
{
    return lock(limits, NULL);
}

const char *lockdown_tool(const struct lockdown_limits *limits, const char *path)
{
    return lock(limits, path);
}
