/* Messages of permessage-deflate (RFC 7692), each compressed by itself: nothing is remembered from one to the next, so
 * a compressed event is made once for all its receivers, and what a client sends is unpacked without a state of its
 * own. Pure functions. */
#pragma once

#include "common/text.h"

#define DEFLATE_WINDOW_BITS 12 /* no reference of ours goes back further than 4 KiB */
#define DEFLATE_WINDOW_TEXT "12"

enum deflate_end { DEFLATE_OK, DEFLATE_BROKEN, DEFLATE_TOO_LARGE };

/* Appends the payload of a compressed message (without the tail 00 00 FF FF). False, and nothing appended: the message
 * is too short to be worth it, or does not shrink; it goes as it is. */
bool deflate_pack(struct text *out, const char *bytes, size_t len);
/* Appends the message whose payload (all fragments, without the tail) this is. DEFLATE_TOO_LARGE as soon as it is
 * longer than `most` bytes, DEFLATE_BROKEN when it is not the whole of a message; `out` then holds what came before. */
enum deflate_end deflate_unpack(struct text *out, const char *bytes, size_t len, size_t most) must_check;
