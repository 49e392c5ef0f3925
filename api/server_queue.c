#include "api/server_state.h"

#include "api/dispatch.h"
#include "api/together.h"
#include "common/clock.h"

enum {
    REQUEST_SECONDS = 30, /* a handler gives up after this */
    WAIT_SECONDS = 10,    /* in the queue: afterwards nobody waits for the answer any more */
    DATABASE_TIMEOUT_MS = 5000,
    REDIS_TIMEOUT_MS = 100,
    GROUPS_AT_ONCE = 2,  /* while two commit, others gather */
    GATHER_MOST_MS = 50, /* unless they are held up: then further threads help */
};

void server_queue_init(struct server *server)
{
    server->alone.last = &server->alone.first;
    server->together.last = &server->together.first;
}

static void put(struct queue *q, struct server_connection *c)
{
    c->next = NULL;
    *q->last = c;
    q->last = &c->next;
}

static struct server_connection *take(struct queue *q)
{
    struct server_connection *c = q->first;
    if (c)
        q->first = c->next;
    if (!q->first)
        q->last = &q->first;
    return c;
}

/* Under the lock: whether a thread may take those that gather. */
static bool is_gathered(const struct server *server)
{
    const struct server_connection *c = server->together.first;
    return c && (server->groups < GROUPS_AT_ONCE || server->is_stopping ||
                 clock_monotonic_ms() - c->queued_ms > GATHER_MOST_MS);
}

bool server_enqueue(struct server *server, struct server_connection *c)
{
    pthread_mutex_lock(&server->lock);
    bool has_room = server->waiting < server->api->settings->api_queue && !server->is_stopping;
    if (has_room) {
        put(c->may_gather ? &server->together : &server->alone, c);
        server->waiting++;
        if (!c->may_gather || is_gathered(server))
            pthread_cond_signal(&server->has_work);
    }
    pthread_mutex_unlock(&server->lock);
    return has_room;
}

/* One that was in the queue already and is to be run by itself. */
static void enqueue_again(struct server *server, struct server_connection *c)
{
    c->may_gather = false;
    pthread_mutex_lock(&server->lock);
    put(&server->alone, c);
    server->waiting++;
    pthread_cond_signal(&server->has_work);
    pthread_mutex_unlock(&server->lock);
}

/* One request, or several that gathered; 0 when the server stops and the queue is empty. */
static size_t dequeue(struct server *server, struct server_connection *out[TOGETHER_MOST])
{
    size_t count = 0;
    pthread_mutex_lock(&server->lock);
    while (!server->alone.first && !is_gathered(server) && !server->is_stopping)
        pthread_cond_wait(&server->has_work, &server->lock);
    if (is_gathered(server)) {
        while (count < TOGETHER_MOST && server->together.first)
            out[count++] = take(&server->together);
        server->groups++;
    } else if (server->alone.first) {
        out[count++] = take(&server->alone);
    }
    server->waiting -= (int64_t)count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

static void end_group(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    server->groups--;
    pthread_mutex_unlock(&server->lock);
}

struct handler {
    struct db *db;
    struct redis *queue, *events;
};

static struct handler handler_open(const struct settings *settings)
{
    struct redis_options redis = {
        .url = settings->redis_url, .prefix = settings->redis_prefix, .timeout_ms = REDIS_TIMEOUT_MS};
    struct handler h = {.db = db_new(&(struct db_options){.url = settings->database_url,
                                                          .application_name = "opstream-api",
                                                          .statement_timeout_ms = DATABASE_TIMEOUT_MS})};
    redis.database = (int)settings->redis_queue_db;
    h.queue = redis_new(&redis);
    redis.database = (int)settings->redis_stream_db;
    h.events = redis_new(&redis);
    return h;
}

static void handler_close(struct handler *h)
{
    db_free(h->db);
    redis_free(h->queue);
    redis_free(h->events);
}

static void answer(struct server_connection *c)
{
    server_make_response(c);
    MHD_resume_connection(c->mhd); /* from here on it belongs to the library's thread */
}

/* False: it has been answered. */
static bool begin_run(struct server *server, struct handler *h, struct server_connection *c)
{
    struct request *r = &c->request;
    int64_t now = clock_monotonic_ms();
    r->db = h->db;
    r->queue = h->queue;
    r->events = h->events;
    r->sc->deadline_ms = now + REQUEST_SECONDS * 1000;
    if (now - c->queued_ms <= WAIT_SECONDS * 1000 && !server->is_stopping)
        return true;
    reply_error(r, fail(r->sc, STATUS_BUSY, "it waited too long for a handler thread"));
    answer(c);
    return false;
}

static void run_alone(struct server *server, struct handler *h, struct server_connection *c)
{
    if (!begin_run(server, h, c))
        return;
    dispatch(&c->request);
    if (c->request.stream)
        server_stream_attach(c);
    else
        answer(c);
}

static void run_together(struct server *server, struct handler *h, struct server_connection **all, size_t count)
{
    struct request *list[TOGETHER_MOST];
    bool is_done[TOGETHER_MOST] = {false};
    struct together t;
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (!begin_run(server, h, all[i]))
            continue;
        list[left] = &all[i]->request;
        all[left++] = all[i];
    }
    if (left == 0)
        return;
    together_run(&t, list, left, is_done);
    for (size_t i = 0; i < left; i++) {
        if (is_done[i])
            answer(all[i]);
        else
            enqueue_again(server, all[i]);
    }
    together_push(&t, h->queue);
}

void *server_handle_requests(void *cls)
{
    struct server *server = cls;
    struct handler h = handler_open(server->api->settings);
    struct server_connection *taken[TOGETHER_MOST];
    for (size_t count; (count = dequeue(server, taken)) > 0;) {
        if (!taken[0]->may_gather) {
            run_alone(server, &h, taken[0]);
            continue;
        }
        run_together(server, &h, taken, count);
        end_group(server);
    }
    handler_close(&h);
    return NULL;
}
