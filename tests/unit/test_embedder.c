#include "tests/support/golden.h"
#include "worker/embed/embedder.c" /* its functions are its own */

#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* A backend that opens a further model only when it is told to. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_open, fails;
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, true, false};

static void gate_set(bool is_open, bool fails)
{
    pthread_mutex_lock(&gate.lock);
    gate.is_open = is_open;
    gate.fails = fails;
    pthread_cond_signal(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static struct embed_backend *open_at_gate(const struct bert_model *model, int device, int threads, char *error,
                                          size_t error_size)
{
    (void)device;
    (void)threads;
    pthread_mutex_lock(&gate.lock);
    while (!gate.is_open)
        pthread_cond_wait(&gate.changed, &gate.lock);
    bool fails = gate.fails;
    pthread_mutex_unlock(&gate.lock);
    if (fails)
        snprintf(error, error_size, "no memory for the weights");
    return fails ? NULL : (struct embed_backend *)(uintptr_t)model; /* any pointer */
}

static enum embed_result run_ones(struct embed_backend *backend, const struct embed_batch *batch, float *vectors)
{
    const struct bert_model *model = (const struct bert_model *)backend;
    for (int i = 0; i < batch->count * model->hidden; i++)
        vectors[i] = 1;
    return EMBED_OK;
}

static const char *device_name(const struct embed_backend *backend)
{
    (void)backend;
    return "none";
}

static void close_nothing(struct embed_backend *backend)
{
    (void)backend;
}

static const struct embed_backend_api api = {.abi = EMBED_BACKEND_ABI,
                                             .name = "fake",
                                             .open = open_at_gate,
                                             .run = run_ones,
                                             .device_name = device_name,
                                             .close = close_nothing};

struct fixture {
    char folder[64];
    struct settings settings;
    struct embedder e;
    int ends[2]; /* of the peers, as their clients hold them */
    struct peer *peers[2];
};

static void link_model(const char *folder, const char *name)
{
    char to[512], from[PATH_MAX];
    assert_non_null(realpath(golden_model_dir(), from));
    snprintf(to, sizeof to, "%s/%s", folder, name);
    assert_int_equal(symlink(from, to), 0);
}

static int set_up(void **state)
{
    struct fixture *f = must_calloc(1, sizeof *f);
    *state = f;
    strcpy(f->folder, "/tmp/opstream-embedder.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    link_model(f->folder, "first");
    link_model(f->folder, "other");
    f->settings = (struct settings){.model_dir = f->folder, .default_model = (char *)"first"};
    f->e = (struct embedder){.settings = &f->settings, .api = &api, .listen_fd = -1, .signal_fd = -1};
    pthread_mutex_init(&f->e.done_lock, NULL);
    f->e.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    f->e.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->e.flight = flight_open(-1);
    f->e.batcher = batcher_new(&api, 1000, f->e.flight, on_done, on_lost, &f->e);
    char error[256];
    gate_set(true, false);
    assert_true(model_load_first(&f->e, error, sizeof error));
    for (int i = 0; i < 2; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        struct peer *p = f->peers[i] = must_calloc(1, sizeof *p);
        f->ends[i] = pair[1];
        p->fd = pair[0];
        p->next = f->e.peers;
        f->e.peers = p;
        epoll_ctl(f->e.epoll_fd, EPOLL_CTL_ADD, p->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = p});
    }
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    gate_set(true, false);
    embedder_done(&f->e);
    for (int i = 0; i < 2; i++)
        close(f->ends[i]);
    static const char *const names[] = {"first", "other"};
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", f->folder, names[i]);
        unlink(path);
    }
    rmdir(f->folder);
    free(f);
    return 0;
}

/* One word for a model, as a question. */
static void ask(struct fixture *f, int peer, const char *model)
{
    char body[64];
    uint32_t len = 5;
    size_t name = strlen(model);
    memcpy(body, model, name);
    memcpy(body + name, &len, sizeof len);
    memcpy(body + name + sizeof len, "hello", len);
    struct wire_request head = {.magic = WIRE_MAGIC,
                                .body_bytes = (uint32_t)(name + sizeof len + len),
                                .kind = WIRE_EMBED,
                                .is_query = 1,
                                .model_len = (uint8_t)name,
                                .count = 1};
    assert_int_equal(send(f->ends[peer], &head, sizeof head, 0), sizeof head);
    assert_int_equal(send(f->ends[peer], body, head.body_bytes, 0), head.body_bytes);
    assert_true(peer_read(&f->e, f->peers[peer]));
}

/* Turns of the loop until the peer has its answer. */
static struct wire_answer answer_of(struct fixture *f, int peer, char *out, size_t out_size)
{
    struct wire_answer head;
    while (recv(f->ends[peer], &head, sizeof head, MSG_DONTWAIT) != (ssize_t)sizeof head) {
        struct pollfd p = {.fd = f->e.done_fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 30000), 1);
        deliver_done(&f->e);
    }
    memset(out, 0, out_size);
    assert_true(head.body_bytes < out_size);
    assert_int_equal(recv(f->ends[peer], out, head.body_bytes, MSG_WAITALL), head.body_bytes);
    return head;
}

static void questions_to_other_models_are_answered_while_one_is_opened(void **state)
{
    struct fixture *f = *state;
    char body[8192];
    gate_set(false, false);
    ask(f, 0, "other");
    assert_true(f->peers[0]->waits_for_model);
    for (int i = 0; i < 3; i++) {
        ask(f, 1, "first");
        assert_int_equal(answer_of(f, 1, body, sizeof body).status, STATUS_OK);
        assert_memory_equal(body, "first", 5);
    }
    assert_true(f->peers[0]->waits_for_model);
    gate_set(true, false);
    assert_int_equal(answer_of(f, 0, body, sizeof body).status, STATUS_OK);
    assert_memory_equal(body, "other", 5);
    assert_int_equal(f->e.loaded_count, 2);
}

static void all_who_wait_for_a_model_that_cannot_be_opened_are_told_and_may_ask_again(void **state)
{
    struct fixture *f = *state;
    char body[8192];
    gate_set(false, true);
    ask(f, 0, "other");
    ask(f, 1, "other");
    gate_set(true, true);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(answer_of(f, i, body, sizeof body).status, STATUS_NOT_FOUND);
        assert_string_equal(body, "no memory for the weights");
    }
    gate_set(true, false);
    ask(f, 0, "other");
    assert_int_equal(answer_of(f, 0, body, sizeof body).status, STATUS_OK);
}

static void a_client_that_goes_while_its_model_is_opened_is_forgotten(void **state)
{
    struct fixture *f = *state;
    char body[8192];
    gate_set(false, false);
    ask(f, 0, "other");
    peer_close(&f->e, f->peers[0]);
    ask(f, 1, "other");
    gate_set(true, false);
    assert_int_equal(answer_of(f, 1, body, sizeof body).status, STATUS_OK);
}

static void an_end_while_a_model_is_opened_waits_for_it(void **state)
{
    struct fixture *f = *state;
    gate_set(false, false);
    ask(f, 0, "other"); /* the end opens the gate */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(questions_to_other_models_are_answered_while_one_is_opened, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_who_wait_for_a_model_that_cannot_be_opened_are_told_and_may_ask_again,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_client_that_goes_while_its_model_is_opened_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_end_while_a_model_is_opened_waits_for_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
