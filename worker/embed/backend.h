/* What computes vectors from token ids: one interface, several backends (reference, cpu, cuda).
 *
 * Sequences come packed, without padding: `ids` holds the tokens of all sequences one after another and
 * `offsets[i] .. offsets[i + 1]` are those of sequence i. Positions restart at 0 in each sequence. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMBED_BACKEND_ABI 2

/* Shapes of a BERT encoder and pointers to its weights: row-major fp32, matrices as [out][in], as PyTorch stores them.
 * The pointers stay valid for the life of the backend. */
struct bert_layer {
    const float *query_w, *query_b; /* [hidden][hidden], [hidden] */
    const float *key_w, *key_b;
    const float *value_w, *value_b;
    const float *attention_out_w, *attention_out_b;
    const float *attention_norm_w, *attention_norm_b; /* [hidden] */
    const float *up_w, *up_b;                         /* [ffn][hidden], [ffn] */
    const float *down_w, *down_b;                     /* [hidden][ffn], [hidden] */
    const float *output_norm_w, *output_norm_b;
};

enum embed_pooling { EMBED_POOLING_MEAN, EMBED_POOLING_CLS };

struct bert_model {
    int layers, hidden, heads, ffn, vocab, max_positions;
    float norm_epsilon;
    enum embed_pooling pooling;
    int normalise;                    /* 1 = divide by the L2 norm */
    const float *word_embeddings;     /* [vocab][hidden] */
    const float *position_embeddings; /* [max_positions][hidden] */
    const float *type_embeddings;     /* [types][hidden]; row 0 is used */
    const float *embeddings_norm_w, *embeddings_norm_b;
    const struct bert_layer *layer; /* [layers] */
};

struct embed_batch {
    const int32_t *ids;     /* [offsets[count]]; every id in 0 .. vocab - 1 */
    const int32_t *offsets; /* [count + 1]; offsets[0] = 0; every sequence has 1 .. max_positions tokens */
    int count;
};

/* Offsets rise, lengths are within max_positions and ids within the vocabulary. Every backend asks this first. */
bool embed_batch_is_valid(const struct bert_model *m, const struct embed_batch *batch);

/* How a run can end. After EMBED_DEVICE_LOST the backend is of no more use: close it, end the process, start anew. */
enum embed_result { EMBED_OK, EMBED_OUT_OF_MEMORY, EMBED_DEVICE_LOST, EMBED_BAD_INPUT };

struct embed_backend; /* state of one backend on one device */

struct embed_backend_api {
    int abi;          /* EMBED_BACKEND_ABI */
    const char *name; /* "reference", "cpu", "cuda" */
    /* How many devices of this kind there are; 0 = cannot be used here (no GPU, no driver). */
    int (*device_count)(void);
    /* Packs or uploads the weights. NULL on failure, with a sentence in error[0..error_size). `threads` <= 0 = all
     * cores. Where device_count() is 0 it always fails, whatever the model (NULL, too), and the sentence says why there
     * is no device. */
    struct embed_backend *(*open)(const struct bert_model *model, int device, int threads, char *error,
                                  size_t error_size);
    /* vectors: [count][hidden] fp32, written only on EMBED_OK. One call at a time per backend. */
    enum embed_result (*run)(struct embed_backend *backend, const struct embed_batch *batch, float *vectors);
    /* Short text such as "NVIDIA H200" or "avx512"; lives as long as the backend. */
    const char *(*device_name)(const struct embed_backend *backend);
    void (*close)(struct embed_backend *backend); /* accepts NULL */
    /* As run, but also while a run of the same backend is in progress in another thread: a small batch (questions) that
     * must not wait for a large one. One such call at a time. NULL = this backend cannot. */
    enum embed_result (*run_beside)(struct embed_backend *backend, const struct embed_batch *batch, float *vectors);
};

/* The one symbol that a plugin (libopstream-cuda.so) exports. */
#define EMBED_PLUGIN_SYMBOL "opstream_embed_backend"
typedef const struct embed_backend_api *(*embed_plugin_entry)(void);

const struct embed_backend_api *embed_backend_reference(void);
const struct embed_backend_api *embed_backend_cpu(void);
/* By name: "reference", "cpu", "cuda" (loads the plugin), or "auto" (cuda if a GPU answers, else cpu). NULL with a
 * sentence if it cannot be had. */
const struct embed_backend_api *embed_backend_choose(const char *name, char *error, size_t error_size);
/* The same; the sentence goes into the log. */
const struct embed_backend_api *embed_backend_find(const char *name);
