#include "common/store/document_store.h"

#include "build/queries.h"
#include "common/copy.h"
#include "common/fault.h"
#include "common/text.h"

#include <string.h>

enum { LEFTOVERS_AT_A_TIME = 50 };

static const char *hex_bytea(struct scope *sc, struct path_bytes p)
{
    char *out = arena_alloc(&sc->arena, p.len * 2 + 3);
    memcpy(out, "\\x", 2);
    hex_encode(p.bytes, p.len, out + 2);
    return out;
}

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

struct path_bytes document_store_path(struct scope *sc, const char *hex)
{
    size_t len = hex ? (strlen(hex) - 2) / 2 : 0;
    char *out = arena_alloc(&sc->arena, len + 1);
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(nibble(hex[2 + i * 2]) << 4 | nibble(hex[3 + i * 2]));
    out[len] = '\0';
    return (struct path_bytes){out, len};
}

static const char *shown(struct scope *sc, struct path_bytes p)
{
    scoped_text t = {0};
    text_append_escaped(&t, p.bytes, p.len);
    return arena_strdup(&sc->arena, text_str(&t));
}

static struct path_bytes base_name(struct path_bytes p)
{
    const char *slash = memrchr(p.bytes, '/', p.len);
    return slash ? (struct path_bytes){slash + 1, p.len - (size_t)(slash + 1 - p.bytes)} : p;
}

enum status document_store_collection(struct scope *sc, struct db *db, int64_t collection_id,
                                      struct ingest_collection *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_COLLECTION, &rows, db_number(sc, collection_id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection was deleted");
    *out = (struct ingest_collection){
        .id = collection_id,
        .model = arena_strdup(&sc->arena, db_text(rows, 0, "embedding_model")),
        .quantization = arena_strdup(&sc->arena, db_text(rows, 0, "quantization")),
        .chunk_size = (int)db_int(rows, 0, "chunk_size", 0),
        .chunk_overlap = (int)db_int(rows, 0, "chunk_overlap", -1),
        .strategy = arena_strdup(&sc->arena, db_text(rows, 0, "chunking_strategy")),
        .chunking_json = arena_strdup(&sc->arena, db_text(rows, 0, "chunking_config")),
        .stats = {db_int(rows, 0, "document_count", 0), db_int(rows, 0, "vector_count", 0),
                  db_int(rows, 0, "total_size_bytes", 0)},
    };
    return STATUS_OK;
}

enum status document_store_source(struct scope *sc, struct db *db, int64_t source_id, int64_t collection_id,
                                  struct ingest_source *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_SOURCE, &rows, db_number(sc, source_id), db_number(sc, collection_id));
    if (s != STATUS_OK)
        return s;
    if (PQntuples(rows) == 0)
        return fail(sc, STATUS_NOT_FOUND, "the collection has no source %lld", (long long)source_id);
    *out = (struct ingest_source){
        .id = source_id,
        .type = arena_strdup(&sc->arena, db_text(rows, 0, "source_type")),
        .path = arena_strdup(&sc->arena, db_text(rows, 0, "source_path")),
        .config_json = arena_strdup(&sc->arena, db_text(rows, 0, "source_config")),
    };
    return STATUS_OK;
}

enum status document_store_source_run(struct scope *sc, struct db *db, int64_t source_id, const char *state,
                                      const char *error)
{
    return db_run(sc, db, SQL_INGEST_SOURCE_RUN, NULL, db_number(sc, source_id), state, error);
}

enum status document_store_known(struct scope *sc, struct db *db, int64_t collection_id, const char *operation_id,
                                 const struct path_bytes *paths, size_t count, struct known_document **out)
{
    scoped_text list = {0};
    for (size_t i = 0; i < count; i++)
        text_printf(&list, "%s\"\\%s\"", i ? "," : "{", hex_bytea(sc, paths[i]));
    text_puts(&list, count ? "}" : "{}");
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_KNOWN, &rows, db_number(sc, collection_id), text_str(&list),
                           operation_id);
    if (s != STATUS_OK)
        return s;
    struct known_document *known = arena_array(&sc->arena, count + 1, sizeof *known);
    for (int r = 0; r < PQntuples(rows); r++) {
        struct path_bytes p = document_store_path(sc, db_text(rows, r, "path"));
        for (size_t i = 0; i < count; i++) { /* a batch is a few hundred paths */
            if (paths[i].len != p.len || memcmp(paths[i].bytes, p.bytes, p.len) != 0)
                continue;
            known[i] = (struct known_document){
                .id = db_int(rows, r, "id", 0),
                .size = db_int(rows, r, "file_size", -1),
                .mtime_ns = db_int(rows, r, "mtime_ns", -1),
                .hash = arena_strdup(&sc->arena, db_text(rows, r, "content_hash")),
                .status = arena_strdup(&sc->arena, db_text(rows, r, "status")),
                .is_good = db_bool(rows, r, "is_good"),
                .is_settled = db_bool(rows, r, "is_settled"),
            };
            break;
        }
    }
    *out = known;
    return STATUS_OK;
}

enum status document_store_original(struct scope *sc, struct db *db, int64_t collection_id, const char *hash,
                                    struct path_bytes path, int64_t *out_id)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_ORIGINAL, &rows, db_number(sc, collection_id), hash, hex_bytea(sc, path));
    if (s == STATUS_OK)
        *out_id = PQntuples(rows) ? db_int(rows, 0, "id", 0) : 0;
    return s;
}

enum status document_store_register(struct scope *sc, struct db *db, int64_t collection_id,
                                    const struct new_document *d, int64_t *out_id, int *out_live_version)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_REGISTER, &rows, db_number(sc, collection_id),
                           db_number(sc, d->source_id), hex_bytea(sc, d->path), shown(sc, base_name(d->path)),
                           shown(sc, d->path), db_number(sc, d->size), db_number(sc, d->mtime_ns), d->hash, d->status,
                           d->problem, d->category, d->duplicate_of ? db_number(sc, d->duplicate_of) : NULL,
                           d->operation_id);
    if (s != STATUS_OK)
        return s;
    *out_id = db_int(rows, 0, "id", 0);
    *out_live_version = (int)db_int(rows, 0, "live_version", 0);
    return STATUS_OK;
}

enum status document_store_touch(struct scope *sc, struct db *db, int64_t document_id, int64_t mtime_ns)
{
    return db_run(sc, db, SQL_INGEST_TOUCH, NULL, db_number(sc, document_id), db_number(sc, mtime_ns));
}

enum status document_store_pending(struct scope *sc, struct db *db, int64_t collection_id, bool is_suspected,
                                   int64_t after_id, int limit, struct pending_document **out, size_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_PENDING, &rows, db_number(sc, collection_id), db_number(sc, after_id),
                           db_number(sc, limit), is_suspected ? "true" : "false");
    if (s != STATUS_OK)
        return s;
    int n = PQntuples(rows);
    struct pending_document *list = arena_array(&sc->arena, (size_t)n + 1, sizeof *list);
    for (int r = 0; r < n; r++) {
        list[r] = (struct pending_document){
            .id = db_int(rows, r, "id", 0),
            .size = db_int(rows, r, "file_size", 0),
            .mtime_ns = db_int(rows, r, "mtime_ns", 0),
            .path = document_store_path(sc, db_text(rows, r, "path")),
            .name = arena_strdup(&sc->arena, db_text(rows, r, "file_name")),
            .hash = arena_strdup(&sc->arena, db_text(rows, r, "content_hash")),
            .next_version = (int)db_int(rows, r, "next_version", 1),
            .live_version = (int)db_int(rows, r, "live_version", 0),
            .chunk_count = (int)db_int(rows, r, "chunk_count", 0),
            .is_suspected = db_bool(rows, r, "is_suspected"),
            .crashes = (int)db_int(rows, r, "crashes", 0),
            .losses = (int)db_int(rows, r, "losses", 0),
        };
    }
    *out = list;
    *out_count = (size_t)n;
    return STATUS_OK;
}

enum status document_store_pending_count(struct scope *sc, struct db *db, int64_t collection_id, int64_t *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_PENDING_COUNT, &rows, db_number(sc, collection_id));
    if (s == STATUS_OK)
        *out = db_int(rows, 0, "documents", 0);
    return s;
}

enum status document_store_reserve(struct scope *sc, struct db *db, size_t count, int64_t *out_ids)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_CHUNK_IDS_RESERVE, &rows, db_number(sc, (int64_t)count));
    if (s != STATUS_OK)
        return s;
    for (size_t i = 0; i < count; i++)
        out_ids[i] = db_int(rows, (int)i, "id", 0);
    return STATUS_OK;
}

/* ---- chunks ---- */

static void put_chunk(struct text *t, int64_t collection_id, const struct chunk_row *row)
{
    copy_row(t, 10);
    copy_i64(t, collection_id);
    copy_i64(t, row->id);
    copy_i64(t, row->document_id);
    copy_i32(t, row->version);
    copy_i32(t, row->ordinal);
    copy_bytes(t, row->content, row->content_len);
    copy_i32(t, row->tokens);
    copy_i32(t, (int32_t)row->start);
    copy_i32(t, (int32_t)row->end);
    copy_jsonb(t, row->metadata_json);
}

enum status document_store_write_chunks(struct scope *sc, struct db *db, int64_t collection_id,
                                        const struct chunk_row *rows, size_t count)
{
    scoped_text data = {0};
    copy_begin(&data);
    for (size_t i = 0; i < count; i++)
        put_chunk(&data, collection_id, &rows[i]);
    copy_end(&data);
    return db_copy_in(sc, db, SQL_CHUNK_COPY, data.data, data.len);
}

/* ---- the life of one document ---- */

enum status document_store_begin(struct scope *sc, struct db *db, int64_t document_id)
{
    return db_run(sc, db, SQL_INGEST_DOCUMENT_BEGIN, NULL, db_number(sc, document_id));
}

static enum status remove_rows(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                               int64_t document_id, int version, bool older, int64_t *out_removed)
{
    enum status s = g ? vector_store_remove(sc, db, g, document_id, version, older, out_removed) : STATUS_OK;
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_CHUNK_DELETE_VERSION, NULL, db_number(sc, collection_id), db_number(sc, document_id),
                   db_number(sc, version), older ? "true" : "false");
    return s;
}

enum status document_store_done(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                                int64_t document_id, int version, int chunks, const char *mime_type,
                                const char *metadata_json, int64_t *out_removed)
{
    *out_removed = 0;
    enum status s = db_run(sc, db, SQL_INGEST_DOCUMENT_DONE, NULL, db_number(sc, document_id), db_number(sc, version),
                           db_number(sc, chunks), mime_type, metadata_json);
    if (s == STATUS_OK && version > 1)
        s = remove_rows(sc, db, g, collection_id, document_id, version - 1, true, out_removed);
    return s;
}

enum status document_store_abandon(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                                   int64_t document_id, int version)
{
    return remove_rows(sc, db, g, collection_id, document_id, version, false, NULL);
}

enum status document_store_hide(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                                int64_t document_id, int live_version, int64_t *out_removed)
{
    *out_removed = 0;
    if (live_version <= 0)
        return STATUS_OK;
    enum status s = db_run(sc, db, SQL_INGEST_DOCUMENT_HIDE, NULL, db_number(sc, document_id));
    if (s == STATUS_OK)
        s = remove_rows(sc, db, g, collection_id, document_id, live_version, true, out_removed);
    return s;
}

enum status document_store_failed(struct scope *sc, struct db *db, const struct generation *g, int64_t collection_id,
                                  int64_t document_id, int live_version, const struct document_failure *failure,
                                  int64_t *out_removed)
{
    *out_removed = 0;
    enum status s = db_run(sc, db, SQL_INGEST_DOCUMENT_FAILED, NULL, db_number(sc, document_id), failure->reason,
                           failure->category, failure->mime_type, failure->operation_id,
                           failure->is_set_aside ? "true" : "false");
    if (s == STATUS_OK)
        s = document_store_hide(sc, db, g, collection_id, document_id, live_version, out_removed);
    return s;
}

enum status document_store_revive_duplicates(struct scope *sc, struct db *db, int64_t collection_id, int64_t *out_count)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_REVIVE_DUPLICATES, &rows, db_number(sc, collection_id));
    if (s == STATUS_OK)
        *out_count = db_int(rows, 0, "revived", 0);
    return s;
}

static enum status read_stats(enum status s, const PGresult *rows, struct collection_stats *out)
{
    if (s == STATUS_OK && out && PQntuples(rows) > 0)
        *out = (struct collection_stats){db_int(rows, 0, "document_count", 0), db_int(rows, 0, "vector_count", 0),
                                         db_int(rows, 0, "total_size_bytes", 0)};
    return s;
}

enum status document_store_count(struct scope *sc, struct db *db, int64_t collection_id, int64_t documents,
                                 int64_t vectors, int64_t bytes, int64_t failed, struct collection_stats *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_COUNTERS_ADD, &rows, db_number(sc, collection_id),
                           db_number(sc, documents), db_number(sc, vectors), db_number(sc, bytes),
                           db_number(sc, failed));
    return read_stats(s, rows, out);
}

enum status document_store_recount(struct scope *sc, struct db *db, int64_t collection_id, int64_t vectors,
                                   struct collection_stats *out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(sc, db, SQL_INGEST_COUNTERS, &rows, db_number(sc, collection_id), db_number(sc, vectors));
    return read_stats(s, rows, out);
}

/* ---- leftovers ---- */

static enum status remove_one(struct scope *sc, struct db *db, int64_t document_id, int64_t collection_id, int version)
{
    struct generation g;
    (void)FAULT(BEFORE_LEFTOVERS_REMOVED, NULL);
    enum status s = vector_store_active(sc, db, collection_id, &g);
    if (s == STATUS_OK)
        s = remove_rows(sc, db, &g, collection_id, document_id, version, false, NULL);
    else if (s == STATUS_NOT_FOUND)
        s = remove_rows(sc, db, NULL, collection_id, document_id, version, false, NULL);
    if (s == STATUS_OK)
        s = db_run(sc, db, SQL_LEFTOVERS_DONE, NULL, db_number(sc, document_id));
    return s;
}

enum status document_store_remove_leftovers(struct scope *sc, struct db *db, int64_t collection_id, const char *task_id)
{
    for (;;) {
        scoped(PGresult) *rows = NULL;
        enum status s = db_begin(sc, db);
        if (s == STATUS_OK)
            s = db_run(sc, db, SQL_LEFTOVERS_DOCUMENTS, &rows, collection_id ? db_number(sc, collection_id) : NULL,
                       task_id, db_number(sc, LEFTOVERS_AT_A_TIME));
        int n = s == STATUS_OK ? PQntuples(rows) : 0;
        for (int r = 0; r < n && s == STATUS_OK; r++)
            s = remove_one(sc, db, db_int(rows, r, "id", 0), db_int(rows, r, "collection_id", 0),
                           (int)db_int(rows, r, "next_version", 0));
        if (n > 0)
            (void)FAULT(BEFORE_LEFTOVERS_COMMIT, task_id);
        if (s == STATUS_OK)
            s = db_commit(sc, db);
        else
            db_rollback(db);
        if (s != STATUS_OK || n < LEFTOVERS_AT_A_TIME)
            return s;
    }
}
