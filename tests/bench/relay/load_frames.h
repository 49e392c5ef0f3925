/* What the load client reads from a server: WebSocket frames (RFC 6455, server to client), and the mark that the
 * publisher puts into every event. No state, nothing is allocated. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_TEXT = 1, FRAME_CLOSE = 8, FRAME_PING = 9, FRAME_PONG = 10 };
enum { MOST_FRAME_BYTES = 1 << 20 };

struct load_frame {
    int opcode;
    const char *payload; /* in the bytes given */
    size_t len;
};

/* The first frame of `len` bytes: how many bytes it takes with its header, 0 = it is not whole yet, -1 = what came is
 * no frame that a server may send here: masked, reserved bits, a part of a message, an unknown opcode, a control frame
 * of more than 125 bytes, anything above MOST_FRAME_BYTES. */
long load_frame_read(const char *bytes, size_t len, struct load_frame *out);
/* A masked frame for the server: `len` is at most 125. Returns its length; `out` has room for 131 bytes. */
size_t load_frame_write(char *out, int opcode, const char *payload, size_t len);

/* Somewhere in the event's data: number in its channel from 1, channel from 0, nanoseconds of CLOCK_MONOTONIC when it
 * was handed to Redis. Without quotes, so that a server that puts JSON into JSON leaves it as it is. */
#define LOAD_MARK "bench=%010u %06u %019llu"
enum { LOAD_MARK_CHARS = 6 + 10 + 1 + 6 + 1 + 19 };
struct load_mark {
    uint32_t number, channel;
    uint64_t sent_ns;
};
/* `guess` is where it stood in the last event, and where it was found now. False: there is none. */
bool load_mark_find(const char *json, size_t len, size_t *guess, struct load_mark *out);
/* The event's id, which stands first: its length, 0 = none. */
size_t load_event_id(const char *json, size_t len, const char **out);
/* Less than 0, 0, more than 0 by the two numbers at the end of "<epoch>-<ms>-<seq>". */
int load_id_compare(const char *a, size_t a_len, const char *b, size_t b_len);
