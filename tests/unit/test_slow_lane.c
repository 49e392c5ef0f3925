#include "worker/slow_lane.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { THREADS = 2, WAITING = 3 };

/* A job that runs until it is let go. */
struct held {
    struct slow_job job;
    pthread_mutex_t *gate;
    struct slow_lane *lane;
    atomic_int *done, *seen_closing;
};

static void run(struct slow_job *job)
{
    struct held *h = (struct held *)job;
    pthread_mutex_lock(h->gate);
    pthread_mutex_unlock(h->gate);
    atomic_fetch_add(h->seen_closing, slow_lane_is_closing(h->lane));
    atomic_fetch_add(h->done, 1);
}

static void what_does_not_fit_is_refused_and_the_rest_is_run(void **state)
{
    (void)state;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    atomic_int done = 0, seen_closing = 0;
    struct slow_lane *lane = slow_lane_new(THREADS, WAITING);
    struct held jobs[THREADS + WAITING + 1];
    pthread_mutex_lock(&gate);
    for (int i = 0; i <= THREADS + WAITING; i++) {
        jobs[i] = (struct held){{.run = run}, &gate, lane, &done, &seen_closing};
        assert_int_equal(slow_lane_push(lane, &jobs[i].job), i < THREADS + WAITING);
    }
    pthread_mutex_unlock(&gate);
    slow_lane_close(lane);
    assert_int_equal(done, THREADS + WAITING);
    assert_false(slow_lane_push(lane, &jobs[0].job));
    slow_lane_free(lane);
}

static void a_lane_that_was_never_used_is_closed(void **state)
{
    (void)state;
    struct slow_lane *lane = slow_lane_new(THREADS, WAITING);
    assert_false(slow_lane_is_closing(lane));
    slow_lane_free(lane);
    slow_lane_close(NULL);
    slow_lane_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_fit_is_refused_and_the_rest_is_run),
        cmocka_unit_test(a_lane_that_was_never_used_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
