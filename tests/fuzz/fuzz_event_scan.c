/* Events as they lie in Redis: what the quick reader takes the thorough one takes as well, with the same answers. */
#include "api/relay/event_scan.h"
#include "common/json.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void compare(const cJSON *object, const char *name, const struct event_field *field)
{
    const char *text = json_get_text(object, name, NULL);
    if (!text != !field->at || (text && (strlen(text) != field->len || memcmp(text, field->at, field->len) != 0)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_fields fields;
    char *exact = malloc(size ? size : 1); /* so that a read beyond the end is seen */
    if (!exact)
        abort();
    memcpy(exact, data, size);
    if (event_scan(exact, size, &fields)) {
        struct scope sc;
        scope_init(&sc, NULL);
        scoped(cJSON) *json = NULL;
        if (json_parse(&sc, exact, size, &json) != STATUS_OK || !cJSON_IsObject(json))
            abort();
        compare(json, "id", &fields.id);
        compare(json, "type", &fields.type);
        compare(json, "operation_id", &fields.operation_id);
        scope_done(&sc);
    }
    free(exact);
    return 0;
}
