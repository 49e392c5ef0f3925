#include "tests/support/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

char *golden_read(const char *path, size_t *out_len)
{
    FILE *f = fopen(path, "rbe");
    if (!f)
        fail_msg("%s cannot be read (run from the repository's root, after make setup)", path);
    scoped_text t = {0};
    char buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
        text_append(&t, buffer, n);
    fclose(f);
    *out_len = t.len;
    return text_take(&t);
}

cJSON *golden_json(const char *path)
{
    size_t len;
    char *bytes = golden_read(path, &len);
    cJSON *json = cJSON_ParseWithLength(bytes, len);
    free(bytes);
    assert_non_null(json);
    return json;
}

const char *golden_model_dir(void)
{
    static char path[512];
    const char *models = getenv("OPSTREAM_MODEL_DIR");
    snprintf(path, sizeof path, "%s/all-MiniLM-L6-v2", models ? models : "build/models");
    return path;
}

char *golden_unhex(const char *hex, size_t *out_len)
{
    size_t len = strlen(hex) / 2;
    char *out = must_malloc(len + 1);
    for (size_t i = 0; i < len; i++) {
        char pair[3] = {hex[i * 2], hex[i * 2 + 1], '\0'};
        out[i] = (char)strtol(pair, NULL, 16);
    }
    out[len] = '\0';
    *out_len = len;
    return out;
}
