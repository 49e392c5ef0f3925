/* Whether a staged generation is as good as it must be before readers get it: everything is there, and searches find
 * what they are about. */
#pragma once

#include "worker/tasks/staging.h"

struct validation {
    int64_t documents_expected, documents;
    int64_t vectors_expected, vectors;
    int64_t stray_vectors; /* of no staged document */
    size_t queries, found; /* searches, and those that found their source among the first `k` */
    int k;
    double self_retrieval; /* found / queries; 1 without any */
    bool has_overlap;      /* false: the old vectors' model cannot be asked here any more */
    double overlap;        /* mean share of the old results' documents among the new ones */
};

/* Compares what is there with what is expected, and searches for texts of the collection (the same ones for the same
 * operation). STATUS_INVALID with the numbers in the sentence: it is not good enough. */
enum status validate_staging(struct scope *sc, struct staging *st, struct validation *out) must_check;
/* As a member of an event's data or a result. */
void validation_json(struct text *t, const char *key, const struct validation *v);
