/* Cron expressions: what is taken has a next time, which is later and on a whole minute, and is found again. */
#include "common/arena.h"
#include "common/cron.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t after = 0;
    struct cron c;
    char problem[CRON_PROBLEM_BYTES];
    if (size < sizeof(uint32_t))
        return 0;
    uint32_t seconds;
    memcpy(&seconds, data, sizeof seconds);
    after = seconds;
    char *expression = must_malloc(size - sizeof seconds + 1);
    memcpy(expression, data + sizeof seconds, size - sizeof seconds);
    expression[size - sizeof seconds] = '\0';
    if (cron_parse(expression, &c, problem)) {
        int64_t next, again;
        if (!cron_next(&c, after, &next) || next <= after || next % 60 != 0)
            abort();
        if (!cron_next(&c, next - 1, &again) || again != next)
            abort();
    } else if (!*problem || !memchr(problem, '\0', sizeof problem)) {
        abort();
    }
    free(expression);
    return 0;
}
