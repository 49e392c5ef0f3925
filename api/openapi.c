#include "api/openapi.h"

#include "api/router.h"
#include "api/schema.h"
#include "common/version.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char error_schema[] = "{\"type\":\"object\",\"required\":[\"detail\"],\"properties\":{\"detail\":{"
                                   "\"type\":\"string\"},\"reference\":{\"type\":\"string\"}}}";
static const char invalid_schema[] =
    "{\"type\":\"object\",\"required\":[\"detail\"],\"properties\":{\"detail\":{\"type\":\"array\",\"items\":{\"type\":"
    "\"object\",\"required\":[\"type\",\"loc\",\"msg\"],"
    "\"properties\":{\"type\":{\"type\":\"string\"},\"loc\":{\"type\":\"array\",\"items\":{}},\"msg\":{\"type\":"
    "\"string\"},\"input\":{}}}}}}";

#define NO_QUERY(method, path, name, kind, least, most, meaning)
#define NO_ANSWER(method, path, status, content_type)
#define NO_ITEMS(schema, field, items)
#define NO_BARE(name, items)

static const struct query_parameter {
    const char *method, *path;
    struct schema_field field;
} queries[] = {
#define QUERY(method, path, name, kind, least, most, meaning)                                                          \
    {#method, path, {name, FIELD_##kind, FIELD_OPTIONAL, least, most, meaning}},
#define ANSWER NO_ANSWER
#define ITEMS NO_ITEMS
#define BARE NO_BARE
#include "api/openapi.def"
#undef QUERY
#undef ANSWER
};

static const struct answer {
    const char *method, *path, *status, *content_type;
} answers[] = {
#define QUERY NO_QUERY
#define ANSWER(method, path, status, content_type) {#method, path, status, content_type},
#include "api/openapi.def"
#undef ANSWER
#undef ITEMS
#define ANSWER NO_ANSWER
};

static const struct items {
    const struct schema *schema;
    const char *field;
    const struct schema *items;
} items[] = {
#define ITEMS(schema, field, items) {&schema_##schema, field, &schema_##items},
#include "api/openapi.def"
#undef ITEMS
#undef BARE
#define ITEMS NO_ITEMS
};

static const struct bare {
    const char *name;
    const struct schema *items;
} bares[] = {
#define BARE(name, items) {#name, &schema_##items},
#include "api/openapi.def"
#undef QUERY
#undef ANSWER
#undef ITEMS
#undef BARE
};

/* "COLLECTION_LIST" -> "CollectionList" */
static const char *shown_name(const char *name, char out[64])
{
    bool is_start = true;
    char *p = out;
    for (; *name && p < out + 63; name++) {
        if (*name == '_') {
            is_start = true;
            continue;
        }
        *p++ = (char)(is_start ? toupper((unsigned char)*name) : tolower((unsigned char)*name));
        is_start = false;
    }
    *p = '\0';
    return out;
}

static void write_ref(struct text *t, const char *key, const char *name)
{
    char shown[64];
    json_open(t, key, '{');
    scoped_text ref = {0};
    text_printf(&ref, "#/components/schemas/%s", shown_name(name, shown));
    json_text(t, "$ref", ref.data);
    json_close(t, '}');
}

static void write_bounds(struct text *t, const struct schema_field *f, const char *least, const char *most)
{
    if (f->least > f->most)
        return;
    json_real(t, least, f->least);
    json_real(t, most, f->most);
}

/* Replies leave nothing out: what may be null is there. */
static bool is_reply(const struct schema *s)
{
    size_t count;
    const struct route *routes = router_all(&count);
    for (size_t i = 0; i < count; i++) {
        if (routes[i].reply_schema && strcmp(routes[i].reply_schema, s->name) == 0)
            return true;
    }
    for (size_t i = 0; i < array_len(items); i++) {
        if (items[i].items == s)
            return true;
    }
    return false;
}

static void write_items(struct text *t, const struct schema *s, const struct schema_field *f)
{
    for (size_t i = 0; i < array_len(items); i++) {
        if (items[i].schema == s && strcmp(items[i].field, f->name) == 0) {
            write_ref(t, "items", items[i].items->name);
            return;
        }
    }
    json_raw(t, "items", "{}");
}

/* `s` is NULL for a parameter. */
static void write_type(struct text *t, const struct schema *s, const struct schema_field *f)
{
    static const char *const types[] = {"string", "integer", "number", "boolean", "object",
                                        "array",  "array",   "string", NULL};
    if (types[f->kind])
        json_text(t, "type", types[f->kind]);
    if (f->kind == FIELD_UUID)
        json_text(t, "format", "uuid");
    if (f->kind == FIELD_UUIDS)
        json_raw(t, "items", "{\"type\":\"string\",\"format\":\"uuid\"}");
    if (f->kind == FIELD_LIST)
        write_items(t, s, f);
    if (f->kind == FIELD_TEXT)
        write_bounds(t, f, "minLength", "maxLength");
    else if (f->kind == FIELD_INT || f->kind == FIELD_REAL)
        write_bounds(t, f, "minimum", "maximum");
    else if (f->kind == FIELD_LIST || f->kind == FIELD_UUIDS)
        write_bounds(t, f, "minItems", "maxItems");
    if (f->need == FIELD_NULLABLE && types[f->kind])
        json_bool(t, "nullable", true);
}

static void write_field(struct text *t, const struct schema *s, const struct schema_field *f)
{
    json_open(t, f->name, '{');
    write_type(t, s, f);
    if (*f->meaning)
        json_text(t, "description", f->meaning);
    json_close(t, '}');
}

static void write_schema(struct text *t, const struct schema *s)
{
    char shown[64];
    size_t required = 0;
    enum field_need least = is_reply(s) ? FIELD_NULLABLE : FIELD_REQUIRED;
    json_open(t, shown_name(s->name, shown), '{');
    json_text(t, "type", "object");
    for (size_t i = 0; i < s->field_count; i++)
        required += s->fields[i].need <= least;
    if (required) {
        json_open(t, "required", '[');
        for (size_t i = 0; i < s->field_count; i++) {
            if (s->fields[i].need <= least)
                json_text(t, NULL, s->fields[i].name);
        }
        json_close(t, ']');
    }
    json_open(t, "properties", '{');
    for (size_t i = 0; i < s->field_count; i++)
        write_field(t, s, &s->fields[i]);
    json_close(t, '}');
    if (s->is_strict)
        json_bool(t, "additionalProperties", false);
    json_close(t, '}');
}

static bool write_bare(struct text *t, const char *name)
{
    char shown[64];
    for (size_t i = 0; i < array_len(bares); i++) {
        if (strcmp(bares[i].name, name) != 0)
            continue;
        json_open(t, shown_name(name, shown), '{');
        json_text(t, "type", "array");
        write_ref(t, "items", bares[i].items->name);
        json_close(t, '}');
        return true;
    }
    return false;
}

/* Names that routes.def uses and schemas.def does not describe. */
static void write_plain_schemas(struct text *t)
{
    char shown[64];
    size_t count;
    const struct route *routes = router_all(&count);
    for (size_t i = 0; i < count; i++) {
        const char *name = routes[i].reply_schema;
        bool is_new = name && !schema_find(name);
        for (size_t j = 0; is_new && j < i; j++)
            is_new = !routes[j].reply_schema || strcmp(routes[j].reply_schema, name) != 0;
        if (is_new && !write_bare(t, name))
            json_raw(t, shown_name(name, shown), "{\"type\":\"object\"}");
    }
}

static void write_components(struct text *t)
{
    size_t count;
    const struct schema *const *all = schema_all(&count);
    json_open(t, "components", '{');
    json_open(t, "schemas", '{');
    json_raw(t, "Error", error_schema);
    json_raw(t, "ValidationError", invalid_schema);
    for (size_t i = 0; i < count; i++)
        write_schema(t, all[i]);
    write_plain_schemas(t);
    json_close(t, '}');
    json_raw(t, "securitySchemes",
             "{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\",\"description\":\"an access token, or an API key "
             "smtk_…\"}}");
    json_close(t, '}');
}

static void write_content(struct text *t, const char *schema)
{
    json_open(t, "content", '{');
    json_open(t, "application/json", '{');
    write_ref(t, "schema", schema);
    json_close(t, '}');
    json_close(t, '}');
}

static void write_response(struct text *t, const char *code, const char *description, const char *schema)
{
    json_open(t, code, '{');
    json_text(t, "description", description);
    if (schema)
        write_content(t, schema);
    json_close(t, '}');
}

static bool is_of(const struct query_parameter *q, const struct route *r)
{
    return strcmp(q->method, r->method) == 0 && strcmp(q->path, r->path) == 0;
}

static bool has_queries(const struct route *r)
{
    bool has = false;
    for (size_t i = 0; i < array_len(queries); i++)
        has = has || is_of(&queries[i], r);
    return has;
}

static const struct answer *answer_of(const struct route *r)
{
    for (size_t i = 0; i < array_len(answers); i++) {
        if (strcmp(answers[i].method, r->method) == 0 && strcmp(answers[i].path, r->path) == 0)
            return &answers[i];
    }
    return NULL;
}

/* Without a schema: JSON that is an object or null, else bytes. */
static void write_unnamed(struct text *t, const struct answer *a)
{
    bool is_json = strcmp(a->content_type, "application/json") == 0;
    json_open(t, a->status, '{');
    json_text(t, "description", "Done");
    json_open(t, "content", '{');
    json_open(t, is_json ? "application/json" : "*/*", '{');
    json_raw(t, "schema",
             is_json ? "{\"type\":\"object\",\"nullable\":true}" : "{\"type\":\"string\",\"format\":\"binary\"}");
    json_close(t, '}');
    json_close(t, '}');
    json_close(t, '}');
}

static void write_done(struct text *t, const struct route *r)
{
    const struct answer *a = answer_of(r);
    if (a && !r->reply_schema)
        write_unnamed(t, a);
    else
        write_response(t, a ? a->status : r->reply_schema ? "200" : "204", "Done", r->reply_schema);
}

static bool needs_token(const struct route *r)
{
    return r->access != ACCESS_ANYONE && r->access != ACCESS_PROBE;
}

static void write_responses(struct text *t, const struct route *r)
{
    bool needs_user = needs_token(r);
    json_open(t, "responses", '{');
    write_done(t, r);
    if (needs_user)
        write_response(t, "401", "No token, or one that is not valid", "ERROR");
    if (needs_user)
        write_response(t, "403", "Not allowed", "ERROR");
    if (strchr(r->path, '{'))
        write_response(t, "404", "There is none", "ERROR");
    if (r->request_schema || has_queries(r))
        write_response(t, "422", "The body or the query does not fit", "VALIDATION_ERROR");
    if (*r->limit)
        write_response(t, "429", "Too often", "ERROR");
    write_response(t, "default", "Any other failure", "ERROR");
    json_close(t, '}');
}

static void write_queries(struct text *t, const struct route *r)
{
    for (size_t i = 0; i < array_len(queries); i++) {
        if (!is_of(&queries[i], r))
            continue;
        json_open(t, NULL, '{');
        json_text(t, "name", queries[i].field.name);
        json_text(t, "in", "query");
        json_text(t, "description", queries[i].field.meaning);
        json_open(t, "schema", '{');
        write_type(t, NULL, &queries[i].field);
        json_close(t, '}');
        json_close(t, '}');
    }
}

static void write_parameters(struct text *t, const struct route *r)
{
    if (!strchr(r->path, '{') && !has_queries(r))
        return;
    json_open(t, "parameters", '[');
    for (const char *p = r->path; (p = strchr(p, '{')); p++) {
        scoped_text name = {0};
        text_append(&name, p + 1, strcspn(p + 1, "}"));
        json_open(t, NULL, '{');
        json_text(t, "name", text_str(&name));
        json_text(t, "in", "path");
        json_bool(t, "required", true);
        json_raw(t, "schema", "{\"type\":\"string\"}");
        json_close(t, '}');
    }
    write_queries(t, r);
    json_close(t, ']');
}

/* "/api/v2/collections/{id}" -> "collections": the first segment that says something. */
static void write_tag(struct text *t, const char *path)
{
    if (strncmp(path, "/api/", 5) == 0)
        path += 4;
    if (strncmp(path, "/v2/", 4) == 0)
        path += 3;
    scoped_text tag = {0};
    text_append(&tag, path + 1, strcspn(path + 1, "/"));
    json_open(t, "tags", '[');
    json_text(t, NULL, text_str(&tag));
    json_close(t, ']');
}

/* One and the same handler may stand behind several paths: the id must not be. */
static void write_operation_id(struct text *t, const struct route *r)
{
    scoped_text id = {0};
    for (const char *p = r->method; *p; p++)
        text_putc(&id, (char)tolower((unsigned char)*p));
    for (const char *p = r->path; *p; p++) {
        if (isalnum((unsigned char)*p))
            text_putc(&id, *p);
        else if (*p != '}' && id.len && id.data[id.len - 1] != '_')
            text_putc(&id, '_');
    }
    json_text(t, "operationId", text_str(&id));
}

static void write_operation(struct text *t, const struct route *r)
{
    char method[16];
    snprintf(method, sizeof method, "%s", r->method);
    for (char *p = method; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    json_open(t, method, '{');
    write_operation_id(t, r);
    json_text(t, "summary", r->summary);
    write_tag(t, r->path);
    write_parameters(t, r);
    if (r->request_schema) {
        json_open(t, "requestBody", '{');
        write_content(t, r->request_schema->name);
        json_close(t, '}');
    }
    write_responses(t, r);
    bool needs_user = needs_token(r);
    json_raw(t, "security", needs_user ? "[{\"bearer\":[]}]" : "[]");
    if (r->access == ACCESS_SUPERUSER)
        json_bool(t, "x-superuser", true);
    if (*r->limit)
        json_text(t, "x-rate-limit", r->limit);
    json_close(t, '}');
}

static void write_paths(struct text *t)
{
    size_t count;
    const struct route *routes = router_all(&count);
    json_open(t, "paths", '{');
    for (size_t i = 0; i < count; i++) {
        bool is_first = true;
        for (size_t j = 0; j < i; j++)
            is_first = is_first && strcmp(routes[j].path, routes[i].path) != 0;
        if (!is_first)
            continue;
        json_open(t, routes[i].path, '{');
        for (size_t j = i; j < count; j++) {
            if (strcmp(routes[j].path, routes[i].path) == 0)
                write_operation(t, &routes[j]);
        }
        json_close(t, '}');
    }
    json_close(t, '}');
}

void openapi_write(struct text *out)
{
    json_open(out, NULL, '{');
    json_text(out, "openapi", "3.0.3");
    json_open(out, "info", '{');
    json_text(out, "title", "Opstream");
    json_text(out, "version", OPSTREAM_VERSION);
    json_text(out, "description", "Collections of documents, the operations on them, and semantic search.");
    json_close(out, '}');
    write_paths(out);
    write_components(out);
    json_close(out, '}');
}
