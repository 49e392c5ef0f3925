/* The yardstick: a BERT encoder in plain C, one function a step, shapes in comments. t = tokens of one sequence, h =
 * hidden, f = ffn, d = h / heads. (Devlin et al. 2018; post-norm, erf GELU, as in the transformers library.) */
#include "common/arena.h"
#include "worker/embed/backend.h"

#include <math.h>
#include <string.h>

struct embed_backend {
    const struct bert_model *model;
};

/* y[t][out] = x[t][in] · w[out][in]ᵀ + b[out] */
static void linear(const float *x, const float *w, const float *b, int t, int in, int out, float *y)
{
    for (int i = 0; i < t; i++) {
        for (int o = 0; o < out; o++) {
            double sum = b[o];
            for (int k = 0; k < in; k++)
                sum += (double)x[(size_t)i * in + k] * w[(size_t)o * in + k];
            y[(size_t)i * out + o] = (float)sum;
        }
    }
}

/* Each row of x[t][h] to mean 0 and (population) variance 1, then scaled and shifted. */
static void layer_norm(float *x, const float *w, const float *b, float epsilon, int t, int h)
{
    for (int i = 0; i < t; i++) {
        float *row = x + (size_t)i * h;
        double mean = 0, variance = 0;
        for (int k = 0; k < h; k++)
            mean += row[k];
        mean /= h;
        for (int k = 0; k < h; k++)
            variance += (row[k] - mean) * (row[k] - mean);
        double scale = 1 / sqrt(variance / h + epsilon);
        for (int k = 0; k < h; k++)
            row[k] = (float)((row[k] - mean) * scale * w[k] + b[k]);
    }
}

/* x[t][h] = word[id] + position[i] + type[0], normalised */
static void embeddings(const struct bert_model *m, const int32_t *ids, int t, float *x)
{
    int h = m->hidden;
    for (int i = 0; i < t; i++) {
        for (int k = 0; k < h; k++)
            x[(size_t)i * h + k] = m->word_embeddings[(size_t)ids[i] * h + k] +
                                   m->position_embeddings[(size_t)i * h + k] + m->type_embeddings[k];
    }
    layer_norm(x, m->embeddings_norm_w, m->embeddings_norm_b, m->norm_epsilon, t, h);
}

static void softmax(double *row, int n)
{
    double largest = row[0], sum = 0;
    for (int i = 1; i < n; i++)
        largest = row[i] > largest ? row[i] : largest;
    for (int i = 0; i < n; i++)
        sum += row[i] = exp(row[i] - largest);
    for (int i = 0; i < n; i++)
        row[i] /= sum;
}

/* out[t][h]: for each head, softmax(q kᵀ / √d) v over the sequence's own tokens; q, k, v are [t][h], a head is d
 * columns. */
static void attention(const float *q, const float *k, const float *v, int t, int h, int heads, double *scores,
                      float *out)
{
    int d = h / heads;
    for (int head = 0; head < heads; head++) {
        for (int i = 0; i < t; i++) {
            for (int j = 0; j < t; j++) {
                double sum = 0;
                for (int c = head * d; c < (head + 1) * d; c++)
                    sum += (double)q[(size_t)i * h + c] * k[(size_t)j * h + c];
                scores[j] = sum / sqrt(d);
            }
            softmax(scores, t);
            for (int c = head * d; c < (head + 1) * d; c++) {
                double sum = 0;
                for (int j = 0; j < t; j++)
                    sum += scores[j] * v[(size_t)j * h + c];
                out[(size_t)i * h + c] = (float)sum;
            }
        }
    }
}

static void gelu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(0.5 * x[i] * (1 + erf(x[i] / sqrt(2))));
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* One layer on x[t][h]; room for q, k, v, a (each [t][h]) and up [t][f]. */
static void layer(const struct bert_model *m, const struct bert_layer *l, float *x, int t, float *room, double *scores)
{
    int h = m->hidden;
    size_t n = (size_t)t * h;
    float *q = room, *k = q + n, *v = k + n, *a = v + n, *up = a + n;
    linear(x, l->query_w, l->query_b, t, h, h, q);
    linear(x, l->key_w, l->key_b, t, h, h, k);
    linear(x, l->value_w, l->value_b, t, h, h, v);
    attention(q, k, v, t, h, m->heads, scores, a);
    linear(a, l->attention_out_w, l->attention_out_b, t, h, h, q);
    add(x, q, n);
    layer_norm(x, l->attention_norm_w, l->attention_norm_b, m->norm_epsilon, t, h);
    linear(x, l->up_w, l->up_b, t, h, m->ffn, up);
    gelu(up, (size_t)t * m->ffn);
    linear(up, l->down_w, l->down_b, t, m->ffn, h, q);
    add(x, q, n);
    layer_norm(x, l->output_norm_w, l->output_norm_b, m->norm_epsilon, t, h);
}

/* vector[h] of x[t][h]: the mean of all tokens or the first one's row, divided by its L2 norm. */
static void pool(const struct bert_model *m, const float *x, int t, float *vector)
{
    int h = m->hidden;
    double norm = 0;
    for (int k = 0; k < h; k++) {
        double sum = 0;
        for (int i = 0; i < t; i++)
            sum += x[(size_t)i * h + k];
        vector[k] = m->pooling == EMBED_POOLING_MEAN ? (float)(sum / t) : x[k];
        norm += (double)vector[k] * vector[k];
    }
    if (m->normalise && norm > 0) {
        for (int k = 0; k < h; k++)
            vector[k] = (float)(vector[k] / sqrt(norm));
    }
}

static enum embed_result run(struct embed_backend *backend, const struct embed_batch *batch, float *vectors)
{
    const struct bert_model *m = backend->model;
    if (!embed_batch_is_valid(m, batch))
        return EMBED_BAD_INPUT;
    for (int s = 0; s < batch->count; s++) {
        int t = batch->offsets[s + 1] - batch->offsets[s];
        float *x = must_malloc((size_t)t * (size_t)(5 * m->hidden + m->ffn) * sizeof *x);
        double *scores = must_malloc((size_t)t * sizeof *scores);
        embeddings(m, batch->ids + batch->offsets[s], t, x);
        for (int i = 0; i < m->layers; i++)
            layer(m, &m->layer[i], x, t, x + (size_t)t * m->hidden, scores);
        pool(m, x, t, vectors + (size_t)s * m->hidden);
        free(scores);
        free(x);
    }
    return EMBED_OK;
}

static struct embed_backend *open_backend(const struct bert_model *model, int device, int threads, char *error,
                                          size_t error_size)
{
    (void)device;
    (void)threads;
    (void)error;
    (void)error_size;
    struct embed_backend *b = must_calloc(1, sizeof *b);
    b->model = model;
    return b;
}

static int device_count(void)
{
    return 1;
}

static const char *device_name(const struct embed_backend *backend)
{
    (void)backend;
    return "plain C";
}

static void close_backend(struct embed_backend *backend)
{
    free(backend);
}

const struct embed_backend_api *embed_backend_reference(void)
{
    static const struct embed_backend_api api = {EMBED_BACKEND_ABI, "reference",   device_count, open_backend, run,
                                                 device_name,       close_backend, NULL};
    return &api;
}
