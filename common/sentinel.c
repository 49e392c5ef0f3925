#include "common/sentinel.h"

#include "common/config.h"
#include "common/redis.h"

#include <stdio.h>
#include <string.h>

enum { DEFAULT_PORT = 26379, MOST_PORT = 65535 };

static const char *const schemes[] = {"redis+sentinel://", "redis-sentinel://"};
static const char password_parameter[] = "sentinel_password=";

struct sentinels {
    struct arena arena;
    char *const *addresses; /* host[:port], NULL-terminated */
    const char *name, *password;
};

static const char *after_scheme(const char *url)
{
    for (size_t i = 0; i < array_len(schemes); i++) {
        if (strncmp(url, schemes[i], strlen(schemes[i])) == 0)
            return url + strlen(schemes[i]);
    }
    return NULL;
}

bool sentinels_are_meant(const char *url)
{
    return after_scheme(url) != NULL;
}

const char *sentinels_problem(const char *url)
{
    const char *rest = after_scheme(url);
    const char *path = rest ? strchr(rest, '/') : NULL;
    size_t authority = rest ? strcspn(rest, "/?") : 0;
    const char *at = rest ? memrchr(rest, '@', authority) : NULL;
    if (authority == 0 || (at && at + 1 == rest + authority))
        return "names no sentinel: redis+sentinel://host:port,host:port/name";
    if (!path || strcspn(path + 1, "/?") == 0)
        return "names no primary: redis+sentinel://host:port,host:port/name, the name that the sentinels watch it by";
    return NULL;
}

struct sentinels *sentinels_new(const char *url)
{
    struct sentinels *s = must_calloc(1, sizeof *s);
    const char *rest = after_scheme(url);
    size_t len = strcspn(rest, "/?");
    const char *at = memrchr(rest, '@', len);
    const char *hosts = at ? at + 1 : rest;
    const char *list = arena_strndup(&s->arena, hosts, len - (size_t)(hosts - rest));
    s->addresses = settings_list(&s->arena, list, ',', NULL);
    const char *name = rest[len] == '/' ? rest + len + 1 : "";
    s->name = arena_strndup(&s->arena, name, strcspn(name, "/?"));
    const char *query = strchr(rest, '?');
    const char *password = query ? strstr(query, password_parameter) : NULL;
    if (password) {
        password += strlen(password_parameter);
        char *plain = redis_url_decoded(password, strcspn(password, "&"));
        s->password = arena_strdup(&s->arena, plain);
        free(plain);
    }
    return s;
}

void sentinels_free(struct sentinels *s)
{
    if (!s)
        return;
    arena_reset(&s->arena);
    free(s);
}

/* Of host, host:port, [v6] and [v6]:port. */
static void split(struct scope *sc, const char *address, const char **out_host, int *out_port)
{
    const char *bracket = *address == '[' ? strchr(address, ']') : NULL;
    const char *colon = strchr(bracket ? bracket : address, ':');
    const char *first = bracket ? address + 1 : address;
    size_t len = bracket ? (size_t)(bracket - first) : colon ? (size_t)(colon - first) : strlen(first);
    *out_host = arena_strndup(&sc->arena, first, len);
    *out_port = colon ? atoi(colon + 1) : DEFAULT_PORT;
}

static bool take_answer(struct scope *sc, const redisReply *r, const char **out_host, int *out_port)
{
    if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 2 || r->element[0]->type != REDIS_REPLY_STRING ||
        r->element[1]->type != REDIS_REPLY_STRING)
        return false;
    int port = atoi(r->element[1]->str);
    *out_host = arena_strdup(&sc->arena, r->element[0]->str);
    *out_port = port;
    return port > 0 && port <= MOST_PORT;
}

static bool ask(struct scope *sc, const struct sentinels *s, const char *address, int timeout_ms, const char **out_host,
                int *out_port)
{
    const char *host;
    int port;
    split(sc, address, &host, &port);
    struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    redisContext *c = redisConnectWithTimeout(host, port, timeout);
    bool is_found = false;
    if (c && !c->err) {
        redisSetTimeout(c, timeout);
        if (s->password)
            freeReplyObject(redisCommand(c, "AUTH %s", s->password));
        scoped(redisReply) *reply = c->err ? NULL : redisCommand(c, "SENTINEL get-master-addr-by-name %s", s->name);
        is_found = take_answer(sc, reply, out_host, out_port);
    }
    if (c)
        redisFree(c);
    return is_found;
}

enum status sentinels_find_primary(struct scope *sc, const struct sentinels *s, int timeout_ms, const char **out_host,
                                   int *out_port)
{
    for (char *const *address = s->addresses; *address; address++) {
        if (ask(sc, s, *address, timeout_ms, out_host, out_port))
            return STATUS_OK;
    }
    return fail(sc, STATUS_UNAVAILABLE, "no sentinel of REDIS_URL knows the primary %s", s->name);
}
