/* One document on its way in: its file opened, its text extracted and cut into chunks. What a document's own trouble is
 * ends with the document: it comes back with a problem to be recorded. */
#pragma once

#include "common/store/document_store.h"
#include "worker/chunk/plan.h"
#include "worker/task.h"

struct extractor;
struct embed_model;

/* What all documents of an operation have in common. */
struct reading {
    struct task *task;
    struct extractor *extractor;
    struct embed_model *model; /* for its tokenizer: chunks are measured in the model's tokens */
    struct chunk_plan plan;
    bool (*should_stop)(void *context); /* asked while a file is read and while the embedder is waited for */
    void *stop_context;
    const char *note; /* what was done instead of what was asked for, in the operation's arena; NULL = nothing */
};

/* A document whose chunks are ready to be embedded. */
struct ready_document {
    const struct pending_document *from;
    const char *mime_type, *metadata_json;
    const char *hash;               /* of the content as it is read now, when that is news: nobody could read it before
                                       (from->hash is ""), or it failed and is read again; else NULL */
    int64_t size, mtime_ns;         /* with `hash` */
    const char *problem, *category; /* set: to be recorded as failed */
    bool is_set_aside;
    bool is_missing; /* the problem is that the file is not there; the source as a whole may be away */
    struct chunk *chunks;
    size_t count;
    size_t vector_count; /* of the chunks: those that are embedded; the others are parents (chunk.h) */
    const char *text;    /* valid UTF-8; the chunks are ranges of it */
    size_t text_len;
};

/* Opens the model that tokens are counted with, and the extractor's way in; chooses sizes that fit the model.
 * STATUS_INVALID: the model cannot be used. reading_close() whatever comes. What `wishes` points to must outlive it. */
enum status reading_open(struct scope *sc, struct reading *r, struct task *task, const char *model,
                         const struct chunk_wishes *wishes) must_check;
void reading_close(struct reading *r);
/* Another reading with an extractor of its own, for another thread: the model is that of `of`, which lives longer.
 * `should_stop` is asked while a file is read or cut. */
void reading_share(struct reading *r, const struct reading *of, bool (*should_stop)(void *context), void *context);
void reading_unshare(struct reading *r);
/* Fills a document of which only `from` is set. What it needs lives in `own`, which may be shared by documents that are
 * written together. A failure of the document is no failure here: d->problem. STATUS_CANCELLED: told to stop. Asks
 * nothing of the task but its settings, so that threads may read, each with a reading and scopes of its own. */
enum status reading_document(struct scope *sc, struct scope *own, struct reading *r,
                             struct ready_document *d) must_check;
/* Cuts d->text into d->chunks. May embed, by a connection of its own. STATUS_UNAVAILABLE and the like: the embedder is
 * away, which is no fault of the document. */
enum status reading_cut(struct scope *sc, struct scope *own, struct reading *r, struct ready_document *d) must_check;
/* It is recorded as failed. `category`: transient, permanent, unknown. */
void reading_give_up(struct ready_document *d, const char *problem, const char *category);
