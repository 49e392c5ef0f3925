/* Sec-WebSocket-Extensions of a request: the answer is one of two, and is never more than what was offered. */
#include "api/relay/extension.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char plain[] = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    static const char limited[] =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12";
    char *offers = malloc(size); /* of just this size, so that a step beyond its end is seen */
    memcpy(offers, data, size);
    const char *answer = extension_answer(offers, size);
    if (answer && strcmp(answer, plain) != 0 && strcmp(answer, limited) != 0)
        abort();
    if (answer && !memmem(offers, size, "permessage-deflate", 18))
        abort();
    if (answer && strcmp(answer, limited) == 0 && !memmem(offers, size, "server_max_window_bits", 22))
        abort();
    free(offers);
    return 0;
}
