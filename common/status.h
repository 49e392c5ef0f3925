/* The one list of how calls can end (status.def) and what follows from each. */
#pragma once

#include <stdbool.h>

enum status {
#define STATUS(name, http, class, text) STATUS_##name,
#include "common/status.def"
#undef STATUS
};

/* What a worker does about an error; stored in operations.error_class under its lower-case name. */
enum error_class {
    ERROR_NONE,
    ERROR_TRANSIENT,
    ERROR_PERMANENT,
    ERROR_RESOURCE,
    ERROR_CANCELLED,
    ERROR_INTERNAL,
};

/* "UNAVAILABLE"; for logs and metric labels. */
const char *status_name(enum status s);
/* The HTTP status that this outcome is answered with. */
int status_http(enum status s);
/* The text shown when nobody said anything better. */
const char *status_text(enum status s);
enum error_class status_class(enum status s);
/* "transient", "permanent", …; "none" for STATUS_OK. */
const char *error_class_name(enum error_class c);
