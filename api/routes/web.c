/* The page, its files and the clients: out of the program itself, or below WEB_ROOT. */
#include "api/router.h"
#include "api/web_files.h"
#include "api/web_root.h"

#include <string.h>
#include <unistd.h>

/* Scripts and styles are files of ours. */
static const char own_policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
                                 "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; connect-src 'self'";
/* Of built files we know less: they may bring fonts, workers, and styles that scripts write. */
static const char other_policy[] =
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: "
    "blob:; font-src 'self' data:; worker-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors "
    "'none'; connect-src 'self'";

static bool is_host(const char *host)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";
    return host && *host && strlen(host) <= 255 && host[strspn(host, allowed)] == '\0';
}

/* Some browsers do not count a WebSocket of the same host to 'self': its address is named, too. */
static void add_policy(struct request *r)
{
    const char *host = request_header(r, "Host");
    const char *policy = r->api->web_root >= 0 ? other_policy : own_policy;
    if (is_host(host))
        policy = arena_printf(&r->sc->arena, "%s ws://%s wss://%s", policy, host, host);
    reply_header(r, "Content-Security-Policy", policy);
}

/* If-None-Match, by the weak comparison: proxies weaken the tag of what they pack. */
static bool is_known(struct request *r, const char *tag)
{
    const char *known = request_header(r, "If-None-Match");
    if (!known)
        return false;
    if (strcmp(known, "*") == 0)
        return true;
    size_t len = strlen(tag);
    for (const char *p = known; (p = strstr(p, tag)); p += len) {
        if (p[len] == '\0' || strchr(", \t", p[len]))
            return true;
    }
    return false;
}

/* `tag` with its quotes. True: the client has it, and the reply says so. */
static bool answers_known(struct request *r, const char *tag)
{
    reply_header(r, "ETag", tag);
    reply_header(r, "Cache-Control", "no-cache"); /* kept, and asked for again each time: an update is seen at once */
    if (!is_known(r, tag))
        return false;
    reply_empty(r, 304);
    return true;
}

static enum status not_found(struct request *r)
{
    return fail(r->sc, STATUS_NOT_FOUND, "Not Found");
}

static enum status send_embedded(struct request *r, const char *name)
{
    const struct web_file *f = web_file_find(name);
    if (!f)
        return not_found(r);
    bool is_packed = r->accepts_gzip && f->packed_len < f->len;
    if (answers_known(r, arena_printf(&r->sc->arena, "\"%s%s\"", f->tag, is_packed ? "-gz" : "")))
        return STATUS_OK;
    r->reply.content_type = web_content_type(name);
    if (is_packed)
        reply_header(r, "Content-Encoding", "gzip");
    text_append(reply_json(r, 200), is_packed ? f->packed : f->bytes, is_packed ? f->packed_len : f->len);
    return STATUS_OK;
}

/* `name.gz` beside it is sent to those who can read it. */
static enum status open_below(struct request *r, const char *name, int *out_fd, struct stat *out, bool *out_packed)
{
    const char *packed = arena_printf(&r->sc->arena, "%s.gz", name);
    *out_packed = r->accepts_gzip && web_root_file(r->sc, r->api->web_root, packed, out_fd, out) == STATUS_OK;
    if (*out_packed)
        return STATUS_OK;
    scope_forgive(r->sc);
    return web_root_file(r->sc, r->api->web_root, name, out_fd, out);
}

static enum status send_below(struct request *r, const char *name)
{
    scoped_fd int fd = -1;
    struct stat facts;
    bool is_packed;
    enum status s = open_below(r, name, &fd, &facts, &is_packed);
    if (s != STATUS_OK)
        return s;
    const char *tag = arena_printf(
        &r->sc->arena, "\"%llx-%llx-%llx\"", (unsigned long long)facts.st_ino, (unsigned long long)facts.st_size,
        (unsigned long long)facts.st_mtim.tv_sec * 1000000000ULL + (unsigned long long)facts.st_mtim.tv_nsec);
    if (answers_known(r, tag))
        return STATUS_OK;
    reply_empty(r, 200);
    r->reply.content_type = web_content_type(name);
    if (is_packed)
        reply_header(r, "Content-Encoding", "gzip");
    r->reply.file_bytes = facts.st_size;
    r->reply.file_fd = fd;
    fd = -1;
    return STATUS_OK;
}

enum status web_page(struct request *r)
{
    if (!r->api->settings->web_page)
        return not_found(r);
    add_policy(r);
    return r->api->web_root >= 0 ? send_below(r, "index.html") : send_embedded(r, "web/index.html");
}

enum status web_asset(struct request *r)
{
    const struct settings *settings = r->api->settings;
    if (!settings->web_page)
        return not_found(r);
    const char *rest = r->params[0];
    const char *folder = arena_strndup(&r->sc->arena, r->route->path + 1, strcspn(r->route->path + 1, "{"));
    const char *name = rest ? arena_printf(&r->sc->arena, "%s%s", folder, rest) : folder;
    return r->api->web_root >= 0 ? send_below(r, name) : send_embedded(r, name);
}

/* Those of this version of the API, whatever front end is served. */
enum status web_client(struct request *r)
{
    if (!r->api->settings->web_page)
        return not_found(r);
    return send_embedded(r, arena_printf(&r->sc->arena, "clients/%s", r->params[0]));
}
