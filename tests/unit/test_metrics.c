#include "common/arena.h"
#include "common/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The process keeps its metrics, so each test counts one of its own. */

static void expect_line(const char *line)
{
    scoped_text t = {0};
    metrics_write(&t);
    const char *at = strstr(t.data, line);
    size_t len = strlen(line);
    if (!at || (at > t.data && at[-1] != '\n') || at[len] != '\n')
        fail_msg("no line %s in\n%s", line, t.data);
}

static void every_metric_has_its_help_and_type(void **state)
{
    (void)state;
    expect_line("# HELP operations_total Operations by type and how they ended (or accepted)");
    expect_line("# TYPE operations_total counter");
    expect_line("# TYPE websocket_active_connections gauge");
    expect_line("# TYPE embedding_batch_fill_ratio histogram");
}

static void a_counter_adds_up_by_its_labels(void **state)
{
    (void)state;
    metrics_add(METRIC_OPERATIONS, "index", "completed", 1);
    metrics_add(METRIC_OPERATIONS, "index", "completed", 1.5);
    metrics_add(METRIC_OPERATIONS, "index", "failed", 1);
    expect_line("operations_total{operation_type=\"index\",status=\"completed\"} 2.5");
    expect_line("operations_total{operation_type=\"index\",status=\"failed\"} 1");
}

static void a_metric_without_labels_is_shown_before_its_first_use(void **state)
{
    (void)state;
    expect_line("queue_push_failures_total 0");
    metrics_add(METRIC_PUSH_FAILURES, NULL, NULL, 3);
    expect_line("queue_push_failures_total 3");
}

static void a_gauge_goes_up_and_down(void **state)
{
    (void)state;
    metrics_set(METRIC_WS_ACTIVE, "index", NULL, 5);
    metrics_add(METRIC_WS_ACTIVE, "index", NULL, -7);
    expect_line("websocket_active_connections{operation_type=\"index\"} -2");
}

static void a_histogram_counts_what_is_at_most_its_bounds(void **state)
{
    (void)state;
    metrics_observe(METRIC_HTTP_SECONDS, "/a", NULL, 0.005);
    metrics_observe(METRIC_HTTP_SECONDS, "/a", NULL, 0.02);
    metrics_observe(METRIC_HTTP_SECONDS, "/a", NULL, 90000);
    expect_line("http_request_duration_seconds_bucket{route=\"/a\",le=\"0.0025\"} 0");
    expect_line("http_request_duration_seconds_bucket{route=\"/a\",le=\"0.005\"} 1");
    expect_line("http_request_duration_seconds_bucket{route=\"/a\",le=\"0.025\"} 2");
    expect_line("http_request_duration_seconds_bucket{route=\"/a\",le=\"7200\"} 2");
    expect_line("http_request_duration_seconds_bucket{route=\"/a\",le=\"+Inf\"} 3");
    expect_line("http_request_duration_seconds_count{route=\"/a\"} 3");
    expect_line("http_request_duration_seconds_sum{route=\"/a\"} 90000.025");
}

static void a_ratio_has_bounds_up_to_one(void **state)
{
    (void)state;
    metrics_observe(METRIC_EMBED_BATCH_FILL, "m", NULL, 0.85);
    metrics_observe(METRIC_EMBED_BATCH_FILL, "m", NULL, 1);
    expect_line("embedding_batch_fill_ratio_bucket{model=\"m\",le=\"0.8\"} 0");
    expect_line("embedding_batch_fill_ratio_bucket{model=\"m\",le=\"0.9\"} 1");
    expect_line("embedding_batch_fill_ratio_bucket{model=\"m\",le=\"1\"} 2");
}

static void label_values_are_escaped_and_valid(void **state)
{
    (void)state;
    metrics_add(METRIC_TASKS_KILLED, "a\"b\\c\nd\xFF", NULL, 1);
    expect_line("worker_tasks_killed_total{reason=\"a\\\"b\\\\c\\nd\xEF\xBF\xBD\"} 1");
}

static void values_of_two_labels_are_kept_apart(void **state)
{
    (void)state;
    metrics_add(METRIC_HTTP_REQUESTS, "ab", "c", 1);
    metrics_add(METRIC_HTTP_REQUESTS, "a", "bc", 2);
    metrics_add(METRIC_HTTP_REQUESTS, NULL, NULL, 4);
    expect_line("http_requests_total{route=\"ab\",status=\"c\"} 1");
    expect_line("http_requests_total{route=\"a\",status=\"bc\"} 2");
    expect_line("http_requests_total{route=\"\",status=\"\"} 4");
}

static void label_sets_beyond_the_limit_are_counted_together(void **state)
{
    (void)state;
    char model[32];
    for (int i = 0; i < 600; i++) {
        snprintf(model, sizeof model, "model %d", i);
        metrics_add(METRIC_EMBED_TOKENS, model, NULL, 1);
    }
    metrics_add(METRIC_EMBED_TOKENS, "model 3", NULL, 1);
    expect_line("embedding_tokens_total{model=\"model 511\"} 1");
    expect_line("embedding_tokens_total{model=\"model 3\"} 2");
    expect_line("embedding_tokens_total{model=\"other\"} 88");
}

enum { THREADS = 4, ROUNDS = 5000 };

static void *count_in_thread(void *unused)
{
    char reason[16];
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(reason, sizeof reason, "%d", i % 50);
        metrics_add(METRIC_DOCUMENTS, reason, NULL, 1);
        metrics_observe(METRIC_SEARCH_SECONDS, "total", NULL, 0.5);
    }
    return unused;
}

static void threads_lose_no_count(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_in_thread, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    expect_line("documents_processed_total{status=\"7\"} 400");
    expect_line("search_duration_seconds_count{stage=\"total\"} 20000");
    expect_line("search_duration_seconds_sum{stage=\"total\"} 10000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_has_its_help_and_type),
        cmocka_unit_test(a_counter_adds_up_by_its_labels),
        cmocka_unit_test(a_metric_without_labels_is_shown_before_its_first_use),
        cmocka_unit_test(a_gauge_goes_up_and_down),
        cmocka_unit_test(a_histogram_counts_what_is_at_most_its_bounds),
        cmocka_unit_test(a_ratio_has_bounds_up_to_one),
        cmocka_unit_test(label_values_are_escaped_and_valid),
        cmocka_unit_test(values_of_two_labels_are_kept_apart),
        cmocka_unit_test(label_sets_beyond_the_limit_are_counted_together),
        cmocka_unit_test(threads_lose_no_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
