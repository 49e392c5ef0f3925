#include "worker/embed/embedder.h"

#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "worker/embed/batcher.h"
#include "worker/embed/tokenizer.h"
#include "worker/embed/wire.h"
#include "worker/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_MODELS = 16, EXIT_UNUSABLE = 2, EXIT_DEVICE_LOST = 3, EVENTS_A_TURN = 64 };

/* A model that is loaded, with the backend that holds its weights. */
struct loaded {
    struct embed_model *model;
    struct embed_backend *backend;
};

/* One connection: a request comes in, is worked on, its answer goes out, then the next. */
struct peer {
    int fd;
    struct wire_request head;
    size_t head_have;
    char *body;
    size_t body_have;
    struct batch_job *job; /* being worked on; NULL otherwise */
    struct text out;
    size_t out_sent;
    bool is_closing; /* gone, but its job is not back yet */
    bool waits_for_model, can_go_on;
    struct peer *next;
};

/* A further model is opened on a thread of its own, so that no question to the others waits for that. */
struct loading {
    struct embedder *embedder;
    pthread_t thread;
    bool is_running; /* the thread is to be joined */
    bool is_over;    /* guarded by done_lock: it has written what follows */
    char folder[512], error[256];
    struct loaded result; /* of NULLs: it failed */
};

struct embedder {
    const struct settings *settings;
    const struct embed_backend_api *api;
    int device;
    struct loading loading;
    struct loaded loaded[MOST_MODELS];
    int loaded_count;
    struct batcher *batcher;
    struct flight *flight;
    int epoll_fd, listen_fd, done_fd, signal_fd;
    struct peer *peers;
    pthread_mutex_t done_lock; /* guards `done` and loading.is_over */
    struct batch_job *done;
};

/* ---- models ---- */

/* "sentence-transformers/all-MiniLM-L6-v2" and "all-minilm-l6-v2" are the folder all-MiniLM-L6-v2. */
static bool find_folder(const struct embedder *e, const char *wanted, char *out, size_t out_size)
{
    const char *slash = strrchr(wanted, '/');
    const char *name = slash ? slash + 1 : wanted;
    DIR *dir = opendir(e->settings->model_dir);
    bool is_found = false;
    for (struct dirent *d; dir && !is_found && (d = readdir(dir));) {
        if (d->d_name[0] == '.' || strcasecmp(d->d_name, name) != 0)
            continue;
        is_found = snprintf(out, out_size, "%s/%s", e->settings->model_dir, d->d_name) < (int)out_size;
    }
    if (dir)
        closedir(dir);
    return is_found;
}

static struct loaded *model_find(struct embedder *e, const char *folder)
{
    for (int i = 0; i < e->loaded_count; i++) {
        if (strcmp(e->loaded[i].model->name, strrchr(folder, '/') + 1) == 0)
            return &e->loaded[i];
    }
    return NULL;
}

static bool model_open(const struct embedder *e, const char *folder, struct loaded *out, char *error, size_t error_size)
{
    struct loaded l = {.model = embed_model_open(folder, error, error_size)};
    if (!l.model)
        return false;
    l.backend = e->api->open(&l.model->bert, e->device, (int)e->settings->embedding_threads, error, error_size);
    if (!l.backend) {
        embed_model_close(l.model);
        return false;
    }
    *out = l;
    return true;
}

static void model_add(struct embedder *e, const struct loaded *l)
{
    e->loaded[e->loaded_count++] = *l;
    log_info("model_loaded", log_text("model", l->model->name), log_int("dim", l->model->dim),
             log_text("backend", e->api->name), log_text("device", e->api->device_name(l->backend)));
}

static void wake(struct embedder *e)
{
    ssize_t n = write(e->done_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)n; /* an eventfd only refuses at 2^64 */
}

static void *loading_main(void *cls)
{
    struct loading *l = cls;
    struct embedder *e = l->embedder;
    model_open(e, l->folder, &l->result, l->error, sizeof l->error);
    pthread_mutex_lock(&e->done_lock);
    l->is_over = true;
    pthread_mutex_unlock(&e->done_lock);
    wake(e);
    return NULL;
}

/* One at a time: who wants another asks again when this one is over. */
static bool loading_start(struct embedder *e, const char *folder, char *error, size_t error_size)
{
    struct loading *l = &e->loading;
    if (l->is_running)
        return true;
    *l = (struct loading){.embedder = e};
    snprintf(l->folder, sizeof l->folder, "%s", folder);
    l->is_running = pthread_create(&l->thread, NULL, loading_main, l) == 0;
    if (!l->is_running)
        snprintf(error, error_size, "no thread can be started to load the model");
    return l->is_running;
}

/* The model of that name. NULL with *out_waits: it is being loaded; without: a sentence says why it cannot be had. */
static struct loaded *model_get(struct embedder *e, const char *name, bool *out_waits, char *error, size_t error_size)
{
    char folder[512];
    *out_waits = false;
    if (!find_folder(e, name, folder, sizeof folder)) {
        snprintf(error, error_size, "there is no model '%.100s' in OPSTREAM_MODEL_DIR", name);
        return NULL;
    }
    struct loaded *l = model_find(e, folder);
    if (l)
        return l;
    if (e->loaded_count == MOST_MODELS)
        snprintf(error, error_size, "%d models are loaded already", MOST_MODELS);
    else if (!e->loading.is_running && e->loading.error[0] && strcmp(e->loading.folder, folder) == 0)
        snprintf(error, error_size, "%s", e->loading.error); /* it failed a moment ago */
    else
        *out_waits = loading_start(e, folder, error, error_size);
    return NULL;
}

static bool model_load_first(struct embedder *e, char *error, size_t error_size)
{
    char folder[512];
    struct loaded l;
    if (!find_folder(e, e->settings->default_model, folder, sizeof folder)) {
        snprintf(error, error_size, "there is no model '%.100s' in OPSTREAM_MODEL_DIR", e->settings->default_model);
        return false;
    }
    if (!model_open(e, folder, &l, error, error_size))
        return false;
    model_add(e, &l);
    return true;
}

/* ---- answers ---- */

static void peer_watch(struct embedder *e, struct peer *p, bool wants_write)
{
    /* While a job runs, or its model is loaded, nothing more is read: that is the back-pressure. */
    uint32_t events = (uint32_t)EPOLLRDHUP | (p->job || p->waits_for_model ? 0 : (uint32_t)EPOLLIN) |
                      (wants_write ? (uint32_t)EPOLLOUT : 0);
    struct epoll_event ev = {.events = events, .data.ptr = p};
    epoll_ctl(e->epoll_fd, EPOLL_CTL_MOD, p->fd, &ev);
}

static void peer_next_request(struct peer *p)
{
    p->head_have = p->body_have = 0;
    free(p->body);
    p->body = NULL;
}

static bool peer_flush(struct embedder *e, struct peer *p)
{
    while (p->out_sent < p->out.len) {
        ssize_t n = send(p->fd, p->out.data + p->out_sent, p->out.len - p->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            return false;
        p->out_sent += (size_t)n;
    }
    if (p->out_sent == p->out.len) {
        text_free(&p->out);
        p->out_sent = 0;
    }
    peer_watch(e, p, p->out.len > 0);
    return true;
}

static bool answer(struct embedder *e, struct peer *p, struct wire_answer head, const char *first, size_t first_len,
                   const void *second, size_t second_len)
{
    head.magic = WIRE_MAGIC;
    head.body_bytes = (uint32_t)(first_len + second_len);
    text_append(&p->out, &head, sizeof head);
    text_append(&p->out, first, first_len);
    if (second_len > 0)
        text_append(&p->out, second, second_len);
    peer_next_request(p);
    return peer_flush(e, p);
}

static bool refuse(struct embedder *e, struct peer *p, enum status status, size_t bad, const char *sentence)
{
    struct wire_answer head = {.status = (uint32_t)status, .bad = bad == SIZE_MAX ? UINT32_MAX : (uint32_t)bad};
    return answer(e, p, head, sentence, strlen(sentence), NULL, 0);
}

static bool answer_job(struct embedder *e, struct peer *p, const struct batch_job *job)
{
    if (job->status != STATUS_OK)
        return refuse(e, p, job->status, job->bad, job->problem);
    size_t name_len = strlen(job->model->name);
    struct wire_answer head = {.status = STATUS_OK,
                               .dim = (uint32_t)job->model->dim,
                               .bad = UINT32_MAX,
                               .model_len = (uint32_t)name_len,
                               .tokens = (uint64_t)job->offsets[job->count]};
    return answer(e, p, head, job->model->name, name_len, job->vectors,
                  job->count * (size_t)job->model->dim * sizeof(float));
}

static bool is_loaded(const struct embedder *e, const char *name)
{
    for (int i = 0; i < e->loaded_count; i++) {
        if (strcmp(e->loaded[i].model->name, name) == 0)
            return true;
    }
    return false;
}

/* The others are loaded when somebody asks for them. */
static void list_models(const struct embedder *e, struct text *t)
{
    for (int i = 0; i < e->loaded_count; i++)
        json_text(t, NULL, e->loaded[i].model->name);
    DIR *dir = opendir(e->settings->model_dir);
    for (struct dirent *d; dir && (d = readdir(dir));) {
        char file[1024];
        if (d->d_name[0] != '.' && !is_loaded(e, d->d_name) &&
            snprintf(file, sizeof file, "%s/%s/config.json", e->settings->model_dir, d->d_name) < (int)sizeof file &&
            access(file, R_OK) == 0)
            json_text(t, NULL, d->d_name);
    }
    if (dir)
        closedir(dir);
}

static bool answer_info(struct embedder *e, struct peer *p)
{
    int64_t tokens, texts, batches, busy_us;
    batcher_totals(e->batcher, &tokens, &texts, &batches, &busy_us);
    scoped_text t = {0};
    json_open(&t, NULL, '{');
    json_open(&t, "models", '[');
    list_models(e, &t);
    json_close(&t, ']');
    json_text(&t, "default", e->loaded[0].model->name);
    json_int(&t, "dim", e->loaded[0].model->dim);
    json_text(&t, "backend", e->api->name);
    json_text(&t, "device", e->api->device_name(e->loaded[0].backend));
    json_int(&t, "tokens", tokens);
    json_int(&t, "texts", texts);
    json_int(&t, "batches", batches);
    json_real(&t, "busy_seconds", (double)busy_us / 1e6);
    json_bool(&t, "ready", true);
    json_close(&t, '}');
    return answer(e, p, (struct wire_answer){.status = STATUS_OK, .bad = UINT32_MAX}, t.data, t.len, NULL, 0);
}

/* ---- requests ---- */

static bool next_text(const char **at, const char *end, const char **out, size_t *out_len)
{
    uint32_t len;
    if ((size_t)(end - *at) < sizeof len)
        return false;
    memcpy(&len, *at, sizeof len);
    *at += sizeof len;
    if ((size_t)(end - *at) < len)
        return false;
    *out = *at;
    *out_len = len;
    *at += len;
    return true;
}

static bool answer_tokens(struct embedder *e, struct peer *p, const struct loaded *l, const char *at, const char *end)
{
    scoped_text t = {0};
    struct token_list tokens = {0};
    bool is_whole = true;
    for (uint32_t i = 0; i < p->head.count && is_whole; i++) {
        const char *bytes;
        size_t len;
        is_whole = next_text(&at, end, &bytes, &len);
        if (!is_whole)
            break;
        tokens.count = 0;
        tokenizer_encode(l->model->tokenizer, bytes, len, p->head.is_uncut ? 0 : (size_t)l->model->max_tokens, &tokens);
        uint32_t n = (uint32_t)tokens.count;
        text_append(&t, &n, sizeof n);
        text_append(&t, tokens.ids, tokens.count * sizeof *tokens.ids);
    }
    token_list_free(&tokens);
    if (!is_whole)
        return false;
    return answer(e, p, (struct wire_answer){.status = STATUS_OK, .bad = UINT32_MAX}, text_str(&t), t.len, NULL, 0);
}

static void append_tokens(const struct loaded *l, const char *prefix, const char *bytes, size_t len,
                          struct token_list *out)
{
    if (!prefix || !*prefix) {
        tokenizer_encode(l->model->tokenizer, bytes, len, (size_t)l->model->max_tokens, out);
        return;
    }
    scoped_text whole = {0};
    text_puts(&whole, prefix);
    text_append(&whole, bytes, len);
    tokenizer_encode(l->model->tokenizer, whole.data, whole.len, (size_t)l->model->max_tokens, out);
}

static bool submit(struct embedder *e, struct peer *p, const struct loaded *l, const char *at, const char *end)
{
    struct token_list tokens = {0};
    int32_t *offsets = must_calloc((size_t)p->head.count + 1, sizeof *offsets);
    const char *prefix = p->head.is_query ? l->model->query_prefix : l->model->passage_prefix;
    bool is_whole = true;
    for (uint32_t i = 0; i < p->head.count && is_whole; i++) {
        const char *bytes;
        size_t len;
        is_whole = next_text(&at, end, &bytes, &len);
        if (is_whole)
            append_tokens(l, prefix, bytes, len, &tokens);
        offsets[i + 1] = (int32_t)tokens.count;
    }
    if (!is_whole || at != end) {
        token_list_free(&tokens);
        free(offsets);
        return false;
    }
    struct batch_job *job = must_calloc(1, sizeof *job);
    job->model = l->model;
    job->backend = l->backend;
    job->is_query = p->head.is_query;
    job->ids = tokens.ids; /* given away */
    job->offsets = offsets;
    job->count = p->head.count;
    job->vectors = must_malloc(job->count * (size_t)l->model->dim * sizeof(float));
    job->owner = p;
    p->job = job;
    peer_watch(e, p, false);
    (void)FAULT(TEXTS_RECEIVED, l->model->name);
    batcher_submit(e->batcher, job);
    return true;
}

/* A whole request is here. False: the peer does not keep to the protocol and is cut. */
static bool handle(struct embedder *e, struct peer *p)
{
    const struct wire_request *h = &p->head;
    if (h->kind == WIRE_INFO)
        return answer_info(e, p);
    if ((h->kind != WIRE_EMBED && h->kind != WIRE_TOKENIZE) || h->count == 0 || h->count > WIRE_MAX_TEXTS ||
        (size_t)h->model_len + h->group_len > h->body_bytes)
        return false;
    char name[256], error[256];
    snprintf(name, sizeof name, "%.*s", (int)h->model_len, p->body);
    bool waits = false;
    struct loaded *l = h->model_len ? model_get(e, name, &waits, error, sizeof error) : &e->loaded[0];
    if (waits) {
        p->waits_for_model = true;
        peer_watch(e, p, false);
        return true;
    }
    if (!l)
        return refuse(e, p, STATUS_NOT_FOUND, SIZE_MAX, error);
    const char *at = p->body + h->model_len + h->group_len, *end = p->body + h->body_bytes;
    return h->kind == WIRE_EMBED ? submit(e, p, l, at, end) : answer_tokens(e, p, l, at, end);
}

static bool peer_read(struct embedder *e, struct peer *p)
{
    while (!p->job && !p->waits_for_model && p->out.len == 0) {
        if (p->head_have < sizeof p->head) {
            ssize_t n = recv(p->fd, (char *)&p->head + p->head_have, sizeof p->head - p->head_have, MSG_DONTWAIT);
            if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
            if (n <= 0)
                return false;
            p->head_have += (size_t)n;
            if (p->head_have < sizeof p->head)
                continue;
            if (p->head.magic != WIRE_MAGIC || p->head.body_bytes > WIRE_MAX_BODY_BYTES)
                return false;
            p->body = must_malloc((size_t)p->head.body_bytes + 1);
        }
        if (p->body_have < p->head.body_bytes) {
            ssize_t n = recv(p->fd, p->body + p->body_have, p->head.body_bytes - p->body_have, MSG_DONTWAIT);
            if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
            if (n <= 0)
                return false;
            p->body_have += (size_t)n;
        }
        if (p->body_have == p->head.body_bytes && !handle(e, p))
            return false;
    }
    return true;
}

/* ---- peers ---- */

static void peer_free(struct embedder *e, struct peer *p)
{
    for (struct peer **q = &e->peers; *q; q = &(*q)->next) {
        if (*q == p) {
            *q = p->next;
            break;
        }
    }
    free(p->body);
    text_free(&p->out);
    free(p);
}

static void peer_close(struct embedder *e, struct peer *p)
{
    if (p->fd >= 0)
        close(p->fd); /* takes it out of epoll, too */
    p->fd = -1;
    p->is_closing = true;
    if (p->job)
        batcher_drop(e->batcher, p->job); /* a cancelled task's texts are not computed */
    else
        peer_free(e, p);
}

static void accept_peers(struct embedder *e)
{
    for (int fd; (fd = accept4(e->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
        struct peer *p = must_calloc(1, sizeof *p);
        p->fd = fd;
        p->next = e->peers;
        e->peers = p;
        struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = p};
        if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &ev) != 0)
            peer_close(e, p);
    }
}

static void on_done(void *context, struct batch_job *job)
{
    struct embedder *e = context;
    pthread_mutex_lock(&e->done_lock);
    job->next = e->done;
    e->done = job;
    pthread_mutex_unlock(&e->done_lock);
    wake(e);
}

static void on_lost(void *context)
{
    (void)context;
    log_error("device_lost");
    _exit(EXIT_DEVICE_LOST);
}

static struct peer *waiting_peer(const struct embedder *e)
{
    struct peer *p = e->peers;
    while (p && !(p->waits_for_model && p->can_go_on))
        p = p->next;
    return p;
}

/* The loading is over: who waited goes on, and waits again if it was for another model. */
static void end_loading(struct embedder *e)
{
    struct loading *l = &e->loading;
    pthread_join(l->thread, NULL);
    l->is_running = false;
    if (l->result.model)
        model_add(e, &l->result);
    for (struct peer *p = e->peers; p; p = p->next)
        p->can_go_on = p->waits_for_model;
    for (struct peer *p; (p = waiting_peer(e));) {
        p->waits_for_model = p->can_go_on = false;
        if (!handle(e, p) || !peer_read(e, p))
            peer_close(e, p);
    }
    if (!l->is_running)
        l->error[0] = '\0'; /* the next who asks tries again */
}

static void deliver_done(struct embedder *e)
{
    uint64_t count;
    ssize_t n = read(e->done_fd, &count, sizeof count);
    (void)n;
    pthread_mutex_lock(&e->done_lock);
    struct batch_job *done = e->done;
    e->done = NULL;
    bool has_loaded = e->loading.is_running && e->loading.is_over;
    pthread_mutex_unlock(&e->done_lock);
    for (struct batch_job *next; done; done = next) {
        next = done->next;
        struct peer *p = done->owner;
        p->job = NULL;
        if (p->is_closing)
            peer_free(e, p);
        else if (!answer_job(e, p, done) || !peer_read(e, p))
            peer_close(e, p);
        (void)FAULT(VECTORS_ANSWERED, NULL);
        batch_job_free(done);
    }
    if (has_loaded)
        end_loading(e);
}

static void peer_event(struct embedder *e, struct peer *p, uint32_t events)
{
    bool is_alive = !(events & (EPOLLERR | EPOLLHUP));
    if (is_alive && (events & EPOLLOUT))
        is_alive = peer_flush(e, p);
    if (is_alive && (events & EPOLLIN))
        is_alive = peer_read(e, p);
    else if (events & EPOLLRDHUP)
        is_alive = false;
    if (!is_alive)
        peer_close(e, p);
}

/* ---- the process ---- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool watch(struct embedder *e, int fd, void *tag)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = tag};
    return fd >= 0 && epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0;
}

static int term_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void serve(struct embedder *e)
{
    for (;;) {
        struct epoll_event events[EVENTS_A_TURN];
        int n = epoll_wait(e->epoll_fd, events, EVENTS_A_TURN, -1);
        bool has_done = false;
        for (int i = 0; i < n; i++) {
            void *tag = events[i].data.ptr;
            if (tag == &e->signal_fd)
                return;
            if (tag == &e->listen_fd)
                accept_peers(e);
            else if (tag == &e->done_fd)
                has_done = true; /* last: it may free peers that have events of this turn */
            else
                peer_event(e, tag, events[i].events);
        }
        if (has_done)
            deliver_done(e);
    }
}

static void embedder_done(struct embedder *e)
{
    if (e->loading.is_running) {
        pthread_join(e->loading.thread, NULL);
        if (e->loading.result.model)
            e->loaded[e->loaded_count++] = e->loading.result;
    }
    batcher_free(e->batcher);
    flight_close(e->flight);
    for (int i = 0; i < e->loaded_count; i++) {
        e->api->close(e->loaded[i].backend);
        embed_model_close(e->loaded[i].model);
    }
    while (e->peers) {
        struct peer *p = e->peers;
        if (p->fd >= 0)
            close(p->fd);
        batch_job_free(p->job);
        p->job = NULL;
        peer_free(e, p);
    }
    close_scoped_fd(&e->listen_fd);
    close_scoped_fd(&e->done_fd);
    close_scoped_fd(&e->signal_fd);
    close_scoped_fd(&e->epoll_fd);
}

int embedder_main(const struct settings *settings, int device, const char *socket_path)
{
    struct embedder e = {.settings = settings, .device = device, .listen_fd = -1};
    char error[256] = "";
    log_set_program("embedder");
    pthread_mutex_init(&e.done_lock, NULL);
    e.signal_fd = term_signals();
    e.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    e.api = embed_backend_choose(settings->embedding_backend, error, sizeof error);
    if (!e.api) {
        log_error("no_backend", log_text("EMBEDDING_BACKEND", settings->embedding_backend), log_text("reason", error));
        return EXIT_UNUSABLE;
    }
    e.flight = flight_open(SPAWN_FD);
    e.batcher = batcher_new(e.api, (int)settings->embedding_batch_tokens, e.flight, on_done, on_lost, &e);
    int exit_status = EXIT_UNUSABLE;
    if (!model_load_first(&e, error, sizeof error)) {
        log_error("model_unusable", log_text("model", settings->default_model), log_text("reason", error));
    } else if ((e.listen_fd = listen_at(socket_path)) < 0) {
        log_error("cannot_listen", log_text("path", socket_path), log_text("reason", strerror(errno)));
    } else if (watch(&e, e.listen_fd, &e.listen_fd) && watch(&e, e.done_fd, &e.done_fd) &&
               watch(&e, e.signal_fd, &e.signal_fd)) {
        (void)FAULT(EMBEDDER_LISTENS, socket_path);
        log_info("embedder_ready", log_text("socket", socket_path));
        serve(&e);
        exit_status = 0;
    }
    embedder_done(&e);
    return exit_status;
}
