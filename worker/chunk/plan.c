#include "worker/chunk/plan.h"

#include "worker/embed/model.h"

#include <string.h>

static void choose_sizes(const struct chunk_wishes *wishes, const struct settings *settings,
                         const struct embed_model *model, struct chunk_plan *out)
{
    size_t size = (size_t)(wishes->size > 0 ? wishes->size : settings->default_chunk_size);
    size_t overlap = (size_t)(wishes->overlap >= 0 ? wishes->overlap : settings->default_chunk_overlap);
    if (wishes->overlap < 0 && overlap > size / 2) /* nobody asked for that much */
        overlap = size / 5;
    if (chunk_fit((size_t)model->max_tokens - 2, &size, &overlap))
        out->note =
            "chunk_size was larger than what the model reads; its limit was used, and the overlap in proportion";
    out->options.size = size;
    out->options.overlap = overlap;
}

static void choose_keys(struct scope *sc, const struct chunk_wishes *wishes, struct chunk_plan *out)
{
    const char *json = wishes->config_json;
    if (json && json_parse(sc, json, strlen(json), &out->config) != STATUS_OK)
        out->config = NULL;
    scope_forgive(sc);
    enum status s = chunking_read(sc, out->options.strategy, out->config, &out->options.config);
    if (s != STATUS_OK && !out->note)
        out->note = arena_printf(&sc->arena, "%s; the default was used", sc->problem_text);
    scope_forgive(sc);
}

void chunk_plan_make(struct scope *sc, const struct chunk_wishes *wishes, const struct settings *settings,
                     const struct embed_model *model, struct chunk_plan *out)
{
    *out = (struct chunk_plan){.options = {.strategy = wishes->strategy ? wishes->strategy : "recursive"}};
    choose_sizes(wishes, settings, model, out);
    choose_keys(sc, wishes, out);
}

void chunk_plan_done(struct chunk_plan *plan)
{
    cJSON_Delete(plan->config);
    plan->config = NULL;
}

static size_t model_spans(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out)
{
    const struct embed_model *model = context;
    struct token_span *spans = NULL;
    size_t count = 0;
    tokenizer_encode_spans(model->tokenizer, text, len, &spans, &count);
    struct token_span *kept = arena_array(&sc->arena, count + 1, sizeof *kept);
    if (count > 0)
        memcpy(kept, spans, count * sizeof *kept);
    free(spans);
    *out = kept;
    return count;
}

struct token_counter chunk_counter(struct embed_model *model)
{
    return (struct token_counter){.spans = model_spans, .context = model};
}
