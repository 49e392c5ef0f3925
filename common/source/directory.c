#include "common/source/directory.h"

#include "common/beneath.h"

#include "common/source/glob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_DEPTH = 64, HASH_STEP_BYTES = 1 << 17 };

DEFINE_SCOPED(DIR, closedir)

/* A source path taken apart: the root's directory, and the path below it ("." for the root itself). */
struct place {
    int root_fd;
    const char *root;
    const char *below;
};

static const struct place nowhere = {.root_fd = -1, .root = "/", .below = "."};

/* ---- resolving ---- */

static bool is_share_gone(int error)
{
    return error == EIO || error == ESTALE || error == ENOTCONN || error == ETIMEDOUT || error == EHOSTDOWN ||
           error == ENODEV;
}

static enum status status_of(int error)
{
    if (error == ENOENT || error == ENOTDIR)
        return STATUS_NOT_FOUND;
    if (error == EACCES || error == EPERM || error == EXDEV || error == ELOOP)
        return STATUS_FORBIDDEN;
    if (error == EMFILE || error == ENFILE || error == ENOMEM)
        return STATUS_BUSY;
    if (error == ENOSYS)
        return STATUS_INTERNAL;
    return is_share_gone(error) || error == EAGAIN ? STATUS_UNAVAILABLE : STATUS_INVALID;
}

static const char *reason_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return "it is not there";
    case EACCES:
    case EPERM:
        return "permission to read it is missing";
    case EXDEV:
    case ELOOP:
        return "a symbolic link leads out of the source roots or in a circle";
    case ENAMETOOLONG:
        return "its name is too long";
    case ENOSYS:
        return "this kernel is too old (Linux 5.6 is needed)";
    default:
        return strerrordesc_np(error) ? strerrordesc_np(error) : "it cannot be read";
    }
}

static bool has_dot_dot(const char *path)
{
    for (const char *p = path; (p = strstr(p, "..")); p += 2) {
        if ((p == path || p[-1] == '/') && (p[2] == '/' || p[2] == '\0'))
            return true;
    }
    return false;
}

/* Length of the root without slashes at its end; "/" has length 0. */
static size_t trimmed(const char *root)
{
    size_t len = strlen(root);
    while (len > 0 && root[len - 1] == '/')
        len--;
    return len;
}

/* Without empty and "." components; "." for nothing. */
static const char *clean_below(struct arena *a, const char *path)
{
    char *copy = arena_strdup(a, path), *state = NULL;
    scoped_text clean = {0};
    for (char *name = strtok_r(copy, "/", &state); name; name = strtok_r(NULL, "/", &state)) {
        if (strcmp(name, ".") == 0)
            continue;
        text_puts(&clean, clean.len ? "/" : "");
        text_puts(&clean, name);
    }
    return arena_strdup(a, clean.len ? clean.data : ".");
}

/* The longest root that holds `path`, which need not be the first where roots lie within each other. */
static const char *root_of(struct scope *sc, const char *roots, const char *path, const char **out_below)
{
    char *copy = arena_strdup(&sc->arena, roots), *state = NULL;
    const char *best = NULL;
    size_t best_len = 0;
    for (char *root = strtok_r(copy, ":", &state); root; root = strtok_r(NULL, ":", &state)) {
        size_t len = trimmed(root);
        if (root[0] != '/' || strncmp(path, root, len) != 0 || (path[len] != '/' && path[len] != '\0'))
            continue;
        if (best && len <= best_len)
            continue;
        best = root;
        best_len = len;
    }
    if (!best)
        return NULL;
    *out_below = clean_below(&sc->arena, path + best_len);
    return best;
}

static enum status find_place(struct scope *sc, const char *roots, const char *path, struct place *out)
{
    if (!roots || !*roots)
        return fail(sc, STATUS_INVALID, "no directory may be read: OPSTREAM_SOURCE_ROOTS is empty");
    if (path[0] != '/')
        return fail(sc, STATUS_INVALID, "the path of a source must be absolute");
    if (has_dot_dot(path))
        return fail(sc, STATUS_INVALID, "the path of a source must not contain '..'");
    out->root = root_of(sc, roots, path, &out->below);
    if (!out->root)
        return fail(sc, STATUS_INVALID, "the path is not below one of the directories of OPSTREAM_SOURCE_ROOTS");
    out->root_fd = open(out->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (out->root_fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return fail(sc, STATUS_BUSY, "too many files are open");
    if (out->root_fd < 0)
        return fail(sc, STATUS_NOT_FOUND, "the source root cannot be opened: %s", reason_of(errno));
    return STATUS_OK;
}

/* A source as a whole that cannot be opened: what may come back counts as not there. */
static enum status fail_source(struct scope *sc, int error)
{
    enum status s = status_of(error);
    s = s == STATUS_UNAVAILABLE ? STATUS_NOT_FOUND : s == STATUS_FORBIDDEN ? STATUS_INVALID : s;
    return fail(sc, s, "the source cannot be opened: %s", reason_of(error));
}

/* O_PATH touches neither FIFOs nor devices. The statuses are those of source_check. */
static enum status open_start(struct scope *sc, const char *roots, const char *path, struct place *place, int *out_fd,
                              struct stat *out_info)
{
    enum status s = find_place(sc, roots, path, place);
    if (s != STATUS_OK)
        return s;
    *out_fd = open_beneath(place->root_fd, place->below, O_PATH, 0);
    if (*out_fd >= 0 && fstat(*out_fd, out_info) == 0)
        return STATUS_OK;
    return fail_source(sc, errno);
}

enum status source_check(struct scope *sc, const char *roots, const char *path)
{
    struct place place = nowhere;
    scoped_fd int fd = -1;
    struct stat info = {0};
    enum status s = open_start(sc, roots, path, &place, &fd, &info);
    if (s == STATUS_OK && !S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode))
        s = fail(sc, STATUS_INVALID, "the source is neither a directory nor a regular file");
    if (s == STATUS_OK) {
        scoped_fd int readable = open_beneath(place.root_fd, place.below, O_RDONLY | O_NONBLOCK, 0);
        if (readable < 0)
            s = fail_source(sc, errno);
    }
    if (place.root_fd >= 0)
        close(place.root_fd);
    return s;
}

/* ---- walking ---- */

struct walk {
    const struct source_options *options;
    enum status (*on_file)(struct scope *sc, void *context, const struct source_file *file);
    void *context;
    int root_fd;
    struct text path;  /* absolute, of the entry at hand */
    size_t source_len; /* bytes of `path` that name the source, its last slash included */
    size_t root_len;   /* the same for the root */
    struct {
        dev_t device;
        ino_t inode;
    } above[MOST_DEPTH + 1]; /* the directories from the source down to the one at hand */
};

static enum status step(struct scope *sc, const struct walk *w)
{
    return w->options && w->options->on_step ? w->options->on_step(sc, w->context) : STATUS_OK;
}

static const char *below_source(const struct walk *w, size_t *out_len)
{
    *out_len = w->path.len - w->source_len;
    return w->path.data + w->source_len;
}

static bool matches_any(const struct walk *w, const cJSON *patterns)
{
    size_t len;
    const char *path = below_source(w, &len);
    for (const cJSON *p = patterns ? patterns->child : NULL; p; p = p->next) {
        if (cJSON_IsString(p) && glob_matches(p->valuestring, path, len))
            return true;
    }
    return false;
}

static bool is_excluded(const struct walk *w)
{
    return w->options && matches_any(w, w->options->exclude);
}

/* Of a file. An empty list of patterns to include is no restriction. */
static bool is_wanted(const struct walk *w)
{
    if (is_excluded(w))
        return false;
    const cJSON *include = w->options ? w->options->include : NULL;
    return cJSON_GetArraySize(include) == 0 || matches_any(w, include);
}

static enum status report(struct scope *sc, struct walk *w, const struct stat *info, const char *problem)
{
    struct source_file f = {.path = w->path.data, .path_len = w->path.len, .problem = problem};
    if (info) {
        f.size = info->st_size;
        f.mtime_ns = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
    }
    return w->on_file(sc, w->context, &f);
}

static const char *kind_problem(mode_t mode)
{
    return S_ISREG(mode)                    ? NULL
           : S_ISFIFO(mode)                 ? "it is a named pipe, not a file"
           : S_ISSOCK(mode)                 ? "it is a socket, not a file"
           : S_ISCHR(mode) || S_ISBLK(mode) ? "it is a device, not a file"
                                            : "it is not a regular file";
}

/* faccessat2 by the empty path asks about the very inode that was found; an older kernel lets the later opening decide.
 */
static const char *file_problem(int fd, const struct stat *info)
{
    const char *problem = kind_problem(info->st_mode);
    if (!problem && faccessat(fd, "", R_OK, AT_EMPTY_PATH | AT_EACCESS) != 0 && (errno == EACCES || errno == EPERM))
        problem = reason_of(errno);
    return problem;
}

static enum status walk_directory(struct scope *sc, struct walk *w, int fd, int depth);

static enum status enter_directory(struct scope *sc, struct walk *w, int at, const char *name, const struct stat *info,
                                   int depth)
{
    if (w->options && !w->options->recursive)
        return STATUS_OK;
    if (is_excluded(w))
        return STATUS_OK;
    if (depth > MOST_DEPTH)
        return report(sc, w, info, "it lies more than 64 directories deep and is not read");
    for (int i = 0; i < depth; i++) {
        if (w->above[i].device == info->st_dev && w->above[i].inode == info->st_ino)
            return report(sc, w, info, "it is a directory that holds itself (a loop of mounts)");
    }
    int fd = open_beneath(at, name, O_RDONLY | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return STATUS_OK; /* removed just now */
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return report(sc, w, info, "permission to read the directory is missing");
    if (fd < 0)
        return fail(sc, status_of(errno), "a directory of the source cannot be opened: %s", reason_of(errno));
    return walk_directory(sc, w, fd, depth);
}

/* A link may lead to a file elsewhere below the root. Directories are not entered through links: they'd be read twice,
 * or for ever. */
static enum status take_link(struct scope *sc, struct walk *w)
{
    struct stat info = {0};
    scoped_fd int fd = open_beneath(w->root_fd, w->path.data + w->root_len, O_PATH, 0);
    if (fd < 0 && status_of(errno) == STATUS_UNAVAILABLE)
        return fail(sc, STATUS_UNAVAILABLE, "a file of the source cannot be opened: %s", reason_of(errno));
    if (fd < 0 && errno == EXDEV)
        return is_wanted(w) ? report(sc, w, NULL, "a symbolic link that leads out of the source root is not followed")
                            : STATUS_OK;
    if (fd < 0 || fstat(fd, &info) != 0)
        return is_wanted(w) ? report(sc, w, NULL, "a symbolic link that leads nowhere") : STATUS_OK;
    if (S_ISDIR(info.st_mode))
        return is_excluded(w) ? STATUS_OK : report(sc, w, NULL, "a symbolic link to a directory is not followed");
    return is_wanted(w) ? report(sc, w, &info, file_problem(fd, &info)) : STATUS_OK;
}

static enum status take_entry(struct scope *sc, struct walk *w, int at, const char *name, int depth)
{
    struct stat info = {0};
    enum status s = step(sc, w);
    if (s != STATUS_OK)
        return s;
    scoped_fd int fd = open_beneath(at, name, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0 && errno == ENOENT)
        return STATUS_OK;
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || is_share_gone(errno)))
        return fail(sc, status_of(errno), "an entry of the source cannot be opened: %s", reason_of(errno));
    if (fd < 0 || fstat(fd, &info) != 0)
        return is_wanted(w) ? report(sc, w, NULL, reason_of(errno)) : STATUS_OK;
    if (S_ISDIR(info.st_mode))
        return enter_directory(sc, w, at, name, &info, depth + 1);
    if (S_ISLNK(info.st_mode))
        return take_link(sc, w);
    return is_wanted(w) ? report(sc, w, &info, file_problem(fd, &info)) : STATUS_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_hidden(const struct walk *w, const char *name)
{
    if (name[0] != '.')
        return false;
    if (w->options && w->options->hidden && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        ++*w->options->hidden;
    return true;
}

/* The next names of one directory, sorted; none = its end. The caller frees *out_names, whatever the status. */
static enum status read_names(struct scope *sc, struct arena *a, const struct walk *w, DIR *dir, char ***out_names,
                              size_t *out_count)
{
    size_t most = w->options && w->options->names_at_once ? w->options->names_at_once : SIZE_MAX;
    size_t count = 0, capacity = 256;
    char **names = must_malloc(capacity * sizeof *names);
    enum status s = STATUS_OK;
    errno = 0;
    for (struct dirent *d; s == STATUS_OK && count < most && (d = readdir(dir)); errno = 0) {
        s = step(sc, w);
        if (s != STATUS_OK || is_hidden(w, d->d_name))
            continue;
        if (count == capacity) {
            capacity *= 2;
            names = must_realloc(names, capacity * sizeof *names);
        }
        names[count++] = arena_strdup(a, d->d_name);
    }
    if (s == STATUS_OK && errno != 0) /* half a listing must not pass for a whole one */
        s = fail(sc, STATUS_UNAVAILABLE, "a directory of the source cannot be read: %s", reason_of(errno));
    qsort(names, count, sizeof *names, compare_names);
    *out_names = names;
    *out_count = count;
    return s;
}

static void cut_path(struct walk *w, size_t len)
{
    w->path.len = len;
    w->path.data[len] = '\0';
}

/* *out_count: how many names there were; 0 = the directory's end. */
static enum status take_entries(struct scope *sc, struct walk *w, DIR *dir, int depth, size_t *out_count)
{
    struct arena arena = {0};
    size_t path_len = w->path.len;
    scoped_memory char **names = NULL;
    enum status s = read_names(sc, &arena, w, dir, &names, out_count);
    for (size_t i = 0; i < *out_count && s == STATUS_OK; i++) {
        text_puts(&w->path, names[i]);
        s = take_entry(sc, w, dirfd(dir), names[i], depth);
        cut_path(w, path_len);
    }
    arena_reset(&arena);
    return s;
}

/* Owns `fd`. */
static enum status walk_directory(struct scope *sc, struct walk *w, int fd, int depth)
{
    struct stat info = {0};
    if (fstat(fd, &info) != 0) {
        int error = errno;
        close(fd);
        return fail(sc, STATUS_UNAVAILABLE, "a directory of the source cannot be read: %s", reason_of(error));
    }
    w->above[depth].device = info.st_dev;
    w->above[depth].inode = info.st_ino;
    scoped(DIR) *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return fail(sc, STATUS_BUSY, "too many files are open");
    }
    size_t count, path_len = w->path.len;
    text_putc(&w->path, '/');
    enum status s;
    do
        s = take_entries(sc, w, dir, depth, &count);
    while (s == STATUS_OK && count > 0);
    cut_path(w, path_len);
    return s;
}

static enum status walk_from(struct scope *sc, struct walk *w, const struct place *place, const struct stat *info)
{
    text_append(&w->path, place->root, trimmed(place->root));
    w->root_len = w->path.len + 1;
    if (strcmp(place->below, ".") != 0)
        text_printf(&w->path, "/%s", place->below);
    w->source_len = w->path.len + 1;
    if (!S_ISDIR(info->st_mode)) { /* patterns are for what lies in a directory; this file was named */
        scoped_fd int file = open_beneath(place->root_fd, place->below, O_PATH, 0);
        return report(sc, w, info, file < 0 ? reason_of(errno) : file_problem(file, info));
    }
    int fd = open_beneath(place->root_fd, place->below, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fail_source(sc, errno);
    return walk_directory(sc, w, fd, 0);
}

enum status source_walk(struct scope *sc, const char *roots, const char *path, const struct source_options *options,
                        enum status (*on_file)(struct scope *sc, void *context, const struct source_file *file),
                        void *context)
{
    struct place place = nowhere;
    scoped_fd int fd = -1;
    struct stat info = {0};
    enum status s = open_start(sc, roots, path, &place, &fd, &info);
    if (s == STATUS_OK) {
        struct walk w = {.options = options, .on_file = on_file, .context = context, .root_fd = place.root_fd};
        s = walk_from(sc, &w, &place, &info);
        text_free(&w.path);
    }
    if (place.root_fd >= 0)
        close(place.root_fd);
    return s;
}

/* ---- one file ---- */

static enum status open_regular(struct scope *sc, int root_fd, const char *below, int *out_fd)
{
    struct stat info = {0};
    scoped_fd int looked_at = open_beneath(root_fd, below, O_PATH, 0);
    if (looked_at < 0 || fstat(looked_at, &info) != 0)
        return fail(sc, status_of(errno), "the file cannot be opened: %s", reason_of(errno));
    if (kind_problem(info.st_mode))
        return fail(sc, STATUS_INVALID, "the file cannot be read: %s", kind_problem(info.st_mode));
    /* Should a FIFO have taken its place meanwhile, O_NONBLOCK returns at once. */
    int fd = open_beneath(root_fd, below, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return fail(sc, status_of(errno), "the file cannot be opened: %s", reason_of(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || fcntl(fd, F_SETFL, O_RDONLY) != 0) {
        close(fd);
        return fail(sc, STATUS_INVALID, "the file cannot be read: it is not a regular file");
    }
    *out_fd = fd;
    return STATUS_OK;
}

enum status source_open_file(struct scope *sc, const char *roots, const char *path, size_t path_len, int *out_fd)
{
    if (memchr(path, '\0', path_len))
        return fail(sc, STATUS_INVALID, "the file's path holds a NUL");
    struct place place = nowhere;
    enum status s = find_place(sc, roots, arena_strndup(&sc->arena, path, path_len), &place);
    if (s == STATUS_INVALID)
        return STATUS_FORBIDDEN; /* outside the roots; the sentence is there already */
    if (s != STATUS_OK)
        return s;
    s = open_regular(sc, place.root_fd, place.below, out_fd);
    close(place.root_fd);
    return s;
}

enum status source_hash_fd(struct scope *sc, int fd, char out[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    scoped_memory unsigned char *buffer = must_malloc(HASH_STEP_BYTES);
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool is_good = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1;
    ssize_t n = 1;
    while (is_good && n != 0) {
        n = read(fd, buffer, HASH_STEP_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        is_good = n >= 0 && EVP_DigestUpdate(hash, buffer, (size_t)n) == 1;
    }
    is_good = is_good && EVP_DigestFinal_ex(hash, digest, &digest_len) == 1 && digest_len == 32;
    EVP_MD_CTX_free(hash);
    if (!is_good || lseek(fd, 0, SEEK_SET) != 0)
        return fail(sc, STATUS_UNAVAILABLE, "the file cannot be read to its end");
    hex_encode(digest, digest_len, out);
    return STATUS_OK;
}
