/* Ids of events and of operations, as clients send them back, and announcements of changed rights. */
#include "common/message.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *s = must_malloc(size + 1);
    memcpy(s, data, size);
    s[size] = '\0';
    struct event_id id;
    if (event_id_parse(s, &id) == STATUS_OK && event_id_compare(&id, &id) != 0)
        abort();
    if (uuid_is_valid(s) && strlen(s) != 36)
        abort();
    struct scope sc;
    struct access_change change;
    scope_init(&sc, NULL);
    if (message_access_parse(&sc, s, size, &change) == STATUS_OK && change.collection_id[0] &&
        !uuid_is_valid(change.collection_id))
        abort();
    scope_done(&sc);
    free(s);
    return 0;
}
