/* Who is at the other end, behind proxies that are trusted (TRUSTED_PROXIES). */
#pragma once

#include "common/scope.h"
#include "common/text.h"

#include <sys/socket.h>

struct proxies; /* addresses and networks (10.0.0.0/8, fd00::/8) */

/* STATUS_INVALID names the item that is neither an address nor a network. In the scope's arena. */
enum status proxies_parse(struct scope *sc, const char *list, const struct proxies **out) must_check;
/* "203.0.113.7", "2001:db8::1"; IPv4 seen through an IPv6 socket reads as IPv4. "" when it is of another kind. */
void address_text(const struct sockaddr *address, char out[64]);
/* The peer, or when the peer is a trusted proxy the last address of X-Forwarded-For that is none. In the arena, written
 * as by address_text. `forwarded_for`: all fields of that name, joined by address_join_forwarded; may be NULL. Only its
 * last 4096 bytes count: proxies write at its end, whoever they speak for may write any amount before that. */
const char *address_of_client(struct arena *a, const struct proxies *trusted, const char *peer,
                              const char *forwarded_for);
/* Another X-Forwarded-For of the same request, in the order in which they came. Every field of that name counts: a
 * proxy may add one of its own behind the one that a client made up. */
void address_join_forwarded(struct text *joined, const char *value, size_t len);
