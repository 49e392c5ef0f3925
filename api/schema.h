/* What request bodies must look like: api/schemas.def lists every schema and its fields once; the check of requests and
 * the OpenAPI document read it.
 *
 *   SCHEMA_BEGIN(REGISTER)
 *   FIELD(REGISTER, "username", TEXT, REQUIRED, 3, 64, "letters, digits and _")
 *   FIELD(REGISTER, "full_name", TEXT, NULLABLE, 0, 255, "")
 *   SCHEMA_END(REGISTER)
 *
 * Kinds: TEXT (bounds in code points), INT, REAL, BOOL, OBJECT, LIST (bounds = number of items; of UUIDs: UUIDS), UUID,
 * ANY. Flags: REQUIRED, NULLABLE (may be left out or null), OPTIONAL (may be left out, not null), and STRICT on
 * SCHEMA_BEGIN'd ones that refuse unknown fields (SCHEMA_STRICT(NAME) instead of SCHEMA_BEGIN).
 *
 * A body may be missing altogether when no field is REQUIRED; the handler then sees r->json == NULL. Replies are
 * described in the same list; a reply schema that routes.def names and schemas.def does not is shown as a plain object.
 */
#pragma once

#include "api/request.h"

enum field_kind {
    FIELD_TEXT,
    FIELD_INT,
    FIELD_REAL,
    FIELD_BOOL,
    FIELD_OBJECT,
    FIELD_LIST,
    FIELD_UUIDS,
    FIELD_UUID,
    FIELD_ANY
};
enum field_need { FIELD_REQUIRED, FIELD_NULLABLE, FIELD_OPTIONAL };

struct schema_field {
    const char *name;
    enum field_kind kind;
    enum field_need need;
    double least, most; /* least > most = unbounded */
    const char *meaning;
};

struct schema {
    const char *name;
    bool is_strict;
    const struct schema_field *fields;
    size_t field_count;
};

#define SCHEMA_BEGIN(name) extern const struct schema schema_##name;
#define SCHEMA_STRICT(name) SCHEMA_BEGIN(name)
#define FIELD(schema, name, kind, need, least, most, meaning)
#define SCHEMA_END(name)
#include "api/schemas.def"
#undef SCHEMA_BEGIN
#undef SCHEMA_STRICT
#undef FIELD
#undef SCHEMA_END

/* All of them, in the list's order. */
const struct schema *const *schema_all(size_t *out_count);
const struct schema *schema_find(const char *name);
/* The body of a request as it came: parses it, checks it, leaves it in r->json (freed with *out_json by the caller). */
enum status schema_read_body(struct request *r, const struct schema *schema, cJSON **out_json) must_check;
