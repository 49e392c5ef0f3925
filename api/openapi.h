/* The API described as OpenAPI 3.0.3, out of routes.def and schemas.def. */
#pragma once

#include "common/text.h"

void openapi_write(struct text *out);
