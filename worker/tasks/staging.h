/* A generation that is filled beside the live one, on behalf of an operation, and that no reader of the collection
 * sees: REINDEX switches to it, BENCHMARK asks it and drops it.
 *
 * The documents' rows are not touched. Which version of which document belongs to the generation stands in
 * staged_documents: the live version where the same chunks serve both generations, a fresh one where the document was
 * cut anew. Text and model that stay the same keep their vector: it is copied within the database, not embedded.
 * A staging generation is named by its operation and its settings, so that an operation may have several and the next
 * attempt goes on with what the last one committed. What a dead, failed or cancelled operation left is removed by the
 * leftovers chore (staging_store_remove_leftovers).
 *
 * Other operations may change documents meanwhile when the operation does not hold the collection (BENCHMARK): a
 * document that changes is staged as it was, or skipped (counted in `skipped`). */
#pragma once

#include "common/store/staging_store.h"
#include "worker/tasks/writing.h"

struct embed_text;

/* How a collection is cut and embedded. */
struct staging_settings {
    const char *model;         /* canonical name (the folder's) */
    const char *quantization;  /* float32, float16, int8 */
    const char *strategy;      /* NULL = default */
    int chunk_size;            /* tokens; 0 = default */
    int chunk_overlap;         /* tokens; < 0 = default */
    const char *chunking_json; /* the strategy's own options; NULL = none */
};

struct staging {
    struct task *task;
    struct staging_settings before; /* the collection's, with which the live generation was made */
    struct staging_settings wanted;
    bool has_live; /* a collection without vectors has no generation */
    struct generation live;
    struct generation generation; /* that is filled; its `id` names it for staging_store.h and vector_store.h */
    bool is_cut_anew;             /* the chunks change; else the same rows serve both generations */
    bool can_copy;                /* vectors of the live generation are good for this one */
    bool is_exclusive;            /* the operation holds the collection: nobody else changes its documents */
    struct reading reading;
    struct writing writing;
    struct staged_counts counts; /* kept up to date by staging_fill() */
};

/* The settings that the collection has now. Strings in the arena. */
enum status staging_settings_of_collection(struct scope *sc, struct db *db, int64_t collection_id,
                                           struct staging_settings *out) must_check;
/* Opens the model (STATUS_INVALID when this worker cannot use it) and finds or makes the operation's generation with
 * these settings, in a fenced transaction of its own. Documents that an earlier attempt left half staged are removed.
 * `wanted` must outlive the staging. staging_close() whatever comes. */
enum status staging_open(struct scope *sc, struct staging *st, struct task *task,
                         const struct staging_settings *wanted) must_check;
void staging_close(struct staging *st);
/* The same in two steps, for those who have something to say in between: the models and what is there (counts, no row
 * is written), then the generation. */
enum status staging_prepare(struct scope *sc, struct staging *st, struct task *task,
                            const struct staging_settings *wanted) must_check;
enum status staging_make(struct scope *sc, struct staging *st) must_check;

/* Called after each committed group of documents; `current` is the shown name of the last one. */
typedef void staging_progress(struct scope *sc, struct staging *st, const char *current, void *context);

/* Stages every visible document that is not staged yet, in fenced transactions, then builds the graph if the generation
 * is large enough for one. Goes on where an earlier attempt stopped. Returns what task_check() says when told to stop;
 * what was staged stays. `progress` may be NULL. */
enum status staging_fill(struct scope *sc, struct staging *st, staging_progress *progress, void *context) must_check;

/* The nearest staged chunks: vector_store_search_generation(sc, db, &st->generation, true, …) of vector_store.h.
 * Their texts: search_store_chunks(), as for any hit. */

/* Embeds texts as queries with the staged generation's model: [count][*out_dim] in the arena. */
enum status staging_embed_queries(struct scope *sc, struct staging *st, const struct embed_text *texts, size_t count,
                                  const float **out_vectors, int *out_dim) must_check;

/* Removes the generation, its table and the chunks that were cut for it. Opens transactions of its own; may be killed
 * anywhere, the leftovers chore does the rest. */
enum status staging_drop(struct scope *sc, struct staging *st) must_check;
