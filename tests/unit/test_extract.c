#include "common/text.h"
#include "worker/extract/extract.h"
#include "worker/extract/lockdown.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DOCUMENTS "tests/golden/documents/"

static const struct extract_limits usual = {
    .max_file_bytes = 10 << 20, .max_text_bytes = 1 << 20, .seconds = 60, .memory_mb = 1024};

struct reading {
    struct scope sc;
    struct extract_result r;
    enum status status;
};

static struct reading read_with(struct extractor *e, int fd, const char *name)
{
    struct reading got;
    memset(&got, 0, sizeof got);
    scope_init(&got.sc, NULL);
    assert_true(fd >= 0);
    got.status = extractor_run(&got.sc, e, fd, name, &got.r);
    close(fd);
    return got;
}

static struct reading read_document(const struct extract_limits *limits, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, DOCUMENTS "%s", name);
    struct extractor *e = extractor_new(limits, "/proc/self/exe");
    struct reading got = read_with(e, open(path, O_RDONLY | O_CLOEXEC), name);
    extractor_free(e);
    return got;
}

static int file_of(const char *bytes, size_t len)
{
    int fd = memfd_create("document", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    return fd;
}

static void assert_reads(const char *name, const char *mime, const char *expected)
{
    struct reading got = read_document(&usual, name);
    if (got.status != STATUS_OK)
        fail_msg("%s: %s", name, got.sc.problem_text);
    assert_string_equal(got.r.mime_type, mime);
    assert_string_equal(got.r.text, expected);
    assert_int_equal(got.r.text_len, strlen(expected));
    scope_done(&got.sc);
}

static void assert_refuses(const char *name, enum status status, const char *words)
{
    struct reading got = read_document(&usual, name);
    if (got.status != status || !strstr(got.sc.problem_text, words))
        fail_msg("%s: %s: %s", name, status_name(got.status), got.sc.problem_text);
    scope_done(&got.sc);
}

static void plain_text_is_cleaned(void **state)
{
    (void)state;
    assert_reads("plain.txt", "text/plain", "First line.\nSecond line\n\nNew page\n\n\nEnd here.");
    assert_reads("notes.md", "text/markdown", "# Notes\n\nSome *text*.");
    assert_reads("table.csv", "text/csv", "name;size\nbarn owl;34");
    assert_reads("data.json", "application/json", "{\"name\": \"owl\", \"sizes\": [34, 60]}");
}

static void character_sets_are_recognised(void **state)
{
    (void)state;
    assert_reads("latin1.txt", "text/plain",
                 "Grüße aus Köln: naïve façade, à bientôt, mañana. Die Straße ist für Fußgänger.");
    assert_reads("utf16le.txt", "text/plain", "Grüße 🦉");
    assert_reads("utf16be.txt", "text/plain", "Plain words in two bytes each");
    assert_reads("sjis.txt", "text/plain", "吹雪の夜、梟は森の中で狩りをします。昼間は木の中で眠ります。");
}

static void damage_to_utf8_costs_single_characters(void **state)
{
    (void)state;
    struct reading got = read_document(&usual, "damaged-utf8.txt");
    assert_int_equal(got.status, STATUS_OK);
    assert_non_null(strstr(got.r.text, "äöüß \xEF\xBF\xBD end"));
    scope_done(&got.sc);
}

static void a_page_becomes_text_with_headings(void **state)
{
    (void)state;
    struct reading got = read_document(&usual, "page.html");
    assert_int_equal(got.status, STATUS_OK);
    assert_string_equal(got.r.mime_type, "text/html");
    assert_string_equal(got.r.title, "Owls — a page");
    assert_string_equal(
        got.r.text,
        "# Owls\n\nOwls hunt at night & sleep by day.\nCafé € é\n\n## Food\n\n- mice\n- voles\n\nKind Size\n"
        "Barn owl 34 cm\n\n  keep\n    this\n\nunclosed text");
    scope_done(&got.sc);
    assert_reads("page-1251.html", "text/html", "Совы охотятся");
}

static void a_word_document_becomes_text_with_headings(void **state)
{
    (void)state;
    struct reading got = read_document(&usual, "guide.docx");
    if (got.status != STATUS_OK)
        fail_msg("%s", got.sc.problem_text);
    assert_string_equal(got.r.title, "A Field Guide");
    assert_string_equal(got.r.text,
                        "# Owls\n\nOwls hunt at night & sleep by day.\n\n## Food\n\n- mice\n\n- voles\n\nKind | Size\n"
                        "Barn owl | 34 cm\n\nSplit runs\nnext line");
    scope_done(&got.sc);
}

static void damaged_word_documents_are_refused_with_a_reason(void **state)
{
    (void)state;
    assert_refuses("entities.docx", STATUS_UNPROCESSABLE, "not well-formed");
    assert_refuses("cut.docx", STATUS_UNPROCESSABLE, "damaged");
    assert_refuses("malformed.docx", STATUS_UNPROCESSABLE, "not well-formed");
    assert_refuses("not-a-document.docx", STATUS_UNPROCESSABLE, "not a kind of document");
}

static void an_archive_that_unfolds_without_end_is_refused(void **state)
{
    (void)state;
    assert_refuses("bomb.docx", STATUS_TOO_LARGE, "unfolds");
}

static void a_pdf_is_read_page_by_page(void **state)
{
    (void)state;
    struct reading got = read_document(&usual, "two-pages.pdf");
    if (got.status != STATUS_OK)
        fail_msg("%s", got.sc.problem_text);
    assert_string_equal(got.r.mime_type, "application/pdf");
    assert_string_equal(got.r.title, "About Owls");
    assert_string_equal(got.r.text, "Owls hunt at night\nand sleep by day.\n\nContents ... 9");
    scope_done(&got.sc);
}

static void pdfs_that_cannot_be_read_say_why(void **state)
{
    (void)state;
    assert_refuses("secret.pdf", STATUS_UNPROCESSABLE, "password");
    assert_refuses("damaged.pdf", STATUS_UNPROCESSABLE, "damaged");
    assert_refuses("no-text.pdf", STATUS_UNPROCESSABLE, "no text");
}

static void other_kinds_are_refused_by_name(void **state)
{
    (void)state;
    assert_refuses("archive.zip", STATUS_UNPROCESSABLE, "application/zip is not a kind of document that can be read");
    assert_refuses("picture.png", STATUS_UNPROCESSABLE, "image/png");
    assert_refuses("picture.svg", STATUS_UNPROCESSABLE, "image/svg+xml");
    assert_refuses("letter.rtf", STATUS_UNPROCESSABLE, "text/rtf");
    assert_refuses("nuls.bin", STATUS_UNPROCESSABLE, "unknown binary data");
}

static void files_without_text_are_refused(void **state)
{
    (void)state;
    assert_refuses("empty.txt", STATUS_UNPROCESSABLE, "empty");
    assert_refuses("blank.txt", STATUS_UNPROCESSABLE, "no text");
}

static void bounds_of_size_hold(void **state)
{
    (void)state;
    struct extract_limits tight = usual;
    tight.max_file_bytes = 10;
    struct reading got = read_document(&tight, "plain.txt");
    assert_int_equal(got.status, STATUS_TOO_LARGE);
    assert_non_null(strstr(got.sc.problem_text, "MAX_FILE_BYTES"));
    scope_done(&got.sc);
    tight = usual;
    tight.max_text_bytes = 20;
    static const char *const names[] = {"plain.txt", "page.html", "guide.docx", "two-pages.pdf"};
    for (size_t i = 0; i < array_len(names); i++) {
        got = read_document(&tight, names[i]);
        assert_int_equal(got.status, STATUS_TOO_LARGE);
        assert_non_null(strstr(got.sc.problem_text, "MAX_TEXT_BYTES"));
        scope_done(&got.sc);
    }
}

static void a_document_that_takes_too_much_memory_is_refused(void **state)
{
    (void)state;
    struct extract_limits tight = usual;
    tight.memory_mb = 64; /* less than what the archive unfolds to; under a sanitizer that bound alone stops it */
    struct reading got = read_document(&tight, "bomb.docx");
    assert_int_equal(got.status, STATUS_TOO_LARGE);
    scope_done(&got.sc);
}

static void one_helper_reads_many_files_and_goes_on_after_bad_ones(void **state)
{
    (void)state;
    struct extractor *e = extractor_new(&usual, "/proc/self/exe");
    for (int i = 0; i < 20; i++) {
        struct reading bad = read_with(e, open(DOCUMENTS "damaged.pdf", O_RDONLY | O_CLOEXEC), "damaged.pdf");
        assert_int_equal(bad.status, STATUS_UNPROCESSABLE);
        scope_done(&bad.sc);
        struct reading good = read_with(e, file_of("some words", 10), "a.txt");
        assert_int_equal(good.status, STATUS_OK);
        assert_string_equal(good.r.text, "some words");
        scope_done(&good.sc);
    }
    extractor_free(e);
}

static void a_descriptor_of_something_else_is_refused(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct extractor *e = extractor_new(&usual, "/proc/self/exe");
    struct reading got = read_with(e, ends[0], "fifo");
    assert_int_equal(got.status, STATUS_UNPROCESSABLE);
    scope_done(&got.sc);
    close(ends[1]);
    extractor_free(e);
}

static void a_missing_program_is_no_fault_of_the_document(void **state)
{
    (void)state;
    struct extractor *e = extractor_new(&usual, "/does/not/exist");
    struct reading got = read_with(e, file_of("words", 5), "a.txt");
    assert_int_equal(got.status, STATUS_BUSY);
    scope_done(&got.sc);
    extractor_free(e);
}

/* ---- the sandbox ---- */

/* Exit status of a process that gave up its rights and then tried `attempt`: the errno, 0 when it was let through. */
static int try_locked_down(const char *tool, int (*attempt)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        struct lockdown_limits limits = {.seconds = 10, .memory_mb = 512};
        if (tool ? lockdown_tool(&limits, tool) != NULL : lockdown_parser(&limits) != NULL)
            _exit(200);
        errno = 0;
        _exit(attempt() >= 0 ? 0 : errno);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int attempt_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int attempt_unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int attempt_read_file(void)
{
    return open("/etc/passwd", O_RDONLY);
}

static int attempt_read_installed_file(void)
{
    return open("/usr/bin/env", O_RDONLY);
}

static int attempt_write_file(void)
{
    return open("/tmp/opstream-never-made", O_WRONLY | O_CREAT, 0600);
}

static int attempt_execute(void)
{
    char *arguments[] = {"true", NULL};
    return execve("/bin/true", arguments, arguments + 1);
}

static int attempt_fork(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return pid;
}

static int attempt_kill(void)
{
    return kill(getppid(), 0);
}

static int attempt_executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int attempt_memory(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? -1 : 0;
}

static void a_parser_can_do_nothing_but_compute(void **state)
{
    (void)state;
    int (*const refused[])(void) = {attempt_socket,  attempt_unix_socket, attempt_read_file, attempt_write_file,
                                    attempt_execute, attempt_fork,        attempt_kill,      attempt_executable_memory};
    for (size_t i = 0; i < array_len(refused); i++)
        assert_true(try_locked_down(NULL, refused[i]) > 0);
    assert_int_equal(try_locked_down(NULL, attempt_memory), 0);
}

static void a_tool_can_neither_write_nor_talk_nor_start_others(void **state)
{
    (void)state;
    int (*const refused[])(void) = {attempt_socket,  attempt_unix_socket, attempt_write_file,
                                    attempt_execute, attempt_fork,        attempt_kill};
    for (size_t i = 0; i < array_len(refused); i++)
        assert_true(try_locked_down("/usr/bin/pdftotext", refused[i]) > 0);
    assert_int_equal(try_locked_down("/usr/bin/pdftotext", attempt_read_installed_file), 0);
    /* Older kernels cannot hide files from a process. */
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 1)
        assert_true(try_locked_down("/usr/bin/pdftotext", attempt_read_file) > 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--extractor") == 0)
        return extractor_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_is_cleaned),
        cmocka_unit_test(character_sets_are_recognised),
        cmocka_unit_test(damage_to_utf8_costs_single_characters),
        cmocka_unit_test(a_page_becomes_text_with_headings),
        cmocka_unit_test(a_word_document_becomes_text_with_headings),
        cmocka_unit_test(damaged_word_documents_are_refused_with_a_reason),
        cmocka_unit_test(an_archive_that_unfolds_without_end_is_refused),
        cmocka_unit_test(a_pdf_is_read_page_by_page),
        cmocka_unit_test(pdfs_that_cannot_be_read_say_why),
        cmocka_unit_test(other_kinds_are_refused_by_name),
        cmocka_unit_test(files_without_text_are_refused),
        cmocka_unit_test(bounds_of_size_hold),
        cmocka_unit_test(a_document_that_takes_too_much_memory_is_refused),
        cmocka_unit_test(one_helper_reads_many_files_and_goes_on_after_bad_ones),
        cmocka_unit_test(a_descriptor_of_something_else_is_refused),
        cmocka_unit_test(a_missing_program_is_no_fault_of_the_document),
        cmocka_unit_test(a_parser_can_do_nothing_but_compute),
        cmocka_unit_test(a_tool_can_neither_write_nor_talk_nor_start_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
