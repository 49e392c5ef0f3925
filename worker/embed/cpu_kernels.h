/* The arithmetic of the cpu backend, compiled once for each instruction set: cpu.c includes this file with KERNEL (the
 * target attribute), NAME() (the suffix), MR and NV set. A vector `v16` is 16 floats; the compiler lowers it to what
 * the target has. */

typedef float v16 __attribute__((vector_size(64), aligned(4)));
typedef int32_t i16 __attribute__((vector_size(64), aligned(4)));

#define INLINE static inline KERNEL __attribute__((always_inline))
#define NR (16 * NV) /* columns of a panel of packed weights */

INLINE v16 NAME(load)(const float *p)
{
    v16 v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

INLINE void NAME(store)(float *p, v16 v)
{
    __builtin_memcpy(p, &v, sizeof v);
}

INLINE v16 NAME(all)(float f)
{
    return (v16){f, f, f, f, f, f, f, f, f, f, f, f, f, f, f, f};
}

INLINE float NAME(sum)(v16 v)
{
    float s = 0;
    for (int i = 0; i < 16; i++)
        s += v[i];
    return s;
}

INLINE v16 NAME(pick)(i16 mask, v16 yes, v16 no)
{
    return (v16)((mask & (i16)yes) | (~mask & (i16)no));
}

/* e^x to about 2 units in the last place (the polynomial is that of Cephes' expf); clamped to ±87. */
INLINE v16 NAME(exp)(v16 x)
{
    x = NAME(pick)(x < NAME(all)(-87.0f), NAME(all)(-87.0f), x);
    x = NAME(pick)(x > NAME(all)(87.0f), NAME(all)(87.0f), x);
    v16 n = x * 1.44269504088896341f + 12582912.0f; /* rounds to an integer */
    n -= 12582912.0f;
    v16 r = x - n * 0.693359375f;
    r -= n * -2.12194440e-4f;
    v16 p = NAME(all)(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    i16 power = (__builtin_convertvector(n, i16) + 127) << 23;
    return p * (v16)power;
}

/* x/2 (1 + erf(x/√2)); erf by Abramowitz and Stegun 7.1.26, off by at most 1.5e-7. */
INLINE v16 NAME(gelu)(v16 x)
{
    v16 z = x * 0.70710678118654752f;
    v16 a = NAME(pick)(z < NAME(all)(0.0f), -z, z);
    v16 t = 1.0f / (a * 0.3275911f + 1.0f);
    v16 p = NAME(all)(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    v16 erf = 1.0f - p * t * NAME(exp)(-a * a);
    erf = NAME(pick)(z < NAME(all)(0.0f), -erf, erf);
    return x * 0.5f * (1.0f + erf);
}

static KERNEL void NAME(gelu_rows)(float *x, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        NAME(store)(x + i, NAME(gelu)(NAME(load)(x + i)));
    for (; i < n; i++) {
        v16 v = NAME(gelu)(NAME(all)(x[i]));
        x[i] = v[0];
    }
}

/* c[rows][NR] = a[rows][k] · panel[k][NR] + bias; `rows` is a constant at each call, so all sums stay in registers. */
INLINE void NAME(tile)(const int rows, const float *a, size_t lda, const float *panel, const float *bias, int k,
                       float *c, size_t ldc)
{
    v16 sums[MR][NV];
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < NV; j++)
            sums[i][j] = NAME(load)(bias + 16 * j);
    }
    for (int p = 0; p < k; p++) {
        v16 b[NV];
        for (int j = 0; j < NV; j++)
            b[j] = NAME(load)(panel + (size_t)p * NR + 16 * j);
        for (int i = 0; i < rows; i++) {
            v16 x = NAME(all)(a[(size_t)i * lda + (size_t)p]);
            for (int j = 0; j < NV; j++)
                sums[i][j] += x * b[j];
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < NV; j++)
            NAME(store)(c + (size_t)i * ldc + 16 * j, sums[i][j]);
    }
}

static KERNEL void NAME(tiles)(int rows, const float *a, size_t lda, const float *panel, const float *bias, int k,
                               float *c, size_t ldc)
{
    for (; rows >= MR; rows -= MR, a += MR * lda, c += MR * ldc)
        NAME(tile)(MR, a, lda, panel, bias, k, c, ldc);
    for (; rows >= 4 && MR > 4; rows -= 4, a += 4 * lda, c += 4 * ldc)
        NAME(tile)(4, a, lda, panel, bias, k, c, ldc);
    for (; rows >= 1; rows--, a += lda, c += ldc)
        NAME(tile)(1, a, lda, panel, bias, k, c, ldc);
}

/* y[rows][n] = x[rows][k] · wᵀ + b, with w packed by pack(). A panel is used for all rows while it is in cache. */
static KERNEL void NAME(linear)(const struct packed *w, const float *x, int rows, float *y)
{
    float edge[ROW_TILE * NR];
    for (int column = 0, p = 0; column < w->n; column += NR, p++) {
        const float *panel = w->panels + (size_t)p * (size_t)w->k * NR, *bias = w->bias + column;
        if (column + NR <= w->n) {
            NAME(tiles)(rows, x, (size_t)w->k, panel, bias, w->k, y + column, (size_t)w->n);
            continue;
        }
        for (int from = 0; from < rows; from += ROW_TILE) { /* the last panel is padded: through a buffer */
            int count = rows - from < ROW_TILE ? rows - from : ROW_TILE;
            NAME(tiles)(count, x + (size_t)from * (size_t)w->k, (size_t)w->k, panel, bias, w->k, edge, NR);
            for (int i = 0; i < count; i++)
                memcpy(y + (size_t)(from + i) * (size_t)w->n + column, edge + (size_t)i * NR,
                       (size_t)(w->n - column) * sizeof(float));
        }
    }
}

/* x[rows][h] += y (NULL = nothing), then each row to mean 0, variance 1, scaled and shifted. */
static KERNEL void NAME(add_norm)(float *x, const float *y, const float *w, const float *b, float epsilon, int rows,
                                  int h)
{
    for (int i = 0; i < rows; i++) {
        float *row = x + (size_t)i * (size_t)h;
        const float *other = y ? y + (size_t)i * (size_t)h : NULL;
        v16 sums = NAME(all)(0), squares = NAME(all)(0);
        float sum = 0, square = 0;
        int k = 0;
        for (; k + 16 <= h; k += 16) {
            v16 v = NAME(load)(row + k);
            if (other)
                v += NAME(load)(other + k);
            NAME(store)(row + k, v);
            sums += v;
        }
        for (; k < h; k++) {
            row[k] += other ? other[k] : 0;
            sum += row[k];
        }
        float mean = (sum + NAME(sum)(sums)) / (float)h;
        for (k = 0; k + 16 <= h; k += 16) {
            v16 v = NAME(load)(row + k) - mean;
            squares += v * v;
        }
        for (; k < h; k++)
            square += (row[k] - mean) * (row[k] - mean);
        float scale = 1 / sqrtf((square + NAME(sum)(squares)) / (float)h + epsilon);
        for (k = 0; k + 16 <= h; k += 16)
            NAME(store)(row + k, (NAME(load)(row + k) - mean) * scale * NAME(load)(w + k) + NAME(load)(b + k));
        for (; k < h; k++)
            row[k] = (row[k] - mean) * scale * w[k] + b[k];
    }
}

/* In place; `n` values, room up to the next multiple of 16. Returns 1 / the sum of what stands there afterwards. */
INLINE float NAME(softmax)(float *s, int n)
{
    float largest = s[0];
    for (int j = 1; j < n; j++)
        largest = s[j] > largest ? s[j] : largest;
    int padded = (n + 15) & ~15;
    for (int j = n; j < padded; j++)
        s[j] = -1e30f;
    v16 sums = NAME(all)(0);
    for (int j = 0; j < padded; j += 16) {
        v16 e = NAME(exp)(NAME(load)(s + j) - largest);
        NAME(store)(s + j, e);
        sums += e;
    }
    for (int j = n; j < padded; j++)
        sums[j & 15] -= s[j];
    return 1 / NAME(sum)(sums);
}

enum { NAME(QUERIES) = 4 };

/* `rows` queries of one head at once: scores against all keys, softmax, weighted sum of values. keys[d][padded] is
 * transposed. */
INLINE void NAME(attend)(const int rows, const float *q, size_t ldq, const float *keys, int padded, const float *values,
                         size_t ldv, int t, int d, float scale, float *scores, float *out, size_t ldo)
{
    float inverse[NAME(QUERIES)];
    for (int j = 0; j < padded; j += 16) {
        v16 sums[NAME(QUERIES)];
        for (int i = 0; i < rows; i++)
            sums[i] = NAME(all)(0);
        for (int c = 0; c < d; c++) {
            v16 key = NAME(load)(keys + (size_t)c * (size_t)padded + j);
            for (int i = 0; i < rows; i++)
                sums[i] += q[(size_t)i * ldq + (size_t)c] * key;
        }
        for (int i = 0; i < rows; i++)
            NAME(store)(scores + (size_t)i * (size_t)padded + j, sums[i] * scale);
    }
    for (int i = 0; i < rows; i++)
        inverse[i] = NAME(softmax)(scores + (size_t)i * (size_t)padded, t);
    int c = 0;
    for (; c + 16 <= d; c += 16) {
        v16 sums[NAME(QUERIES)];
        for (int i = 0; i < rows; i++)
            sums[i] = NAME(all)(0);
        for (int j = 0; j < t; j++) {
            v16 value = NAME(load)(values + (size_t)j * ldv + c);
            for (int i = 0; i < rows; i++)
                sums[i] += scores[(size_t)i * (size_t)padded + j] * value;
        }
        for (int i = 0; i < rows; i++)
            NAME(store)(out + (size_t)i * ldo + c, sums[i] * inverse[i]);
    }
    for (; c < d; c++) {
        for (int i = 0; i < rows; i++) {
            float sum = 0;
            for (int j = 0; j < t; j++)
                sum += scores[(size_t)i * (size_t)padded + j] * values[(size_t)j * ldv + c];
            out[(size_t)i * ldo + c] = sum * inverse[i];
        }
    }
}

/* out[t][h] from qkv[t][3h] of one sequence; `room`: (d + QUERIES) * padded floats. */
static KERNEL void NAME(attention)(const float *qkv, int t, int h, int heads, float *room, float *out)
{
    int d = h / heads, padded = (t + 15) & ~15;
    size_t ld = 3 * (size_t)h;
    float scale = 1 / sqrtf((float)d), *keys = room, *scores = room + (size_t)d * (size_t)padded;
    for (int head = 0; head < heads; head++) {
        const float *q = qkv + head * d, *k = q + h, *v = k + h;
        for (int c = 0; c < d; c++) {
            for (int j = 0; j < padded; j++)
                keys[(size_t)c * (size_t)padded + j] = j < t ? k[(size_t)j * ld + c] : 0;
        }
        int i = 0;
        /* clang-format off */
        for (; i + NAME(QUERIES) <= t; i += NAME(QUERIES))
            NAME(attend)(NAME(QUERIES), q + (size_t)i * ld, ld, keys, padded, v, ld, t, d, scale, scores, out + (size_t)i * (size_t)h + head * d, (size_t)h);
        for (; i < t; i++)
            NAME(attend)(1, q + (size_t)i * ld, ld, keys, padded, v, ld, t, d, scale, scores, out + (size_t)i * (size_t)h + head * d, (size_t)h);
        /* clang-format on */
    }
}

static const struct kernels NAME(kernels) = {
    .name = KERNEL_NAME,
    .columns = NR,
    .linear = NAME(linear),
    .gelu = NAME(gelu_rows),
    .add_norm = NAME(add_norm),
    .attention = NAME(attention),
};

#undef INLINE
#undef NR
#undef KERNEL
#undef KERNEL_NAME
#undef NAME
#undef MR
#undef NV
