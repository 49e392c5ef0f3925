/* From a channel to its listeners. What arrives in one turn of the loop is gathered by channel and leaves together: for
 * a listener that has nothing else to wait for, all of it is one write of bytes that are shared by all of them. Where
 * events come faster than one write a receiver allows, this is what decides (docs/benchmarks.md, The relay). */
#pragma once

struct channel;
struct frame;
struct hub;

/* Takes a reference of `f`. */
void fanout_add(struct hub *hub, struct channel *channel, struct frame *f);
/* At the end of a turn. */
void fanout_flush(struct hub *hub);
/* What was gathered is forgotten. */
void fanout_drop(struct channel *channel);
