#include "api/schema.h"

#include "common/message.h"

#include <math.h>
#include <string.h>

enum { MOST_FAULTS_BYTES = 32 << 10 }; /* who makes more of them knows enough */

#define SCHEMA_BEGIN(name) static const struct schema_field fields_##name[] = {
#define SCHEMA_STRICT(name) SCHEMA_BEGIN(name)
#define FIELD(schema, name, kind, need, least, most, meaning) {name, FIELD_##kind, FIELD_##need, least, most, meaning},
#define SCHEMA_END(name)                                                                                               \
    {                                                                                                                  \
        0                                                                                                              \
    }                                                                                                                  \
    }                                                                                                                  \
    ;
#include "api/schemas.def"
#undef SCHEMA_BEGIN
#undef SCHEMA_STRICT
#undef FIELD
#undef SCHEMA_END

#define SCHEMA(name, strict)                                                                                           \
    const struct schema schema_##name = {#name, strict, fields_##name, array_len(fields_##name) - 1};
#define SCHEMA_BEGIN(name) SCHEMA(name, false)
#define SCHEMA_STRICT(name) SCHEMA(name, true)
#define FIELD(schema, name, kind, need, least, most, meaning)
#define SCHEMA_END(name)
#include "api/schemas.def"
#undef SCHEMA_BEGIN
#undef SCHEMA_STRICT

#define SCHEMA_BEGIN(name) &schema_##name,
#define SCHEMA_STRICT(name) &schema_##name,
static const struct schema *const all[] = {
#include "api/schemas.def"
};

const struct schema *const *schema_all(size_t *out_count)
{
    *out_count = array_len(all);
    return all;
}

const struct schema *schema_find(const char *name)
{
    for (size_t i = 0; i < array_len(all); i++) {
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    }
    return NULL;
}

/* One fault. `index` < 0 = the field itself, else one item of the list that it holds. */
static void note(struct request *r, const char *field, int index, const char *type, const char *message,
                 const cJSON *input)
{
    struct text *t = &r->reply.invalid;
    if (t->len > MOST_FAULTS_BYTES)
        return;
    bool is_secret = field && (strstr(field, "password") || strstr(field, "token"));
    scoped_memory char *shown = input && !is_secret ? cJSON_PrintUnformatted(input) : NULL;
    if (shown && strlen(shown) > 512) {
        free(shown);
        shown = NULL; /* a fault does not send a whole body back */
    }
    json_open(t, NULL, '{');
    json_text(t, "type", type);
    json_open(t, "loc", '[');
    json_text(t, NULL, "body");
    if (field)
        json_text(t, NULL, field);
    if (index >= 0)
        json_int(t, NULL, index);
    json_close(t, ']');
    json_text(t, "msg", message);
    json_raw(t, "input", shown);
    json_close(t, '}');
}

static const char *bound(struct scope *sc, double n)
{
    return n == floor(n) ? arena_printf(&sc->arena, "%.0f", n) : arena_printf(&sc->arena, "%g", n);
}

static size_t code_points(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void check_text(struct request *r, const struct schema_field *f, const cJSON *value)
{
    if (!cJSON_IsString(value)) {
        note(r, f->name, -1, "string_type", "Input should be a valid string", value);
        return;
    }
    if (f->least > f->most)
        return;
    double n = (double)code_points(value->valuestring);
    if (n < f->least)
        note(r, f->name, -1, "string_too_short",
             arena_printf(&r->sc->arena, "String should have at least %s character%s", bound(r->sc, f->least),
                          f->least == 1 ? "" : "s"),
             value);
    else if (n > f->most)
        note(r, f->name, -1, "string_too_long",
             arena_printf(&r->sc->arena, "String should have at most %s character%s", bound(r->sc, f->most),
                          f->most == 1 ? "" : "s"),
             value);
}

static void check_number(struct request *r, const struct schema_field *f, const cJSON *value)
{
    bool is_int = f->kind == FIELD_INT;
    if (!cJSON_IsNumber(value)) {
        note(r, f->name, -1, is_int ? "int_type" : "float_type",
             is_int ? "Input should be a valid integer" : "Input should be a valid number", value);
        return;
    }
    double n = value->valuedouble;
    if (!isfinite(n))
        note(r, f->name, -1, "finite_number", "Input should be a finite number", NULL);
    else if (is_int && n != floor(n))
        note(r, f->name, -1, "int_from_float", "Input should be a valid integer, got a number with a fractional part",
             value);
    else if (is_int && fabs(n) > 9007199254740992.0)
        note(r, f->name, -1, "int_parsing_size", "Input should be an integer of at most 53 bits", value);
    else if (f->least <= f->most && n < f->least)
        note(r, f->name, -1, "greater_than_equal",
             arena_printf(&r->sc->arena, "Input should be greater than or equal to %s", bound(r->sc, f->least)), value);
    else if (f->least <= f->most && n > f->most)
        note(r, f->name, -1, "less_than_equal",
             arena_printf(&r->sc->arena, "Input should be less than or equal to %s", bound(r->sc, f->most)), value);
}

static void check_list(struct request *r, const struct schema_field *f, const cJSON *value)
{
    if (!cJSON_IsArray(value)) {
        note(r, f->name, -1, "list_type", "Input should be a valid list", value);
        return;
    }
    int n = cJSON_GetArraySize(value), i = 0;
    bool is_bounded = f->least <= f->most;
    if (is_bounded && n < f->least)
        note(r, f->name, -1, "too_short",
             arena_printf(&r->sc->arena, "List should have at least %s item%s after validation, not %d",
                          bound(r->sc, f->least), f->least == 1 ? "" : "s", n),
             value);
    if (is_bounded && n > f->most) {
        note(r, f->name, -1, "too_long",
             arena_printf(&r->sc->arena, "List should have at most %s item%s after validation, not %d",
                          bound(r->sc, f->most), f->most == 1 ? "" : "s", n),
             value);
        return;
    }
    if (f->kind != FIELD_UUIDS)
        return;
    for (const cJSON *item = value->child; item; item = item->next, i++) {
        if (!cJSON_IsString(item) || !uuid_is_valid(item->valuestring))
            note(r, f->name, i, "uuid_parsing", "Input should be a valid UUID", item);
    }
}

static void check_field(struct request *r, const struct schema_field *f, const cJSON *value)
{
    switch (f->kind) {
    case FIELD_TEXT:
        check_text(r, f, value);
        break;
    case FIELD_INT:
    case FIELD_REAL:
        check_number(r, f, value);
        break;
    case FIELD_BOOL:
        if (!cJSON_IsBool(value))
            note(r, f->name, -1, "bool_type", "Input should be a valid boolean", value);
        break;
    case FIELD_OBJECT:
        if (!cJSON_IsObject(value))
            note(r, f->name, -1, "dict_type", "Input should be a valid dictionary", value);
        break;
    case FIELD_LIST:
    case FIELD_UUIDS:
        check_list(r, f, value);
        break;
    case FIELD_UUID:
        if (!cJSON_IsString(value) || !uuid_is_valid(value->valuestring))
            note(r, f->name, -1, "uuid_parsing", "Input should be a valid UUID", value);
        break;
    case FIELD_ANY:
        break;
    }
}

static void check_unknown(struct request *r, const struct schema *schema, const cJSON *body)
{
    for (const cJSON *member = body->child; member; member = member->next) {
        bool is_known = false;
        for (size_t i = 0; i < schema->field_count; i++)
            is_known = is_known || strcmp(schema->fields[i].name, member->string) == 0;
        if (!is_known)
            note(r, member->string, -1, "extra_forbidden", "Extra inputs are not permitted", member);
    }
}

/* Notes a 422 entry for every fault; STATUS_UNPROCESSABLE if there was one. */
static enum status check_object(struct request *r, const struct schema *schema, const cJSON *body)
{
    size_t before = r->reply.invalid.len;
    if (!cJSON_IsObject(body)) {
        note(r, NULL, -1, "model_attributes_type",
             "Input should be a valid dictionary or object to extract fields from", body);
        return fail(r->sc, STATUS_UNPROCESSABLE, "the body is not an object");
    }
    for (size_t i = 0; i < schema->field_count; i++) {
        const struct schema_field *f = &schema->fields[i];
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(body, f->name);
        if (!value) {
            if (f->need == FIELD_REQUIRED)
                note(r, f->name, -1, "missing", "Field required", NULL);
        } else if (!cJSON_IsNull(value) || f->need != FIELD_NULLABLE) {
            check_field(r, f, value);
        }
    }
    if (schema->is_strict)
        check_unknown(r, schema, body);
    return r->reply.invalid.len == before ? STATUS_OK
                                          : fail(r->sc, STATUS_UNPROCESSABLE, "the body does not fit the schema");
}

static bool may_be_missing(const struct schema *schema)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        if (schema->fields[i].need == FIELD_REQUIRED)
            return false;
    }
    return true;
}

enum status schema_read_body(struct request *r, const struct schema *schema, cJSON **out_json)
{
    size_t blank = strspn(r->body ? r->body : "", " \t\r\n");
    bool is_missing = r->body_len == blank;
    *out_json = NULL;
    if (is_missing && may_be_missing(schema))
        return STATUS_OK;
    if (is_missing) {
        note(r, NULL, -1, "missing", "Field required", NULL);
        return fail(r->sc, STATUS_UNPROCESSABLE, "the body is missing");
    }
    cJSON *json = NULL;
    if (json_parse_bounded(r->sc, r->body, r->body_len, JSON_MOST_VALUES, &json) != STATUS_OK) {
        note(r, NULL, -1, "json_invalid", arena_printf(&r->sc->arena, "JSON decode error: %s", r->sc->problem_text),
             NULL);
        return STATUS_UNPROCESSABLE;
    }
    *out_json = json;
    if (cJSON_IsNull(json) && may_be_missing(schema))
        return STATUS_OK;
    r->json = json;
    return check_object(r, schema, json);
}
