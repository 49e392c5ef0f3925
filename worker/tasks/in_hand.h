/* Finding the document that kills. Before a group of documents is read, their ids are noted in the database as in hand
 * (in_hand_note.sql), which survives the child and the whole worker. When an attempt died, the next one suspects what
 * it had in hand: those go one by one, before the others.
 *
 * A document is set aside, with the reason, when
 * - children died twice that had it alone in hand (killed by a signal, silent, or over the hard limit), or
 * - it was alone in hand when a child died and when a whole worker was lost, and this is the operation's last attempt:
 *   losing one document is better than losing the operation.
 * Lost workers alone prove nothing: whoever pulls plugs does not choose them by document. In the last attempt the
 * suspects come last, so that the rest is done whatever becomes of them. Recording one counts as progress, so any
 * number of such documents can be found in one operation. */
#pragma once

#include "worker/tasks/ingest.h"

/* At the start of an attempt, in a transaction of its own. */
enum status in_hand_suspect(struct scope *sc, struct ingest *in) must_check;
/* Before documents are read. */
enum status in_hand_note(struct scope *sc, struct ingest *in, const struct pending_document *documents,
                         size_t count) must_check;
/* The attempt ends orderly. Best effort: a row that stays is not counted. */
void in_hand_forget(struct scope *sc, struct task *task);
bool in_hand_is_last_attempt(const struct task *task);
/* Why this document is not read any more, in the arena; NULL = it is read. */
const char *in_hand_verdict(struct scope *sc, const struct task *task, const struct pending_document *d);
