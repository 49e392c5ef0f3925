#include "common/store/vector_read.h"

#include "build/queries.h"

#include <string.h>

enum status vector_read_sample(struct scope *sc, struct db *db, const struct generation *g, int64_t seed, int64_t limit,
                               const char *color_by, PGresult **out_rows)
{
    return db_run(sc, db, vector_store_sql(sc, SQL_PROJECTION_SAMPLE, g), out_rows, db_number(sc, seed),
                  db_number(sc, limit), color_by);
}

static uint64_t read_number(const unsigned char *p, size_t len)
{
    uint64_t n = 0;
    for (size_t i = 0; i < len; i++)
        n = n << 8 | p[i];
    return n;
}

float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | mantissa << 13;
    float f;
    if (exponent == 0) {
        f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    if (exponent == 31)
        bits = sign | 0x7F800000 | mantissa << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

bool vector_decode(const void *bytes, size_t len, bool is_half, int dim, float *out)
{
    const unsigned char *p = bytes;
    size_t size = is_half ? 2 : 4;
    if (dim < 0 || len != 4 + (size_t)dim * size || read_number(p, 2) != (uint64_t)dim)
        return false;
    p += 4;
    for (int i = 0; i < dim; i++, p += size) {
        uint32_t n = (uint32_t)read_number(p, size);
        if (is_half)
            out[i] = half_to_float((uint16_t)n);
        else
            memcpy(&out[i], &n, sizeof n);
    }
    return true;
}

/* The place of an id among ascending ones; `count` when it is not there. */
static size_t place_of(const int64_t *ids, size_t count, int64_t id)
{
    size_t from = 0, to = count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (ids[middle] < id)
            from = middle + 1;
        else
            to = middle;
    }
    return from < count && ids[from] == id ? from : count;
}

static enum status take_row(struct scope *sc, const PGresult *rows, int row, const struct generation *g,
                            const int64_t *ids, size_t count, float *out, size_t stride, bool *is_found)
{
    int id_length = PQgetlength(rows, row, 0);
    size_t place = id_length == 8
                       ? place_of(ids, count, (int64_t)read_number((const unsigned char *)PQgetvalue(rows, row, 0), 8))
                       : count;
    if (place == count)
        return fail(sc, STATUS_INTERNAL, "PostgreSQL sent a vector that was not asked for");
    if (!vector_decode(PQgetvalue(rows, row, 1), (size_t)PQgetlength(rows, row, 1), g->is_half, g->dim,
                       out + place * stride))
        return fail(sc, STATUS_INTERNAL, "a vector of generation %lld is not of %d dimensions", (long long)g->id,
                    g->dim);
    is_found[place] = true;
    return STATUS_OK;
}

enum status vector_read(struct scope *sc, struct db *db, const struct generation *g, const int64_t *ids, size_t count,
                        float *out, size_t stride, bool *is_found)
{
    scoped_text array = {0};
    scoped(PGresult) *rows = NULL;
    memset(is_found, 0, count * sizeof *is_found);
    for (size_t i = 0; i < count; i++)
        text_printf(&array, "%c%lld", i ? ',' : '{', (long long)ids[i]);
    text_puts(&array, count ? "}" : "{}");
    const char *params[] = {text_str(&array)};
    enum status s = db_query_binary(sc, db, vector_store_sql(sc, SQL_VECTOR_FETCH, g), 1, params, &rows);
    for (int i = 0; s == STATUS_OK && i < PQntuples(rows); i++)
        s = take_row(sc, rows, i, g, ids, count, out, stride, is_found);
    return s;
}
