/* Reading a source into a collection, as INDEX and APPEND do: scan and register (ingest_scan.c), then extract, chunk,
 * embed and write (ingest_write.c, ingest_group.c). What was committed stays, so a later attempt goes on from there. */
#pragma once

#include "common/store/document_store.h"
#include "worker/tasks/room.h"
#include "worker/tasks/writing.h"

struct seen;

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
    bool is_source_away; /* the walk ended early, and it was the source's fault */
    struct seen *seen;   /* of SYNC: collects what the walks meet; what failed for good and has not changed is left */
    struct room room;    /* that the owner's limits leave */
    /* Of the writing. */
    int64_t chunks_written;
    const char *first_problem;  /* reason of the first failed document */
    const char *progress_event; /* told of each document; NULL = "document_processed" */
};

/* What reading needs: the collection's model and settings, its live generation; of a source, when its id is not 0.
 * in->task is set. ingest_close() whatever comes. */
enum status ingest_open(struct scope *sc, struct ingest *in, int64_t source_id) must_check;
void ingest_close(struct ingest *in);
/* In a transaction after documents: fences, and counts the collection's documents anew. */
enum status ingest_recount(struct scope *sc, struct ingest *in) must_check;
/* Walks the source and brings `documents` up to date with it. STATUS_UNAVAILABLE when the source is away: never "all
 * deleted". */
enum status ingest_scan(struct scope *sc, struct ingest *in) must_check;
/* Only the walk, without an end: ingest_scan() without what follows for the collection as a whole. */
enum status ingest_walk(struct scope *sc, struct ingest *in) must_check;
/* Duplicates whose original is another thing by now, or gone, stand by themselves again. */
enum status ingest_revive_duplicates(struct scope *sc, struct ingest *in) must_check;
/* What the scan found, as events and results tell it. */
void ingest_scan_counts(struct text *t, const struct ingest *in);
/* Reads, chunks, embeds and writes every pending document of the collection. Up to INGEST_PROCESSES files are read
 * ahead, but for those under suspicion (in_hand.h). */
enum status ingest_write(struct scope *sc, struct ingest *in) must_check;
/* STATUS_UNAVAILABLE when the source as a whole is away, so that nothing is concluded from a file of it that is not
 * there.
 */
enum status ingest_check_source(struct scope *sc, const struct ingest *in) must_check;
