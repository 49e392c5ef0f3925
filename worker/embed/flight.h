/* Which texts are being computed, in memory that outlives the embedder's process: after a crash it is known which ones
 * were in flight. They are suspected and go one by one; a text that was in flight alone at two crashes is rejected. An
 * orderly end and a lost device say nothing about texts. Two lanes may fly at once, each for one thread; a suspect must
 * fly alone, with the other lane empty, or an innocent one is blamed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FLIGHT_MOST_TEXTS = 1024, FLIGHT_LANES = 2 };

struct flight;

/* A descriptor of the memory, for flight_open() in this or another process; -1 when none can be had. */
int flight_memory(void);
/* Maps the memory (fd < 0, or not such a memory: private one) and judges by what was in flight when the process before
 * ended. */
struct flight *flight_open(int fd);
void flight_close(struct flight *f);

/* What stands for a text. */
uint64_t flight_mark(const int32_t *ids, size_t count);
/* It goes alone. */
bool flight_is_suspect(struct flight *f, uint64_t mark);
/* It is not computed any more. */
bool flight_is_rejected(struct flight *f, uint64_t mark);
/* Before and after texts are computed in a lane (0 .. FLIGHT_LANES - 1); at most FLIGHT_MOST_TEXTS. What came through
 * alone is suspected no longer. */
void flight_begin(struct flight *f, int lane, const uint64_t *marks, size_t count);
void flight_end(struct flight *f, int lane);
