#include "worker/embed/backend.h"

bool embed_batch_is_valid(const struct bert_model *m, const struct embed_batch *batch)
{
    if (batch->count < 0 || batch->offsets[0] != 0)
        return false;
    for (int s = 0; s < batch->count; s++) {
        int64_t n = (int64_t)batch->offsets[s + 1] - batch->offsets[s];
        if (n < 1 || n > m->max_positions)
            return false;
    }
    for (int i = 0; i < batch->offsets[batch->count]; i++) {
        if (batch->ids[i] < 0 || batch->ids[i] >= m->vocab)
            return false;
    }
    return true;
}
