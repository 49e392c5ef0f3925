/* Between the task and its helper, and between the helper and a parser. Host byte order. The helper believes its task;
 * nobody believes a parser. */
#pragma once

#include <stdint.h>

enum { EXTRACT_MAGIC = 0x4F504558, EXTRACT_MOST_NAME = 4096, EXTRACT_MOST_SMALL = 1024 };

/* Comes with the file's descriptor; the name follows. */
struct extract_request {
    uint32_t magic;
    uint32_t name_len;
};

/* What a parser can say beside a status: this is for another program. */
enum { ANSWER_IS_PDF = 1000 };

/* Then mime type, title, sentence and text, without NULs. */
struct extract_answer {
    uint32_t magic;
    uint32_t status; /* enum status, or the above */
    uint32_t mime_len, title_len, problem_len;
    uint32_t reserved;
    uint64_t text_len;
};
