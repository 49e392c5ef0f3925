/* How the large tables do: their size and dead rows, graphs that are missing, indexes that a build left broken,
 * statistics that nobody has made. What it finds is told; only the statistics it makes itself. */
#include "build/queries.h"
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/schedule.h"

enum { SHOWN_TABLES = 10, DEAD_ROWS_THAT_MATTER = 10000 };
static const double DEAD_SHARE_THAT_MATTERS = 0.2;

static double dead_share(const PGresult *rows, int row)
{
    double live = db_real(rows, row, "live", 0), dead = db_real(rows, row, "dead", 0);
    return live + dead > 0 ? dead / (live + dead) : 0;
}

static enum status analyze(struct scope *sc, struct scheduled *s, const PGresult *tables, int64_t *out_count)
{
    *out_count = 0;
    for (int r = 0; r < PQntuples(tables); r++) {
        if (!db_bool(tables, r, "lacks_statistics"))
            continue;
        if (s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        enum status status = db_script(
            sc, s->db, arena_printf(&sc->arena, "ANALYZE (SKIP_LOCKED) %s", db_text(tables, r, "table_name")));
        if (status == STATUS_NOT_FOUND) { /* dropped meanwhile */
            scope_forgive(sc);
            continue;
        }
        if (status != STATUS_OK)
            return status;
        ++*out_count;
    }
    return STATUS_OK;
}

static void put_tables(struct text *t, const PGresult *tables)
{
    double bytes = 0, worst = 0;
    int64_t live = 0, dead = 0;
    json_int(t, "tables", PQntuples(tables));
    json_open(t, "largest", '[');
    for (int r = 0; r < PQntuples(tables); r++) {
        double share = dead_share(tables, r);
        bytes += db_real(tables, r, "bytes", 0);
        live += db_int(tables, r, "live", 0);
        dead += db_int(tables, r, "dead", 0);
        bool matters = db_int(tables, r, "dead", 0) >= DEAD_ROWS_THAT_MATTER;
        worst = matters && share > worst ? share : worst;
        if (matters && share > DEAD_SHARE_THAT_MATTERS)
            log_warning("table_has_dead_rows", log_text("table", db_text(tables, r, "table_name")),
                        log_real("share", share),
                        log_text("hint", "autovacuum does not keep up; see docs/operating.md"));
        if (r >= SHOWN_TABLES)
            continue;
        json_open(t, NULL, '{');
        json_text(t, "table", db_text(tables, r, "table_name"));
        json_int(t, "bytes", db_int(tables, r, "bytes", 0));
        json_int(t, "rows", db_int(tables, r, "live", 0));
        json_real(t, "dead_share", share);
        json_close(t, '}');
    }
    json_close(t, ']');
    json_real(t, "bytes", bytes);
    json_int(t, "rows", live);
    json_int(t, "dead_rows", dead);
    metrics_set(METRIC_STORE_BYTES, NULL, NULL, bytes);
    metrics_set(METRIC_STORE_DEAD_SHARE, NULL, NULL, worst);
}

static void put_problems(struct text *t, const PGresult *generations, const PGresult *indexes)
{
    int64_t without = db_int(generations, 0, "without_graph", 0), abandoned = db_int(generations, 0, "abandoned", 0);
    json_int(t, "generations", db_int(generations, 0, "active", 0));
    json_int(t, "missing_graphs", without);
    json_int(t, "abandoned_generations", abandoned);
    json_open(t, "invalid_indexes", '[');
    for (int r = 0; r < PQntuples(indexes); r++) {
        json_text(t, NULL, db_text(indexes, r, "index_name"));
        log_warning("index_is_invalid", log_text("index", db_text(indexes, r, "index_name")),
                    log_text("hint", "DROP INDEX it, then index the collection again"));
    }
    json_close(t, ']');
    if (without > 0)
        log_warning("graphs_are_missing", log_int("generations", without),
                    log_text("hint", "searches there scan all vectors; the next append, sync or reindex builds them"));
    metrics_set(METRIC_STORE_PROBLEMS, "missing_graph", NULL, (double)without);
    metrics_set(METRIC_STORE_PROBLEMS, "abandoned_generation", NULL, (double)abandoned);
    metrics_set(METRIC_STORE_PROBLEMS, "invalid_index", NULL, (double)PQntuples(indexes));
}

enum status store_health(struct scope *sc, struct scheduled *s)
{
    scoped(PGresult) *tables = NULL;
    scoped(PGresult) *generations = NULL;
    scoped(PGresult) *indexes = NULL;
    scoped_text t = {0};
    int64_t analyzed = 0;
    enum status status = db_run(sc, s->db, SQL_HEALTH_TABLES, &tables);
    if (status == STATUS_OK)
        status = db_run(sc, s->db, SQL_HEALTH_GENERATIONS, &generations, db_number(sc, s->settings->exact_scan_rows));
    if (status == STATUS_OK)
        status = db_run(sc, s->db, SQL_HEALTH_INDEXES, &indexes);
    if (status == STATUS_OK)
        status = analyze(sc, s, tables, &analyzed);
    if (status != STATUS_OK)
        return status;
    json_open(&t, NULL, '{');
    put_tables(&t, tables);
    put_problems(&t, generations, indexes);
    json_int(&t, "analyzed", analyzed);
    json_close(&t, '}');
    s->result_json = arena_strdup(&sc->arena, text_str(&t));
    return STATUS_OK;
}
