/* Threads whose work may wait. */
#pragma once

/* From here on the calling thread yields to the others of this machine (nice 10, setpriority(2)); it still gets all
 * that nobody else wants. Where priorities are not a thread's own, or cannot be had, nothing changes. */
void thread_into_background(void);
