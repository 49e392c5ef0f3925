/* What is written to clients: WebSocket frames, made once and shared by all connections that get them. Used by one
 * thread at a time, so the count of references is a plain number. */
#pragma once

#include "common/message.h"

#include <stdbool.h>
#include <stdint.h>

/* How a connection wants its events. */
enum frame_format {
    FRAME_WS,          /* as they were published */
    FRAME_FLAT,        /* ?format=flat: as clients of the oldest protocol know them */
    FRAME_SSE,         /* Server-Sent Events */
    FRAME_LINE,        /* for a long poll's answer, see poll_answer.h */
    FRAME_WS_DEFLATED, /* as FRAME_WS and FRAME_FLAT, each message compressed by itself where that makes it smaller */
    FRAME_FLAT_DEFLATED,
    FRAME_FORMATS
};

struct frame {
    int refs;
    bool is_event;    /* has an id and a type */
    bool is_progress; /* a snapshot that a newer one of its operation and type replaces */
    unsigned made;    /* a bit for each format in `other` that was asked for */
    struct event_id id;
    char operation_id[37]; /* "" = none */
    char type[40];
    struct frame *other[FRAME_FORMATS]; /* the same event in another format; NULL = not made, or nothing to tell */
    char *json;                         /* the text, inside `bytes`; what other formats are made from */
    uint32_t json_len;
    uint32_t len; /* bytes on the wire, header included; may be several frames */
    unsigned char bytes[];
};

/* One text frame. */
struct frame *frame_text(const char *json, size_t len);
/* Bytes as they go on the wire. */
struct frame *frame_raw(const void *bytes, size_t len);
/* An event as it was published. NULL when the bytes are not an object with a type. An id that is missing is taken from
 * `id` and put in (it may be NULL: then the frame goes out without one, is_event false). */
struct frame *frame_event(const char *json, size_t len, const struct event_id *id);
/* What keeps a connection alive: {"type":"ping"} and a ping of the protocol in one write; a comment of SSE. */
struct frame *frame_heartbeat(enum frame_format format);
/* A close frame of WebSockets; `reason` is cut to 123 bytes. Code 0: an empty one. */
struct frame *frame_close(int code, const char *reason);
struct frame *frame_ref(struct frame *f);
void frame_unref(struct frame *f);
/* The rendering a connection wants; NULL = nothing is sent for this event. Not a new reference. */
struct frame *frame_rendered(struct frame *f, enum frame_format format);
/* Appends a text frame's header and payload. */
void frame_put(struct text *out, const char *payload, size_t len);

/* Appends the flat frames (`?format=flat`) of one event or of current_state, none if there is nothing to tell. */
void flat_render(struct text *out, const char *json, size_t len);
