/* Vectors on their way out, in great numbers: which chunks a sample has, and their vectors in binary. */
#pragma once

#include "common/store/vector_store.h"

enum { VECTOR_READ_MOST = 1000 };

/* The visible chunks of a generation that a seed chooses, at most `limit` of them: rows of chunk_id, label_key and
 * label (projection_sample.sql). STATUS_NOT_FOUND: the generation is gone. */
enum status vector_read_sample(struct scope *sc, struct db *db, const struct generation *generation, int64_t seed,
                               int64_t limit, const char *color_by, PGresult **out_rows) must_check;
/* The vectors of ids[0..count), ascending, at most VECTOR_READ_MOST: out + i * stride is that of ids[i], and
 * is_found[i] tells whether there was one. STATUS_NOT_FOUND: the generation is gone. */
enum status vector_read(struct scope *sc, struct db *db, const struct generation *generation, const int64_t *ids,
                        size_t count, float *out, size_t stride, bool *is_found) must_check;
/* One cell as PostgreSQL sends it in binary: int16 dimension, int16 0, then halves or floats, in network order. False
 * when it is anything else. */
bool vector_decode(const void *bytes, size_t len, bool is_half, int dim, float *out) must_check;
float half_to_float(uint16_t half);
