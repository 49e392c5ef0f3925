/* JSON out: functions that append to a text and place the commas themselves. JSON in: cJSON, with limits.
 *
 *     json_open(&t, NULL, '{'); json_text(&t, "name", n); json_int(&t, "count", 3); json_close(&t, '}');
 *
 * `key` is NULL for the outermost value and inside arrays. */
#pragma once

#include "common/scope.h"
#include "common/text.h"

#include <cjson/cJSON.h>

DEFINE_SCOPED(cJSON, cJSON_Delete)

/* `bracket` is '{' or '['; json_close takes '}' or ']'. */
void json_open(struct text *t, const char *key, char bracket);
void json_close(struct text *t, char bracket);
/* NULL becomes null; invalid UTF-8 is repaired. */
void json_text(struct text *t, const char *key, const char *value);
void json_text_n(struct text *t, const char *key, const char *value, size_t len);
void json_int(struct text *t, const char *key, int64_t value);
/* Shortest form that reads back the same; NaN and infinities become null. */
void json_real(struct text *t, const char *key, double value);
void json_bool(struct text *t, const char *key, bool value);
void json_null(struct text *t, const char *key);
/* `json` is a whole JSON value already (e.g. a jsonb column); NULL or "" becomes null. */
void json_raw(struct text *t, const char *key, const char *json);

/* Parses one JSON value that must fill the input but for white space. STATUS_UNPROCESSABLE with a sentence when it is
 * not JSON, not UTF-8, nested deeper than 64 levels, or holds an embedded NUL. Caller: scoped(cJSON). */
enum status json_parse(struct scope *sc, const char *bytes, size_t len, cJSON **out) must_check;
/* For what a stranger sent: a value takes 64 bytes of memory, and two of text. */
enum { JSON_MOST_VALUES = 50000 };
enum status json_parse_bounded(struct scope *sc, const char *bytes, size_t len, size_t most_values,
                               cJSON **out) must_check;

/* Optional members: the fallback when absent, null or of another type. Strings point into `object`. */
const char *json_get_text(const cJSON *object, const char *key, const char *fallback);
int64_t json_get_int(const cJSON *object, const char *key, int64_t fallback);
double json_get_real(const cJSON *object, const char *key, double fallback);
bool json_get_bool(const cJSON *object, const char *key, bool fallback);
