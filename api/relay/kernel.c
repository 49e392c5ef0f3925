#include "api/relay/kernel.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

static bool ask(int fd, struct tcp_info *out)
{
    socklen_t len = sizeof *out;
    *out = (struct tcp_info){0};
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, out, &len) == 0;
}

int64_t kernel_received(int fd)
{
    struct tcp_info info;
    return ask(fd, &info) ? (int64_t)info.tcpi_bytes_received : 0;
}

int64_t kernel_taken(int fd)
{
    struct tcp_info info;
    return ask(fd, &info) ? (int64_t)info.tcpi_bytes_acked : -1;
}

bool kernel_is_unheard(int fd, int64_t for_ms)
{
    struct tcp_info info;
    return ask(fd, &info) && info.tcpi_unacked > 0 && info.tcpi_last_ack_recv >= for_ms;
}
