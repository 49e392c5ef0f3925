#include "api/relay/poll_answer.h"

#include "common/json.h"

#include <stdio.h>
#include <string.h>

static void take_goodbye(struct poll_answer *a, const char *line, size_t len)
{
    char text[sizeof a->reason + 8];
    int reason_at = 0;
    if (a->goodbye)
        return; /* the first one counts */
    snprintf(text, sizeof text, "%.*s", (int)(len < sizeof text ? len : sizeof text - 1), line);
    if (sscanf(text, "!%5d %n", &a->goodbye, &reason_at) == 1 && reason_at > 0)
        snprintf(a->reason, sizeof a->reason, "%s", text + reason_at);
}

static void take_event(struct poll_answer *a, const char *line, size_t len)
{
    const char *flag = memchr(line, '\t', len);
    const char *json = flag ? memchr(flag + 1, '\t', len - (size_t)(flag + 1 - line)) : NULL;
    if (!json)
        return;
    if (flag > line && (size_t)(flag - line) < sizeof a->last_id)
        snprintf(a->last_id, sizeof a->last_id, "%.*s", (int)(flag - line), line);
    a->has_ended = a->has_ended || flag[1] == '.';
    if (a->count++ > 0)
        text_putc(&a->events, ',');
    text_append(&a->events, json + 1, len - (size_t)(json + 1 - line));
}

void poll_answer_take(struct poll_answer *a, const char *lines, size_t len)
{
    const char *end = lines + len;
    for (const char *line = lines; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t line_len = (size_t)((stop ? stop : end) - line);
        if (*line == '!')
            take_goodbye(a, line, line_len);
        else
            take_event(a, line, line_len);
        line += line_len + 1;
    }
}

bool poll_answer_is_full(const struct poll_answer *a, size_t most_bytes)
{
    return a->count >= POLL_EVENTS || a->events.len >= most_bytes;
}

void poll_answer_write(const struct poll_answer *a, struct text *out, const char *next)
{
    json_open(out, NULL, '{');
    json_open(out, "events", '[');
    text_append(out, text_str(&a->events), a->events.len);
    json_close(out, ']');
    json_text(out, "last_id", next);
    json_bool(out, "has_ended", a->has_ended);
    json_close(out, '}');
}

void poll_answer_done(struct poll_answer *a)
{
    text_free(&a->events);
}

void event_id_text(const struct event_id *id, char out[64])
{
    if (id->epoch[0])
        snprintf(out, 64, "%s-%llu-%llu", id->epoch, (unsigned long long)id->ms, (unsigned long long)id->seq);
    else
        snprintf(out, 64, "0");
}
