#include "worker/integrity.h"

#include "build/queries.h"
#include "common/message.h"
#include "common/store/operation_store.h"
#include "common/store/staging_store.h"
#include "common/store/vector_store.h"

#include <stdio.h>
#include <string.h>

enum { EXAMPLES = 5, LIST_AT_A_TIME = 100, ROWS_AT_A_TIME = 5000, KEYS_AT_A_TIME = 500, LEASE_RETRIES = 100 };

static const struct {
    const char *name, *meaning, *repair;
} kinds[INTEGRITY_KINDS] = {
#define INTEGRITY(name, text, meaning, repair) [INTEGRITY_##name] = {text, meaning, repair},
#include "worker/integrity.def"
#undef INTEGRITY
};

const char *integrity_name(enum integrity_kind kind)
{
    return kinds[kind].name;
}

const char *integrity_meaning(enum integrity_kind kind)
{
    return kinds[kind].meaning;
}

const char *integrity_repair(enum integrity_kind kind)
{
    return kinds[kind].repair;
}

int64_t integrity_total(const struct integrity *i)
{
    int64_t total = 0;
    for (int k = 0; k < INTEGRITY_KINDS; k++)
        total += i->findings[k].count;
    return total;
}

static void note(struct integrity *i, enum integrity_kind kind, int64_t count, const char *examples)
{
    struct integrity_finding *f = &i->findings[kind];
    size_t len = strlen(f->examples);
    f->count += count;
    if (count > 0 && examples && *examples && len + 3 < sizeof f->examples)
        snprintf(f->examples + len, sizeof f->examples - len, "%s%s", len ? ", " : "", examples);
}

static bool has_to_stop(const struct integrity *i)
{
    return i->has_to_stop && i->has_to_stop(i->stop_context);
}

/* ---- one collection ---- */

struct place {
    int64_t id, owner_id;
    bool is_there, is_deleted, is_held, has_generation;
    bool is_elsewhere; /* its vectors are in another store, or their table is missing */
    const char *uuid;
    struct generation generation;
};

enum whose { OF_ANY = 1, OF_LIVING = 2, OF_DELETED = 4, WITH_GENERATION = 8 };

/* `find` answers a count and examples; `repair` changes up to its second parameter of rows. */
static const struct check {
    enum integrity_kind kind;
    int whose;
    const char *find, *repair;
} checks[] = {
    {INTEGRITY_ORPHAN_CHUNKS, OF_ANY, SQL_INTEGRITY_CHUNKS, SQL_INTEGRITY_CHUNKS_REMOVE},
    {INTEGRITY_ORPHAN_VECTORS, OF_LIVING | WITH_GENERATION, SQL_INTEGRITY_VECTORS, SQL_INTEGRITY_VECTORS_REMOVE},
    {INTEGRITY_INCOMPLETE_DOCUMENTS, OF_LIVING, SQL_INTEGRITY_DOCUMENTS, SQL_INTEGRITY_DOCUMENTS_RESET},
    {INTEGRITY_LOST_DUPLICATES, OF_LIVING, SQL_INTEGRITY_DUPLICATES, SQL_INTEGRITY_DUPLICATES_REVIVE},
    {INTEGRITY_SOURCELESS_DOCUMENTS, OF_LIVING, SQL_INTEGRITY_SOURCELESS, NULL},
    {INTEGRITY_WRONG_COUNTERS, OF_LIVING, SQL_INTEGRITY_COUNTERS, SQL_INTEGRITY_RECOUNT},
    {INTEGRITY_STUCK_COLLECTIONS, OF_LIVING, SQL_INTEGRITY_STUCK, SQL_INTEGRITY_UNSTICK},
    {INTEGRITY_DELETED_COLLECTIONS, OF_DELETED, SQL_INTEGRITY_DELETED, NULL},
};

static bool is_about(const struct check *c, const struct place *p)
{
    if ((c->whose & WITH_GENERATION) && !p->has_generation)
        return false;
    if (c->kind == INTEGRITY_INCOMPLETE_DOCUMENTS && p->is_elsewhere)
        return false;
    return (c->whose & OF_ANY) || ((c->whose & OF_LIVING) && p->is_there && !p->is_deleted) ||
           ((c->whose & OF_DELETED) && p->is_deleted);
}

/* For the generation that the collection has; without one the statement reads the template, which is empty. */
static const char *statement(struct scope *sc, const char *sql, const struct place *p)
{
    return p->has_generation ? vector_store_sql(sc, sql, &p->generation) : sql;
}

/* Keeps operations off the collection until the transaction ends. *out_is_ours: nobody has it. */
static enum status lock_collection(struct scope *sc, const struct integrity *i, const struct place *p,
                                   bool *out_is_ours)
{
    const char *uuid;
    *out_is_ours = !p->is_there; /* then nobody ever comes */
    if (!p->is_there)
        return STATUS_OK;
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, i->db, SQL_INTEGRITY_LOCK, &rows, db_number(sc, p->id));
    if (s != STATUS_OK || PQntuples(rows) == 0)
        return s;
    s = operation_store_active(sc, i->db, p->id, &uuid);
    *out_is_ours = s == STATUS_NOT_FOUND;
    if (s != STATUS_NOT_FOUND)
        return s;
    scope_forgive(sc);
    return STATUS_OK;
}

static enum status remove_deleted(struct scope *sc, const struct integrity *i, const struct place *p,
                                  int64_t *out_count)
{
    struct operation_ref o;
    *out_count = 1;
    return operation_store_insert(sc, i->db,
                                  &(struct operation_new){.collection_id = p->id,
                                                          .user_id = p->owner_id,
                                                          .type = OPERATION_DELETE,
                                                          .config_json = "{\"reason\":\"integrity check\"}",
                                                          .max_attempts = LEASE_RETRIES},
                                  &o);
}

static enum status repair_some(struct scope *sc, struct integrity *i, const struct check *c, const struct place *p,
                               int64_t *out_count)
{
    bool is_ours = false;
    scoped(PGresult) *rows = NULL;
    *out_count = 0;
    enum status s = db_begin(sc, i->db);
    if (s == STATUS_OK)
        s = lock_collection(sc, i, p, &is_ours);
    if (s == STATUS_OK && is_ours && c->kind == INTEGRITY_DELETED_COLLECTIONS)
        s = remove_deleted(sc, i, p, out_count);
    else if (s == STATUS_OK && is_ours)
        s = db_run(sc, i->db, statement(sc, c->repair, p), &rows, db_number(sc, p->id), db_number(sc, ROWS_AT_A_TIME));
    if (s == STATUS_OK && rows)
        *out_count = strtoll(PQcmdTuples(rows), NULL, 10);
    if (s == STATUS_OK)
        return db_commit(sc, i->db);
    db_rollback(i->db);
    *out_count = 0;
    return s;
}

static enum status repair(struct scope *sc, struct integrity *i, const struct check *c, const struct place *p)
{
    int64_t count = 0;
    do {
        enum status s = repair_some(sc, i, c, p, &count);
        if (s != STATUS_OK)
            return s;
        i->findings[c->kind].repaired += count;
    } while (count == ROWS_AT_A_TIME && !has_to_stop(i));
    return STATUS_OK;
}

static enum status look(struct scope *sc, struct integrity *i, const struct check *c, const struct place *p)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, i->db, statement(sc, c->find, p), &rows, db_number(sc, p->id), db_number(sc, EXAMPLES));
    if (s == STATUS_NOT_FOUND) { /* its table went meanwhile: an operation is at work */
        scope_forgive(sc);
        return STATUS_OK;
    }
    if (s != STATUS_OK)
        return s;
    int64_t count = db_int(rows, 0, "count", 0);
    note(i, c->kind, count, db_text(rows, 0, "examples"));
    bool is_repaired = count > 0 && i->has_to_repair && kinds[c->kind].repair;
    return is_repaired ? repair(sc, i, c, p) : STATUS_OK;
}

static enum status look_at_collection(struct scope *sc, struct integrity *i, const struct place *p)
{
    i->collections += p->is_there;
    i->held += p->is_held;
    for (size_t c = 0; c < array_len(checks) && !p->is_held; c++) {
        enum status s = is_about(&checks[c], p) ? look(sc, i, &checks[c], p) : STATUS_OK;
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static enum status next_place(struct scope *sc, const struct integrity *i, int64_t after, struct place *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, i->db, SQL_INTEGRITY_NEXT, &rows, db_number(sc, after));
    *out = (struct place){0};
    if (s != STATUS_OK || PQntuples(rows) == 0)
        return s;
    *out = (struct place){.id = db_int(rows, 0, "id", 0),
                          .owner_id = db_int(rows, 0, "owner_id", 0),
                          .uuid = arena_strdup(&sc->arena, db_text(rows, 0, "uuid")),
                          .is_there = db_bool(rows, 0, "is_there"),
                          .is_deleted = db_bool(rows, 0, "is_deleted"),
                          .is_held = db_bool(rows, 0, "is_held"),
                          .is_elsewhere = db_bool(rows, 0, "is_elsewhere"),
                          .has_generation = db_bool(rows, 0, "has_table")};
    out->generation = (struct generation){.id = db_int(rows, 0, "generation_id", 0),
                                          .collection_id = out->id,
                                          .dim = (int)db_int(rows, 0, "dim", 0),
                                          .is_half = db_bool(rows, 0, "is_half")};
    return STATUS_OK;
}

static enum status look_at_collections(struct scope *sc, struct integrity *i)
{
    for (int64_t after = 0;;) {
        struct scope own;
        struct place p;
        if (has_to_stop(i))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        scope_init(&own, sc->trace_id);
        enum status s = next_place(&own, i, after, &p);
        if (s == STATUS_OK && p.id != 0)
            s = look_at_collection(&own, i, &p);
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
        after = p.id;
        scope_done(&own);
        if (s != STATUS_OK || after == 0)
            return s;
    }
}

/* ---- generations ---- */

static enum status drop_generation(struct scope *sc, const struct integrity *i, int64_t id)
{
    enum status s = vector_store_drop(sc, i->db, id);
    return s == STATUS_OK ? db_run(sc, i->db, SQL_DELETE_GENERATION, NULL, db_number(sc, id)) : s;
}

static enum status list_generations(struct scope *sc, struct integrity *i, enum integrity_kind kind,
                                    const PGresult *rows)
{
    scoped_text examples = {0};
    for (int r = 0; r < PQntuples(rows) && r < EXAMPLES; r++)
        text_printf(&examples, "%svec.g%s", r ? ", " : "", db_text(rows, r, "id"));
    if (PQntuples(rows) > 0)
        note(i, kind, db_int(rows, 0, "count", 0), text_str(&examples));
    for (int r = 0; r < PQntuples(rows) && i->has_to_repair && kinds[kind].repair; r++) {
        enum status s = drop_generation(sc, i, db_int(rows, r, "id", 0));
        if (s != STATUS_OK)
            return s;
        i->findings[kind].repaired++;
    }
    return STATUS_OK;
}

static enum status look_at_generations(struct scope *sc, struct integrity *i)
{
    scoped(PGresult) *tables = NULL;
    scoped(PGresult) *lost = NULL;
    scoped(PGresult) *missing = NULL;
    const char *limit = db_number(sc, LIST_AT_A_TIME);
    enum status s = db_run(sc, i->db, SQL_INTEGRITY_TABLES, &tables, limit);
    if (s == STATUS_OK)
        s = list_generations(sc, i, INTEGRITY_UNKNOWN_TABLES, tables);
    if (s == STATUS_OK)
        s = db_run(sc, i->db, SQL_INTEGRITY_GENERATIONS, &lost, "true", limit);
    if (s == STATUS_OK)
        s = list_generations(sc, i, INTEGRITY_LOST_GENERATIONS, lost);
    if (s == STATUS_OK)
        s = db_run(sc, i->db, SQL_INTEGRITY_GENERATIONS, &missing, "false", limit);
    return s == STATUS_OK ? list_generations(sc, i, INTEGRITY_MISSING_TABLES, missing) : s;
}

/* ---- staging ---- */

static enum status look_at_staging(struct scope *sc, struct integrity *i)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, i->db, SQL_INTEGRITY_STAGING, &rows);
    if (s != STATUS_OK)
        return s;
    int64_t count = db_int(rows, 0, "count", 0);
    note(i, INTEGRITY_LOST_STAGING, count, db_text(rows, 0, "examples"));
    if (count == 0 || !i->has_to_repair)
        return STATUS_OK;
    s = staging_store_remove_leftovers(sc, i->db, i->has_to_stop, i->stop_context);
    if (s == STATUS_OK)
        i->findings[INTEGRITY_LOST_STAGING].repaired += count;
    return s;
}

/* ---- events ---- */

static enum status look_at_announcements(struct scope *sc, struct integrity *i)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, i->db, SQL_INTEGRITY_UNANNOUNCED, &rows, db_number(sc, LIST_AT_A_TIME));
    for (int r = 0; s == STATUS_OK && r < PQntuples(rows); r++) {
        const char *uuid = db_text(rows, r, "uuid");
        if (r == 0)
            note(i, INTEGRITY_UNANNOUNCED_OPERATIONS, db_int(rows, 0, "count", 0), uuid);
        if (!i->has_to_repair)
            break;
        s = operation_store_announce(sc, i->db, i->events, uuid);
        i->findings[INTEGRITY_UNANNOUNCED_OPERATIONS].repaired += s == STATUS_OK;
        if (s == STATUS_UNAVAILABLE) {
            i->is_redis_away = true;
            scope_forgive(sc);
            return STATUS_OK;
        }
    }
    return s;
}

/* Answers the keys of a list that never expire; with '1' they do from now on. */
static const char endless_script[] = "local endless = {}\n"
                                     "for _, key in ipairs(KEYS) do\n"
                                     "  if redis.call('TTL', key) == -1 then\n"
                                     "    endless[#endless + 1] = key\n"
                                     "    if ARGV[1] == '1' then redis.call('EXPIRE', key, ARGV[2]) end\n"
                                     "  end\n"
                                     "end\n"
                                     "return endless\n";

static enum status look_at_keys(struct scope *sc, struct integrity *i, const redisReply *keys)
{
    scoped(redisReply) *endless = NULL;
    const char **argv = arena_array(&sc->arena, keys->elements + 2, sizeof *argv);
    int count = 0;
    for (size_t k = 0; k < keys->elements; k++) {
        if (keys->element[k]->type == REDIS_REPLY_STRING)
            argv[count++] = keys->element[k]->str;
    }
    if (count == 0)
        return STATUS_OK;
    i->streams += count;
    argv[count] = i->has_to_repair ? "1" : "0";
    argv[count + 1] = MESSAGE_KEPT_SECONDS;
    enum status s = redis_script(sc, i->events, endless_script, count, count + 2, argv, NULL, &endless);
    for (size_t k = 0; s == STATUS_OK && endless->type == REDIS_REPLY_ARRAY && k < endless->elements; k++) {
        note(i, INTEGRITY_ENDLESS_STREAMS, 1, endless->element[k]->str);
        i->findings[INTEGRITY_ENDLESS_STREAMS].repaired += i->has_to_repair;
    }
    return s;
}

/* A prefix is text, not a pattern. */
static const char *pattern_of(struct scope *sc, const struct integrity *i, const char *kind)
{
    scoped_text t = {0};
    for (const char *p = redis_key(sc, i->events, "%s", ""); *p; p++) {
        if (strchr("*?[]^\\", *p))
            text_putc(&t, '\\');
        text_putc(&t, *p);
    }
    text_printf(&t, "%s:*", kind);
    return arena_strdup(&sc->arena, text_str(&t));
}

static enum status look_at_streams(struct scope *sc, struct integrity *i, const char *kind)
{
    char cursor[32] = "0";
    const char *pattern = pattern_of(sc, i, kind);
    do {
        struct scope own;
        scoped(redisReply) *reply = NULL;
        scope_init(&own, sc->trace_id);
        enum status s = redis_run(&own, i->events, &reply, "SCAN %s MATCH %s COUNT %d", cursor, pattern,
                                  (int)KEYS_AT_A_TIME);
        bool is_page = s == STATUS_OK && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                       reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_ARRAY;
        if (is_page) {
            snprintf(cursor, sizeof cursor, "%s", reply->element[0]->str);
            s = look_at_keys(&own, i, reply->element[1]);
        }
        if (s != STATUS_OK)
            s = fail(sc, s, "%s", own.problem_text ? own.problem_text : status_text(s));
        scope_done(&own);
        if (s != STATUS_OK || !is_page)
            return s;
    } while (strcmp(cursor, "0") != 0 && !has_to_stop(i));
    return STATUS_OK;
}

static void look_at_redis(struct scope *sc, struct integrity *i)
{
    enum status s = look_at_streams(sc, i, "operation-progress");
    if (s == STATUS_OK)
        s = look_at_streams(sc, i, "user-progress");
    if (s == STATUS_OK)
        return;
    i->is_redis_away = true;
    scope_forgive(sc);
}

enum status integrity_run(struct scope *sc, struct integrity *i)
{
    enum status s = look_at_collections(sc, i);
    if (s == STATUS_OK)
        s = look_at_generations(sc, i);
    if (s == STATUS_OK)
        s = look_at_staging(sc, i);
    if (s == STATUS_OK)
        s = look_at_announcements(sc, i);
    if (s == STATUS_OK)
        look_at_redis(sc, i);
    return s;
}
