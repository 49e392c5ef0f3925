#include "api/relay/deflate.h"

#include "common/arena.h"

#include <string.h>
#include <zlib.h>

enum {
    LEAST_BYTES = 200, /* shorter ones save less than a packet's header */
    LEVEL = 6,
    SMALLEST_WINDOW_BITS = 9, /* zlib's 8 is broken for raw streams */
    LOOKAHEAD = 262,          /* zlib keeps so much of its window free */
    FLUSH_BYTES = 16,
    PIECE_BYTES = 16 << 10,
    WINDOW_BYTES = 32 << 10,
    AT_BLOCK_END = 128, /* in data_type of zlib */
    LAST_BLOCKS = 4,    /* of a message: each of two bytes costs as much as a long one */
};
static const unsigned char tail[4] = {0x00, 0x00, 0xFF, 0xFF};

/* As small as the message allows: setting it up costs what its tables cost. */
static int window_for(size_t len)
{
    int bits = SMALLEST_WINDOW_BITS;
    while (bits < DEFLATE_WINDOW_BITS && ((size_t)1 << bits) < len + LOOKAHEAD)
        bits++;
    return bits;
}

bool deflate_pack(struct text *out, const char *bytes, size_t len)
{
    z_stream z = {0};
    int bits = window_for(len);
    if (len < LEAST_BYTES || len > UINT32_MAX / 2 ||
        deflateInit2(&z, LEVEL, Z_DEFLATED, -bits, bits - 6, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    unsigned char *packed = must_malloc(len + FLUSH_BYTES);
    z.next_in = (unsigned char *)bytes;
    z.avail_in = (unsigned)len;
    z.next_out = packed;
    z.avail_out = (unsigned)len + FLUSH_BYTES;
    int end = deflate(&z, Z_SYNC_FLUSH);
    size_t packed_len = len + FLUSH_BYTES - z.avail_out;
    /* Room that is left says that all of it was flushed. */
    bool is_smaller = end == Z_OK && z.avail_in == 0 && z.avail_out > 0 && packed_len - sizeof tail < len;
    if (is_smaller)
        text_append(out, packed, packed_len - sizeof tail);
    free(packed);
    deflateEnd(&z);
    return is_smaller;
}

/* A block may say that it is the last one; what follows may still refer to what came before it. */
static bool go_on_after_last_block(z_stream *z, const struct text *out, size_t start)
{
    size_t len = out->len - start, known = len < WINDOW_BYTES ? len : WINDOW_BYTES;
    if (inflateReset(z) != Z_OK)
        return false;
    return !known ||
           inflateSetDictionary(z, (const unsigned char *)out->data + out->len - known, (unsigned)known) == Z_OK;
}

/* Unpacks one run of input bytes. */
static enum deflate_end unpack_run(z_stream *z, const void *bytes, size_t len, struct text *out, size_t start,
                                   size_t most)
{
    unsigned char piece[PIECE_BYTES];
    int last_blocks = 0;
    z->next_in = (unsigned char *)bytes;
    z->avail_in = (unsigned)len;
    do {
        z->next_out = piece;
        z->avail_out = sizeof piece;
        int end = inflate(z, Z_SYNC_FLUSH);
        size_t got = sizeof piece - z->avail_out;
        if (out->len - start + got > most)
            return DEFLATE_TOO_LARGE;
        text_append(out, piece, got);
        if (end == Z_STREAM_END && (++last_blocks > LAST_BLOCKS || !go_on_after_last_block(z, out, start)))
            return DEFLATE_BROKEN;
        if (end != Z_OK && end != Z_STREAM_END && end != Z_BUF_ERROR)
            return DEFLATE_BROKEN;
    } while (z->avail_in > 0 || z->avail_out == 0);
    return DEFLATE_OK;
}

enum deflate_end deflate_unpack(struct text *out, const char *bytes, size_t len, size_t most)
{
    z_stream z = {0};
    size_t start = out->len;
    if (len == 0 || len > UINT32_MAX / 2 || inflateInit2(&z, -15) != Z_OK)
        return DEFLATE_BROKEN;
    enum deflate_end end = unpack_run(&z, bytes, len, out, start, most);
    if (end == DEFLATE_OK)
        end = unpack_run(&z, tail, sizeof tail, out, start, most);
    if (end == DEFLATE_OK && !(z.data_type & AT_BLOCK_END))
        end = DEFLATE_BROKEN;
    inflateEnd(&z);
    return end;
}
