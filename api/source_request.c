#include "api/source_request.h"

#include "common/source/directory.h"
#include "common/store/source_store.h"

#include <string.h>
#include <unistd.h>

enum { LONGEST_PATH = 4096 };

static const cJSON *field_of(const cJSON *body, const char *name, const char *alias)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, name);
    if (!item || cJSON_IsNull(item))
        item = cJSON_GetObjectItemCaseSensitive(body, alias);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

bool source_request_is_there(const cJSON *body)
{
    return field_of(body, "source_path", "sourcePath") || field_of(body, "source_config", "sourceConfig");
}

static const char *text_of(const cJSON *item)
{
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static const char *without_slashes(struct scope *sc, const char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    return arena_strndup(&sc->arena, path, len);
}

static enum status check_globs(struct request *r, const cJSON *config, const char *name)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config, name);
    if (!list || cJSON_IsNull(list))
        return STATUS_OK;
    bool is_good = cJSON_IsArray(list);
    for (const cJSON *i = is_good ? list->child : NULL; i; i = i->next)
        is_good = is_good && cJSON_IsString(i);
    return is_good ? STATUS_OK
                   : fail(r->sc, STATUS_INVALID, "source_config.%s must be a list of patterns such as \"*.md\"", name);
}

static enum status check_config(struct request *r, const cJSON *config)
{
    if (config && !cJSON_IsObject(config))
        return fail(r->sc, STATUS_INVALID, "source_config must be an object such as {\"path\": \"/documents\"}");
    const cJSON *recursive = cJSON_GetObjectItemCaseSensitive(config, "recursive");
    if (recursive && !cJSON_IsNull(recursive) && !cJSON_IsBool(recursive))
        return fail(r->sc, STATUS_INVALID, "source_config.recursive must be true or false");
    enum status s = check_globs(r, config, "include_patterns");
    return s == STATUS_OK ? check_globs(r, config, "exclude_patterns") : s;
}

/* source_config as given, with `path` in it. */
static const char *config_with_path(struct request *r, const cJSON *config, const char *path)
{
    scoped(cJSON) *copy = config ? cJSON_Duplicate(config, true) : cJSON_CreateObject();
    cJSON_DeleteItemFromObjectCaseSensitive(copy, "path");
    cJSON_AddStringToObject(copy, "path", path);
    scoped_memory char *printed = cJSON_PrintUnformatted(copy);
    return arena_strdup(&r->sc->arena, printed ? printed : "{}");
}

static bool has_dots(const char *path)
{
    for (const char *p = path; (p = strstr(p, "/..")); p += 3) {
        if (p[3] == '/' || p[3] == '\0')
            return true;
    }
    return false;
}

/* The root that holds the path lies on this machine, so that what is not below it here is nowhere. */
static bool is_root_here(struct scope *sc, const char *roots, const char *path)
{
    char **list = settings_list(&sc->arena, roots, ':', NULL);
    for (; *list; list++) {
        const char *root = without_slashes(sc, *list);
        size_t len = strlen(root);
        bool is_below = strncmp(path, root, len) == 0 && (path[len] == '\0' || path[len] == '/' || len == 1);
        if (is_below && access(root, F_OK) == 0)
            return true;
    }
    return false;
}

static enum status check_grant(struct scope *sc, struct db *db, const struct settings *settings,
                               const struct user *user, const char *path)
{
    if (strcmp(settings->source_roots_for, "granted") != 0 || user->is_superuser)
        return STATUS_OK;
    bool is_granted = false;
    enum status s = source_store_is_granted(sc, db, user->id, path, &is_granted);
    if (s == STATUS_OK && !is_granted)
        return fail(sc, STATUS_FORBIDDEN, "You may not index this directory; ask an administrator for a grant");
    return s;
}

enum status source_request_may_read(struct scope *sc, struct db *db, const struct settings *settings,
                                    const struct user *user, const char *path)
{
    if (*path != '/')
        return fail(sc, STATUS_INVALID, "The path of a source must be absolute, such as /documents; '%s' is not", path);
    if (strlen(path) > LONGEST_PATH)
        return fail(sc, STATUS_INVALID, "The path of a source must not be longer than %d bytes", LONGEST_PATH);
    if (has_dots(path))
        return fail(sc, STATUS_INVALID, "The path of a source must not contain '..'; write it without");
    enum status s = check_grant(sc, db, settings, user, path); /* first: who has none learns nothing of what is there */
    if (s != STATUS_OK)
        return s;
    s = source_check(sc, settings->source_roots, path);
    if (s == STATUS_NOT_FOUND && !is_root_here(sc, settings->source_roots, path)) {
        scope_forgive(sc); /* only workers see it */
        s = STATUS_OK;
    } else if (s == STATUS_NOT_FOUND) {
        scope_forgive(sc);
        s = fail(sc, STATUS_INVALID, "There is nothing at '%s'; check the path", path);
    }
    return s;
}

static enum status check_type(struct request *r, const char *type)
{
    if (type && strcmp(type, "directory") == 0)
        return STATUS_OK;
    return fail(r->sc, STATUS_INVALID, "Unknown source_type '%s'; available: directory", type ? type : "");
}

enum status source_request_read(struct request *r, struct source_request *out)
{
    const cJSON *type = field_of(r->json, "source_type", "sourceType");
    const cJSON *config = field_of(r->json, "source_config", "sourceConfig");
    enum status s = check_type(r, type ? text_of(type) : "directory");
    if (s == STATUS_OK)
        s = check_config(r, config);
    if (s != STATUS_OK)
        return s;
    const char *path = text_of(cJSON_GetObjectItemCaseSensitive(config, "path"));
    if (!path || !*path)
        path = text_of(field_of(r->json, "source_path", "sourcePath"));
    if (!path || !*path)
        return fail(r->sc, STATUS_INVALID,
                    "A directory source needs source_config.path, the absolute path of the directory");
    path = without_slashes(r->sc, path);
    s = source_request_may_read(r->sc, r->db, r->api->settings, &r->user, path);
    if (s != STATUS_OK)
        return s;
    const cJSON *additional = cJSON_GetObjectItemCaseSensitive(r->json, "config");
    scoped_memory char *printed = cJSON_IsObject(additional) ? cJSON_PrintUnformatted(additional) : NULL;
    *out = (struct source_request){
        .type = "directory",
        .path = path,
        .config_json = config_with_path(r, config, path),
        .additional_json = arena_strdup(&r->sc->arena, printed),
    };
    return STATUS_OK;
}

enum status source_request_change(struct request *r, const char *path, const char **out_config)
{
    const cJSON *config = field_of(r->json, "source_config", "sourceConfig");
    if (!config)
        return fail(r->sc, STATUS_INVALID,
                    "Nothing to change; give source_config with include_patterns, exclude_patterns or recursive");
    enum status s = check_config(r, config);
    if (s != STATUS_OK)
        return s;
    const char *other = text_of(cJSON_GetObjectItemCaseSensitive(config, "path"));
    if (other && strcmp(without_slashes(r->sc, other), path) != 0)
        return fail(r->sc, STATUS_INVALID,
                    "The path of a source cannot be changed; add '%s' as another source and remove this one", other);
    *out_config = config_with_path(r, config, path);
    return STATUS_OK;
}

void source_request_config(struct text *t, const struct source_request *source, int64_t source_id)
{
    json_int(t, "source_id", source_id);
    json_text(t, "source_type", source->type);
    json_raw(t, "source_config", source->config_json);
    json_text(t, "source_path", source->path);
    json_raw(t, "additional_config", source->additional_json ? source->additional_json : "{}");
}
