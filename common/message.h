/* What travels between the programs through Redis: queue entries (a bare UUID), events, and control messages. Written
 * and read here only; docs/protocol.md describes it.
 *
 * An event as published and as clients see it (contract, sections 6 and 12):
 *   {"id":"<epoch>-<ms>-<seq>","timestamp":…,"type":…,"operation_id":…,"collection_id":…,"status":…,"progress":…,"data":{…}}
 */
#pragma once

#include "common/redis.h"
#include "common/text.h"

struct event {
    const char *type;          /* "document_processed" */
    const char *operation_id;  /* UUID */
    const char *collection_id; /* UUID or NULL */
    int64_t user_id;           /* the operation's creator: its user:{id} channel and stream */
    const char *status;        /* of the operation at that moment: "processing" */
    double progress;           /* 0..100; < 0 = null */
    int attempt;               /* fencing: the publish script drops events of an older attempt than the newest seen */
    bool is_last;              /* closes the stream: whatever follows is dropped */
    const char *data_json;     /* the data object without operation_id/collection_id, which are added; NULL = {} */
    const char *timestamp;     /* when it happened (clock_iso()); NULL = now */
};

/* One server-side script: refuse (older attempt, after the last event), else XADD to operation-progress:{uuid} (field
 * `message`, MAXLEN ~ 1000, TTL 24 h) and user-progress:{user} (MAXLEN ~ 10000) under one id, and PUBLISH to
 * operation:{uuid}, user:{id} and collection:{id}. `r` must be on the stream database. *out_id (may be NULL) is the
 * event's id in the arena, NULL when it was refused, which is STATUS_OK: someone else's event closed the history. */
enum status message_publish(struct scope *sc, struct redis *r, const struct event *event,
                            const char **out_id) must_check;
/* Many events in one write; those of one operation stand together, in their order, and are published together.
 * out_each[i] says how it went; a refused event is STATUS_OK here, too. STATUS_UNAVAILABLE: nothing is known of those
 * that say so. */
enum status message_publish_many(struct scope *sc, struct redis *r, const struct event *events, size_t count,
                                 enum status *out_each) must_check;
/* The JSON of an event without its id (what the script completes); exposed for tests. */
void message_write(struct text *out, const struct event *event, const char *timestamp);

/* Names, without REDIS_PREFIX. */
#define MESSAGE_STREAM "operation-progress:%s"
#define MESSAGE_STREAM_META "operation-progress:%s:meta"
#define MESSAGE_USER_STREAM "user-progress:%lld"
#define MESSAGE_CHANNEL_OPERATION "operation:%s"
#define MESSAGE_CHANNEL_USER "user:%lld"
#define MESSAGE_CHANNEL_COLLECTION "collection:%s"
#define MESSAGE_EPOCH "events:epoch"
#define MESSAGE_CONTROL "control"
#define MESSAGE_CONTROL_WORKER "control:%s"

/* An event id: the epoch names one life of the Redis data set (a random value, set once with NX under events:epoch and
 * carried by every id); `ms` and `seq` are the stream id. Equal on the operation's and the user's stream. */
struct event_id {
    char epoch[17];
    uint64_t ms, seq;
};
/* STATUS_INVALID when it is not of that form. "0" is valid: from the beginning (epoch ""). */
enum status event_id_parse(const char *text, struct event_id *out) must_check;
/* Less than 0, 0, more than 0 by ms and seq alone. */
int event_id_compare(const struct event_id *a, const struct event_id *b);

/* Control messages: {"action":"cancel","operation_id":…} on control:{worker_id}, or on control for everyone. */
enum status message_control(struct scope *sc, struct redis *r, const char *worker_id, const char *action,
                            const char *operation_id) must_check;

/* "8-4-4-4-12" hex, lower or upper case. */
bool uuid_is_valid(const char *s);
/* Random (version 4), 37 bytes with the NUL. */
void uuid_make(char out[37]);
