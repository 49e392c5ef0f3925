#include "api/relay/recent.h"

#include "api/relay/hub.h"
#include "common/clock.h"
#include "common/log.h"

#include <string.h>

struct recent {
    struct hub *hub;
    int64_t number;  /* of all that this loop has begun */
    bool is_ready;   /* the page is here; until then events are only gathered */
    bool is_broken;  /* gathered too much, or something that does not belong together */
    bool is_trimmed; /* the stream does not hold its beginning any more */
    int64_t begun_ms;
    char epoch[17];
    struct frame *frames[RECENT_EVENTS];
    int count;
    size_t bytes;
    struct frame *whole[FRAME_FORMATS]; /* all frames in one piece; NULL = not made */
};

struct recent_job {
    struct job job;
    struct hub *hub;
    char *channel, *stream;
    int64_t number; /* that one may be gone */
    enum status status;
    struct history_page page;
};

static void forget_whole(struct recent *r)
{
    for (int i = 0; i < FRAME_FORMATS; i++) {
        r->hub->recent_bytes -= r->whole[i] ? r->whole[i]->len : 0;
        frame_unref(r->whole[i]);
        r->whole[i] = NULL;
    }
}

void recent_drop(struct channel *channel)
{
    struct recent *r = channel->recent;
    if (!r)
        return;
    forget_whole(r);
    for (int i = 0; i < r->count; i++)
        frame_unref(r->frames[i]);
    r->hub->recent_bytes -= r->bytes;
    free(r);
    channel->recent = NULL;
}

/* Those who wait ask again. */
static void wake_waiting(struct channel *channel)
{
    for (struct listener *l = channel->first; l; l = l->next) {
        struct client *c = client_of(l);
        if (!c->waits_for_recent)
            continue;
        c->waits_for_recent = false;
        client_page_on(c);
    }
}

static void append(struct recent *r, struct frame *f)
{
    bool is_next = r->count == 0 || event_id_compare(&f->id, &r->frames[r->count - 1]->id) > 0;
    bool is_of_epoch = !r->epoch[0] || strcmp(f->id.epoch, r->epoch) == 0;
    if (!f->is_event || !is_next || !is_of_epoch || r->count == RECENT_EVENTS || r->bytes + f->len > RECENT_BYTES) {
        r->is_broken = true;
        return;
    }
    memcpy(r->epoch, f->id.epoch, sizeof r->epoch);
    r->frames[r->count++] = frame_ref(f);
    r->bytes += f->len;
    r->hub->recent_bytes += f->len;
    forget_whole(r);
}

void recent_add(struct channel *channel, struct frame *f)
{
    struct recent *r = channel->recent;
    if (!r || r->is_broken)
        return;
    append(r, f);
    if (r->is_broken && r->is_ready)
        recent_drop(channel);
}

void recent_tidy(struct channel *channel, int64_t now_ms)
{
    if (channel->recent && channel->recent->is_ready && now_ms - channel->recent->begun_ms > RECENT_MS)
        recent_drop(channel);
}

/* ---- reading it ---- */

static void run_recent(struct job *job, struct lookup_tools *tools)
{
    struct recent_job *j = (struct recent_job *)job;
    struct scope sc;
    scope_init(&sc, NULL);
    struct event_id beginning = {0};
    j->status = history_read(&sc, tools->events, j->stream, &beginning, false, &j->page);
    if (j->status != STATUS_OK)
        log_debug("relay_page_failed", log_text("status", status_name(j->status)),
                  log_text("problem", sc.problem_text));
    scope_done(&sc);
}

/* The page, then those events that came while it was read and are not in it. */
static bool take_page(struct recent *r, const struct history_page *page)
{
    struct frame *gathered[RECENT_EVENTS];
    int count = r->count;
    memcpy(gathered, r->frames, (size_t)count * sizeof(struct frame *));
    r->count = 0;
    r->hub->recent_bytes -= r->bytes;
    r->bytes = 0;
    memcpy(r->epoch, page->epoch, sizeof r->epoch);
    for (int i = 0; i < page->count && !r->is_broken; i++)
        append(r, page->frames[i]);
    for (int i = 0; i < count; i++) {
        bool is_in_page = r->count > 0 && strcmp(gathered[i]->id.epoch, r->epoch) == 0 &&
                          event_id_compare(&gathered[i]->id, &r->frames[r->count - 1]->id) <= 0;
        if (!r->is_broken && !is_in_page)
            append(r, gathered[i]);
        frame_unref(gathered[i]);
    }
    r->is_trimmed = page->is_trimmed;
    r->is_ready = true;
    return !r->is_broken;
}

static void end_recent(struct job *job)
{
    struct recent_job *j = (struct recent_job *)job;
    struct channel *channel = channel_find(&j->hub->channels, j->channel);
    if (channel && channel->recent && channel->recent->number == j->number) {
        bool is_good = j->status == STATUS_OK && !j->page.is_more && !channel->recent->is_broken &&
                       take_page(channel->recent, &j->page);
        if (!is_good)
            recent_drop(channel);
        channel->has_no_recent_ms = is_good ? 0 : clock_monotonic_ms();
        wake_waiting(channel);
    }
    history_page_done(&j->page);
    free(j->channel);
    free(j->stream);
    free(j);
}

static bool begin(struct hub *hub, struct channel *channel, const struct client *any)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct recent_job *j = must_calloc(1, sizeof *j);
    j->job = (struct job){.run = run_recent, .end = end_recent};
    j->hub = hub;
    j->channel = must_strdup(channel->node.name);
    j->stream = must_strdup(hub_stream_name(&sc, any));
    j->status = STATUS_UNAVAILABLE;
    scope_done(&sc);
    struct recent *r = must_calloc(1, sizeof *r);
    r->hub = hub;
    r->begun_ms = clock_monotonic_ms();
    j->number = r->number = ++hub->last_recent;
    channel->recent = r;
    if (lookup_submit(hub->lookup, &j->job, true))
        return true;
    recent_drop(channel);
    free(j->channel);
    free(j->stream);
    free(j);
    return false;
}

/* ---- giving it ---- */

/* Index of the first frame that follows; -1 = the position is not one that this history knows. */
static int find_next(const struct recent *r, const struct event_id *position, bool is_explicit)
{
    if (position->epoch[0] && strcmp(position->epoch, r->epoch) != 0)
        return -1;
    if (position->ms == 0 && position->seq == 0)
        return is_explicit && r->is_trimmed ? -1 : 0;
    for (int i = r->count - 1; i >= 0; i--) {
        if (event_id_compare(&r->frames[i]->id, position) == 0)
            return i + 1;
    }
    return -1;
}

enum recent_advice recent_ask(struct client *c, const struct event_id *position, bool is_explicit)
{
    struct channel *channel = c->listener.channel;
    int64_t now = clock_monotonic_ms();
    recent_tidy(channel, now);
    if (channel->recent && !channel->recent->is_ready)
        return RECENT_WAIT;
    if (channel->recent)
        return find_next(channel->recent, position, is_explicit) >= 0 ? RECENT_TAKE : RECENT_ASK;
    bool is_alone = channel->listeners < 2;
    bool has_none = channel->has_no_recent_ms && now - channel->has_no_recent_ms < RECENT_MS;
    bool has_room = c->hub->recent_bytes < RECENT_BYTES_IN_ALL;
    return !is_alone && !has_none && has_room && begin(c->hub, channel, c) ? RECENT_WAIT : RECENT_ASK;
}

static struct frame *whole_of(struct recent *r, enum frame_format format)
{
    if (r->whole[format])
        return r->whole[format];
    scoped_text bytes = {0};
    for (int i = 0; i < r->count; i++) {
        const struct frame *f = frame_rendered(r->frames[i], format);
        if (f)
            text_append(&bytes, f->bytes, f->len);
    }
    if (bytes.len) {
        r->whole[format] = frame_raw(bytes.data, bytes.len);
        r->hub->recent_bytes += bytes.len;
    }
    return r->whole[format];
}

struct event_id recent_give(struct client *c, const struct event_id *position)
{
    struct recent *r = c->listener.channel->recent;
    int next = find_next(r, position, false);
    struct frame *whole = next == 0 ? whole_of(r, c->format) : NULL;
    if (whole)
        client_push(c, whole);
    for (int i = next; i < r->count && !whole; i++) {
        struct frame *rendered = frame_rendered(r->frames[i], c->format);
        if (rendered)
            client_push(c, rendered);
    }
    c->hub->tally.events_replayed += r->count - next;
    struct event_id end = *position;
    if (r->count > 0)
        end = r->frames[r->count - 1]->id;
    memcpy(end.epoch, r->epoch, sizeof end.epoch);
    return end;
}
