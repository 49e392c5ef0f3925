#include "worker/embed/safetensors.h"

#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST_HEADER_BYTES = 64 << 20 };

struct safetensors {
    void *map;
    size_t map_len;
    const unsigned char *data; /* after the header */
    size_t data_len;
    cJSON *header;
};

/* Layout (safetensors' own description): uint64 little-endian length of the JSON header, the header, then the data. */
static const char *read_header(struct safetensors *st)
{
    uint64_t header_len = 0;
    if (st->map_len < 8)
        return "it is shorter than its header";
    for (int i = 7; i >= 0; i--)
        header_len = header_len << 8 | ((const unsigned char *)st->map)[i];
    if (header_len > LARGEST_HEADER_BYTES || header_len > st->map_len - 8)
        return "its header's length is impossible";
    struct scope sc;
    scope_init(&sc, NULL);
    enum status s = json_parse(&sc, (const char *)st->map + 8, header_len, &st->header);
    scope_done(&sc);
    if (s != STATUS_OK || !cJSON_IsObject(st->header))
        return "its header is not a JSON object";
    st->data = (const unsigned char *)st->map + 8 + header_len;
    st->data_len = st->map_len - 8 - header_len;
    return NULL;
}

struct safetensors *safetensors_open(const char *path, char *error, size_t error_size)
{
    struct safetensors *st = must_calloc(1, sizeof *st);
    const char *problem = NULL;
    struct stat info;
    scoped_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe of this name must not hold us up */
    if (fd < 0 || fstat(fd, &info) != 0) {
        problem = strerror(errno);
    } else if (!S_ISREG(info.st_mode) || info.st_size <= 0) {
        problem = "it is no file, or empty";
    } else {
        st->map_len = (size_t)info.st_size;
        st->map = mmap(NULL, st->map_len, PROT_READ, MAP_PRIVATE, fd, 0);
        if (st->map == MAP_FAILED) {
            st->map = NULL;
            problem = "it cannot be mapped";
        } else {
            problem = read_header(st);
        }
    }
    if (!problem)
        return st;
    snprintf(error, error_size, "%s: %s", path, problem);
    safetensors_close(st);
    return NULL;
}

void safetensors_close(struct safetensors *st)
{
    if (!st)
        return;
    cJSON_Delete(st->header);
    if (st->map)
        munmap(st->map, st->map_len);
    free(st);
}

static int read_type(const char *name, struct tensor *out, size_t *out_bytes)
{
    if (strcmp(name, "F32") == 0)
        out->type = TENSOR_F32, *out_bytes = 4;
    else if (strcmp(name, "F16") == 0)
        out->type = TENSOR_F16, *out_bytes = 2;
    else if (strcmp(name, "BF16") == 0)
        out->type = TENSOR_BF16, *out_bytes = 2;
    else
        return -1;
    return 0;
}

/* A whole number in 0 .. most, which a double holds exactly. */
static bool read_whole(const cJSON *n, double most, int64_t *out)
{
    if (!cJSON_IsNumber(n) || !(n->valuedouble >= 0 && n->valuedouble <= most) ||
        n->valuedouble != floor(n->valuedouble))
        return false;
    *out = (int64_t)n->valuedouble;
    return true;
}

static int read_shape(const cJSON *list, struct tensor *out)
{
    out->dims = 0;
    out->count = 1;
    if (!cJSON_IsArray(list))
        return -1;
    for (const cJSON *e = list->child; e; e = e->next) {
        int64_t n;
        if (out->dims == TENSOR_MAX_DIMS || !read_whole(e, 1e9, &n) || n == 0 ||
            __builtin_mul_overflow(out->count, n, &out->count))
            return -1;
        out->shape[out->dims++] = n;
    }
    return 0;
}

int safetensors_find(const struct safetensors *st, const char *name, struct tensor *out)
{
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(st->header, name);
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    const cJSON *begin = cJSON_GetArrayItem(offsets, 0), *end = cJSON_GetArrayItem(offsets, 1);
    struct tensor t = {0};
    size_t element = 0, bytes;
    int64_t from, to;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        read_type(json_get_text(entry, "dtype", ""), &t, &element) != 0 ||
        read_shape(cJSON_GetObjectItemCaseSensitive(entry, "shape"), &t) != 0)
        return -1;
    double most = (double)(st->data_len < (size_t)1 << 53 ? st->data_len : (size_t)1 << 53);
    if (!read_whole(begin, most, &from) || !read_whole(end, most, &to) || to < from ||
        __builtin_mul_overflow((size_t)t.count, element, &bytes) || (size_t)(to - from) != bytes)
        return -1;
    t.bytes = st->data + from;
    *out = t;
    return 0;
}

float float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023, bits;
    if (exponent == 0) { /* zero and subnormals: units of 2^-24 */
        float f = (float)mantissa / 16777216.0f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 0x7F800000 : (exponent + 112) << 23) | mantissa << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
