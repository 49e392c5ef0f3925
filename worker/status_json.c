#include "worker/status.h"

#include "common/json.h"

#include <string.h>

/* PostgreSQL's numbers of types. */
enum { TYPE_BOOL = 16, TYPE_BIGINT = 20, TYPE_SMALLINT = 21, TYPE_INTEGER = 23, TYPE_REAL = 700, TYPE_DOUBLE = 701 };

static void put_cell(struct text *out, const PGresult *rows, int row, int column)
{
    const char *name = PQfname(rows, column);
    const char *value = PQgetvalue(rows, row, column);
    if (PQgetisnull(rows, row, column)) {
        json_null(out, name);
        return;
    }
    switch (PQftype(rows, column)) {
    case TYPE_BOOL:
        json_bool(out, name, *value == 't');
        break;
    case TYPE_BIGINT:
    case TYPE_SMALLINT:
    case TYPE_INTEGER:
        json_int(out, name, strtoll(value, NULL, 10));
        break;
    case TYPE_REAL:
    case TYPE_DOUBLE:
        json_real(out, name, strtod(value, NULL));
        break;
    default:
        json_text(out, name, value);
    }
}

static void put_row(struct text *out, const PGresult *rows, int row)
{
    for (int c = 0; c < PQnfields(rows); c++) {
        if (strcmp(PQfname(rows, c), "total_rows") != 0)
            put_cell(out, rows, row, c);
    }
}

static void put_rows(struct text *out, const char *key, const PGresult *rows)
{
    json_open(out, key, '[');
    for (int r = 0; r < PQntuples(rows); r++) {
        json_open(out, NULL, '{');
        put_row(out, rows, r);
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void put_workers(struct text *out, const struct status_report *r)
{
    json_open(out, "workers", '[');
    for (int i = 0; i < PQntuples(r->workers); i++) {
        json_open(out, NULL, '{');
        put_row(out, r->workers, i);
        json_raw(out, "doing", r->redis.doing[i]);
        json_close(out, '}');
    }
    json_close(out, ']');
}

static void put_queues(struct text *out, const struct status_report *r)
{
    json_open(out, "queues", '[');
    for (int i = 0; i < PQntuples(r->queues); i++) {
        json_open(out, NULL, '{');
        put_row(out, r->queues, i);
        if (r->redis.lengths[i] < 0)
            json_null(out, "in_redis");
        else
            json_int(out, "in_redis", r->redis.lengths[i]);
        json_close(out, '}');
    }
    json_close(out, ']');
}

void status_write_json(struct text *out, const struct status_report *r)
{
    json_open(out, NULL, '{');
    json_text(out, "time", r->time);
    put_workers(out, r);
    put_rows(out, "running", r->running);
    put_queues(out, r);
    put_rows(out, "waiting", r->waiting);
    json_open(out, "unannounced", '{');
    put_row(out, r->unannounced, 0);
    json_close(out, '}');
    json_open(out, "redis", '{');
    json_bool(out, "answers", r->redis.answers);
    json_text(out, "problem", r->redis.problem);
    json_real(out, "milliseconds", r->redis.milliseconds);
    json_bool(out, "is_full", r->redis.is_full);
    json_int(out, "used_bytes", r->redis.used_bytes);
    json_int(out, "most_bytes", r->redis.most_bytes);
    json_close(out, '}');
    json_close(out, '}');
    text_putc(out, '\n');
}
