/* From a routed request to its reply: who asks, how often, whether the body fits, then the handler. Knows nothing of
 * libmicrohttpd. */
#pragma once

#include "api/request.h"

/* `r->route` stands. Afterwards r->reply is filled, whatever happened. */
void dispatch(struct request *r);
