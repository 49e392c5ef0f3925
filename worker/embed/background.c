#include "worker/embed/background.h"

#include <sys/resource.h>
#include <unistd.h>

enum { BACKGROUND_NICE = 10 };

void thread_into_background(void)
{
#ifdef __linux__ /* where a thread's id may stand for a process's, against POSIX */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), BACKGROUND_NICE);
#endif
}
