#include "api/openapi.h"
#include "api/router.h"
#include "api/schema.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct scope sc;
static cJSON *document;

static int write_document(void **state)
{
    struct text t = {0};
    (void)state;
    scope_init(&sc, NULL);
    openapi_write(&t);
    enum status s = json_parse(&sc, t.data, t.len, &document);
    text_free(&t);
    return s == STATUS_OK ? 0 : -1;
}

static int free_document(void **state)
{
    (void)state;
    cJSON_Delete(document);
    scope_done(&sc);
    return 0;
}

static const cJSON *member(const cJSON *object, const char *name)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!m)
        fail_msg("`%s` is missing", name);
    return m;
}

static const cJSON *operation_of(const struct route *r)
{
    char method[16] = "";
    for (size_t i = 0; r->method[i] && i + 1 < sizeof method; i++)
        method[i] = (char)tolower((unsigned char)r->method[i]);
    return member(member(member(document, "paths"), r->path), method);
}

static void the_document_says_what_it_is(void **state)
{
    (void)state;
    assert_string_equal(json_get_text(document, "openapi", ""), "3.0.3");
    assert_true(*json_get_text(member(document, "info"), "title", ""));
    assert_true(*json_get_text(member(document, "info"), "version", ""));
}

static void every_route_is_documented(void **state)
{
    size_t count;
    const struct route *routes = router_all(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        const cJSON *o = operation_of(&routes[i]);
        assert_true(*json_get_text(o, "summary", ""));
        assert_true(cJSON_IsObject(member(member(o, "responses"), "default")));
        assert_int_equal(cJSON_HasObjectItem(o, "requestBody"), routes[i].request_schema != NULL);
    }
}

static void what_needs_a_token_says_so(void **state)
{
    size_t count;
    const struct route *routes = router_all(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        bool needs_user = routes[i].access != ACCESS_ANYONE && routes[i].access != ACCESS_PROBE;
        assert_int_equal(cJSON_GetArraySize(member(operation_of(&routes[i]), "security")), needs_user);
    }
}

/* Only these answer strangers: a new route that does must be added here on purpose. */
static void strangers_get_only_what_is_meant_for_them(void **state)
{
    static const char *const open[] = {"/health",
                                       "/healthz",
                                       "/readyz",
                                       "/api/health",
                                       "/api/metrics",
                                       "/openapi.json",
                                       "/api/auth/register",
                                       "/api/auth/login",
                                       "/api/auth/refresh",
                                       "/auth/refresh",
                                       "/api/v2/auth/reg",
                                       "/api/v2/auth/login",
                                       "/api/v2/auth/refresh",
                                       "/api/v2/system/info",
                                       "/api/v2/system/health"};
    size_t count;
    const struct route *routes = router_all(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        bool is_open = routes[i].access == ACCESS_ANYONE || routes[i].access == ACCESS_PROBE, is_meant = false;
        for (size_t j = 0; j < array_len(open); j++)
            is_meant = is_meant || strncmp(routes[i].path, open[j], strlen(open[j])) == 0;
        if (is_open && !is_meant)
            fail_msg("%s answers anyone", routes[i].path);
    }
}

static void path_parameters_are_described(void **state)
{
    size_t count;
    const struct route *routes = router_all(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        int braces = 0;
        for (const char *p = routes[i].path; (p = strchr(p, '{')); p++)
            braces++;
        int in_path = 0;
        const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(operation_of(&routes[i]), "parameters");
        for (const cJSON *p = parameters ? parameters->child : NULL; p; p = p->next)
            in_path += strcmp(json_get_text(p, "in", ""), "path") == 0;
        assert_int_equal(in_path, braces);
    }
}

/* Rows of openapi.def name routes by method and path: those that have moved would be left out in silence. */
static void every_row_of_the_list_is_shown(void **state)
{
    (void)state;
    const char *method, *path;
#define SHOWN(m, p, section, key)                                                                                      \
    method = #m, path = p;                                                                                             \
    {                                                                                                                  \
        struct route r = {.method = method, .path = path};                                                             \
        bool is_there = false;                                                                                         \
        const cJSON *list = member(operation_of(&r), section);                                                         \
        for (const cJSON *i = list->child; i; i = i->next)                                                             \
            is_there = is_there || strcmp(i->string ? i->string : json_get_text(i, "name", ""), key) == 0;             \
        if (!is_there)                                                                                                 \
            fail_msg("%s %s lacks %s", method, path, key);                                                             \
    }
#define QUERY(m, p, name, kind, least, most, meaning) SHOWN(m, p, "parameters", name)
#define ANSWER(m, p, status, content_type) SHOWN(m, p, "responses", status)
#define ITEMS(schema, field, items)
#define BARE(name, items)
#include "api/openapi.def"
#undef QUERY
#undef ANSWER
#undef ITEMS
#undef BARE
#undef SHOWN
}

static void check_references(const cJSON *value)
{
    for (const cJSON *m = value->child; m; m = m->next) {
        if (m->string && strcmp(m->string, "$ref") == 0) {
            const char *start = "#/components/schemas/";
            assert_memory_equal(m->valuestring, start, strlen(start));
            member(member(member(document, "components"), "schemas"), m->valuestring + strlen(start));
        }
        check_references(m);
    }
}

static void every_reference_leads_somewhere(void **state)
{
    (void)state;
    check_references(document);
}

static void no_member_and_no_operation_id_comes_twice(void **state)
{
    size_t count;
    const struct route *routes = router_all(&count);
    (void)state;
    const cJSON *sets[] = {member(document, "paths"), member(member(document, "components"), "schemas")};
    for (size_t s = 0; s < array_len(sets); s++) {
        for (const cJSON *a = sets[s]->child; a; a = a->next) {
            for (const cJSON *b = a->next; b; b = b->next)
                assert_string_not_equal(a->string, b->string);
        }
    }
    for (size_t i = 0; i < count; i++) {
        const char *id = json_get_text(operation_of(&routes[i]), "operationId", "");
        assert_true(*id);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(id, json_get_text(operation_of(&routes[j]), "operationId", ""));
    }
}

static void every_schema_is_described(void **state)
{
    size_t count;
    const struct schema *const *all = schema_all(&count);
    (void)state;
    assert_int_equal(cJSON_GetArraySize(member(member(document, "components"), "schemas")) >= (int)count, 1);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < all[i]->field_count; j++) {
            for (size_t k = 0; k < j; k++)
                assert_string_not_equal(all[i]->fields[j].name, all[i]->fields[k].name);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_document_says_what_it_is),    cmocka_unit_test(every_route_is_documented),
        cmocka_unit_test(what_needs_a_token_says_so),      cmocka_unit_test(strangers_get_only_what_is_meant_for_them),
        cmocka_unit_test(path_parameters_are_described),   cmocka_unit_test(every_row_of_the_list_is_shown),
        cmocka_unit_test(every_reference_leads_somewhere), cmocka_unit_test(no_member_and_no_operation_id_comes_twice),
        cmocka_unit_test(every_schema_is_described),
    };
    return cmocka_run_group_tests(tests, write_document, free_document);
}
