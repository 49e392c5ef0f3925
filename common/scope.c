#include "common/scope.h"

#include <stdio.h>
#include <string.h>

void scope_init(struct scope *sc, const char *trace_id)
{
    memset(sc, 0, sizeof *sc);
    snprintf(sc->trace_id, sizeof sc->trace_id, "%s", trace_id ? trace_id : "");
}

void scope_done(struct scope *sc)
{
    arena_reset(&sc->arena);
    memset(sc, 0, sizeof *sc);
}

void scope_forgive(struct scope *sc)
{
    sc->problem = STATUS_OK;
    sc->problem_text = NULL;
}

enum status fail(struct scope *sc, enum status s, const char *format, ...)
{
    if (sc->problem != STATUS_OK)
        return s;
    va_list args;
    va_start(args, format);
    sc->problem_text = arena_vprintf(&sc->arena, format, args);
    va_end(args);
    sc->problem = s;
    return s;
}
