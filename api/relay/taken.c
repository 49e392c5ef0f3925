#include "api/relay/taken.h"

#include <linux/tcp.h> /* not netinet/tcp.h, whose tcp_info ends before the count of bytes */
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

int64_t taken_bytes(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof info.tcpi_bytes_acked)
        return -1;
    return (int64_t)info.tcpi_bytes_acked;
}
