/* Settings from the environment, one typed table (settings.def). */
#pragma once

#include "common/scope.h"
#include "common/text.h"

enum setting_flag { SETTING_API = 1, SETTING_WORKER = 2, SETTING_SECRET = 4, SETTING_REQUIRED = 8 };

/* Field per line of settings.def. TEXT: NULL when not set; INT without default: -1 when not set. */
struct settings {
#define SETTING_FIELD_TEXT const char *
#define SETTING_FIELD_INT int64_t
#define SETTING_FIELD_BOOL bool
#define SETTING(type, field, name, alias, fallback, flags, meaning) SETTING_FIELD_##type field;
#include "common/settings.def"
#undef SETTING
    struct arena arena; /* owns the strings */
};

/* Reads the environment for `program` (SETTING_API or SETTING_WORKER). A value of the wrong type or a missing required
 * one: STATUS_INVALID, with every fault named, one a line, in sc->problem_text. Empty values count as not set, but for
 * TEXT. */
enum status settings_load(struct scope *sc, struct settings *out, enum setting_flag program) must_check;
void settings_done(struct settings *s);
/* The table for --help: name, default, meaning; wrapped for a terminal. */
void settings_help(struct text *out, enum setting_flag program);
/* The same as a Markdown table, for docs/settings.md (both programs). */
void settings_markdown(struct text *out);
/* Splits "a,b, c" into trimmed non-empty items in the arena; NULL-terminated; *out_count may be NULL. */
char **settings_list(struct arena *a, const char *value, char separator, size_t *out_count);
