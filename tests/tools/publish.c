/* publish: publishes one event for each line of standard input, as the worker would, and prints its id ("refused" if
 * the history is closed, "failed" when Redis is away). A line is
 * {"operation_id":…,"user_id":…,"type":…[,"collection_id":…,"status":…,"progress":…,"attempt":…,"is_last":…,"data":{…}]}.
 * Needs REDIS_URL; REDIS_PREFIX as the programs have it. */
#include "common/json.h"
#include "common/message.h"

#include <stdio.h>
#include <string.h>

static const char *publish(struct scope *sc, struct redis *redis, const cJSON *line)
{
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(line, "data");
    scoped_memory char *data_json = data ? cJSON_PrintUnformatted(data) : NULL;
    struct event event = {
        .type = json_get_text(line, "type", "processing_progress"),
        .operation_id = json_get_text(line, "operation_id", ""),
        .collection_id = json_get_text(line, "collection_id", NULL),
        .user_id = json_get_int(line, "user_id", 0),
        .status = json_get_text(line, "status", "processing"),
        .progress = json_get_real(line, "progress", -1),
        .attempt = (int)json_get_int(line, "attempt", 1),
        .is_last = json_get_bool(line, "is_last", false),
        .data_json = data_json,
    };
    const char *id = NULL;
    if (message_publish(sc, redis, &event, &id) != STATUS_OK)
        return "failed";
    return id ? id : "refused";
}

int main(void)
{
    const char *url = getenv("REDIS_URL"), *prefix = getenv("REDIS_PREFIX");
    char buffer[65536];
    if (!url) {
        fputs("publish: REDIS_URL is not set\n", stderr);
        return 2;
    }
    struct redis *redis = redis_new(&(struct redis_options){.url = url, .prefix = prefix});
    while (fgets(buffer, sizeof buffer, stdin)) {
        struct scope sc;
        scope_init(&sc, NULL);
        scoped(cJSON) *line = NULL;
        const char *answer = json_parse(&sc, buffer, strlen(buffer), &line) == STATUS_OK ? publish(&sc, redis, line)
                                                                                         : "not JSON";
        puts(answer);
        fflush(stdout);
        scope_done(&sc);
    }
    redis_free(redis);
    return 0;
}
