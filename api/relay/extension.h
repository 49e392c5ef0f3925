/* What a client offers in Sec-WebSocket-Extensions, and what is answered: permessage-deflate (RFC 7692) or nothing.
 * Pure functions. */
#pragma once

#include <stddef.h>

/* The answer to the first offer of permessage-deflate that can be kept, a constant; NULL when there is none, or when
 * the header is malformed (RFC 6455, section 9.1). Messages are compressed each by itself in both directions, so that
 * one compressed event serves all its receivers and no connection holds a state of zlib; a client that limits our
 * window to less than DEFLATE_WINDOW_BITS (deflate.h) is declined. */
const char *extension_answer(const char *offers, size_t len);
