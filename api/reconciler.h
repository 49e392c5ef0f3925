/* The thread that repairs what a crash between commit and push, or between commit and announcement, left behind (every
 * API and worker has one; a table lease lets one at a time work). */
#pragma once

#include "api/api.h"

struct reconciler;

enum status reconciler_start(struct scope *sc, struct api *api, struct reconciler **out) must_check;
void reconciler_free(struct reconciler *r);
