#include "common/arena.h"
#include "worker/embed/batcher.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A backend whose vectors are each sequence's first id, four times; id 13 gives NaN, 14 infinity, 15 is refused; 20 and
 * 21 are held until they are let go; SUSPECT takes a while and looks whether it is alone. More than `most` tokens do
 * not fit into its memory. */
enum { DIM = 4, HELD_BULK = 20, HELD_QUERY = 21, SUSPECT = 30, LOOKS = 20 };
static int most_tokens, lost;
static atomic_int largest_batch, inside, inside_run, not_alone, beside_batches;
static struct flight *flight; /* of the tests that have one; NULL = each job a fresh one */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int held;
    bool is_open;
} gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, true};

static void hold(void)
{
    pthread_mutex_lock(&gate.lock);
    gate.held++;
    pthread_cond_broadcast(&gate.changed);
    while (!gate.is_open)
        pthread_cond_wait(&gate.changed, &gate.lock);
    gate.held--;
    pthread_mutex_unlock(&gate.lock);
}

static void gate_set(bool is_open)
{
    pthread_mutex_lock(&gate.lock);
    gate.is_open = is_open;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static void wait_for_held(int count)
{
    pthread_mutex_lock(&gate.lock);
    while (gate.held < count)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

static void look_around(void)
{
    for (int i = 0; i < LOOKS; i++) {
        not_alone += inside != 1;
        usleep(20);
    }
}

static enum embed_result compute_batch(const struct embed_batch *batch, float *vectors)
{
    if (batch->offsets[batch->count] > most_tokens)
        return EMBED_OUT_OF_MEMORY;
    if (batch->count > largest_batch)
        largest_batch = batch->count;
    for (int s = 0; s < batch->count; s++) {
        int32_t id = batch->ids[batch->offsets[s]];
        if (id == HELD_BULK || id == HELD_QUERY)
            hold();
        if (id == SUSPECT)
            look_around();
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

static enum embed_result run(struct embed_backend *backend, const struct embed_batch *batch, float *vectors)
{
    (void)backend;
    inside++;
    if (inside_run++ != 0)
        abort(); /* one call at a time */
    enum embed_result result = compute_batch(batch, vectors);
    inside_run--;
    inside--;
    return result;
}

static enum embed_result run_beside(struct embed_backend *backend, const struct embed_batch *batch, float *vectors)
{
    (void)backend;
    inside++;
    beside_batches++;
    enum embed_result result = compute_batch(batch, vectors);
    inside--;
    return result;
}

static const struct embed_backend_api fake = {.abi = EMBED_BACKEND_ABI, .name = "fake", .run = run};
static const struct embed_backend_api two_lanes = {
    .abi = EMBED_BACKEND_ABI, .name = "two", .run = run, .run_beside = run_beside};
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

static struct batch_job *query_new(const int32_t *first_ids, size_t count)
{
    struct batch_job *job = job_new(first_ids, count);
    job->is_query = true;
    return job;
}

static void wait_for_done(struct waiting *w, int count)
{
    pthread_mutex_lock(&w->lock);
    while (w->count < count)
        pthread_cond_wait(&w->came, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

static int done_count(struct waiting *w)
{
    pthread_mutex_lock(&w->lock);
    int count = w->count;
    pthread_mutex_unlock(&w->lock);
    return count;
}

/* Runs one job to its end. */
static struct batch_job *run_one(const struct embed_backend_api *api, int most, struct batch_job *job)
{
    struct waiting w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    most_tokens = most;
    struct flight *own = flight ? NULL : flight_open(-1);
    struct batcher *b = batcher_new(api, 1000, flight ? flight : own, on_done, on_lost, &w);
    batcher_submit(b, job);
    wait_for_done(&w, 1);
    batcher_free(b);
    flight_close(own);
    return job;
}

static struct batch_job *run_job(int most, const int32_t *first_ids, size_t count)
{
    return run_one(&fake, most, job_new(first_ids, count));
}

/* In one lane, and in either of two. */
static void expect_refused(int most, const int32_t *ids, size_t count, enum status status, size_t bad)
{
    for (int way = 0; way < 3; way++) {
        struct batch_job *job = run_one(way == 0 ? &fake : &two_lanes, most,
                                        way == 2 ? query_new(ids, count) : job_new(ids, count));
        assert_int_equal(job->status, status);
        assert_int_equal(job->bad, bad);
        assert_non_null(job->problem);
        batch_job_free(job);
    }
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
        job = run_one(&two_lanes, most, query_new((const int32_t[]){6, 7, 8}, 3));
        assert_int_equal(job->status, STATUS_OK);
        for (int i = 0; i < 3 * DIM; i++)
            assert_true(job->vectors[i] == (float)(6 + i / DIM));
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

static uint64_t mark_of(int32_t first_id)
{
    return flight_mark((const int32_t[]){first_id, 0}, 2);
}

static void fly(struct flight *f, int lane, const int32_t *first_ids, size_t count)
{
    uint64_t marks[8];
    for (size_t i = 0; i < count; i++)
        marks[i] = mark_of(first_ids[i]);
    flight_begin(f, lane, marks, count);
}

/* As if the process died while these were computed: the next one maps the same memory. */
static void crash_with(int fd, const int32_t *first_ids, size_t count)
{
    struct flight *f = flight_open(fd);
    fly(f, 0, first_ids, count);
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
        flight_begin(f, 0, &mark, 1);
        flight_end(f, 0);
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
        flight_begin(f, 0, marks, array_len(marks));
        flight_close(f);
    }
    struct flight *f = flight_open(fd);
    assert_true(flight_is_suspect(f, marks[0]));
    assert_false(flight_is_suspect(f, 1));
    flight_close(f);
    close(fd);
}

/* ---- two lanes ---- */

struct two {
    struct waiting w;
    struct flight *flight;
    struct batcher *batcher;
};

static void two_open(struct two *t, struct flight *of)
{
    *t = (struct two){.w = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}, .flight = of};
    most_tokens = 1000;
    t->batcher = batcher_new(&two_lanes, 1000, of, on_done, on_lost, &t->w);
}

static void two_close(struct two *t)
{
    batcher_free(t->batcher);
    flight_close(t->flight);
}

/* Bulk work that is being computed, and stays so until the gate opens. */
static struct batch_job *submit_held(struct two *t)
{
    gate_set(false);
    struct batch_job *bulk = job_new((const int32_t[]){HELD_BULK}, 1);
    batcher_submit(t->batcher, bulk);
    wait_for_held(1);
    return bulk;
}

static void a_query_is_answered_while_bulk_work_is_computed(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, flight_open(-1));
    struct batch_job *bulk = submit_held(&t);
    struct batch_job *queries[] = {query_new((const int32_t[]){5}, 1), query_new((const int32_t[]){6, 7}, 2)};
    for (int i = 0; i < 2; i++) {
        batcher_submit(t.batcher, queries[i]);
        wait_for_done(&t.w, 1 + i);
        assert_int_equal(queries[i]->status, STATUS_OK);
        assert_true(queries[i]->vectors[0] == (float)(5 + i));
        batch_job_free(queries[i]);
    }
    assert_int_equal(done_count(&t.w), 2);
    gate_set(true);
    wait_for_done(&t.w, 3);
    assert_int_equal(bulk->status, STATUS_OK);
    batch_job_free(bulk);
    two_close(&t);
}

static void several_queries_have_the_whole_device_while_no_bulk_work_runs(void **state)
{
    (void)state;
    beside_batches = 0;
    batch_job_free(run_one(&two_lanes, 1000, query_new((const int32_t[]){1, 2, 3}, 3)));
    assert_int_equal(beside_batches, 0);
    batch_job_free(run_one(&two_lanes, 1000, query_new((const int32_t[]){1}, 1)));
    assert_int_equal(beside_batches, 1);
}

static void dropped_jobs_come_back_from_both_lanes(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, flight_open(-1));
    struct batch_job *bulk = submit_held(&t), *query = query_new((const int32_t[]){HELD_QUERY}, 1);
    batcher_submit(t.batcher, query);
    wait_for_held(2);
    struct batch_job *waiting[] = {job_new((const int32_t[]){1}, 1), query_new((const int32_t[]){2}, 1)};
    for (int i = 0; i < 2; i++) {
        batcher_submit(t.batcher, waiting[i]);
        batcher_drop(t.batcher, waiting[i]);
    }
    batcher_drop(t.batcher, bulk);
    batcher_drop(t.batcher, query);
    gate_set(true);
    wait_for_done(&t.w, 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(waiting[i]->status, STATUS_CANCELLED);
        batch_job_free(waiting[i]);
    }
    batch_job_free(bulk);
    batch_job_free(query);
    two_close(&t);
}

static void *open_gate_later(void *cls)
{
    (void)cls;
    usleep(5000);
    gate_set(true);
    return NULL;
}

static void an_end_while_both_lanes_compute_waits_for_them(void **state)
{
    (void)state;
    struct two t;
    two_open(&t, flight_open(-1));
    struct batch_job *bulk = submit_held(&t), *query = query_new((const int32_t[]){HELD_QUERY}, 1);
    struct batch_job *never = job_new((const int32_t[]){1}, 1);
    batcher_submit(t.batcher, query);
    wait_for_held(2);
    batcher_submit(t.batcher, never);
    pthread_t opener;
    assert_int_equal(pthread_create(&opener, NULL, open_gate_later, NULL), 0);
    two_close(&t);
    pthread_join(opener, NULL);
    assert_int_equal(t.w.count, 2);
    batch_job_free(bulk);
    batch_job_free(query);
    batch_job_free(never);
}

static void a_crash_accuses_the_texts_of_both_lanes_and_convicts_none(void **state)
{
    (void)state;
    int fd = flight_memory();
    for (int i = 0; i < 4; i++) {
        struct flight *f = flight_open(fd);
        fly(f, 0, (const int32_t[]){4}, 1); /* came through before */
        flight_end(f, 0);
        fly(f, 0, (const int32_t[]){1}, 1);
        fly(f, 1, (const int32_t[]){2}, 1);
        flight_close(f);
    }
    struct flight *f = flight_open(fd);
    for (int32_t id = 1; id <= 2; id++) {
        assert_true(flight_is_suspect(f, mark_of(id)));
        assert_false(flight_is_rejected(f, mark_of(id)));
    }
    assert_false(flight_is_suspect(f, mark_of(4)));
    flight_close(f);
    close(fd);
}

static void a_text_that_kills_in_the_lane_of_queries_is_found_and_no_other(void **state)
{
    (void)state;
    int fd = flight_memory();
    for (int i = 0; i < 3; i++) { /* beside bulk work, then alone as suspects are */
        struct flight *f = flight_open(fd);
        fly(f, 1, (const int32_t[]){2}, 1);
        if (i == 0)
            fly(f, 0, (const int32_t[]){1, 3}, 2);
        flight_close(f);
    }
    struct flight *f = flight_open(fd);
    assert_true(flight_is_rejected(f, mark_of(2)));
    assert_false(flight_is_rejected(f, mark_of(1)));
    assert_false(flight_is_rejected(f, mark_of(3)));
    struct two t;
    two_open(&t, f);
    struct batch_job *query = query_new((const int32_t[]){2}, 1), *bulk = job_new((const int32_t[]){1, 3}, 2);
    batcher_submit(t.batcher, query);
    batcher_submit(t.batcher, bulk);
    wait_for_done(&t.w, 2);
    assert_int_equal(query->status, STATUS_INVALID);
    assert_int_equal(bulk->status, STATUS_OK);
    batch_job_free(query);
    batch_job_free(bulk);
    two_close(&t);
    close(fd);
}

/* In both lanes at once, among others that go on. */
static void a_suspect_is_computed_while_nothing_else_is(void **state)
{
    (void)state;
    enum { ROUNDS = 20, JOBS = 4 * ROUNDS };
    int fd = flight_memory();
    struct two t;
    two_open(&t, flight_open(fd));
    struct batch_job *jobs[JOBS];
    not_alone = 0;
    for (int i = 0; i < ROUNDS; i++) {
        wait_for_done(&t.w, 4 * i);
        two_close(&t); /* all suspects came through: accused again */
        crash_with(fd, (const int32_t[]){SUSPECT}, 1);
        int count = t.w.count;
        two_open(&t, flight_open(fd));
        t.w.count = count;
        jobs[4 * i] = job_new((const int32_t[]){1, 2, 3, SUSPECT, 5}, 5);
        jobs[4 * i + 1] = query_new((const int32_t[]){1, 2}, 2);
        jobs[4 * i + 2] = query_new((const int32_t[]){3, SUSPECT, 4}, 3);
        jobs[4 * i + 3] = job_new((const int32_t[]){6, 7, 8}, 3);
        for (int k = 0; k < 4; k++)
            batcher_submit(t.batcher, jobs[4 * i + k]);
    }
    wait_for_done(&t.w, JOBS);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i]->status, STATUS_OK);
        batch_job_free(jobs[i]);
    }
    two_close(&t);
    close(fd);
    assert_int_equal(not_alone, 0);
}

static void many_jobs_of_both_kinds_are_all_answered(void **state)
{
    (void)state;
    enum { JOBS = 400, TEXTS = 7 };
    struct two t;
    two_open(&t, flight_open(-1));
    struct batch_job *jobs[JOBS];
    int32_t ids[TEXTS] = {0};
    for (int i = 0; i < JOBS; i++) {
        size_t count = 1 + (size_t)i % TEXTS;
        for (size_t k = 0; k < count; k++)
            ids[k] = 100 + i + (int32_t)k;
        jobs[i] = i % 3 == 0 ? query_new(ids, count) : job_new(ids, count);
        batcher_submit(t.batcher, jobs[i]);
    }
    wait_for_done(&t.w, JOBS);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(jobs[i]->status, STATUS_OK);
        for (size_t k = 0; k < jobs[i]->count; k++)
            assert_true(jobs[i]->vectors[k * DIM] == (float)(100 + i + (int)k));
        batch_job_free(jobs[i]);
    }
    two_close(&t);
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
        cmocka_unit_test(a_query_is_answered_while_bulk_work_is_computed),
        cmocka_unit_test(several_queries_have_the_whole_device_while_no_bulk_work_runs),
        cmocka_unit_test(dropped_jobs_come_back_from_both_lanes),
        cmocka_unit_test(an_end_while_both_lanes_compute_waits_for_them),
        cmocka_unit_test(a_crash_accuses_the_texts_of_both_lanes_and_convicts_none),
        cmocka_unit_test(a_text_that_kills_in_the_lane_of_queries_is_found_and_no_other),
        cmocka_unit_test(a_suspect_is_computed_while_nothing_else_is),
        cmocka_unit_test(many_jobs_of_both_kinds_are_all_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
