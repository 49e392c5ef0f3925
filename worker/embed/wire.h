/* What travels over the embedder's Unix socket: frames of a fixed header and a body, host byte order (both ends are one
 * machine's). One request at a time a connection, answered in order; closing the connection drops its request. */
#pragma once

#include <stdint.h>

#define WIRE_MAGIC 0x4F504531u /* "OPE1" */

enum wire_kind {
    WIRE_EMBED,    /* body: model name, group, then texts */
    WIRE_TOKENIZE, /* the same; the answer holds ids */
    WIRE_INFO,     /* no body */
};

enum { WIRE_MAX_BODY_BYTES = 64 << 20, WIRE_MAX_TEXTS = 4096, WIRE_MAX_NAME_BYTES = 255 };

struct wire_request {
    uint32_t magic;
    uint32_t body_bytes;
    uint8_t kind;      /* enum wire_kind */
    uint8_t is_query;  /* WIRE_EMBED: goes first, gets the model's query prefix */
    uint8_t is_uncut;  /* WIRE_TOKENIZE: ids past the model's limit too */
    uint8_t model_len; /* 0 = the default model */
    uint8_t group_len;
    uint8_t reserved[3];
    uint32_t count; /* texts: each a uint32_t length and its bytes */
};

/* The answer's body. WIRE_EMBED: the model's name, then count * dim floats. WIRE_TOKENIZE: for each text a uint32_t
 * length and so many int32_t. WIRE_INFO: a JSON object. On failure: a sentence. */
struct wire_answer {
    uint32_t magic;
    uint32_t body_bytes;
    uint32_t status; /* enum status */
    uint32_t dim;
    uint32_t bad; /* index of the text that was refused, UINT32_MAX = none */
    uint32_t model_len;
    uint64_t tokens;
};
