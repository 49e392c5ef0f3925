/* What is written to clients: WebSocket frames, made once and shared by all connections that get them. Used by one
 * thread at a time, so the count of references is a plain number. */
#pragma once

#include "common/message.h"

#include <stdbool.h>
#include <stdint.h>

struct frame {
    int refs;
    bool is_event;    /* has an id and a type */
    bool is_progress; /* a snapshot that a newer one of its operation and type replaces */
    bool is_flat_made;
    struct event_id id;
    char operation_id[37]; /* "" = none */
    char type[40];
    struct frame *flat; /* the same event as seed-style frames; NULL = not made, or nothing to tell */
    char *json;         /* of an event: what `flat` is made from, and where the text lies */
    uint32_t json_len;
    uint32_t len; /* bytes on the wire, header included; may be several frames */
    unsigned char bytes[];
};

/* One text frame. */
struct frame *frame_text(const char *json, size_t len);
/* An event as it was published. NULL when the bytes are not an object with a type. An id that is missing is taken from
 * `id` and put in (it may be NULL: then the frame goes out without one, is_event false). */
struct frame *frame_event(const char *json, size_t len, const struct event_id *id);
/* {"type":"ping"} and a ping of the protocol, in one write. */
struct frame *frame_heartbeat(void);
/* A close frame; `reason` is cut to 123 bytes. */
struct frame *frame_close(int code, const char *reason);
struct frame *frame_ref(struct frame *f);
void frame_unref(struct frame *f);
/* The rendering a connection wants; NULL = nothing is sent for this event. Not a new reference. */
struct frame *frame_rendered(struct frame *f, bool is_flat);
/* Appends a text frame's header and payload. */
void frame_put(struct text *out, const char *payload, size_t len);

/* Appends the flat frames (`?format=flat`) of one event or of current_state, none if there is nothing to tell. */
void flat_render(struct text *out, const char *json, size_t len);
