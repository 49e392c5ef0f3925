/* A client's compressed messages; and what is packed is unpacked as it was. */
#include "api/relay/deflate.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = malloc(size); /* of just this size, so that a step beyond its end is seen */
    memcpy(bytes, data, size);
    struct text out = {0}, packed = {0}, again = {0};
    enum deflate_end end = deflate_unpack(&out, bytes, size, MOST);
    if (out.len > MOST)
        abort();
    if (end == DEFLATE_OK && deflate_pack(&packed, text_str(&out), out.len) &&
        (deflate_unpack(&again, packed.data, packed.len, out.len) != DEFLATE_OK || again.len != out.len ||
         memcmp(again.data, out.data, out.len) != 0))
        abort();
    text_clear(&packed);
    text_clear(&again);
    if (deflate_pack(&packed, bytes, size) && (deflate_unpack(&again, packed.data, packed.len, size) != DEFLATE_OK ||
                                               again.len != size || memcmp(again.data, bytes, size) != 0))
        abort();
    text_free(&out);
    text_free(&packed);
    text_free(&again);
    free(bytes);
    return 0;
}
