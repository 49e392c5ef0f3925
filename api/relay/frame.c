#include "api/relay/frame.h"

#include "api/relay/deflate.h"
#include "api/relay/event_scan.h"
#include "common/json.h"

#include <stdio.h>
#include <string.h>

enum { LARGEST_EVENT_BYTES = 256 << 10 }; /* ours are a few KiB */
enum {
    OPCODE_TEXT = 0x81,
    OPCODE_CLOSE = 0x88,
    OPCODE_PING = 0x89,
    RSV1 = 0x40,
    LONGEST_REASON = 123,
    LONGEST_HEADER = 10
};

static size_t put_header(unsigned char out[LONGEST_HEADER], size_t len)
{
    out[0] = OPCODE_TEXT;
    if (len < 126) {
        out[1] = (unsigned char)len;
        return 2;
    }
    if (len < 65536) {
        out[1] = 126;
        out[2] = (unsigned char)(len >> 8);
        out[3] = (unsigned char)len;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (unsigned char)((uint64_t)len >> (56 - 8 * i));
    return 10;
}

void frame_put(struct text *out, const char *payload, size_t len)
{
    unsigned char header[LONGEST_HEADER];
    text_append(out, header, put_header(header, len));
    text_append(out, payload, len);
}

struct frame *frame_raw(const void *bytes, size_t len)
{
    struct frame *f = must_malloc(sizeof *f + len);
    *f = (struct frame){.refs = 1, .len = (uint32_t)len};
    memcpy(f->bytes, bytes, len);
    return f;
}

struct frame *frame_text(const char *json, size_t len)
{
    unsigned char header[LONGEST_HEADER];
    size_t header_len = put_header(header, len);
    struct frame *f = must_malloc(sizeof *f + header_len + len);
    *f = (struct frame){.refs = 1, .len = (uint32_t)(header_len + len)};
    memcpy(f->bytes, header, header_len);
    memcpy(f->bytes + header_len, json, len);
    f->json = (char *)f->bytes + header_len;
    f->json_len = (uint32_t)len;
    return f;
}

/* Each of these tells all that an older one of the same kind told. */
static bool is_snapshot(const char *type)
{
    static const char *const types[] = {
        "document_processed", "processing_progress", "reprocessing_progress", "removing_documents",
        "deleting",           "collection_stats"};
    for (size_t i = 0; i < array_len(types); i++) {
        if (strcmp(types[i], type) == 0)
            return true;
    }
    return false;
}

static struct frame *with_id(const char *json, size_t len, const struct event_id *id)
{
    scoped_text text = {0};
    text_printf(&text, "{\"id\":\"%s-%llu-%llu\",", id->epoch, (unsigned long long)id->ms, (unsigned long long)id->seq);
    text_append(&text, json + 1, len - 1);
    return frame_text(text.data, text.len);
}

static void copy_field(char *out, size_t size, const struct event_field *field)
{
    size_t len = field->at && field->len < size ? field->len : 0;
    if (field->at && field->len >= size)
        len = utf8_floor(field->at, field->len, size - 1);
    if (len)
        memcpy(out, field->at, len);
    out[len] = '\0';
}

static struct frame *make_event(const char *json, size_t len, const struct event_fields *fields,
                                const struct event_id *id)
{
    struct event_id own;
    char id_text[64];
    copy_field(id_text, sizeof id_text, &fields->id);
    bool has_id = fields->id.at && fields->id.len < sizeof id_text && event_id_parse(id_text, &own) == STATUS_OK &&
                  own.epoch[0];
    struct frame *f = has_id || !id || *json != '{' ? frame_text(json, len) : with_id(json, len, id);
    f->is_event = has_id || id;
    if (f->is_event)
        f->id = has_id ? own : *id;
    copy_field(f->type, sizeof f->type, &fields->type);
    copy_field(f->operation_id, sizeof f->operation_id, &fields->operation_id);
    f->is_progress = is_snapshot(f->type);
    return f;
}

static struct event_field field_of(const cJSON *object, const char *name)
{
    const char *text = json_get_text(object, name, NULL);
    return (struct event_field){text, text ? strlen(text) : 0};
}

struct frame *frame_event(const char *json, size_t len, const struct event_id *id)
{
    struct event_fields fields;
    if (len > LARGEST_EVENT_BYTES)
        return NULL;
    if (event_scan(json, len, &fields))
        return fields.type.at ? make_event(json, len, &fields, id) : NULL;
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *object = NULL;
    struct frame *f = NULL;
    if (json_parse(&sc, json, len, &object) == STATUS_OK && cJSON_IsObject(object) &&
        json_get_text(object, "type", NULL)) {
        fields = (struct event_fields){field_of(object, "id"), field_of(object, "type"),
                                       field_of(object, "operation_id")};
        f = make_event(json, len, &fields, id);
    }
    scope_done(&sc);
    return f;
}

struct frame *frame_heartbeat(enum frame_format format)
{
    static const char ping[] = "{\"type\":\"ping\"}", comment[] = ": ping\n\n";
    if (format == FRAME_SSE)
        return frame_raw(comment, sizeof comment - 1);
    scoped_text text = {0};
    if (format != FRAME_LINE) {
        frame_put(&text, ping, sizeof ping - 1);
        /* libwebsockets does not report pongs without a payload. */
        text_append(&text, (const unsigned char[]){OPCODE_PING, 1, '.'}, 3);
    }
    return frame_raw(text_str(&text), text.len);
}

struct frame *frame_close(int code, const char *reason)
{
    unsigned char bytes[4 + LONGEST_REASON];
    size_t len = utf8_floor(reason, strlen(reason), LONGEST_REASON);
    bytes[0] = OPCODE_CLOSE;
    bytes[1] = (unsigned char)(code ? len + 2 : 0);
    bytes[2] = (unsigned char)(code >> 8);
    bytes[3] = (unsigned char)code;
    memcpy(bytes + 4, reason, len);
    return frame_raw(bytes, 2 + (size_t)bytes[1]);
}

struct frame *frame_ref(struct frame *f)
{
    f->refs++;
    return f;
}

void frame_unref(struct frame *f)
{
    if (!f || --f->refs > 0)
        return;
    for (int i = 0; i < FRAME_FORMATS; i++)
        frame_unref(f->other[i]);
    free(f);
}

/* JSON has line breaks between its tokens only. */
static void put_on_one_line(struct text *out, const struct frame *f)
{
    size_t start = out->len;
    text_append(out, f->json, f->json_len);
    for (char *p = out->data + start; p < out->data + out->len; p++) {
        if (*p == '\n' || *p == '\r')
            *p = ' ';
    }
    text_putc(out, '\n');
}

static void put_id(struct text *out, const struct event_id *id)
{
    text_printf(out, "%s-%llu-%llu", id->epoch, (unsigned long long)id->ms, (unsigned long long)id->seq);
}

static void put_line(struct text *out, const struct frame *f)
{
    static const char *const last[] = {"operation_completed", "operation_failed", "operation_cancelled"};
    bool is_last = false;
    for (size_t i = 0; i < array_len(last); i++)
        is_last = is_last || strcmp(f->type, last[i]) == 0;
    if (f->is_event)
        put_id(out, &f->id);
    text_puts(out, is_last ? "\t.\t" : "\t\t");
    put_on_one_line(out, f);
}

/* https://html.spec.whatwg.org/multipage/server-sent-events.html */
static void put_sse(struct text *out, const struct frame *f)
{
    if (f->is_event) {
        text_puts(out, "id: ");
        put_id(out, &f->id);
        text_putc(out, '\n');
    }
    text_puts(out, "data: ");
    put_on_one_line(out, f);
    text_putc(out, '\n');
}

/* Appends text frames of ours again, those compressed that get smaller. False: none did. */
static bool put_deflated(struct text *out, const unsigned char *bytes, size_t len)
{
    bool is_smaller = false;
    for (size_t at = 0; at < len;) {
        size_t header_len = bytes[at + 1] < 126 ? 2 : bytes[at + 1] == 126 ? 4 : 10, payload_len = 0;
        if (header_len == 2)
            payload_len = bytes[at + 1];
        for (size_t i = 2; i < header_len; i++)
            payload_len = payload_len << 8 | bytes[at + i];
        const char *payload = (const char *)bytes + at + header_len;
        scoped_text packed = {0};
        size_t start = out->len;
        if (deflate_pack(&packed, payload, payload_len)) {
            frame_put(out, packed.data, packed.len);
            out->data[start] = (char)(OPCODE_TEXT | RSV1);
            is_smaller = true;
        } else {
            frame_put(out, payload, payload_len);
        }
        at += header_len + payload_len;
    }
    return is_smaller;
}

static struct frame *make(struct frame *f, enum frame_format format)
{
    scoped_text text = {0};
    const struct frame *plain;
    switch (format) {
    case FRAME_FLAT:
        flat_render(&text, f->json, f->json_len);
        break;
    case FRAME_SSE:
        put_sse(&text, f);
        break;
    case FRAME_LINE:
        put_line(&text, f);
        break;
    case FRAME_WS_DEFLATED:
    case FRAME_FLAT_DEFLATED:
        plain = frame_rendered(f, format == FRAME_WS_DEFLATED ? FRAME_WS : FRAME_FLAT);
        if (!plain || !put_deflated(&text, plain->bytes, plain->len))
            return NULL;
        break;
    case FRAME_WS:
    case FRAME_FORMATS:
        break;
    }
    if (!text.len)
        return NULL;
    struct frame *made = frame_raw(text.data, text.len);
    made->is_event = f->is_event;
    made->is_progress = f->is_progress;
    memcpy(made->operation_id, f->operation_id, sizeof f->operation_id);
    memcpy(made->type, f->type, sizeof f->type);
    return made;
}

struct frame *frame_rendered(struct frame *f, enum frame_format format)
{
    if (format == FRAME_WS || !f->json)
        return f;
    if (!(f->made & 1u << format)) {
        f->made |= 1u << format;
        f->other[format] = make(f, format);
    }
    if (!f->other[format] && (format == FRAME_WS_DEFLATED || format == FRAME_FLAT_DEFLATED))
        return frame_rendered(f, format == FRAME_WS_DEFLATED ? FRAME_WS : FRAME_FLAT);
    return f->other[format];
}
