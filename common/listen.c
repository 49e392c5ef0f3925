#include "common/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

static int port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {.v6 = {0}};
    socklen_t len = sizeof a;
    if (getsockname(fd, &a.any, &len) != 0)
        return 0;
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

/* -1 with errno. */
static int open_one(const struct addrinfo *a)
{
    int on = 1, off = 0;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static void set_port(struct sockaddr *address, int port)
{
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
}

static enum status open_all(struct scope *sc, const struct addrinfo *found, const char *host, int64_t port, int most,
                            int *out_fds, int *out_count, int *out_port)
{
    *out_count = 0;
    *out_port = (int)port;
    for (const struct addrinfo *a = found; a && *out_count < most; a = a->ai_next) {
        if (*out_port)
            set_port(a->ai_addr, *out_port);
        int fd = open_one(a);
        if (fd < 0 && *out_count > 0)
            continue; /* "localhost" where there is no IPv6 */
        if (fd < 0)
            return fail(sc, STATUS_UNAVAILABLE, "cannot listen on %s, port %lld: %s", host, (long long)port,
                        strerror(errno));
        out_fds[(*out_count)++] = fd;
        *out_port = port_of(fd);
    }
    return STATUS_OK;
}

static enum status open_most(struct scope *sc, const char *host, int64_t port, int most, int *out_fds, int *out_count,
                             int *out_port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    int e = getaddrinfo(host, arena_printf(&sc->arena, "%lld", (long long)port), &hints, &found);
    if (e != 0)
        return fail(sc, STATUS_UNAVAILABLE, "cannot listen on %s: %s", host, gai_strerror(e));
    enum status s = open_all(sc, found, host, port, most, out_fds, out_count, out_port);
    freeaddrinfo(found);
    return s;
}

enum status listen_open(struct scope *sc, const char *host, int64_t port, int out_fds[LISTEN_MAX], int *out_count,
                        int *out_port)
{
    return open_most(sc, host, port, LISTEN_MAX, out_fds, out_count, out_port);
}

enum status listen_one(struct scope *sc, const char *host, int64_t port, int *out_fd, int *out_port)
{
    int count = 0;
    return open_most(sc, host, port, 1, out_fd, &count, out_port);
}
