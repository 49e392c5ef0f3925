#include "api/scan.h"

#include "common/clock.h"

enum { MOST_FILES = 100000, FILES_BETWEEN_LOOKS_AT_THE_CLOCK = 64 };

struct scan {
    const struct scan_request *request;
    struct scan_totals totals;
};

static enum status on_entry(struct scope *sc, void *context, const struct source_file *file)
{
    struct scan *scan = context;
    const struct scan_request *q = scan->request;
    struct scan_totals *t = &scan->totals;
    int64_t seen = t->files + t->problems;
    if (seen >= (q->most_files ? q->most_files : MOST_FILES))
        t->cut = "there are more files than a preview counts";
    else if (q->deadline_ms && seen % FILES_BETWEEN_LOOKS_AT_THE_CLOCK == 0 && clock_monotonic_ms() >= q->deadline_ms)
        t->cut = "counting took too long; there may be more files";
    if (t->cut)
        return STATUS_BUSY; /* ends the walk */
    if (file->problem) {
        t->problems++;
    } else {
        t->files++;
        t->bytes += file->size;
    }
    return q->on_file ? q->on_file(sc, q->context, file, t) : STATUS_OK;
}

enum status scan_run(struct scope *sc, const struct scan_request *request, struct scan_totals *out)
{
    struct scan scan = {.request = request};
    enum status s = source_walk(sc, request->roots, request->path, &request->options, on_entry, &scan);
    if (s != STATUS_OK && !scan.totals.cut)
        return s;
    if (scan.totals.cut)
        scope_forgive(sc);
    *out = scan.totals;
    return STATUS_OK;
}
