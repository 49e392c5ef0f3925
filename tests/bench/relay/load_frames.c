#include "tests/bench/relay/load_frames.h"

#include <string.h>

enum { LARGEST_CONTROL = 125 };

long load_frame_read(const char *bytes, size_t len, struct load_frame *out)
{
    const unsigned char *p = (const unsigned char *)bytes;
    if (len < 2)
        return 0;
    int opcode = p[0] & 0x0F;
    bool is_control = opcode >= FRAME_CLOSE, is_known = opcode == FRAME_TEXT || (is_control && opcode <= FRAME_PONG);
    if ((p[0] & 0xF0) != 0x80 || !is_known || (p[1] & 0x80) || (is_control && p[1] > LARGEST_CONTROL))
        return -1;
    uint64_t size = p[1];
    size_t head = size == 126 ? 4 : size == 127 ? 10 : 2;
    if (len < head)
        return 0;
    if (head > 2) {
        size = 0;
        for (size_t i = 2; i < head; i++)
            size = size << 8 | p[i];
    }
    if (size > MOST_FRAME_BYTES)
        return -1;
    if (len - head < size)
        return 0;
    *out = (struct load_frame){opcode, bytes + head, (size_t)size};
    return (long)(head + size);
}

size_t load_frame_write(char *out, int opcode, const char *payload, size_t len)
{
    static const unsigned char mask[4] = {0x5A, 0xC3, 0x17, 0x88};
    out[0] = (char)(0x80 | opcode);
    out[1] = (char)(0x80 | len);
    memcpy(out + 2, mask, 4);
    for (size_t i = 0; i < len; i++)
        out[6 + i] = (char)((unsigned char)payload[i] ^ mask[i & 3]);
    return 6 + len;
}

static bool digits(const char *s, size_t count, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(s[i] - '0');
    }
    *out = value;
    return true;
}

static const char mark_name[] = "bench=";

bool load_mark_find(const char *json, size_t len, size_t *guess, struct load_mark *out)
{
    const size_t name = sizeof mark_name - 1;
    if (len < LOAD_MARK_CHARS)
        return false;
    const char *at = json + *guess;
    if (*guess > len - LOAD_MARK_CHARS || memcmp(at, mark_name, name) != 0) {
        at = memmem(json, len, mark_name, name);
        if (!at || (size_t)(json + len - at) < LOAD_MARK_CHARS)
            return false;
        *guess = (size_t)(at - json);
    }
    uint64_t number, channel, sent;
    if (!digits(at + name, 10, &number) || !digits(at + name + 11, 6, &channel) || !digits(at + name + 18, 19, &sent))
        return false;
    *out = (struct load_mark){(uint32_t)number, (uint32_t)channel, sent};
    return true;
}

size_t load_event_id(const char *json, size_t len, const char **out)
{
    static const char name[] = "{\"id\":\"";
    const size_t head = sizeof name - 1;
    if (len <= head || memcmp(json, name, head) != 0)
        return 0;
    const char *end = memchr(json + head, '"', len - head);
    *out = json + head;
    return end ? (size_t)(end - *out) : 0;
}

/* The numbers after the last two dashes. */
static void id_numbers(const char *id, size_t len, uint64_t out[2])
{
    size_t end = len;
    out[0] = out[1] = 0;
    for (int part = 1; part >= 0; part--) {
        size_t start = end;
        while (start > 0 && id[start - 1] != '-')
            start--;
        if (start == 0 || !digits(id + start, end - start, &out[part]))
            return;
        end = start - 1;
    }
}

int load_id_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    uint64_t x[2], y[2];
    id_numbers(a, a_len, x);
    id_numbers(b, b_len, y);
    if (x[0] != y[0])
        return x[0] < y[0] ? -1 : 1;
    return x[1] == y[1] ? 0 : x[1] < y[1] ? -1 : 1;
}
