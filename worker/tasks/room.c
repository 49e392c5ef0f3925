#include "worker/tasks/room.h"

#include "common/metrics.h"

enum status room_look(struct scope *sc, struct task *task, struct room *room)
{
    return resource_store_room(sc, task->db, task->settings, task->user_id, &room->left);
}

bool room_take(struct room *room, bool is_new, int64_t more_bytes)
{
    struct resource_room *left = &room->left;
    bool has_room = (!is_new || left->documents > 0) && (more_bytes <= 0 || more_bytes <= left->bytes);
    if (!has_room) {
        if (room->left_out++ == 0)
            metrics_add(METRIC_RESOURCE_REFUSALS,
                        resource_name(is_new && left->documents <= 0 ? RESOURCE_DOCUMENTS : RESOURCE_BYTES), NULL, 1);
        return false;
    }
    if (left->documents != INT64_MAX)
        left->documents -= is_new;
    if (left->bytes != INT64_MAX && more_bytes > 0)
        left->bytes -= more_bytes;
    return true;
}

const char *room_sentence(struct scope *sc, const struct room *room)
{
    if (room->left_out == 0)
        return NULL;
    scoped_text t = {0};
    text_printf(&t, "%lld file%s left out, as your limit", (long long)room->left_out,
                room->left_out == 1 ? " was" : "s were");
    if (room->left.document_limit >= 0)
        text_printf(&t, " of %lld documents", (long long)room->left.document_limit);
    if (room->left.byte_limit >= 0)
        text_printf(&t, "%s of %lld bytes", room->left.document_limit >= 0 ? " or" : "",
                    (long long)room->left.byte_limit);
    text_puts(&t, " would have been passed; remove documents or ask an administrator for more, then add the source "
                  "again");
    return arena_strdup(&sc->arena, text_str(&t));
}
