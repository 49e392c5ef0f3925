/* A user's preferences. Only what differs from the defaults is stored; answers always have all of them. */
#include "api/router.h"
#include "build/queries.h"

#include <math.h>
#include <string.h>

enum kind { KIND_INT, KIND_REAL, KIND_BOOL, KIND_TEXT };
enum { LONGEST_TEXT = 255 };

static const struct preference {
    const char *section, *field;
    enum kind kind;
    double least, most;
    const char *choices;
    const char *fallback; /* JSON */
} preferences[] = {
#define PREFERENCE(section, field, kind, least, most, choices, fallback)                                               \
    {section, field, KIND_##kind, least, most, choices, fallback},
#include "api/routes/preferences.def"
#undef PREFERENCE
};

static const char *const sections[] = {"search", "collection_defaults", "interface"};

static bool is_choice(const char *choices, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, word, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

/* NULL when the value may be set, else what is wrong with it. */
static const char *fault_of(struct request *r, const struct preference *p, const cJSON *value)
{
    if (cJSON_IsNull(value))
        return strcmp(p->fallback, "null") == 0 ? NULL : "must not be null";
    if (p->kind == KIND_BOOL)
        return cJSON_IsBool(value) ? NULL : "must be true or false";
    if (p->kind == KIND_TEXT) {
        if (!cJSON_IsString(value) || strlen(value->valuestring) > LONGEST_TEXT)
            return "must be a short text";
        bool fits = !*p->choices || is_choice(p->choices, value->valuestring);
        return fits ? NULL : arena_printf(&r->sc->arena, "must be one of %s", p->choices);
    }
    bool is_number = cJSON_IsNumber(value) && isfinite(value->valuedouble);
    if (!is_number || (p->kind == KIND_INT && value->valuedouble != floor(value->valuedouble)))
        return p->kind == KIND_INT ? "must be a whole number" : "must be a number";
    if (value->valuedouble < p->least || value->valuedouble > p->most)
        return arena_printf(&r->sc->arena, "must be from %g to %.10g", p->least, p->most);
    return NULL;
}

static const struct preference *find(const char *section, const char *field)
{
    for (size_t i = 0; i < array_len(preferences); i++) {
        if (strcmp(preferences[i].section, section) == 0 && strcmp(preferences[i].field, field) == 0)
            return &preferences[i];
    }
    return NULL;
}

static enum status check_section(struct request *r, const char *section)
{
    enum status s = STATUS_OK;
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(r->json, section);
    for (const cJSON *v = object ? object->child : NULL; v; v = v->next) {
        const struct preference *p = find(section, v->string);
        const char *fault = p ? fault_of(r, p, v) : NULL;
        if (!p)
            s = request_invalid(r, "body", section, "extra_forbidden", "%s: Extra inputs are not permitted", v->string);
        else if (fault)
            s = request_invalid(r, "body", section, "value_error", "%s %s", v->string, fault);
    }
    return s;
}

static void write_preference(struct text *t, const struct preference *p, const cJSON *stored)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(stored, p->section),
                                                          p->field);
    scoped_memory char *printed = value ? cJSON_PrintUnformatted(value) : NULL;
    json_raw(t, p->field, printed ? printed : p->fallback);
}

static enum status answer(struct request *r, const PGresult *rows)
{
    if (PQntuples(rows) == 0)
        return fail(r->sc, STATUS_NOT_FOUND, "User with ID '%lld' not found", (long long)r->user.id);
    scoped(cJSON) *stored = NULL;
    const char *json = db_text(rows, 0, "preferences"), *created = db_text(rows, 0, "created_at");
    enum status s = json_parse(r->sc, json, strlen(json), &stored);
    if (s != STATUS_OK)
        return s;
    struct text *t = reply_json(r, 200);
    json_open(t, NULL, '{');
    for (size_t i = 0; i < array_len(sections); i++) {
        json_open(t, sections[i], '{');
        for (size_t n = 0; n < array_len(preferences); n++) {
            if (strcmp(preferences[n].section, sections[i]) == 0)
                write_preference(t, &preferences[n], stored);
        }
        json_close(t, '}');
    }
    json_text(t, "created_at", created);
    json_text(t, "updated_at", json_get_text(stored, "updated_at", created));
    json_close(t, '}');
    return STATUS_OK;
}

enum status preferences_show(struct request *r)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_PREFERENCES_FIND, &rows, db_number(r->sc, r->user.id));
    return s == STATUS_OK ? answer(r, rows) : s;
}

enum status preferences_update(struct request *r)
{
    enum status s = STATUS_OK;
    for (size_t i = 0; i < array_len(sections); i++) {
        enum status one = check_section(r, sections[i]);
        s = s == STATUS_OK ? one : s;
    }
    if (s != STATUS_OK)
        return s;
    scoped(cJSON) *changes = r->json ? cJSON_Duplicate(r->json, true) : cJSON_CreateObject();
    for (size_t i = 0; i < array_len(sections); i++) {
        if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(changes, sections[i])))
            cJSON_DeleteItemFromObjectCaseSensitive(changes, sections[i]);
    }
    scoped_memory char *json = cJSON_PrintUnformatted(changes);
    scoped(PGresult) *rows = NULL;
    s = db_run(r->sc, r->db, SQL_PREFERENCES_MERGE, &rows, db_number(r->sc, r->user.id), json ? json : "{}");
    return s == STATUS_OK ? answer(r, rows) : s;
}

static enum status reset(struct request *r, const char *section)
{
    scoped(PGresult) *rows = NULL;
    enum status s = db_run(r->sc, r->db, SQL_PREFERENCES_RESET, &rows, db_number(r->sc, r->user.id), section);
    return s == STATUS_OK ? answer(r, rows) : s;
}

enum status preferences_reset_search(struct request *r)
{
    return reset(r, "search");
}

enum status preferences_reset_collection_defaults(struct request *r)
{
    return reset(r, "collection_defaults");
}

enum status preferences_reset_interface(struct request *r)
{
    return reset(r, "interface");
}
