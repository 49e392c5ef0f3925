/* What request bodies must look like: api/schemas.def lists every schema and its fields once; the check of requests and the OpenAPI document read it.
 *
 *   SCHEMA_BEGIN(REGISTER)
 *   FIELD(REGISTER, "username", TEXT, REQUIRED, 3, 64, "letters, digits and _")
 *   FIELD(REGISTER, "full_name", TEXT, NULLABLE, 0, 255, "")
 *   SCHEMA_END(REGISTER)
 *
 * Kinds: TEXT (bounds in code points), INT, REAL, BOOL, OBJECT, LIST (bounds = number of items; of UUIDs: UUIDS), UUID, ANY. Flags: REQUIRED, NULLABLE (may be left out or null),
 * OPTIONAL (may be left out, not null), and STRICT on SCHEMA_BEGIN'd ones that refuse unknown fields (SCHEMA_STRICT(NAME) instead of SCHEMA_BEGIN). */
#pragma once

#include "api/request.h"

enum field_kind { FIELD_TEXT, FIELD_INT, FIELD_REAL, FIELD_BOOL, FIELD_OBJECT, FIELD_LIST, FIELD_UUIDS, FIELD_UUID, FIELD_ANY };
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

/* Notes a 422 entry for every fault; STATUS_UNPROCESSABLE if there was one. */
enum status schema_check(struct request *r, const struct schema *schema, const cJSON *body) must_check;
