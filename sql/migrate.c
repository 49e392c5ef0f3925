#include "sql/migrate.h"

#include "build/queries.h"
#include "common/fault.h"
#include "common/password.h"

#include <poll.h>
#include <string.h>

enum { LOCK_TRIES = 100, LOCK_PAUSE_MS = 1000 };

struct migration {
    int number;
    const char *name;
    const char *sql;
};

static const struct migration migrations[] = {
#include "build/migrations.h"
};

int migrate_newest(void)
{
    return migrations[array_len(migrations) - 1].number;
}

/* The first problem's sentence, with the migration it came from. */
static enum status fail_with_name(struct scope *sc, enum status s, const struct migration *m)
{
    const char *why = sc->problem_text ? sc->problem_text : status_text(s);
    scope_forgive(sc);
    return fail(sc, s, "migration %s: %s", m->name, why);
}

static enum status apply(struct scope *sc, struct db *db, const struct migration *m, const char *checksum,
                         struct text *report)
{
    enum status s = db_script(sc, db, m->sql);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_MIGRATION_RECORD, NULL, db_number(sc, m->number), m->name, checksum);
    (void)FAULT(BEFORE_MIGRATION_COMMIT, m->name);
    if (s == STATUS_OK)
        s = db_commit(sc, db);
    if (s != STATUS_OK)
        return fail_with_name(sc, s, m);
    (void)FAULT(AFTER_MIGRATION_COMMIT, m->name);
    if (report)
        text_printf(report, "%s: applied\n", m->name);
    return STATUS_OK;
}

/* Inside a transaction that holds the lock. */
static enum status apply_if_missing(struct scope *sc, struct db *db, const struct migration *m, struct text *report)
{
    char checksum[65];
    sha256_hex(m->sql, strlen(m->sql), checksum);
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_MIGRATIONS_APPLIED, &rows, db_number(sc, m->number));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return apply(sc, db, m, checksum, report);
    if (strcmp(db_text(rows, 0, "checksum"), checksum) != 0)
        return fail(sc, STATUS_CONFLICT,
                    "migration %s was applied in another form (as %s): this program is not made for this database",
                    m->name, db_text(rows, 0, "name"));
    return db_commit(sc, db);
}

static enum status run_one(struct scope *sc, struct db *db, const struct migration *m, struct text *report)
{
    enum status s = db_begin(sc, db);
    if (s == STATUS_OK)
        s = db_run(sc, db, "SET LOCAL lock_timeout = '3s'", NULL);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_MIGRATIONS_LOCK, NULL);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_MIGRATIONS_TABLE, NULL);
    return s == STATUS_OK ? apply_if_missing(sc, db, m, report) : s;
}

/* Somebody uses a table that the migration wants for itself. Everybody else would queue up behind it, so it gives up
 * soon and comes back. */
static bool is_lock_trouble(const struct db *db)
{
    return strcmp(db_sqlstate(db), "55P03") == 0 || strcmp(db_sqlstate(db), "40P01") == 0;
}

enum status migrate_run(struct scope *sc, struct db *db, struct text *report)
{
    for (size_t i = 0; i < array_len(migrations); i++) {
        for (int tries = 1;; tries++) {
            enum status s = run_one(sc, db, &migrations[i], report);
            if (s == STATUS_OK)
                break;
            bool is_passing = is_lock_trouble(db) && tries < LOCK_TRIES;
            db_rollback(db);
            if (!is_passing)
                return s;
            scope_forgive(sc);
            poll(NULL, 0, LOCK_PAUSE_MS);
        }
    }
    return STATUS_OK;
}

enum status migrate_check(struct scope *sc, struct db *db)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_MIGRATIONS_APPLIED, &rows, NULL);
    if (s == STATUS_NOT_FOUND)
        scope_forgive(sc); /* not even the table: an empty database */
    else if (s != STATUS_OK)
        return s;
    int applied = s == STATUS_OK ? PQntuples(rows) : 0;
    size_t known = 0; /* both are in the order of their numbers */
    for (int r = 0; r < applied && known < array_len(migrations); r++) {
        if (db_int(rows, r, "number", 0) == migrations[known].number)
            known++;
    }
    if (known < array_len(migrations))
        return fail(sc, STATUS_UNAVAILABLE, "the database lacks migration %s: run opstream-api --migrate",
                    migrations[known].name);
    return STATUS_OK;
}
