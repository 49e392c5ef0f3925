/* Counters, gauges and histograms of this process, in Prometheus' text format. The list is metrics.def; any thread may
 * count. */
#pragma once

#include "common/text.h"

enum metric {
#define METRIC(name, type, labels, text_name, meaning) METRIC_##name,
#include "common/metrics.def"
#undef METRIC
    METRICS
};

/* `label1`, `label2`: values of the metric's labels in their order (NULL where it has fewer). Values are copied at
 * first use; at most 512 label sets a metric, further ones are counted under "other". */
void metrics_add(enum metric m, const char *label1, const char *label2, double amount);      /* counters and gauges */
void metrics_set(enum metric m, const char *label1, const char *label2, double value);       /* gauges */
void metrics_observe(enum metric m, const char *label1, const char *label2, double seconds); /* histograms */
void metrics_write(struct text *out);

/* Hands everything to `sink` instead of counting it in this process, for processes whose numbers nobody asks: a
 * worker's task children. Set it before threads start; NULL = count here. */
enum metric_action { METRIC_ACTION_ADD, METRIC_ACTION_SET, METRIC_ACTION_OBSERVE };
typedef void metrics_sink(enum metric m, enum metric_action action, const char *label1, const char *label2,
                          double amount);
void metrics_forward(metrics_sink *sink);
