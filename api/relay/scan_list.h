/* What a scan has found, as the frames that its client gets: the first files stand in `completed`, where every client
 * looks for them; what comes after them goes out in `files` frames as it is found, so that memory is bounded however
 * large the tree is. Nothing is locked and nothing waits here. */
#pragma once

#include "common/json.h"
#include "common/source/directory.h"

enum {
    SCAN_FIRST_FILES = 1000,
    SCAN_FIRST_BYTES = 128 << 10, /* of JSON: of very long paths fewer files fit */
    SCAN_BATCH_FILES = 500,
    SCAN_BATCH_BYTES = 32 << 10,
    SCAN_MOST_WARNINGS = 100,
};

struct scan_list {
    int64_t count, total_size;     /* of all files */
    int64_t first_count, streamed; /* of those in `completed`, of those in batches that were taken */
    int64_t warning_count, hidden; /* entries with a problem; left out for their names */
    int64_t max_file_bytes;        /* larger files come with a warning; 0 = none do */
    bool is_quiet;                 /* the client wants no `files` frames */
    int batch_count;
    struct text first, batch, warnings;
};

void scan_list_init(struct scan_list *l, int64_t max_file_bytes, bool is_quiet);
void scan_list_done(struct scan_list *l);
/* A file, or an entry that cannot be taken. */
void scan_list_add(struct scan_list *l, const struct source_file *file);
/* Writes the frame of the files that wait when there are enough for one, or any and it `is_last`. */
bool scan_list_take_batch(struct scan_list *l, bool is_last, struct text *out);
void scan_list_progress(const struct scan_list *l, const struct source_file *file, struct text *out);
/* The last frame. `end`: why it ended early, a sentence; NULL = it saw everything. */
void scan_list_completed(struct scan_list *l, const char *end, struct text *out);
