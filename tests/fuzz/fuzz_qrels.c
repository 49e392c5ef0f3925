/* Judgments of TREC, and a dataset of two queries with them. */
#include "common/ir/dataset.h"
#include "common/ir/qrels.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scope sc;
    struct ir_qrel *qrels;
    struct ir_dataset dataset;
    const char *field;
    size_t count;
    char *copy = must_malloc(size + 1);
    memcpy(copy, data, size);
    copy[size] = '\0';
    scope_init(&sc, NULL);
    if (ir_parse_qrels(&sc, copy, size, 100, &qrels, &count) == STATUS_OK)
        scope_forgive(&sc);
    if (ir_dataset_from_trec(&sc, "1\tone\n2\ttwo\n", copy, &dataset, &field) == STATUS_OK)
        scope_forgive(&sc);
    scope_done(&sc);
    free(copy);
    return 0;
}
