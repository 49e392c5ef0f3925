#include "worker/embed/tokenizer.h"

#include "common/arena.h"
#include "common/json.h"
#include "worker/embed/unicode_tables.h"

#include <stdio.h>
#include <string.h>

/* A literal that is cut out of the raw text before anything else. */
struct added_token {
    char *text;
    size_t len;
    int32_t id;
};

/* Pieces by their bytes, open addressing. Two tables: word beginnings, and continuations without their "##". */
struct piece {
    const char *bytes; /* in tokenizer.arena; NULL = free */
    uint32_t len;
    int32_t id;
    uint64_t hash;
};

struct pieces {
    struct piece *slots;
    size_t mask;
    size_t longest; /* bytes */
};

enum { MOST_ADDED = 64, MOST_WORD_CODE_POINTS = 100, LARGEST_FILE_BYTES = 64 << 20 };

struct tokenizer {
    struct arena arena;
    struct pieces first, rest;
    struct added_token added[MOST_ADDED];
    int added_count;
    bool begins_added[256]; /* by first byte */
    int32_t cls, sep, unk;
    int vocab_size;
};

#define HASH_SEED 0xCBF29CE484222325u

static uint64_t hash_step(uint64_t h, unsigned char byte) /* FNV-1a */
{
    return (h ^ byte) * 0x100000001B3u;
}

static struct piece *find(const struct pieces *p, const char *bytes, size_t len, uint64_t hash)
{
    size_t i = (hash ^ hash >> 29) & p->mask;
    for (;; i = (i + 1) & p->mask) {
        struct piece *slot = &p->slots[i];
        if (!slot->bytes || (slot->hash == hash && slot->len == len && memcmp(slot->bytes, bytes, len) == 0))
            return slot;
    }
}

static void pieces_add(struct pieces *p, const char *bytes, int32_t id)
{
    size_t len = strlen(bytes);
    uint64_t hash = HASH_SEED;
    for (size_t i = 0; i < len; i++)
        hash = hash_step(hash, (unsigned char)bytes[i]);
    *find(p, bytes, len, hash) = (struct piece){bytes, (uint32_t)len, id, hash};
    if (len > p->longest)
        p->longest = len;
}

/* ---- opening ---- */

static char *read_file(const char *path, size_t *out_len)
{
    FILE *f = fopen(path, "rbe");
    char *bytes = NULL;
    if (!f)
        return NULL;
    if (fseek(f, 0, SEEK_END) == 0) {
        long size = ftell(f);
        if (size > 0 && size <= LARGEST_FILE_BYTES && fseek(f, 0, SEEK_SET) == 0) {
            bytes = must_malloc((size_t)size + 1);
            *out_len = fread(bytes, 1, (size_t)size, f);
            bytes[*out_len] = '\0';
        }
    }
    fclose(f);
    return bytes;
}

static bool is_kind(const cJSON *json, const char *part, const char *type)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(json, part);
    return strcmp(json_get_text(object, "type", ""), type) == 0;
}

static const char *unknown_kind(const cJSON *json)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(json, "normalizer");
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
    if (!is_kind(json, "normalizer", "BertNormalizer"))
        return "its normalizer is not BertNormalizer";
    if (!json_get_bool(n, "clean_text", true) || !json_get_bool(n, "handle_chinese_chars", true) ||
        !json_get_bool(n, "lowercase", true) || cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(n, "strip_accents")))
        return "only lower-casing BERT normalizers are known (cased models are not)";
    if (!is_kind(json, "pre_tokenizer", "BertPreTokenizer"))
        return "its pre-tokenizer is not BertPreTokenizer";
    if (!is_kind(json, "model", "WordPiece") ||
        strcmp(json_get_text(model, "continuing_subword_prefix", "##"), "##") != 0 ||
        json_get_int(model, "max_input_chars_per_word", MOST_WORD_CODE_POINTS) != MOST_WORD_CODE_POINTS)
        return "its model is not BERT's WordPiece";
    return NULL;
}

static const char *read_vocabulary(struct tokenizer *t, const cJSON *json)
{
    const cJSON *vocab = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "model"), "vocab");
    int count = cJSON_GetArraySize(vocab);
    if (!cJSON_IsObject(vocab) || count <= 0 || count > 1 << 22)
        return "it has no vocabulary";
    size_t slots = 64;
    while (slots < (size_t)count * 2)
        slots *= 2;
    t->first = (struct pieces){arena_array(&t->arena, slots, sizeof(struct piece)), slots - 1, 0};
    t->rest = (struct pieces){arena_array(&t->arena, slots, sizeof(struct piece)), slots - 1, 0};
    t->cls = t->sep = t->unk = -1;
    for (const cJSON *e = vocab->child; e; e = e->next) {
        if (!cJSON_IsNumber(e) || e->valueint < 0 || e->valueint >= count || !e->string)
            return "its vocabulary holds an id out of range";
        const char *text = arena_strdup(&t->arena, e->string);
        bool is_rest = strncmp(text, "##", 2) == 0 && text[2];
        pieces_add(is_rest ? &t->rest : &t->first, is_rest ? text + 2 : text, e->valueint);
        if (strcmp(text, "[CLS]") == 0)
            t->cls = e->valueint;
        else if (strcmp(text, "[SEP]") == 0)
            t->sep = e->valueint;
        else if (strcmp(text, "[UNK]") == 0)
            t->unk = e->valueint;
    }
    t->vocab_size = count;
    return t->cls < 0 || t->sep < 0 || t->unk < 0 ? "its vocabulary lacks [CLS], [SEP] or [UNK]" : NULL;
}

static const char *read_added(struct tokenizer *t, const cJSON *json)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "added_tokens");
    for (const cJSON *e = list ? list->child : NULL; e; e = e->next) {
        const char *text = json_get_text(e, "content", "");
        int64_t id = json_get_int(e, "id", -1);
        if (!*text || id < 0 || id >= t->vocab_size || t->added_count == MOST_ADDED)
            return "its added tokens are not understood";
        if (json_get_bool(e, "normalized", false) || json_get_bool(e, "single_word", false) ||
            json_get_bool(e, "lstrip", false) || json_get_bool(e, "rstrip", false))
            return "it has added tokens of a kind not known here";
        t->begins_added[(unsigned char)*text] = true;
        t->added[t->added_count++] = (struct added_token){arena_strdup(&t->arena, text), strlen(text), (int32_t)id};
    }
    return NULL;
}

struct tokenizer *tokenizer_open(const char *path, char *error, size_t error_size)
{
    size_t len = 0;
    char *bytes = read_file(path, &len);
    struct scope sc;
    scope_init(&sc, NULL);
    scoped(cJSON) *json = NULL;
    struct tokenizer *t = must_calloc(1, sizeof *t);
    const char *problem = bytes ? NULL : "it cannot be read";
    if (!problem && json_parse(&sc, bytes, len, &json) != STATUS_OK)
        problem = "it is not JSON";
    if (!problem)
        problem = unknown_kind(json);
    if (!problem)
        problem = read_vocabulary(t, json);
    if (!problem)
        problem = read_added(t, json);
    free(bytes);
    scope_done(&sc);
    if (!problem)
        return t;
    snprintf(error, error_size, "tokenizer.json: %s", problem);
    tokenizer_close(t);
    return NULL;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    arena_reset(&t->arena);
    free(t);
}

int tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->vocab_size;
}

void token_list_free(struct token_list *list)
{
    free(list->ids);
    *list = (struct token_list){0};
}

/* ---- encoding ---- */

/* Where tokens go: ids alone, or spans. */
struct sink {
    struct token_list *ids;
    struct token_span *spans;
    size_t span_count, span_capacity;
    size_t most; /* ids that may still come; SIZE_MAX = no bound */
};

/* The word being put together: normalised bytes, and for each byte the source bytes of its code point. */
struct word {
    char bytes[MOST_WORD_CODE_POINTS * 4 + 8];
    uint32_t starts[MOST_WORD_CODE_POINTS + 1]; /* per code point: source start, source end, end in `bytes` */
    uint32_t ends[MOST_WORD_CODE_POINTS + 1];
    uint32_t byte_ends[MOST_WORD_CODE_POINTS + 1];
    size_t len;
    size_t code_points; /* may pass MOST_WORD_CODE_POINTS: then the word is unknown and only its span counts */
    uint32_t start, end;
};

static bool emit(struct sink *s, int32_t id, uint32_t start, uint32_t end)
{
    if (s->most == 0)
        return false;
    if (s->most != SIZE_MAX)
        s->most--;
    if (s->ids) {
        struct token_list *l = s->ids;
        if (l->count == l->capacity) {
            l->capacity = l->capacity ? l->capacity * 2 : 256;
            l->ids = must_realloc(l->ids, l->capacity * sizeof *l->ids);
        }
        l->ids[l->count++] = id;
        return true;
    }
    if (s->span_count == s->span_capacity) {
        s->span_capacity = s->span_capacity ? s->span_capacity * 2 : 256;
        s->spans = must_realloc(s->spans, s->span_capacity * sizeof *s->spans);
    }
    s->spans[s->span_count++] = (struct token_span){id, start, end};
    return true;
}

/* The longest piece that begins at code point `from`; its last code point + 1, or 0. */
static size_t longest_piece(const struct pieces *p, const struct word *w, size_t from, int32_t *out_id)
{
    uint64_t hashes[MOST_WORD_CODE_POINTS];
    size_t begin = from ? w->byte_ends[from - 1] : 0, to = from;
    uint64_t h = HASH_SEED;
    for (size_t at = begin; to < w->code_points && w->byte_ends[to] - begin <= p->longest; to++) {
        for (; at < w->byte_ends[to]; at++)
            h = hash_step(h, (unsigned char)w->bytes[at]);
        hashes[to] = h;
    }
    for (; to > from; to--) {
        const struct piece *found = find(p, w->bytes + begin, w->byte_ends[to - 1] - begin, hashes[to - 1]);
        if (found->bytes) {
            *out_id = found->id;
            return to;
        }
    }
    return 0;
}

/* Greedy longest match first; a word with any unmatched rest is one unknown token as a whole. */
static bool flush(const struct tokenizer *t, struct word *w, struct sink *s)
{
    if (w->code_points == 0)
        return true;
    int32_t ids[MOST_WORD_CODE_POINTS];
    size_t lasts[MOST_WORD_CODE_POINTS], count = 0;
    bool is_known = w->code_points <= MOST_WORD_CODE_POINTS;
    for (size_t from = 0; is_known && from < w->code_points; count++) {
        size_t to = longest_piece(from ? &t->rest : &t->first, w, from, &ids[count]);
        is_known = to > 0;
        lasts[count] = to;
        from = to;
    }
    bool has_room = true;
    if (!is_known)
        has_room = emit(s, t->unk, w->start, w->end);
    for (size_t i = 0; is_known && i < count && has_room; i++)
        has_room = emit(s, ids[i], w->starts[i ? lasts[i - 1] : 0], w->ends[lasts[i] - 1]);
    w->len = w->code_points = 0;
    return has_room;
}

static void word_add(struct word *w, uint32_t cp, uint32_t start, uint32_t end)
{
    if (w->code_points == 0)
        w->start = start;
    w->end = end;
    if (w->code_points < MOST_WORD_CODE_POINTS) {
        size_t i = w->code_points;
        w->len += utf8_put(w->bytes + w->len, cp);
        w->starts[i] = start;
        w->ends[i] = end;
        w->byte_ends[i] = (uint32_t)w->len;
    }
    w->code_points++;
}

/* A code point that is a word of its own. */
static bool take_alone(const struct tokenizer *t, struct word *w, struct sink *s, uint32_t cp, uint32_t start,
                       uint32_t end)
{
    if (!flush(t, w, s))
        return false;
    word_add(w, cp, start, end);
    return flush(t, w, s);
}

/* A normalised code point: what is left to decide is whether it splits words. */
static bool take_normal(const struct tokenizer *t, struct word *w, struct sink *s, uint32_t cp, uint32_t start,
                        uint32_t end)
{
    if (cp == ' ')
        return flush(t, w, s);
    if (unicode_entry(cp) == UNICODE_PUNCT)
        return take_alone(t, w, s, cp, start, end);
    word_add(w, cp, start, end);
    return true;
}

static void take_hangul(struct word *w, uint32_t cp, uint32_t start, uint32_t end)
{
    uint32_t index = cp - 0xAC00; /* canonical decomposition by arithmetic, Unicode 3.12 */
    word_add(w, 0x1100 + index / 588, start, end);
    word_add(w, 0x1161 + index % 588 / 28, start, end);
    if (index % 28)
        word_add(w, 0x11A7 + index % 28, start, end);
}

static bool take(const struct tokenizer *t, struct word *w, struct sink *s, uint32_t cp, uint32_t start, uint32_t end)
{
    unsigned entry = unicode_entry(cp);
    switch (entry) {
    case UNICODE_KEEP:
        if (cp >= 0xAC00 && cp <= 0xD7A3)
            take_hangul(w, cp, start, end);
        else
            word_add(w, cp, start, end);
        return true;
    case UNICODE_DROP:
        return true;
    case UNICODE_SPACE:
        return flush(t, w, s);
    case UNICODE_PUNCT:
    case UNICODE_CJK:
        return take_alone(t, w, s, cp, start, end);
    default: {
        const uint32_t *sequence = &unicode_sequences[entry - UNICODE_SEQUENCE];
        for (uint32_t i = 1; i <= sequence[0]; i++) {
            if (!take_normal(t, w, s, sequence[i], start, end))
                return false;
        }
        return true;
    }
    }
}

static const struct added_token *added_at(const struct tokenizer *t, const char *text, size_t len)
{
    for (int i = 0; i < t->added_count; i++) {
        const struct added_token *a = &t->added[i];
        if (a->len <= len && memcmp(a->text, text, a->len) == 0)
            return a;
    }
    return NULL;
}

static void encode(const struct tokenizer *t, const char *text, size_t len, struct sink *s)
{
    struct word w;
    w.len = w.code_points = 0;
    bool has_room = true;
    for (size_t at = 0; at < len && has_room;) {
        const struct added_token *a = t->begins_added[(unsigned char)text[at]] ? added_at(t, text + at, len - at)
                                                                               : NULL;
        if (a) {
            has_room = flush(t, &w, s) && emit(s, a->id, (uint32_t)at, (uint32_t)(at + a->len));
            at += a->len;
            continue;
        }
        uint32_t cp = 0xFFFD;
        size_t n = utf8_next(text + at, len - at, &cp);
        if (n == 0)
            n = 1;
        has_room = take(t, &w, s, cp, (uint32_t)at, (uint32_t)(at + n));
        at += n;
    }
    if (has_room)
        flush(t, &w, s);
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, size_t max_tokens,
                      struct token_list *out)
{
    struct sink s = {.ids = out, .most = SIZE_MAX};
    emit(&s, t->cls, 0, 0);
    s.most = max_tokens ? (max_tokens > 2 ? max_tokens - 2 : 0) : SIZE_MAX;
    encode(t, text, len, &s);
    s.most = SIZE_MAX;
    emit(&s, t->sep, 0, 0);
}

void tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t len, struct token_span **out_spans,
                            size_t *out_count)
{
    struct sink s = {.most = SIZE_MAX};
    encode(t, text, len, &s);
    *out_spans = s.spans;
    *out_count = s.span_count;
}
