#include "worker/embed/model.h"

#include "common/json.h"
#include "worker/embed/safetensors.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>

enum { LARGEST_CONFIG_BYTES = 4 << 20, MOST_LAYERS = 128 };

struct model_memory {
    struct arena arena;
    struct safetensors *weights;
    struct bert_layer layers[MOST_LAYERS];
    float **converted; /* fp32 copies of reduced weights */
    size_t converted_count;
};

/* What opening a model carries along: the first problem ends it. */
struct opening {
    struct embed_model *m;
    const char *folder;
    char *error;
    size_t error_size;
};

static bool refuse(struct opening *o, const char *format, ...) printf_like(2, 3);
static bool refuse(struct opening *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(o->error, o->error_size, format, args);
    va_end(args);
    return false;
}

/* NULL when the file is not there; a damaged one is refused (*out_bad). */
static cJSON *read_json(struct opening *o, const char *name, bool *out_bad)
{
    char path[1024];
    *out_bad = false;
    snprintf(path, sizeof path, "%s/%s", o->folder, name);
    FILE *f = fopen(path, "rbe");
    if (!f && errno == ENOENT)
        return NULL;
    if (!f) {
        *out_bad = true;
        refuse(o, "%s: %s", name, strerror(errno));
        return NULL;
    }
    scoped_text t = {.max_len = LARGEST_CONFIG_BYTES};
    char buffer[16384];
    for (size_t n; !t.is_cut && (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
        text_append(&t, buffer, n);
    fclose(f);
    struct scope sc;
    scope_init(&sc, NULL);
    cJSON *json = NULL;
    if (t.is_cut || json_parse(&sc, text_str(&t), t.len, &json) != STATUS_OK) {
        *out_bad = true;
        refuse(o, "%s is not JSON: %s", name, sc.problem_text ? sc.problem_text : "too large");
    }
    scope_done(&sc);
    return json;
}

static bool read_size(struct opening *o, const cJSON *config, const char *name, int largest, int *out)
{
    int64_t n = json_get_int(config, name, 0);
    if (n < 1 || n > largest)
        return refuse(o, "config.json: %s must be between 1 and %d", name, largest);
    *out = (int)n;
    return true;
}

static bool read_config(struct opening *o)
{
    bool is_bad;
    scoped(cJSON) *config = read_json(o, "config.json", &is_bad);
    if (!config)
        return is_bad ? false : refuse(o, "there is no config.json");
    struct bert_model *b = &o->m->bert;
    const char *type = json_get_text(config, "model_type", "");
    if (strcmp(type, "bert") != 0)
        return refuse(o, "config.json: model_type is '%s'; only bert is known", type);
    if (strcmp(json_get_text(config, "hidden_act", "gelu"), "gelu") != 0)
        return refuse(o, "config.json: hidden_act is not gelu");
    if (strcmp(json_get_text(config, "position_embedding_type", "absolute"), "absolute") != 0)
        return refuse(o, "config.json: position_embedding_type is not absolute");
    if (!read_size(o, config, "num_hidden_layers", MOST_LAYERS, &b->layers) ||
        !read_size(o, config, "hidden_size", 16384, &b->hidden) ||
        !read_size(o, config, "num_attention_heads", 1024, &b->heads) ||
        !read_size(o, config, "intermediate_size", 65536, &b->ffn) ||
        !read_size(o, config, "vocab_size", 1 << 22, &b->vocab) ||
        !read_size(o, config, "max_position_embeddings", 1 << 17, &b->max_positions))
        return false;
    if (b->hidden % b->heads != 0)
        return refuse(o, "config.json: hidden_size is no multiple of num_attention_heads");
    b->norm_epsilon = (float)json_get_real(config, "layer_norm_eps", 1e-12);
    if (!(b->norm_epsilon > 0 && b->norm_epsilon < 1))
        return refuse(o, "config.json: layer_norm_eps must be between 0 and 1");
    o->m->dim = b->hidden;
    return true;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool read_pooling(struct opening *o, const char *folder)
{
    char name[300];
    bool is_bad;
    snprintf(name, sizeof name, "%.255s/config.json", folder);
    scoped(cJSON) *config = read_json(o, name, &is_bad);
    if (!config)
        return is_bad ? false : refuse(o, "there is no %s", name);
    static const char *const others[] = {"pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens",
                                         "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"};
    for (size_t i = 0; i < array_len(others); i++) {
        if (json_get_bool(config, others[i], false))
            return refuse(o, "%s: %s is not known", name, others[i]);
    }
    bool is_mean = json_get_bool(config, "pooling_mode_mean_tokens", false);
    if (is_mean == json_get_bool(config, "pooling_mode_cls_token", false))
        return refuse(o, "%s: exactly one of mean and cls pooling is known", name);
    o->m->bert.pooling = is_mean ? EMBED_POOLING_MEAN : EMBED_POOLING_CLS;
    return true;
}

/* A module's folder is one below the model's, never elsewhere. */
static bool is_plain_name(const char *path)
{
    return *path && *path != '.' && !strchr(path, '/') && strlen(path) <= 255;
}

/* Transformer, Pooling and, if vectors have length 1, Normalize: each once, in this order. The last has no folder. */
static bool read_modules(struct opening *o)
{
    bool is_bad;
    scoped(cJSON) *modules = read_json(o, "modules.json", &is_bad);
    if (!modules)
        return is_bad ? false : refuse(o, "there is no modules.json: not a sentence-transformers folder");
    static const char *const order[] = {".Transformer", ".Pooling", ".Normalize"};
    size_t count = 0;
    for (const cJSON *m = cJSON_IsArray(modules) ? modules->child : NULL; m; m = m->next, count++) {
        const char *type = json_get_text(m, "type", ""), *path = json_get_text(m, "path", "1_Pooling");
        if (count == array_len(order) || !ends_with(type, order[count]))
            return refuse(o, "modules.json: %.100s as module %zu is not known: Transformer, Pooling, Normalize are",
                          type, count + 1);
        if (count == 1 && !is_plain_name(path))
            return refuse(o, "modules.json: the pooling's path is not a folder's name");
        if (count == 1 && !read_pooling(o, path))
            return false;
    }
    o->m->bert.normalise = count == array_len(order);
    return count >= 2 ? true : refuse(o, "modules.json: there is no pooling");
}

static bool read_sentence_config(struct opening *o)
{
    bool is_bad;
    scoped(cJSON) *config = read_json(o, "sentence_bert_config.json", &is_bad);
    if (is_bad)
        return false;
    int64_t most = json_get_int(config, "max_seq_length", o->m->bert.max_positions);
    if (most < 3 || most > o->m->bert.max_positions)
        return refuse(o, "sentence_bert_config.json: max_seq_length must be between 3 and %d",
                      o->m->bert.max_positions);
    o->m->max_tokens = (int)most;
    scoped(cJSON) *prompts_file = read_json(o, "config_sentence_transformers.json", &is_bad);
    if (is_bad)
        return false;
    const cJSON *prompts = cJSON_GetObjectItemCaseSensitive(prompts_file, "prompts");
    struct arena *a = &o->m->memory->arena;
    o->m->query_prefix = arena_strdup(a, json_get_text(prompts, "query", ""));
    o->m->passage_prefix = arena_strdup(a, json_get_text(prompts, "passage", json_get_text(prompts, "document", "")));
    return true;
}

/* ---- weights ---- */

static const float *as_floats(struct model_memory *mem, const struct tensor *t)
{
    /* Offsets need not be aligned in a file that somebody made by hand: such weights are copied. */
    if (t->type == TENSOR_F32 && (uintptr_t)t->bytes % sizeof(float) == 0)
        return t->bytes;
    float *out = must_malloc((size_t)t->count * sizeof *out);
    mem->converted = must_realloc(mem->converted, (mem->converted_count + 1) * sizeof *mem->converted);
    mem->converted[mem->converted_count++] = out;
    for (int64_t i = 0; i < t->count; i++) {
        uint16_t half;
        uint32_t bits;
        if (t->type == TENSOR_F32) {
            memcpy(&out[i], (const char *)t->bytes + i * 4, sizeof(float));
            continue;
        }
        memcpy(&half, (const char *)t->bytes + i * 2, sizeof half);
        bits = (uint32_t)half << 16;
        if (t->type == TENSOR_F16)
            out[i] = float_from_half(half);
        else
            memcpy(&out[i], &bits, sizeof bits);
    }
    return out;
}

/* `columns` 0 = a vector of `rows`. Names may carry the prefix "bert.". */
static const float *weights(struct opening *o, const char *name, int64_t rows, int64_t columns)
{
    struct model_memory *mem = o->m->memory;
    struct tensor t;
    char prefixed[160];
    snprintf(prefixed, sizeof prefixed, "bert.%s", name);
    if (safetensors_find(mem->weights, name, &t) != 0 && safetensors_find(mem->weights, prefixed, &t) != 0) {
        refuse(o, "model.safetensors: %s is missing or damaged", name);
        return NULL;
    }
    bool fits = columns ? t.dims == 2 && t.shape[0] == rows && t.shape[1] == columns
                        : t.dims == 1 && t.shape[0] == rows;
    if (!fits) {
        refuse(o, "model.safetensors: %s has another shape than config.json says", name);
        return NULL;
    }
    return as_floats(mem, &t);
}

static bool read_layer(struct opening *o, int i)
{
    const struct bert_model *b = &o->m->bert;
    struct bert_layer *l = &o->m->memory->layers[i];
    int64_t h = b->hidden, f = b->ffn;
    const struct {
        const float **into;
        const char *name;
        int64_t rows, columns;
    } list[] = {
        {&l->query_w, "attention.self.query.weight", h, h},
        {&l->query_b, "attention.self.query.bias", h, 0},
        {&l->key_w, "attention.self.key.weight", h, h},
        {&l->key_b, "attention.self.key.bias", h, 0},
        {&l->value_w, "attention.self.value.weight", h, h},
        {&l->value_b, "attention.self.value.bias", h, 0},
        {&l->attention_out_w, "attention.output.dense.weight", h, h},
        {&l->attention_out_b, "attention.output.dense.bias", h, 0},
        {&l->attention_norm_w, "attention.output.LayerNorm.weight", h, 0},
        {&l->attention_norm_b, "attention.output.LayerNorm.bias", h, 0},
        {&l->up_w, "intermediate.dense.weight", f, h},
        {&l->up_b, "intermediate.dense.bias", f, 0},
        {&l->down_w, "output.dense.weight", h, f},
        {&l->down_b, "output.dense.bias", h, 0},
        {&l->output_norm_w, "output.LayerNorm.weight", h, 0},
        {&l->output_norm_b, "output.LayerNorm.bias", h, 0},
    };
    for (size_t k = 0; k < array_len(list); k++) {
        char name[128];
        snprintf(name, sizeof name, "encoder.layer.%d.%s", i, list[k].name);
        *list[k].into = weights(o, name, list[k].rows, list[k].columns);
        if (!*list[k].into)
            return false;
    }
    return true;
}

static bool read_weights(struct opening *o)
{
    struct bert_model *b = &o->m->bert;
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", o->folder);
    o->m->memory->weights = safetensors_open(path, o->error, o->error_size);
    if (!o->m->memory->weights)
        return false;
    struct tensor types;
    if (safetensors_find(o->m->memory->weights, "embeddings.token_type_embeddings.weight", &types) != 0 &&
        safetensors_find(o->m->memory->weights, "bert.embeddings.token_type_embeddings.weight", &types) != 0)
        return refuse(o, "model.safetensors: embeddings.token_type_embeddings.weight is missing or damaged");
    b->word_embeddings = weights(o, "embeddings.word_embeddings.weight", b->vocab, b->hidden);
    b->position_embeddings = weights(o, "embeddings.position_embeddings.weight", b->max_positions, b->hidden);
    b->type_embeddings = weights(o, "embeddings.token_type_embeddings.weight", types.shape[0], b->hidden);
    b->embeddings_norm_w = weights(o, "embeddings.LayerNorm.weight", b->hidden, 0);
    b->embeddings_norm_b = weights(o, "embeddings.LayerNorm.bias", b->hidden, 0);
    if (!b->word_embeddings || !b->position_embeddings || !b->type_embeddings || !b->embeddings_norm_w ||
        !b->embeddings_norm_b)
        return false;
    b->layer = o->m->memory->layers;
    for (int i = 0; i < b->layers; i++) {
        if (!read_layer(o, i))
            return false;
    }
    return true;
}

static bool read_tokenizer(struct opening *o)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/tokenizer.json", o->folder);
    o->m->tokenizer = tokenizer_open(path, o->error, o->error_size);
    if (!o->m->tokenizer)
        return false;
    if (tokenizer_vocab_size(o->m->tokenizer) > o->m->bert.vocab)
        return refuse(o, "tokenizer.json has more tokens than the model has embeddings");
    return true;
}

struct embed_model *embed_model_open(const char *folder, char *error, size_t error_size)
{
    struct embed_model *m = must_calloc(1, sizeof *m);
    m->memory = must_calloc(1, sizeof *m->memory);
    char *copy = must_strdup(folder);
    m->name = must_strdup(basename(copy));
    free(copy);
    struct opening o = {m, folder, error, error_size};
    if (read_config(&o) && read_modules(&o) && read_sentence_config(&o) && read_tokenizer(&o) && read_weights(&o))
        return m;
    embed_model_close(m);
    return NULL;
}

void embed_model_close(struct embed_model *m)
{
    if (!m)
        return;
    tokenizer_close(m->tokenizer);
    for (size_t i = 0; i < m->memory->converted_count; i++)
        free(m->memory->converted[i]);
    free(m->memory->converted);
    safetensors_close(m->memory->weights);
    arena_reset(&m->memory->arena);
    free(m->memory);
    free(m->name);
    free(m);
}
