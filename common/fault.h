/* Fault points, for the tests that break Opstream on purpose. In ordinary builds FAULT() is false and costs nothing; in
 * builds by `make FAULTS=1` the variable FAULT says what happens where:
 *
 *     FAULT=point:action[=value][*times][@subject][,…]
 *
 * Actions: kill (SIGKILL), stop (SIGSTOP), exit=status, sleep=milliseconds, fail (the caller does as if the step that
 * follows had not worked). `times`: so often in all; without it, always. `@subject`: only when the point's subject (an
 * operation's UUID, a document's name, a text's beginning) contains it. FAULT_DIR names a directory in which firings
 * are counted, so that `*1` means once for all processes together and for those that are started later; without it each
 * process counts for itself. */
#pragma once

#include "common/base.h"

#include <stdbool.h>
#include <stddef.h>

enum fault_point {
#define FAULT_POINT(name, text, program, meaning) FAULT_##name,
#include "common/fault.def"
#undef FAULT_POINT
    FAULT_POINTS
};

#ifdef OPSTREAM_FAULTS
/* True: behave as if what follows had failed. `subject` may be NULL. */
bool fault_at(enum fault_point point, const char *subject);
#define FAULT(point, subject) fault_at(FAULT_##point, subject)
#else
#define FAULT(point, subject) ((void)sizeof(subject), false)
#endif
