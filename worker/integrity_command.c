/* `--check-integrity` for an operator, and the same by the clock. */
#include "common/json.h"
#include "common/log.h"
#include "common/metrics.h"
#include "sql/migrate.h"
#include "worker/integrity.h"
#include "worker/operator.h"
#include "worker/schedule.h"

#include <stdio.h>
#include <string.h>

enum { REDIS_MS = 5000, EXIT_CLEAN = 0, EXIT_FINDINGS = 1, EXIT_NOT_CHECKED = 2 };

static void write_finding(struct text *t, const struct integrity *i, enum integrity_kind kind)
{
    const struct integrity_finding *f = &i->findings[kind];
    json_open(t, integrity_name(kind), '{');
    json_int(t, "count", f->count);
    json_int(t, "repaired", f->repaired);
    json_text(t, "meaning", integrity_meaning(kind));
    json_text(t, "examples", f->examples);
    json_close(t, '}');
}

static void write_json(struct text *t, const struct integrity *i)
{
    json_open(t, NULL, '{');
    json_bool(t, "clean", integrity_total(i) == 0);
    json_int(t, "findings_total", integrity_total(i));
    json_int(t, "collections", i->collections);
    json_int(t, "collections_in_use", i->held);
    json_int(t, "streams", i->streams);
    json_bool(t, "redis_checked", !i->is_redis_away);
    json_open(t, "findings", '{');
    for (int k = 0; k < INTEGRITY_KINDS; k++) {
        if (i->findings[k].count > 0)
            write_finding(t, i, (enum integrity_kind)k);
    }
    json_close(t, '}');
    json_close(t, '}');
}

static void write_text(struct text *t, const struct integrity *i)
{
    text_printf(t, "%lld collections and %lld event streams looked at", (long long)i->collections,
                (long long)i->streams);
    if (i->held > 0)
        text_printf(t, "; %lld of the collections are being worked on and were left out", (long long)i->held);
    text_printf(t, "\n%s", integrity_total(i) == 0 ? "all of it fits together\n" : "");
    if (i->is_redis_away)
        text_puts(t, "Redis does not answer: streams were not looked at\n");
    for (int k = 0; k < INTEGRITY_KINDS; k++) {
        const struct integrity_finding *f = &i->findings[k];
        const char *repair = integrity_repair((enum integrity_kind)k);
        if (f->count == 0)
            continue;
        text_printf(t, "%lld × %s: %s\n    %s\n", (long long)f->count, integrity_name((enum integrity_kind)k),
                    integrity_meaning((enum integrity_kind)k), f->examples);
        if (i->has_to_repair && repair)
            text_printf(t, "    repaired: %lld (%s)\n", (long long)f->repaired, repair);
        else
            text_printf(t, "    %s\n", repair ? "--repair does something about it" : "for you to look at");
    }
}

/* Exit status: 0 clean (or all of it repaired), 1 findings, 2 not checked. */
static int report(const struct integrity *i, bool is_json)
{
    scoped_text t = {0};
    int64_t repaired = 0;
    for (int k = 0; k < INTEGRITY_KINDS; k++)
        repaired += i->findings[k].repaired;
    if (is_json) {
        write_json(&t, i);
        text_putc(&t, '\n');
    } else {
        write_text(&t, i);
    }
    fwrite(t.data, 1, t.len, stdout);
    if (fflush(stdout) != 0)
        return EXIT_NOT_CHECKED;
    return integrity_total(i) > repaired ? EXIT_FINDINGS : i->is_redis_away ? EXIT_NOT_CHECKED : EXIT_CLEAN;
}

int operator_check_integrity(const struct settings *settings, bool is_json, bool has_to_repair)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct integrity i = {.has_to_repair = has_to_repair};
    i.db = db_new(&(struct db_options){.url = settings->database_url, .application_name = "opstream-worker integrity"});
    i.events = redis_new(&(struct redis_options){.url = settings->redis_url,
                                                 .prefix = settings->redis_prefix,
                                                 .database = (int)settings->redis_stream_db,
                                                 .timeout_ms = REDIS_MS});
    enum status s = migrate_check(&sc, i.db);
    if (s == STATUS_OK)
        s = integrity_run(&sc, &i);
    int exit_status = s == STATUS_OK ? report(&i, is_json) : EXIT_NOT_CHECKED;
    if (s != STATUS_OK)
        fprintf(stderr, "opstream-worker: %s\n", sc.problem_text ? sc.problem_text : status_text(s));
    db_free(i.db);
    redis_free(i.events);
    scope_done(&sc);
    return exit_status;
}

/* ---- by the clock ---- */

enum status integrity_check(struct scope *sc, struct scheduled *scheduled)
{
    struct integrity i = {.db = scheduled->db,
                          .events = scheduled->events,
                          .has_to_stop = scheduled->has_to_stop,
                          .stop_context = scheduled->stop_context};
    enum status s = integrity_run(sc, &i);
    if (s != STATUS_OK)
        return s;
    for (int k = 0; k < INTEGRITY_KINDS; k++) {
        const char *name = integrity_name((enum integrity_kind)k);
        metrics_set(METRIC_INTEGRITY_FINDINGS, name, NULL, (double)i.findings[k].count);
        if (i.findings[k].count > 0)
            log_warning("integrity_finding", log_text("kind", name), log_int("count", i.findings[k].count),
                        log_text("meaning", integrity_meaning((enum integrity_kind)k)),
                        log_text("examples", i.findings[k].examples));
    }
    scoped_text t = {0};
    write_json(&t, &i);
    scheduled->result_json = arena_strdup(&sc->arena, text_str(&t));
    return STATUS_OK;
}
