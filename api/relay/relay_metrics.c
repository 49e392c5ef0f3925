#include "api/relay/relay_metrics.h"

#include "common/base.h"
#include "common/clock.h"
#include "common/metrics.h"

#include <string.h>

static const char *const operation_types[] = {
#define OPERATION_TYPE(name, text, queue, retries, delay, mutates, summary) text,
#include "common/operation.def"
#undef OPERATION_TYPE
};

/* Sorted. */
static const char *const message_types[] = {
    "append_completed",
    "benchmark_completed",
    "collection_stats",
    "delete_completed",
    "deleting",
    "document_processed",
    "index_completed",
    "operation_cancelled",
    "operation_completed",
    "operation_failed",
    "operation_started",
    "processing_embeddings",
    "processing_progress",
    "projection_build_completed",
    "reindex_completed",
    "reindex_preflight",
    "remove_source_completed",
    "removing_documents",
    "reprocessing_progress",
    "retry_documents_completed",
    "scanning_completed",
    "scanning_documents",
    "staging_created",
    "status_update",
    "sync_completed",
    "validation_complete",
};

const char *relay_operation_type(const char *type)
{
    if (!type)
        return "unknown";
    for (size_t i = 0; i < array_len(operation_types); i++) {
        if (strcmp(operation_types[i], type) == 0)
            return operation_types[i];
    }
    return "other";
}

static int compare_text(const void *key, const void *member)
{
    return strcmp(key, *(const char *const *)member);
}

const char *relay_message_type(const char *type)
{
    if (!type)
        return "unknown";
    const char *const *found = bsearch(type, message_types, array_len(message_types), sizeof type, compare_text);
    return found ? *found : "other";
}

void relay_count_event(const char *type, uint32_t bytes, int64_t published_ms, int deliveries)
{
    if (deliveries == 0)
        return;
    const char *label = relay_message_type(type);
    metrics_add(METRIC_WS_MESSAGES, label, NULL, deliveries);
    metrics_observe(METRIC_WS_MESSAGE_BYTES, label, NULL, bytes);
    if (published_ms > 0) {
        double seconds = (double)(clock_wall_ms() - published_ms) / 1000;
        metrics_observe(METRIC_WS_MESSAGE_SECONDS, label, NULL, seconds > 0 ? seconds : 0);
    }
}

static void hand_on(enum metric m, int64_t *count)
{
    if (*count)
        metrics_add(m, NULL, NULL, (double)*count);
    *count = 0;
}

void tally_tell(struct tally *t)
{
    hand_on(METRIC_WS_BYTES, &t->bytes_sent);
    hand_on(METRIC_WS_WRITES_FAILED, &t->writes_failed);
    hand_on(METRIC_WS_SLOW_READERS, &t->slow_readers);
    hand_on(METRIC_WS_PROGRESS_DROPPED, &t->progress_dropped);
    hand_on(METRIC_WS_EVENTS_HELD, &t->events_held);
    hand_on(METRIC_WS_REPLAYS, &t->replays);
    hand_on(METRIC_WS_EVENTS_REPLAYED, &t->events_replayed);
    hand_on(METRIC_WS_TRUNCATED, &t->histories_truncated);
    int64_t change = t->watched_operations - t->told_watched_operations; /* several loops add up */
    t->told_watched_operations = t->watched_operations;
    hand_on(METRIC_WS_WATCHED_OPERATIONS, &change);
}

void tally_queued(struct tally *t)
{
    if (t->turn_began_us == 0)
        t->turn_began_us = clock_monotonic_us();
}

void tally_written(struct tally *t)
{
    if (t->turn_began_us == 0)
        return;
    metrics_observe(METRIC_WS_SEND_SECONDS, "loop", NULL, (double)(clock_monotonic_us() - t->turn_began_us) / 1e6);
    t->turn_began_us = 0;
}

void tally_unblocked(int64_t since_ms)
{
    metrics_observe(METRIC_WS_SEND_SECONDS, "socket", NULL, (double)(clock_monotonic_ms() - since_ms) / 1000);
}
