#include "worker/slow_lane.h"

#include "common/arena.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct slow_lane {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slow_job *first, *last;
    int jobs, most_jobs; /* that wait or run */
    atomic_bool is_closing;
    pthread_t *threads;
    int thread_count, most_threads; /* they begin with the first job */
};

/* NULL: closing, and nothing is left. */
static struct slow_job *take(struct slow_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    while (!lane->first && !lane->is_closing)
        pthread_cond_wait(&lane->changed, &lane->lock);
    struct slow_job *job = lane->first;
    if (job) {
        lane->first = job->next;
        lane->last = lane->first ? lane->last : NULL;
    }
    pthread_mutex_unlock(&lane->lock);
    return job;
}

static void *run_jobs(void *context)
{
    struct slow_lane *lane = context;
    for (struct slow_job *job; (job = take(lane));) {
        job->run(job);
        pthread_mutex_lock(&lane->lock);
        lane->jobs--;
        pthread_mutex_unlock(&lane->lock);
    }
    return NULL;
}

struct slow_lane *slow_lane_new(int threads, int most_waiting)
{
    struct slow_lane *lane = must_calloc(1, sizeof *lane);
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->changed, NULL);
    lane->most_jobs = threads + most_waiting;
    lane->most_threads = threads;
    lane->threads = must_calloc((size_t)threads, sizeof *lane->threads);
    return lane;
}

static void start_threads(struct slow_lane *lane)
{
    for (int i = lane->thread_count; i < lane->most_threads; i++)
        lane->thread_count += pthread_create(&lane->threads[lane->thread_count], NULL, run_jobs, lane) == 0;
}

bool slow_lane_push(struct slow_lane *lane, struct slow_job *job)
{
    pthread_mutex_lock(&lane->lock);
    if (!lane->is_closing)
        start_threads(lane);
    bool is_taken = !lane->is_closing && lane->thread_count > 0 && lane->jobs < lane->most_jobs;
    if (is_taken) {
        job->next = NULL;
        if (lane->last)
            lane->last->next = job;
        else
            lane->first = job;
        lane->last = job;
        lane->jobs++;
        pthread_cond_signal(&lane->changed);
    }
    pthread_mutex_unlock(&lane->lock);
    return is_taken;
}

bool slow_lane_is_closing(void *context)
{
    const struct slow_lane *lane = context;
    return lane->is_closing;
}

void slow_lane_close(struct slow_lane *lane)
{
    if (!lane)
        return;
    pthread_mutex_lock(&lane->lock);
    lane->is_closing = true;
    pthread_cond_broadcast(&lane->changed);
    pthread_mutex_unlock(&lane->lock);
    for (int i = 0; i < lane->thread_count; i++)
        pthread_join(lane->threads[i], NULL);
    lane->thread_count = 0;
}

void slow_lane_free(struct slow_lane *lane)
{
    if (!lane)
        return;
    slow_lane_close(lane);
    pthread_cond_destroy(&lane->changed);
    pthread_mutex_destroy(&lane->lock);
    free(lane->threads);
    free(lane);
}
