/* What strangers send to the API: JSON and tokens. What was read is written and read again. */
#include "common/json.h"
#include "common/jwt.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *json = NULL;
    if (json_parse(&sc, (const char *)data, size, &json) == STATUS_OK) {
        scoped_text t = {0};
        json_open(&t, NULL, '{');
        json_text(&t, "a", json_get_text(json, "a", ""));
        json_real(&t, "b", json_get_real(json, "b", 0));
        json_int(&t, "c", json_get_int(json, "c", 0));
        json_text_n(&t, "d", (const char *)data, size);
        json_close(&t, '}');
        scoped(cJSON) *again = NULL;
        if (json_parse(&sc, t.data, t.len, &again) != STATUS_OK)
            abort();
    }
    char *s = arena_strndup(&sc.arena, (const char *)data, size);
    struct jwt_claims claims;
    if (jwt_verify(&sc, "a secret of thirty-two characters", s, "access", &claims) == STATUS_OK)
        abort(); /* nobody signed it */
    scope_done(&sc);
    return 0;
}
