/* Compiled once for each instruction set: matrix.c includes this file with KERNEL (the target attribute) and NAME()
 * (the suffix) set. */

static KERNEL void NAME(dots)(const float *a, const float *b, size_t step, size_t count, size_t len, float *out)
{
    size_t i = 0;
    for (; i + 4 <= count; i += 4, b += 4 * step) {
        v16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (size_t k = 0; k < len; k += 16) {
            v16 x = load(a + k);
            s0 += x * load(b + k);
            s1 += x * load(b + step + k);
            s2 += x * load(b + 2 * step + k);
            s3 += x * load(b + 3 * step + k);
        }
        out[i] = sum(&s0);
        out[i + 1] = sum(&s1);
        out[i + 2] = sum(&s2);
        out[i + 3] = sum(&s3);
    }
    for (; i < count; i++, b += step) {
        v16 s = {0};
        for (size_t k = 0; k < len; k += 16)
            s += load(a + k) * load(b + k);
        out[i] = sum(&s);
    }
}

static KERNEL float NAME(distance2)(const float *a, const float *b, size_t len)
{
    v16 s = {0};
    for (size_t k = 0; k < len; k += 16) {
        v16 x = load(a + k) - load(b + k);
        s += x * x;
    }
    return sum(&s);
}

#undef KERNEL
#undef NAME
