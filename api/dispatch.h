/* From a routed request to its reply: who asks, how often, whether the body fits, then the handler. Knows nothing of
 * libmicrohttpd. */
#pragma once

#include "api/request.h"

/* In two halves, for together.c: who asks, how often, whether the body fits; the caller goes on with dispatch(), which
 * then only runs the handler, or with dispatch_finish(). `known` (may be NULL) is a request admitted just now: whoever
 * shows its token is its user. */
enum status dispatch_admit(struct request *r, const struct request *known) must_check;
/* Fills the reply for a status that is not STATUS_OK, and lets go of what admission made. */
void dispatch_finish(struct request *r, enum status s);
/* `r->route` stands. Afterwards r->reply is filled, whatever happened. */
void dispatch(struct request *r);
