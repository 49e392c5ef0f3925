/* What the kernel knows about a TCP connection. In a file of its own because Linux' struct tcp_info and the C
 * library's, which is older, do not go together. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Bytes received so far; 0 when it is not known. */
int64_t kernel_received(int fd);
/* Bytes that the other end's kernel has acknowledged in all; it stops when its reader stopped and its buffer is full.
 * -1 when it is not known. */
int64_t kernel_taken(int fd);
/* True when the other end has acknowledged nothing of what was sent for so long. */
bool kernel_is_unheard(int fd, int64_t for_ms);
