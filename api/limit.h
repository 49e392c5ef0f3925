/* How often who may call what. The counts live in Redis, so that they hold over all instances; when Redis is away the
 * routes' limits are not enforced, while guessing passwords is then slowed by each process for itself.
 *
 * The rule is GCRA: `burst` calls at once, then one every `interval`; what is stored of a caller is one time. */
#pragma once

#include "api/request.h"

struct limiter;

struct limit_rate {
    int burst;
    int64_t interval_ms;
};

struct limiter *limiter_new(void);
void limiter_free(struct limiter *l);

/* "10/hour", "30/minute", "1/300s" -> 10 calls, one every 6 minutes. STATUS_INVALID for anything else. */
enum status limit_parse(const char *text, struct limit_rate *out) must_check;
/* The contract's 429 for a limit that something else watches: `limit` says which, `most` is its number. Fills the whole
 * reply and returns STATUS_RATE_LIMITED. */
enum status limit_refuse(struct request *r, const char *limit, int64_t most, int64_t retry_seconds);
/* The limit of the request's route, per user, else per address. STATUS_RATE_LIMITED with the whole reply filled in. */
enum status limit_check(struct request *r) must_check;
/* A request of a user that was refused (4xx, or 507) did nothing, so it is not counted where one has to wait for
 * minutes: whoever mistypes a setting of what may be done once in five minutes tries again at once. Guests' requests
 * stay counted, and those of which there may be many: looking at them is what costs. */
void limit_give_back(struct request *r);
/* Before a password is looked at: counts one try for the account and one for the address. STATUS_RATE_LIMITED with the
 * reply filled in. */
enum status limit_guess(struct request *r, const char *account) must_check;
/* The password was right: the account starts anew, and the address gets its try back. */
void limit_guess_forget(struct request *r, const char *account);

/* One step, for tests: `*tat_ms` is what is stored (0 = nothing). Returns how long to wait, 0 = allowed (and counted).
 */
int64_t limit_step(const struct limit_rate *rate, int64_t now_ms, int64_t *tat_ms);
