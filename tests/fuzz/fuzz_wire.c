/* Requests to the embedder, read from a socket as it does. The model is its tokenizer alone: texts to embed end where
 * the batcher begins. */
#include "worker/embed/batcher.h"

#include <string.h>

static void drop_job(struct batch_job *job);
#define batcher_submit(batcher, job) drop_job(job)
#define batcher_totals(batcher, a, b, c, d) (*(a) = *(b) = *(c) = *(d) = 0)
#include "worker/embed/embedder.c" /* its functions are its own */

#include "tests/fuzz/fuzz.h"

static void drop_job(struct batch_job *job)
{
    struct peer *p = job->owner;
    for (size_t i = 0; i < job->count; i++) {
        if (job->offsets[i] > job->offsets[i + 1])
            abort();
    }
    p->job = NULL;
    peer_next_request(p);
    batch_job_free(job);
}

static const char *no_device(const struct embed_backend *backend)
{
    (void)backend;
    return "none";
}

static struct tokenizer *any_tokenizer(void)
{
    static struct tokenizer *t;
    char path[512], error[256];
    const char *models = getenv("OPSTREAM_MODEL_DIR");
    snprintf(path, sizeof path, "%s/all-MiniLM-L6-v2/tokenizer.json", models ? models : "build/models");
    if (!t)
        t = tokenizer_open(path, error, sizeof error);
    if (!t)
        abort();
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings settings = {.model_dir = "/nonexistent"};
    struct embed_model model = {.name = "m", .dim = 4, .max_tokens = 16, .tokenizer = any_tokenizer()};
    const struct embed_backend_api api = {.name = "none", .device_name = no_device};
    struct embedder e = {
        .api = &api, .settings = &settings, .loaded = {{.model = &model}}, .loaded_count = 1, .epoll_fd = -1};
    int pair[2];
    if (size > 60000 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return 0;
    if (send(pair[1], data, size, MSG_DONTWAIT) == (ssize_t)size) {
        shutdown(pair[1], SHUT_WR);
        struct peer p = {.fd = pair[0]};
        bool is_alive = peer_read(&e, &p);
        (void)is_alive;
        free(p.body);
        text_free(&p.out);
    }
    close(pair[0]);
    close(pair[1]);
    return 0;
}
