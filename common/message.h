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

/* How long a stream is kept after its newest event, as Redis takes it. */
#define MESSAGE_KEPT_SECONDS "86400"

/* Names, without REDIS_PREFIX. */
#define MESSAGE_STREAM "operation-progress:%s"
#define MESSAGE_STREAM_META "operation-progress:%s:meta"
#define MESSAGE_USER_STREAM "user-progress:%lld"
#define MESSAGE_CHANNEL_OPERATION "operation:%s"
#define MESSAGE_CHANNEL_USER "user:%lld"
#define MESSAGE_CHANNEL_COLLECTION "collection:%s"
#define MESSAGE_EPOCH "events:epoch"
#define MESSAGE_EPOCH_SERVER "events:epoch:server"
#define MESSAGE_CONTROL "control"
#define MESSAGE_CONTROL_WORKER "control:%s"
#define MESSAGE_ACCESS "relay:access"

/* Lua, for the scripts that write and read events: the epoch that stands now, which server the data set is on, and
 * whether the keys say so already; nil when there is none. A data set that went back in time (a replica that was
 * promoted without the last writes, a server that was started again from a snapshot) still holds its epoch, though
 * events that people have seen are missing in it. Redis draws a new replication id at each such moment, so the epoch is
 * bound to it. What was read again from the append-only file lost nothing when its process was killed: its epoch goes
 * on. The new epoch follows from the old one, so that readers, who write nothing, find the same as the next writer. */
#define MESSAGE_EPOCH_LUA                                                                                              \
    "local function current_epoch(key, server_key)\n"                                                                  \
    "  local epoch, known = redis.call('GET', key), redis.call('GET', server_key)\n"                                   \
    "  local info = redis.pcall('INFO', 'replication')\n"                                                              \
    "  local server = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''\n"                    \
    "  if not epoch or #epoch > 16 or not string.find(epoch, '^[0-9a-f]+$') then return nil, server, false end\n"      \
    "  if server == '' or known == server then return epoch, server, true end\n"                                       \
    "  if not known then return epoch, server, false end\n"                                                            \
    "  local older = string.match(info, 'master_replid2:(%x+)') or ''\n"                                               \
    "  local disk = redis.pcall('INFO', 'persistence')\n"                                                              \
    "  local is_logged = type(disk) == 'string' and string.find(disk, 'aof_enabled:1', 1, true)\n"                     \
    "  if is_logged and string.find(older, '^0*$') then return epoch, server, false end\n"                             \
    "  return string.sub(redis.sha1hex(epoch .. server), 1, 16), server, false\n"                                      \
    "end\n"

/* An event id: the epoch names one life of the Redis data set (a random value at first, kept under events:epoch and
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

/* Rights have changed, and that is committed: {"collection_id":"…"}, {"user_id":7} or {"api_key_id":3} on relay:access.
 * Every relay looks again, at once, at the connections concerned. A hint that is lost is made good by the relay's own
 * look every 30 s. This tells of a collection. */
enum status message_access(struct scope *sc, struct redis *r, const char *collection_id) must_check;

/* What such a message says; members that are missing are 0 and "". */
struct access_change {
    int64_t user_id, api_key_id;
    char collection_id[37];
};
/* STATUS_INVALID when it names nothing. */
enum status message_access_parse(struct scope *sc, const char *bytes, size_t len, struct access_change *out) must_check;

/* "8-4-4-4-12" hex, lower or upper case. */
bool uuid_is_valid(const char *s);
/* Random (version 4), 37 bytes with the NUL. */
void uuid_make(char out[37]);
