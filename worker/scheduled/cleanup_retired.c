/* The last checkpoint of a reindex: generations that were replaced, with the chunks that only they knew, go once their
 * time has come. In short transactions, so that vacuum gets at the dead rows and no reader waits. */
#include "common/log.h"
#include "common/store/staging_store.h"
#include "worker/schedule.h"

enum { NOTES_AT_A_TIME = 1000 };

struct removed {
    int64_t generations, chunks, notes, kept;
};

/* One that is read right now does not keep the others waiting: its turn comes again. */
static enum status remove_one(struct scheduled *s, int64_t id, int64_t collection_id, struct removed *n)
{
    struct scope own;
    int64_t chunks = 0;
    scope_init(&own, NULL);
    enum status status = staging_store_remove(&own, s->db, collection_id, id, s->has_to_stop, s->stop_context, &chunks);
    n->chunks += chunks;
    if (status == STATUS_OK) {
        n->generations++;
        log_info("generation_removed", log_int("generation", id), log_int("chunks", chunks));
    } else if (status != STATUS_CANCELLED) {
        n->kept++;
        log_info("generation_not_removed", log_int("generation", id), log_text("problem", own.problem_text));
    }
    scope_done(&own);
    return status == STATUS_CANCELLED ? status : STATUS_OK;
}

static enum status forget_notes(struct scope *sc, struct scheduled *s, struct removed *n)
{
    enum status status = STATUS_OK;
    for (int64_t count = NOTES_AT_A_TIME; status == STATUS_OK && count == NOTES_AT_A_TIME; n->notes += count) {
        if (s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        status = staging_store_forget(sc, s->db, NOTES_AT_A_TIME, &count);
    }
    return status;
}

enum status cleanup_retired(struct scope *sc, struct scheduled *s)
{
    struct removed n = {0};
    int64_t id = 0, collection_id = 0;
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        if (s->has_to_stop(s->stop_context))
            return fail(sc, STATUS_CANCELLED, "told to stop");
        status = staging_store_next_retired(sc, s->db, id, &id, &collection_id);
        if (status != STATUS_OK || id == 0)
            break;
        status = remove_one(s, id, collection_id, &n);
    }
    if (status == STATUS_OK)
        status = forget_notes(sc, s, &n);
    if (status != STATUS_OK)
        return status;
    s->result_json = arena_printf(&sc->arena, "{\"generations\":%lld,\"chunks\":%lld,\"kept\":%lld}",
                                  (long long)n.generations, (long long)n.chunks, (long long)n.kept);
    return STATUS_OK;
}
