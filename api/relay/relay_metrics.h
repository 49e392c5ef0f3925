/* What the relay counts (docs/operating.md lists it). Labels come from short lists of our own, whatever stands in an
 * event or was asked for. What happens for each delivery is counted in plain numbers of one loop's and handed on once a
 * second, so that a delivery costs an addition at most. */
#pragma once

#include <stdint.h>

/* One loop's. */
struct tally {
    int64_t bytes_sent, writes_failed, slow_readers, progress_dropped;
    int64_t events_held, replays, events_replayed, histories_truncated;
    int64_t watched_operations, told_watched_operations; /* on one of which somebody is, now and when last told */
    int64_t turn_began_us;                               /* the first frame of this turn was queued then; 0 = none */
};

/* Hands the counts on and begins anew. Once a second and at the end. */
void tally_tell(struct tally *t);
/* A turn of the loop: frames were queued, and now all were written (or wait for a socket, which is counted when it
 * takes them: tally_unblocked). */
void tally_queued(struct tally *t);
void tally_written(struct tally *t);
/* A reader that had not taken its frames at once has them; `since_ms` by clock_monotonic_ms(). */
void tally_unblocked(int64_t since_ms);
/* An event of this type and size on the wire that went to `deliveries` sockets (0 is not counted), published at
 * `published_ms` of the wall clock (0 = not known). */
void relay_count_event(const char *type, uint32_t bytes, int64_t published_ms, int deliveries);

/* The constant of the same text, "other" for what is no kind of operation, or no type of event, of ours; "unknown" for
 * NULL. */
const char *relay_operation_type(const char *type);
const char *relay_message_type(const char *type);
