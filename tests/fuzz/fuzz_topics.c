/* Queries of TREC as lines or topics, and as the queries of a dataset. */
#include "common/ir/dataset.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scope sc;
    struct ir_query *queries;
    struct ir_dataset dataset;
    size_t count;
    char *copy = must_malloc(size + 1);
    memcpy(copy, data, size);
    copy[size] = '\0';
    scope_init(&sc, NULL);
    if (ir_parse_topics(&sc, copy, size, 100, &queries, &count) == STATUS_OK)
        scope_forgive(&sc);
    cJSON *json = cJSON_ParseWithLength(copy, size);
    if (json && ir_dataset_from_json(&sc, json, &dataset) == STATUS_OK)
        scope_forgive(&sc);
    cJSON_Delete(json);
    scope_done(&sc);
    free(copy);
    return 0;
}
