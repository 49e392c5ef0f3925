#include "api/scan.h"
#include "common/source/directory.h"
#include "common/source/glob.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a tree of its own for every test ---- */

static char base[64];
static char root[80]; /* base/root */

static const char *at(const char *below)
{
    static char paths[8][1024];
    static unsigned next;
    char *path = paths[next++ % array_len(paths)];
    snprintf(path, sizeof paths[0], "%s/%s", root, below);
    return path;
}

static void make_directory(const char *below)
{
    assert_int_equal(mkdir(at(below), 0700), 0);
}

static void make_file(const char *below, const char *content)
{
    FILE *f = fopen(at(below), "w");
    assert_non_null(f);
    fputs(content, f);
    assert_int_equal(fclose(f), 0);
}

static void make_link(const char *below, const char *target)
{
    assert_int_equal(symlink(target, at(below)), 0);
}

static void remove_tree(int fd)
{
    DIR *dir = fdopendir(fd);
    for (struct dirent *d; dir && (d = readdir(dir));) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(dir), d->d_name, 0) == 0)
            continue;
        int below = openat(dirfd(dir), d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (below >= 0)
            remove_tree(below);
        unlinkat(dirfd(dir), d->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(base, sizeof base, "/tmp/opstream-directory-XXXXXX");
    if (!mkdtemp(base))
        return -1;
    snprintf(root, sizeof root, "%s/root", base);
    return mkdir(root, 0700);
}

static int tear_down(void **state)
{
    (void)state;
    remove_tree(open(base, O_RDONLY | O_DIRECTORY));
    return rmdir(base);
}

/* ---- a walk written down: "a.txt b.txt! " where ! stands for a problem ---- */

struct notes {
    struct text names, problems;
    size_t skip, count, stop_after;
};

static enum status note(struct scope *sc, void *context, const struct source_file *f)
{
    struct notes *n = context;
    n->count++;
    assert_int_equal(strlen(f->path), f->path_len);
    text_append_escaped(&n->names, f->path + n->skip, f->path_len - n->skip);
    text_puts(&n->names, f->problem ? "! " : " ");
    text_printf(&n->problems, "%s\n", f->problem ? f->problem : "");
    return n->stop_after == n->count ? (fail)(sc, STATUS_CANCELLED, "enough") : STATUS_OK;
}

static void assert_walk(const char *below, bool is_recursive, const char *include, const char *exclude,
                        const char *expected)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *in = include ? cJSON_Parse(include) : NULL, *ex = exclude ? cJSON_Parse(exclude) : NULL;
    struct source_options options = {.recursive = is_recursive, .include = in, .exclude = ex};
    struct notes n = {.skip = strlen(root) + 1};
    enum status s = source_walk(&sc, root, at(below), &options, note, &n);
    if (s != STATUS_OK)
        fail_msg("%s", sc.problem_text);
    assert_string_equal(text_str(&n.names), expected);
    text_free(&n.names);
    text_free(&n.problems);
    scope_done(&sc);
}

static enum status open_one(const char *path, size_t len, int *out_fd)
{
    struct scope sc;
    scope_init(&sc, NULL);
    enum status s = source_open_file(&sc, root, path, len, out_fd);
    assert_true(s == STATUS_OK || (sc.problem_text && !strstr(sc.problem_text, base)));
    scope_done(&sc);
    return s;
}

static enum status check(const char *roots, const char *path)
{
    struct scope sc;
    scope_init(&sc, NULL);
    enum status s = source_check(&sc, roots, path);
    assert_true(s == STATUS_OK || sc.problem_text);
    scope_done(&sc);
    return s;
}

/* ---- walking ---- */

static void files_come_in_the_order_of_their_names_without_hidden_ones(void **state)
{
    (void)state;
    make_directory("b");
    make_directory(".git");
    make_file(".git/config", "x");
    make_file("b/2", "x");
    make_file("b/10", "x");
    make_file("c", "x");
    make_file("a", "x");
    make_file(".DS_Store", "x");
    assert_walk("", true, NULL, NULL, "a b/10 b/2 c ");
    assert_walk("b", true, NULL, NULL, "b/10 b/2 ");
    assert_walk("b//./", true, NULL, NULL, "b/10 b/2 ");
    assert_walk("c", true, NULL, NULL, "c ");
}

static void without_recursion_only_the_directory_itself_is_read(void **state)
{
    (void)state;
    make_directory("sub");
    make_file("sub/inner", "x");
    make_file("outer", "x");
    assert_walk("", false, NULL, NULL, "outer ");
}

static void names_that_are_not_utf8_survive_as_bytes(void **state)
{
    (void)state;
    make_directory("d\xFF");
    make_file("d\xFF/\xE9t\xE9.txt", "x");
    assert_walk("", true, NULL, NULL, "d\\xFF/\\xE9t\\xE9.txt ");
    int fd = -1;
    const char *path = at("d\xFF/\xE9t\xE9.txt");
    assert_int_equal(open_one(path, strlen(path), &fd), STATUS_OK);
    close(fd);
}

static void special_files_are_reported_and_never_opened(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", at("socket"));
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof address), 0);
    close(s);
    make_file("z", "x");
    assert_walk("", true, NULL, NULL, "pipe! socket! z ");
    assert_walk("", true, "[\"z*\"]", NULL, "z ");
    int fd = -1;
    assert_int_equal(open_one(at("pipe"), strlen(at("pipe")), &fd), STATUS_INVALID);
    assert_int_equal(open_one(at("socket"), strlen(at("socket")), &fd), STATUS_INVALID);
    assert_int_equal(open_one(root, strlen(root), &fd), STATUS_INVALID);
    assert_int_equal(fd, -1);
}

static void links_are_followed_within_the_root_only(void **state)
{
    (void)state;
    make_directory("sub");
    make_file("sub/file", "x");
    make_link("sub/up", "../top");
    make_file("top", "x");
    make_link("to-directory", "sub");
    make_link("to-file", "sub/file");
    make_link("to-nowhere", "missing");
    make_link("to-outside", "../secret");
    make_link("to-outside-absolute", "/etc/passwd");
    make_link("to-itself", "to-itself");
    make_file("../secret", "x");
    assert_walk("", true, NULL, NULL,
                "sub/file sub/up to-directory! to-file to-itself! to-nowhere! to-outside! to-outside-absolute! top ");
}

static void a_path_cannot_leave_the_root(void **state)
{
    (void)state;
    int fd = -1;
    make_link("etc", "/etc");
    make_link("up", "..");
    char path[200];
    static const char *const bad[] = {"../secret", "etc/passwd", "up/secret", "a/../../secret"};
    make_file("../secret", "x");
    for (size_t i = 0; i < array_len(bad); i++) {
        assert_int_equal(open_one(at(bad[i]), strlen(at(bad[i])), &fd), STATUS_FORBIDDEN);
        assert_int_equal(check(root, at(bad[i])), STATUS_INVALID);
    }
    assert_int_equal(open_one("/etc/passwd", 11, &fd), STATUS_FORBIDDEN);
    assert_int_equal(check(root, "/etc"), STATUS_INVALID);
    assert_int_equal(check(root, "root"), STATUS_INVALID);
    snprintf(path, sizeof path, "%sx", root); /* begins alike, lies beside */
    assert_int_equal(check(root, path), STATUS_INVALID);
    assert_int_equal(fd, -1);
}

static void any_of_several_roots_will_do(void **state)
{
    (void)state;
    make_directory("one");
    make_directory("two");
    make_file("two/file", "x");
    char roots[300];
    snprintf(roots, sizeof roots, "%s:%s/", at("one"), at("two"));
    assert_int_equal(check(roots, at("two")), STATUS_OK);
    assert_int_equal(check(roots, at("two/file")), STATUS_OK);
    assert_int_equal(check(roots, root), STATUS_INVALID);
    assert_int_equal(check("", root), STATUS_INVALID);
    assert_int_equal(check(NULL, root), STATUS_INVALID);
    assert_int_equal(check("/", root), STATUS_OK);
}

static void what_is_away_is_not_found(void **state)
{
    (void)state;
    char path[200];
    snprintf(path, sizeof path, "%s/unmounted", base);
    assert_int_equal(check(path, path), STATUS_NOT_FOUND);
    assert_int_equal(check(root, at("missing")), STATUS_NOT_FOUND);
    struct scope sc;
    scope_init(&sc, NULL);
    struct notes n = {0};
    assert_int_equal(source_walk(&sc, root, at("missing"), NULL, note, &n), STATUS_NOT_FOUND);
    assert_int_equal(n.count, 0);
    int fd = -1;
    scope_forgive(&sc);
    assert_int_equal(source_open_file(&sc, root, at("missing"), strlen(at("missing")), &fd), STATUS_NOT_FOUND);
    scope_done(&sc);
}

static void a_very_deep_tree_is_reported_not_followed(void **state)
{
    (void)state;
    scoped_text path = {0};
    for (int i = 0; i < 70; i++) {
        text_puts(&path, i ? "/d" : "d");
        make_directory(path.data);
    }
    text_puts(&path, "/file");
    make_file(path.data, "x");
    struct scope sc;
    scope_init(&sc, NULL);
    struct source_options options = {.recursive = true};
    struct notes n = {0};
    assert_int_equal(source_walk(&sc, root, root, &options, note, &n), STATUS_OK);
    assert_int_equal(n.count, 1);
    assert_non_null(strstr(text_str(&n.problems), "deep"));
    text_free(&n.names);
    text_free(&n.problems);
    scope_done(&sc);
}

static void the_walk_ends_with_the_first_status_that_is_not_ok(void **state)
{
    (void)state;
    make_file("a", "x");
    make_file("b", "x");
    make_file("c", "x");
    struct scope sc;
    scope_init(&sc, NULL);
    struct notes n = {.stop_after = 2};
    assert_int_equal(source_walk(&sc, root, root, NULL, note, &n), STATUS_CANCELLED);
    assert_int_equal(n.count, 2);
    text_free(&n.names);
    text_free(&n.problems);
    scope_done(&sc);
}

struct steps {
    struct notes notes;
    size_t count, stop_after;
};

static enum status count_step(struct scope *sc, void *context)
{
    struct steps *n = context;
    return ++n->count == n->stop_after ? (fail)(sc, STATUS_CANCELLED, "enough") : STATUS_OK;
}

static enum status note_step(struct scope *sc, void *context, const struct source_file *f)
{
    return note(sc, &((struct steps *)context)->notes, f);
}

static enum status walk_in_steps(size_t stop_after, struct steps *out)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *include = cJSON_Parse("[\"*.md\"]");
    struct source_options options = {.recursive = true, .include = include, .on_step = count_step};
    *out = (struct steps){.stop_after = stop_after};
    enum status s = source_walk(&sc, root, root, &options, note_step, out);
    text_free(&out->notes.names);
    text_free(&out->notes.problems);
    scope_done(&sc);
    return s;
}

static void whoever_waits_is_asked_at_every_name_also_where_no_file_is_found(void **state)
{
    (void)state;
    make_directory("empty");
    make_directory("hidden");
    make_file("hidden/.one", "x");
    make_file("hidden/.two", "x");
    make_file("other.txt", "x");
    struct steps n;
    assert_int_equal(walk_in_steps(0, &n), STATUS_OK);
    size_t all = n.count;
    assert_int_equal(n.notes.count, 0);
    assert_true(all >= 3 + 2 + 3); /* the names of both directories, and the entries that are taken */
    for (size_t i = 1; i <= all; i++) {
        assert_int_equal(walk_in_steps(i, &n), STATUS_CANCELLED);
        assert_int_equal(n.count, i);
    }
}

static void a_preview_that_finds_nothing_ends_in_time(void **state)
{
    (void)state;
    make_directory("empty");
    make_file(".hidden", "x");
    make_file("other.txt", "x");
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *include = cJSON_Parse("[\"*.md\"]");
    struct scan_request preview = {
        .roots = root, .path = root, .options = {.recursive = true, .include = include}, .deadline_ms = 1};
    struct scan_totals totals = {0};
    assert_int_equal(scan_run(&sc, &preview, &totals), STATUS_OK);
    assert_non_null(totals.cut);
    assert_non_null(strstr(totals.cut, "too long"));
    scope_done(&sc);
}

static void patterns_choose_files(void **state)
{
    (void)state;
    make_directory("docs");
    make_directory("docs/old");
    make_directory("node_modules");
    make_file("a.md", "x");
    make_file("b.txt", "x");
    make_file("docs/c.md", "x");
    make_file("docs/old/d.md", "x");
    make_file("node_modules/e.md", "x");
    assert_walk("", true, "[\"*.md\"]", NULL, "a.md docs/c.md docs/old/d.md node_modules/e.md ");
    assert_walk("", true, "[\"*.md\"]", "[\"node_modules\"]", "a.md docs/c.md docs/old/d.md ");
    assert_walk("", true, "[\"docs/**\"]", "[\"**/old/\"]", "docs/c.md ");
    assert_walk("", true, "[]", "[\"*.md\"]", "b.txt ");
    assert_walk("docs", true, "[\"*.md\"]", "[\"old/**\"]", "docs/c.md ");
}

static void globs_mean_what_people_expect(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"*.md", "a.md", true},
        {"*.md", "x/y/a.md", true},
        {"/*.md", "a.md", true},
        {"/*.md", "x/a.md", false},
        {"*.md", "a.md.txt", false},
        {"docs/*", "docs/a", true},
        {"docs/*", "docs/x/a", false},
        {"docs/**", "docs/x/a", true},
        {"docs/**", "docs", false},
        {"**/a", "a", true},
        {"**/a", "x/y/a", true},
        {"**", "x/y", true},
        {"x/**/z", "x/z", true},
        {"x/**/z", "x/1/2/z", true},
        {"x/**/z", "x/1/2", false},
        {"?.txt", "é.txt", true},
        {"?.txt", "\xE9.txt", true},
        {"[a-c]x", "bx", true},
        {"[!a-c]x", "bx", false},
        {"[]]x", "]x", true},
        {"[x", "[x", true},
        {"a\\*", "a*", true},
        {"a\\*", "ab", false},
        {"./a/b", "a/b", true},
        {"", "a", false},
        {"**/x/**/y", "a/x/b/x/c/y", true},
        {"*a*b*", "xxaxxbxx", true},
        {"build/", "build", true},
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        if (glob_matches(cases[i].pattern, cases[i].path, strlen(cases[i].path)) != cases[i].matches)
            fail_msg("%s against %s", cases[i].pattern, cases[i].path);
    }
}

static void a_nasty_glob_ends_soon(void **state)
{
    (void)state;
    char path[4000], pattern[400] = "";
    for (size_t i = 0; i + 1 < sizeof path; i++)
        path[i] = i % 2 ? '/' : 'a';
    path[sizeof path - 1] = '\0';
    for (int i = 0; i < 40; i++)
        strcat(pattern, "**/a/");
    strcat(pattern, "b");
    assert_false(glob_matches(pattern, path, strlen(path)));
    assert_false(
        glob_matches("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 52));
}

/* ---- files ---- */

static void a_file_is_hashed_and_can_be_read_again(void **state)
{
    (void)state;
    make_file("abc", "abc");
    int fd = -1;
    assert_int_equal(open_one(at("abc"), strlen(at("abc")), &fd), STATUS_OK);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    struct scope sc;
    scope_init(&sc, NULL);
    char hash[65], byte;
    assert_int_equal(source_hash_fd(&sc, fd, hash), STATUS_OK);
    assert_string_equal(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(byte, 'a');
    close(fd);
    int directory = open(root, O_RDONLY);
    assert_int_equal(source_hash_fd(&sc, directory, hash), STATUS_UNAVAILABLE);
    close(directory);
    scope_done(&sc);
}

static void an_unreadable_file_is_reported(void **state)
{
    (void)state;
    make_file("closed", "x");
    make_directory("shut");
    assert_int_equal(chmod(at("closed"), 0), 0);
    assert_int_equal(chmod(at("shut"), 0), 0);
    assert_int_equal(chmod(root, 0755), 0);
    assert_int_equal(chmod(base, 0755), 0);
    bool is_root = geteuid() == 0; /* to whom nothing is unreadable */
    assert_true(!is_root || seteuid(65534) == 0);
    assert_walk("", true, NULL, NULL, "closed! shut! ");
    int fd = -1;
    assert_int_equal(open_one(at("closed"), strlen(at("closed")), &fd), STATUS_FORBIDDEN);
    assert_true(!is_root || seteuid(0) == 0);
    assert_int_equal(chmod(at("shut"), 0700), 0);
}

#define in_a_tree(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static void a_huge_directory_is_read_in_sorted_parts(void **state)
{
    (void)state;
    struct scope sc;
    make_directory("huge");
    make_file("huge/.hidden", "x");
    for (int i = 0; i < 25; i++) {
        char name[32];
        snprintf(name, sizeof name, "huge/%02d", i);
        make_file(name, "x");
    }
    static const size_t at_once[] = {0, 1, 7, 25, 26, 1000};
    for (size_t i = 0; i < array_len(at_once); i++) {
        int64_t hidden = 0;
        struct source_options options = {.names_at_once = at_once[i], .hidden = &hidden};
        struct notes n = {.skip = strlen(at("huge")) + 1};
        scope_init(&sc, NULL);
        assert_int_equal(source_walk(&sc, root, at("huge"), &options, note, &n), STATUS_OK);
        assert_int_equal(n.count, 25);
        assert_int_equal(hidden, 1);
        for (int f = 0; f < 25; f++) {
            char name[16];
            snprintf(name, sizeof name, "%02d ", f);
            assert_non_null(strstr(text_str(&n.names), name));
        }
        text_free(&n.names);
        text_free(&n.problems);
        scope_done(&sc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_a_tree(files_come_in_the_order_of_their_names_without_hidden_ones),
        in_a_tree(without_recursion_only_the_directory_itself_is_read),
        in_a_tree(names_that_are_not_utf8_survive_as_bytes),
        in_a_tree(special_files_are_reported_and_never_opened),
        in_a_tree(links_are_followed_within_the_root_only),
        in_a_tree(a_path_cannot_leave_the_root),
        in_a_tree(any_of_several_roots_will_do),
        in_a_tree(what_is_away_is_not_found),
        in_a_tree(a_very_deep_tree_is_reported_not_followed),
        in_a_tree(the_walk_ends_with_the_first_status_that_is_not_ok),
        in_a_tree(whoever_waits_is_asked_at_every_name_also_where_no_file_is_found),
        in_a_tree(a_preview_that_finds_nothing_ends_in_time),
        in_a_tree(patterns_choose_files),
        cmocka_unit_test(globs_mean_what_people_expect),
        cmocka_unit_test(a_nasty_glob_ends_soon),
        in_a_tree(a_file_is_hashed_and_can_be_read_again),
        in_a_tree(an_unreadable_file_is_reported),
        in_a_tree(a_huge_directory_is_read_in_sorted_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
