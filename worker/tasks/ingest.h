/* Reading a source into a collection, as INDEX and APPEND do: scan and register (ingest_scan.c), then extract, chunk,
 * embed and write (ingest_write.c). What was committed stays, so a later attempt goes on from there. */
#pragma once

#include "common/store/document_store.h"
#include "worker/tasks/room.h"
#include "worker/tasks/writing.h"

struct ingest {
    struct task *task;
    struct ingest_collection collection;
    struct ingest_source source;
    struct collection_stats stats;
    struct reading reading;
    struct writing writing;
    int root_fd; /* of the source root that holds the directory */

    /* Of the scan. */
    int64_t found, registered, updated, unchanged, scan_errors, duplicates;
    struct room room; /* that the owner's limits leave */
    /* Of the writing. */
    int64_t chunks_written;
    const char *first_problem; /* reason of the first failed document */
};

/* Walks the source and brings `documents` up to date with it. STATUS_UNAVAILABLE when the source is away: never "all
 * deleted". */
enum status ingest_scan(struct scope *sc, struct ingest *in) must_check;
/* Reads, chunks, embeds and writes every pending document of the collection. */
enum status ingest_write(struct scope *sc, struct ingest *in) must_check;
/* STATUS_UNAVAILABLE when the source as a whole is away, so that nothing is concluded from a file of it that is not
 * there.
 */
enum status ingest_check_source(struct scope *sc, const struct ingest *in) must_check;
