/* Redis Sentinel: which server is the primary now. The URL is
 *   redis+sentinel://[user:password@]host[:port],host[:port]…/name[?sentinel_password=…]
 * user and password are Redis' own; those of the sentinels come as a parameter, as they often are others. */
#pragma once

#include "common/scope.h"

struct sentinels;

/* Whether the URL asks for sentinels. */
bool sentinels_are_meant(const char *url);
/* What is wrong with such a URL, a constant sentence; NULL = nothing. */
const char *sentinels_problem(const char *url);
/* The URL must be one without a problem; copied. sentinels_free() takes NULL, too. */
struct sentinels *sentinels_new(const char *url);
void sentinels_free(struct sentinels *s);
/* Asks them in their order until one knows; up to `timeout_ms` each.
 * *out_host lies in the scope. Any thread may ask. STATUS_UNAVAILABLE: none knows. */
enum status sentinels_find_primary(struct scope *sc, const struct sentinels *s, int timeout_ms, const char **out_host,
                                   int *out_port) must_check;
