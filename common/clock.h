/* Now. Tests can set it. Decisions that several machines must agree on use the database's clock, never this one. */
#pragma once

#include <stdint.h>
#include <time.h>

/* Milliseconds that only go forward; for deadlines and durations. */
int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_us(void);
/* The moment in so many milliseconds, for pthread_cond_timedwait() with CLOCK_MONOTONIC; never frozen. */
struct timespec clock_in_ms(int64_t ms);
/* Milliseconds since 1970 UTC. */
int64_t clock_wall_ms(void);
/* "2026-11-22T05:53:11.123456Z" of now; 28 bytes with the NUL. */
void clock_iso(char out[28]);
/* "2026-11-22T05:53:11Z" of nanoseconds since 1970; "" when no calendar has it. */
void clock_iso_of_ns(int64_t ns, char out[32]);
/* For tests: freezes both clocks at this many milliseconds; -1 = real time again. */
void clock_set_for_tests(int64_t ms);
