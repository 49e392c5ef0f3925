/* The room that a user's limits leave for documents, asked where documents are registered. */
#pragma once

#include "common/store/resource_store.h"
#include "worker/task.h"

struct room {
    struct resource_room left; /* of the transaction that room_look() began with */
    int64_t left_out;          /* files that were not registered for want of it */
};

/* First in each transaction that registers documents: reads what is left now, and keeps other operations of the user
 * from registering until the transaction ends. Costs one look at a small table when the user has no limits. */
enum status room_look(struct scope *sc, struct task *task, struct room *room) must_check;
/* Takes room for one document: `is_new` if none is counted yet, and so many bytes more than are counted. False: there
 * is not enough, the file is left out and counted as such. */
bool room_take(struct room *room, bool is_new, int64_t more_bytes);
/* Why files were left out, with the numbers, for results and messages; NULL when none was. In the arena. */
const char *room_sentence(struct scope *sc, const struct room *room);
