#include "common/arena.h"
#include "worker/embed/batcher.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A backend whose vectors are each sequence's first id, four times; id 13 gives NaN, 14 infinity, 15 is refused. More
 * than `most` tokens do not fit into its memory. */
enum { DIM = 4 };
static int most_tokens, lost, largest_batch;
static struct flight *flight; /* of the tests that have one; NULL = each job a fresh one */

static enum embed_result run(struct embed_backend *backend, const struct embed_batch *batch, float *vectors)
{
    (void)backend;
    if (batch->offsets[batch->count] > most_tokens)
        return EMBED_OUT_OF_MEMORY;
    if (batch->count > largest_batch)
        largest_batch = batch->count;
    for (int s = 0; s < batch->count; s++) {
        int32_t id = batch->ids[batch->offsets[s]];
        if (id == 15)
            return EMBED_BAD_INPUT;
        for (int k = 0; k < DIM; k++)
            vectors[s * DIM + k] = (float)id;
        if (id == 13)
            vectors[s * DIM + 2] = NAN;
        if (id == 14)
            vectors[s * DIM + 3] = -INFINITY;
    }
    return EMBED_OK;
}

static const struct embed_backend_api fake = {.abi = EMBED_BACKEND_ABI, .name = "fake", .run = run};
static const struct embed_model model = {.name = (char *)"fake", .dim = DIM};

struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t came;
    int count;
};

static void on_done(void *context, struct batch_job *job)
{
    struct waiting *w = context;
    (void)job;
    pthread_mutex_lock(&w->lock);
    w->count++;
    pthread_cond_signal(&w->came);
    pthread_mutex_unlock(&w->lock);
}

static void on_lost(void *context)
{
    (void)context;
    lost++;
}

static struct batch_job *job_new(const int32_t *first_ids, size_t count)
{
    struct batch_job *job = must_calloc(1, sizeof *job);
    job->model = &model;
    job->ids = must_calloc(count * 2, sizeof *job->ids);
    job->offsets = must_calloc(count + 1, sizeof *job->offsets);
    for (size_t i = 0; i < count; i++) {
        job->ids[2 * i] = first_ids[i];
        job->offsets[i + 1] = 2 * (int32_t)(i + 1);
    }
    job->count = count;
    job->vectors = must_calloc(count * DIM, sizeof *job->vectors);
    return job;
}

/* Runs one job to its end. */
static struct batch_job *run_job(int most, const int32_t *first_ids, size_t count)
{
    struct waiting w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    most_tokens = most;
    struct flight *own = flight ? NULL : flight_open(-1);
    struct batcher *b = batcher_new(&fake, 1000, flight ? flight : own, on_done, on_lost, &w);
    struct batch_job *job = job_new(first_ids, count);
    batcher_submit(b, job);
    pthread_mutex_lock(&w.lock);
    while (w.count == 0)
        pthread_cond_wait(&w.came, &w.lock);
    pthread_mutex_unlock(&w.lock);
    batcher_free(b);
    flight_close(own);
    return job;
}

static void expect_refused(int most, const int32_t *ids, size_t count, enum status status, size_t bad)
{
    struct batch_job *job = run_job(most, ids, count);
    assert_int_equal(job->status, status);
    assert_int_equal(job->bad, bad);
    assert_non_null(job->problem);
    batch_job_free(job);
}

static void vectors_come_back_in_order_from_small_memory_too(void **state)
{
    (void)state;
    for (int most = 2; most <= 32; most *= 2) {
        struct batch_job *job = run_job(most, (const int32_t[]){1, 2, 3, 4, 5}, 5);
        assert_int_equal(job->status, STATUS_OK);
        for (int i = 0; i < 5 * DIM; i++)
            assert_true(job->vectors[i] == (float)(1 + i / DIM));
        batch_job_free(job);
    }
}

static void a_vector_that_is_not_finite_is_refused(void **state)
{
    (void)state;
    expect_refused(1000, (const int32_t[]){1, 13, 2}, 3, STATUS_INVALID, 1);
    expect_refused(1000, (const int32_t[]){1, 2, 14}, 3, STATUS_INVALID, 2);
}

static void a_refused_text_is_told_by_its_number(void **state)
{
    (void)state;
    expect_refused(1000, (const int32_t[]){1, 2, 3, 15, 4}, 5, STATUS_INVALID, 3);
    expect_refused(1, (const int32_t[]){1}, 1, STATUS_NO_SPACE, 0);
    assert_int_equal(lost, 0);
}

/* As if the process died while these were computed: the next one maps the same memory. */
static void crash_with(int fd, const int32_t *first_ids, size_t count)
{
    struct flight *f = flight_open(fd);
    uint64_t marks[8];
    for (size_t i = 0; i < count; i++)
        marks[i] = flight_mark((const int32_t[]){first_ids[i], 0}, 2);
    flight_begin(f, marks, count);
    flight_close(f);
}

static void texts_that_were_in_flight_at_a_crash_go_alone_until_they_came_through(void **state)
{
    (void)state;
    int fd = flight_memory();
    crash_with(fd, (const int32_t[]){1, 2, 3}, 3);
    flight = flight_open(fd);
    for (int round = 0; round < 2; round++) {
        largest_batch = 0;
        struct batch_job *job = run_job(1000, (const int32_t[]){1, 2, 3}, 3);
        assert_int_equal(job->status, STATUS_OK);
        assert_int_equal(largest_batch, round == 0 ? 1 : 3);
        batch_job_free(job);
    }
    flight_close(flight);
    flight = NULL;
    close(fd);
}

static void a_text_that_was_alone_at_two_crashes_is_refused_and_no_other(void **state)
{
    (void)state;
    int fd = flight_memory();
    crash_with(fd, (const int32_t[]){1, 2, 3}, 3);
    crash_with(fd, (const int32_t[]){2}, 1);
    flight = flight_open(fd);
    struct batch_job *job = run_job(1000, (const int32_t[]){2}, 1);
    assert_int_equal(job->status, STATUS_OK); /* once may have been bad luck */
    batch_job_free(job);
    flight_close(flight);
    crash_with(fd, (const int32_t[]){2}, 1);
    crash_with(fd, (const int32_t[]){2}, 1);
    flight = flight_open(fd);
    expect_refused(1000, (const int32_t[]){1, 2, 3}, 3, STATUS_INVALID, 1);
    job = run_job(1000, (const int32_t[]){1, 3}, 2);
    assert_int_equal(job->status, STATUS_OK);
    batch_job_free(job);
    flight_close(flight);
    flight = NULL;
    close(fd);
}

static void an_orderly_end_accuses_nobody(void **state)
{
    (void)state;
    int fd = flight_memory();
    for (int i = 0; i < 3; i++) {
        struct flight *f = flight_open(fd);
        uint64_t mark = flight_mark((const int32_t[]){7, 0}, 2);
        flight_begin(f, &mark, 1);
        flight_end(f);
        assert_false(flight_is_suspect(f, mark));
        flight_close(f);
    }
    close(fd);
}

static void more_suspects_than_there_is_room_for_do_no_harm(void **state)
{
    (void)state;
    int fd = flight_memory();
    static uint64_t marks[FLIGHT_MOST_TEXTS];
    for (uint64_t round = 0; round < 5; round++) {
        struct flight *f = flight_open(fd);
        for (size_t i = 0; i < array_len(marks); i++)
            marks[i] = 1 + round * array_len(marks) + i;
        flight_begin(f, marks, array_len(marks));
        flight_close(f);
    }
    struct flight *f = flight_open(fd);
    assert_true(flight_is_suspect(f, marks[0]));
    assert_false(flight_is_suspect(f, 1));
    flight_close(f);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_come_back_in_order_from_small_memory_too),
        cmocka_unit_test(a_vector_that_is_not_finite_is_refused),
        cmocka_unit_test(a_refused_text_is_told_by_its_number),
        cmocka_unit_test(texts_that_were_in_flight_at_a_crash_go_alone_until_they_came_through),
        cmocka_unit_test(a_text_that_was_alone_at_two_crashes_is_refused_and_no_other),
        cmocka_unit_test(an_orderly_end_accuses_nobody),
        cmocka_unit_test(more_suspects_than_there_is_room_for_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
