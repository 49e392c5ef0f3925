/* Whether the other end of a connection still takes what is sent. */
#pragma once

#include <stdint.h>

/* Bytes that the other end's kernel has acknowledged since the connection began; it stops acknowledging when its reader
 * stopped and its buffer is full. -1 = not known (no TCP connection). */
int64_t taken_bytes(int fd);
