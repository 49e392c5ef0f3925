#include "common/status.h"

#include "common/base.h"

static const struct {
    const char *name;
    const char *text;
    int http;
    enum error_class class;
} statuses[] = {
#define STATUS(name, http, class, text) {#name, text, http, ERROR_##class},
#include "common/status.def"
#undef STATUS
};

static const char *const class_names[] = {"none", "transient", "permanent", "resource", "cancelled", "internal"};

const char *status_name(enum status s)
{
    return statuses[s].name;
}

int status_http(enum status s)
{
    return statuses[s].http;
}

const char *status_text(enum status s)
{
    return statuses[s].text;
}

enum error_class status_class(enum status s)
{
    return statuses[s].class;
}

const char *error_class_name(enum error_class c)
{
    return class_names[c];
}
