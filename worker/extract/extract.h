/* Text from files that nobody vouches for. They are parsed by helper processes: this program again, started as
 *
 *     PROGRAM --extractor MAX_FILE_BYTES MAX_TEXT_BYTES SECONDS MEMORY_MB
 *
 * with one end of a socket pair as its standard input. That process parses nothing itself: for every file it forks one
 * that gives up its rights (lockdown.h), reads the file from a descriptor and answers through a pipe. A crash or an
 * endless loop costs that one file. */
#pragma once

#include "common/scope.h"

#include <stddef.h>
#include <stdint.h>

struct extractor;

struct extract_limits {
    uint64_t max_file_bytes, max_text_bytes;
    int seconds;   /* for one file */
    int memory_mb; /* for one file */
};

/* Strings in the scope's arena. */
struct extract_result {
    const char *mime_type; /* also set when the kind was recognised but could not be read; NULL = unknown */
    const char *title;     /* NULL = none */
    const char *text; /* valid UTF-8 without NUL; of control characters only newline and tab; headings begin with "# "
                         to "###### " */
    size_t text_len;
};

/* Copies what it needs; the helper process starts with the first file. It is killed when the thread that asks first
 * ends. */
struct extractor *extractor_new(const struct extract_limits *limits, const char *executable);
void extractor_free(struct extractor *e);
/* Asked every 100 ms while the helper works; true = extractor_run() kills it and returns STATUS_CANCELLED. */
void extractor_on_wait(struct extractor *e, bool (*should_stop)(void *context), void *context);
/* Reads the file open at `fd`, which is only looked at; `name` is the file's, for its ending. The sentence is meant for
 * the document's owner. STATUS_UNPROCESSABLE: not a kind that can be read, damaged, encrypted, without text, or its
 * parser crashed; STATUS_TOO_LARGE: by size or memory; STATUS_TIMEOUT; STATUS_CANCELLED; STATUS_BUSY,
 * STATUS_UNAVAILABLE: nothing is wrong with the file. */
enum status extractor_run(struct scope *sc, struct extractor *e, int fd, const char *name,
                          struct extract_result *out) must_check;

/* The helper's main(): argv[1] is "--extractor". Its exit status. */
int extractor_main(int argc, char **argv);
