/* Requests of one kind that arrive together are accepted together: one statement, one durable commit and one push for
 * all of them (POST …/sources; docs/decisions/0003). Each keeps its own outcome: whatever is not plain sailing is run
 * alone, by dispatch(), as if there were no such thing. Knows nothing of libmicrohttpd. */
#pragma once

#include "api/request.h"
#include "common/store/operation_store.h"

enum { TOGETHER_MOST = 32 };

struct together {
    struct scope sc;
    struct operation_ref accepted[TOGETHER_MOST];
    size_t count; /* of `accepted` */
};

/* Whether a routed request may be one of several. */
bool together_may(struct request *r);
/* is_done[i]: list[i] has its reply. The others are admitted and must be dispatched. All have the same `db`. */
void together_run(struct together *t, struct request *const *list, size_t count, bool *is_done);
/* Pushes what was accepted, best effort, and ends `t`. The requests may be gone by then. */
void together_push(struct together *t, struct redis *queue);
