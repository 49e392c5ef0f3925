#include "common/log.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/text.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LONGEST_TEXT = 4096 }; /* of one field: what is longer is cut, so that the line stays JSON */

static const char *const level_names[] = {"debug", "info", "warning", "error"};

/* Owner: main(), which sets both before it starts threads. */
static enum log_level lowest = LOG_INFO;
static const char *program = "opstream";

bool log_set_level(const char *name)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcasecmp(name, level_names[i]) == 0) {
            lowest = (enum log_level)i;
            return true;
        }
    }
    return false;
}

void log_set_program(const char *constant_name)
{
    program = constant_name;
}

static void put_text(struct text *line, const char *name, const char *value)
{
    size_t len = value ? strlen(value) : 0;
    json_text_n(line, name, value, len > LONGEST_TEXT ? utf8_floor(value, len, LONGEST_TEXT) : len);
}

static void put_field(struct text *line, const struct log_field *f)
{
    switch (f->kind) {
    case LOG_FIELD_TEXT:
        put_text(line, f->name, f->text);
        break;
    case LOG_FIELD_INT:
        json_int(line, f->name, f->integer);
        break;
    case LOG_FIELD_REAL:
        json_real(line, f->name, f->real);
        break;
    case LOG_FIELD_BOOL:
        json_bool(line, f->name, f->integer != 0);
        break;
    }
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    if (level < lowest)
        return;
    char now[28];
    clock_iso(now);
    scoped_text line = {0};
    json_open(&line, NULL, '{');
    json_text(&line, "time", now);
    json_text(&line, "level", level_names[level]);
    json_text(&line, "program", program);
    json_int(&line, "pid", getpid());
    json_text(&line, "event", event);
    for (const struct log_field *f = fields; f->name; f++)
        put_field(&line, f);
    json_close(&line, '}');
    text_putc(&line, '\n');
    ssize_t written = write(STDERR_FILENO, line.data, line.len);
    (void)written; /* nowhere left to complain */
}
