/* A collection's documents: list, one, its file, how many failed, and reading those again. */
#include "api/accept.h"
#include "api/idempotency.h"
#include "api/router.h"
#include "api/views.h"
#include "common/fault.h"
#include "common/source/directory.h"
#include "common/store/document_retry.h"
#include "common/store/document_store.h"
#include "common/store/document_view.h"

#include <string.h>
#include <sys/stat.h>

static const char *const states[] = {"pending", "processing", "completed", "failed", "deleted", NULL};

enum status documents_list(struct request *r)
{
    int page, per_page;
    struct collection c;
    const char *wanted = NULL;
    scoped(PGresult) *rows = NULL;
    enum status s = request_page(r, &page, &per_page);
    if (s == STATUS_OK)
        s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = guard_filter(r, request_query(r, "status"), "status", states, &wanted);
    if (s == STATUS_OK)
        s = document_view_list(r->sc, r->db, c.id, wanted, per_page, (int64_t)(page - 1) * per_page, &rows);
    if (s == STATUS_OK)
        view_reply_page(r, "documents", &schema_DOCUMENT, rows, page, per_page);
    return s;
}

/* The document of the path's second parameter, which must be of the collection of the first. */
static enum status find_document(struct request *r, bool must_own, struct collection *c, PGresult **out)
{
    scoped(PGresult) *rows = NULL;
    enum status s = must_own ? guard_owned(r, r->params[0], c, NULL) : guard_readable(r, r->params[0], c, NULL);
    if (s == STATUS_OK)
        s = document_view_find(r->sc, r->db, r->params[1], &rows);
    if (s != STATUS_OK)
        return s;
    if (db_int(rows, 0, "collection_row_id", 0) != c->id)
        return fail(r->sc, STATUS_FORBIDDEN, "This document belongs to another collection");
    *out = rows;
    rows = NULL;
    return STATUS_OK;
}

enum status documents_show(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = find_document(r, false, &c, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_DOCUMENT, rows, 0);
    return s;
}

/* ---- content ---- */

static unsigned char hex_byte(const char *hex)
{
    const char digits[3] = {hex[0], hex[1], '\0'};
    return (unsigned char)strtoul(digits, NULL, 16);
}

/* Paths are bytes; an embedded NUL cannot be, as the file system knows none. */
static const char *path_of(struct request *r, const PGresult *rows, size_t *out_len)
{
    const char *hex = db_text(rows, 0, "path_hex");
    size_t len = strlen(hex) / 2;
    char *path = arena_alloc(&r->sc->arena, len + 1);
    for (size_t i = 0; i < len; i++)
        path[i] = (char)hex_byte(hex + i * 2);
    path[len] = '\0';
    *out_len = len;
    return path;
}

/* inline; filename*=UTF-8''… (RFC 6266): everything but unreserved characters is percent-encoded. */
static const char *disposition(struct request *r, const char *name)
{
    scoped_text t = {0};
    text_puts(&t, "inline; filename*=UTF-8''");
    for (const char *p = name; *p; p++) {
        bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
                        strchr("-._~", *p);
        if (is_plain)
            text_putc(&t, *p);
        else
            text_printf(&t, "%%%02X", (unsigned char)*p);
    }
    return arena_strdup(&r->sc->arena, text_str(&t));
}

/* A stored type goes into a header, so nothing but what types are made of. */
static const char *content_type(struct request *r, const char *mime_type)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+/;= ";
    if (!mime_type || !*mime_type || !strchr(mime_type, '/') || mime_type[strspn(mime_type, allowed)])
        return "application/octet-stream";
    return arena_strdup(&r->sc->arena, mime_type);
}

/* A document is anybody's HTML, SVG or PDF: shown where it is, but in an origin of its own, without scripts, forms or
 * requests to anywhere. */
static const char foreign[] = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
                              "base-uri 'none'; frame-ancestors 'none'; sandbox";

enum status documents_content(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = find_document(r, false, &c, &rows);
    if (s != STATUS_OK)
        return s;
    size_t len = 0;
    const char *path = path_of(r, rows, &len);
    scoped_fd int fd = -1;
    struct stat facts;
    s = source_open_file(r->sc, r->api->settings->source_roots, path, len, &fd);
    if (s != STATUS_OK)
        return s;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode))
        return fail(r->sc, STATUS_INVALID, "The document is not a regular file");
    reply_empty(r, 200);
    r->reply.content_type = content_type(r, db_text(rows, 0, "mime_type"));
    r->reply.file_bytes = facts.st_size;
    r->reply.file_fd = fd;
    fd = -1;
    reply_header(r, "Content-Disposition", disposition(r, db_text(rows, 0, "file_name")));
    reply_header(r, "Cache-Control", "private, max-age=3600");
    reply_header(r, "Content-Security-Policy", foreign);
    return STATUS_OK;
}

/* ---- failed ones ---- */

enum status documents_failed_count(struct request *r)
{
    struct collection c;
    struct failed_documents n;
    enum status s = guard_readable(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = document_view_failed(r->sc, r->db, c.id, request_query_bool(r, "retryable_only", false), &n);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_int(t, "transient", n.transient);
    json_int(t, "permanent", n.permanent);
    json_int(t, "unknown", n.unknown);
    json_int(t, "total", n.total);
    json_close(t, '}');
    return STATUS_OK;
}

/* ---- reading them again ---- */

/* Reset here; the operation resets what is beyond that (retry_documents.c). */
enum { RESET_BY_REQUEST = 5000 };

struct retry {
    const struct collection *collection;
    const char *document_id; /* NULL = all that a retry may help */
    int64_t reset;
    struct retryable_documents found;
};

static enum status reset_documents(struct request *r, void *context)
{
    struct retry *retry = context;
    int64_t id = retry->collection->id;
    if (!retry->document_id)
        return document_retry_failed(r->sc, r->db, id, RESET_BY_REQUEST, NULL, &retry->reset);
    retry->reset = 1;
    return document_retry_one(r->sc, r->db, id, retry->document_id);
}

static enum status count_reset(struct request *r, const struct operation_ref *o, void *context)
{
    const struct retry *retry = context;
    (void)FAULT(RETRY_RESET, o->uuid);
    return document_store_count(r->sc, r->db, retry->collection->id, 0, 0, 0, -retry->reset, NULL);
}

static enum status reply_with_document(struct request *r, const struct operation_ref *o, void *context)
{
    const struct retry *retry = context;
    scoped(PGresult) *rows = NULL;
    enum status s = document_view_find(r->sc, r->db, retry->document_id, &rows);
    if (s == STATUS_OK)
        view_write(reply_json(r, 200), NULL, &schema_DOCUMENT, rows, 0);
    reply_header(r, "X-Operation-ID", arena_strdup(&r->sc->arena, o->uuid));
    return s;
}

static void write_retry(struct request *r, const struct retry *retry, const char *operation_id)
{
    long long failed = (long long)retry->found.failed, pending = (long long)retry->found.pending;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    json_int(t, "reset_count", failed);
    json_int(t, "pending_count", pending);
    json_text(t, "operation_id", operation_id);
    json_text(t, "message",
              !operation_id ? "There are no failed documents that a retry may help"
              : pending > 0 ? arena_printf(&r->sc->arena, "%lld failed documents are read again, and %lld that waited",
                                           failed, pending)
                            : arena_printf(&r->sc->arena, "%lld failed documents are read again", failed));
    json_close(t, '}');
}

static enum status reply_with_counts(struct request *r, const struct operation_ref *o, void *context)
{
    write_retry(r, context, o->uuid);
    return STATUS_OK;
}

static enum status accept_retry(struct request *r, struct retry *retry)
{
    bool is_replay, is_one = retry->document_id != NULL;
    const char *config = is_one ? arena_printf(&r->sc->arena, "{\"scope\":\"document\",\"document_id\":\"%s\"}",
                                               retry->document_id)
                                : "{\"scope\":\"failed\"}";
    return accept_operation(r,
                            &(struct acceptance){.collection = retry->collection,
                                                 .type = OPERATION_RETRY_DOCUMENTS,
                                                 .config_json = config,
                                                 .what = is_one ? "Cannot read the document again"
                                                                : "Cannot read the failed documents again",
                                                 .before = reset_documents,
                                                 .also = count_reset,
                                                 .reply = is_one ? reply_with_document : reply_with_counts,
                                                 .context = retry},
                            NULL, &is_replay);
}

enum status documents_retry(struct request *r)
{
    struct collection c;
    scoped(PGresult) *rows = NULL;
    enum status s = find_document(r, true, &c, &rows);
    if (s != STATUS_OK)
        return s;
    return accept_retry(r, &(struct retry){.collection = &c, .document_id = db_text(rows, 0, "id")});
}

/* Documents that wait while no operation works on the collection were left by one that was cancelled or failed: they
 * are read as well, however long they have waited. */
enum status documents_retry_failed(struct request *r)
{
    struct collection c;
    struct retry retry = {.collection = &c};
    bool is_replay = false;
    enum status s = idempotency_replay(r, &is_replay);
    if (s != STATUS_OK || is_replay)
        return s;
    s = guard_owned(r, r->params[0], &c, NULL);
    if (s == STATUS_OK)
        s = document_retry_count(r->sc, r->db, c.id, &retry.found);
    if (s != STATUS_OK)
        return s;
    if (retry.found.failed + retry.found.pending > 0)
        return accept_retry(r, &retry);
    write_retry(r, &retry, NULL);
    return STATUS_OK;
}
