/* One JSON object a line on stderr, written with one write() so that processes do not mix.
 *
 *     log_info("task_done", log_text("operation", uuid), log_int("chunks", n));
 *
 * The event is constant text; all that varies is a typed field. Library code under common/ logs at debug only, but for
 * the story of an operation (docs/operating.md): every line of it names `operation`, and `task`, `worker`, `attempt`
 * where they are known. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

struct log_field {
    const char *name; /* NULL ends the list */
    enum { LOG_FIELD_TEXT, LOG_FIELD_INT, LOG_FIELD_REAL, LOG_FIELD_BOOL } kind;
    const char *text;
    int64_t integer;
    double real;
};

#define log_text(name_, value_) ((struct log_field){.name = (name_), .kind = LOG_FIELD_TEXT, .text = (value_)})
#define log_int(name_, value_) ((struct log_field){.name = (name_), .kind = LOG_FIELD_INT, .integer = (value_)})
#define log_real(name_, value_) ((struct log_field){.name = (name_), .kind = LOG_FIELD_REAL, .real = (value_)})
#define log_bool(name_, value_) ((struct log_field){.name = (name_), .kind = LOG_FIELD_BOOL, .integer = (value_)})

#define log_at(level, event, ...)                                                                                      \
    log_write((level), (event), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.name = NULL}})
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_at(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)

/* "debug", "info", "warning" or "error", any case; anything else leaves the level alone and returns false. */
bool log_set_level(const char *name);
/* Stands in every line from now on, e.g. log_set_program("api"). */
void log_set_program(const char *constant_name);
void log_write(enum log_level level, const char *event, const struct log_field *fields);
