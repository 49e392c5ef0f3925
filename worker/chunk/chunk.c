#include "worker/chunk/chunk.h"

#include "common/text.h"
#include "worker/chunk/strategy.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* A word of more bytes (in code points: 100) is one unknown token to the model, however long it is. */
enum { MOST_WORD_BYTES = 400, BYTES_A_TOKEN = 64, LEAST_CHUNK_BYTES = 4096, MOST_CHUNK_BYTES = 512 << 10 };

static const struct {
    const char *name;
    chunk_strategy *cut;
} strategies[] = {
#define STRATEGY(name, title, what, when) {#name, chunk_##name},
#include "common/chunking.def"
};

/* ---- words ---- */

struct atom_list {
    struct atom *items;
    size_t count, capacity;
    uint32_t tokens;
};

static void add_atom(struct atom_list *l, size_t start, size_t end, size_t tokens)
{
    if (l->count == l->capacity) {
        l->capacity = l->capacity * 3 / 2 + 64;
        l->items = must_realloc(l->items, l->capacity * sizeof *l->items);
    }
    l->items[l->count++] = (struct atom){(uint32_t)start, (uint32_t)end, l->tokens};
    l->tokens += (uint32_t)tokens;
}

/* Tokenizers decompose: a Korean syllable can become a token for each of its three letters. */
static size_t most_tokens_of(uint32_t cp)
{
    utf8proc_int32_t parts[8];
    int last = 0;
    if (cp < 0x80)
        return 1;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, array_len(parts), UTF8PROC_DECOMPOSE,
                                                 &last);
    return n > 1 ? (size_t)n : 1;
}

/* A cut inside a word changes its tokens, but never to more than one a code point: counted so, no piece gets too large.
 */
static void add_code_points(struct atom_list *l, const char *text, size_t start, size_t end, size_t size)
{
    uint32_t cp = 0;
    for (size_t at = start, n; at < end; at += n) {
        n = utf8_next(text + at, end - at, &cp);
        if (n == 0)
            n = 1;
        size_t tokens = most_tokens_of(cp);
        add_atom(l, at, at + n, tokens < size ? tokens : size);
    }
}

static bool is_word_of_its_own(uint32_t cp)
{
    if (cp < 0x80)
        return !((cp >= '0' && cp <= '9') || (cp >= 'A' && cp <= 'Z') || (cp >= 'a' && cp <= 'z'));
    if ((cp >= 0x3400 && cp <= 0x9FFF) || (cp >= 0xF900 && cp <= 0xFAFF) || (cp >= 0x20000 && cp <= 0x2FA1F))
        return true; /* ideographs */
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)cp);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

static bool has_blank(const char *text, size_t from, size_t to)
{
    uint32_t cp = 0;
    for (size_t at = from, n; at < to; at += n) {
        n = utf8_next(text + at, to - at, &cp);
        if (n == 0)
            n = 1;
        utf8proc_category_t category = cp < 0x80 ? UTF8PROC_CATEGORY_CN : utf8proc_category((utf8proc_int32_t)cp);
        /* Other control characters, form feeds among them, are dropped by the tokenizer and divide nothing. */
        if (cp == ' ' || cp == '\t' || cp == '\n' || cp == '\r' ||
            (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP))
            return true;
    }
    return false;
}

/* Whether two tokens belong to different words: only then does a cut between them leave both as they are. What lies
 * between them need not be a blank: accents and invisible characters belong to no token. */
static bool is_word_edge(const char *text, size_t len, const struct token_span *left, const struct token_span *right)
{
    if (right->start < left->end)
        return false;
    if (has_blank(text, left->end, right->start))
        return true;
    uint32_t before = 0, after = 0;
    size_t last = utf8_floor(text, len, left->end ? left->end - 1 : 0);
    utf8_next(text + last, len - last, &before);
    utf8_next(text + right->start, len - right->start, &after);
    return is_word_of_its_own(before) || is_word_of_its_own(after);
}

static void find_atoms(struct atom_list *l, const char *text, size_t len, size_t size, const struct token_span *spans,
                       size_t count)
{
    for (size_t i = 0, next; i < count; i = next) {
        size_t end = spans[i].end;
        for (next = i + 1; next < count && !is_word_edge(text, len, &spans[next - 1], &spans[next]); next++)
            end = spans[next].end > end ? spans[next].end : end;
        if (next - i > size || end - spans[i].start > MOST_WORD_BYTES)
            add_code_points(l, text, spans[i].start, end, size);
        else
            add_atom(l, spans[i].start, end, next - i);
    }
    add_atom(l, len, len, 0);
    l->count--;
}

size_t chunker_tokens(const struct chunker *c, size_t from, size_t to)
{
    return c->atoms[to].before - c->atoms[from].before;
}

size_t chunker_atom_at(const struct chunker *c, size_t at)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->atoms[middle].start < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- where to cut ---- */

/* The last code points before a gap: ". ", ".) ", "。" end a sentence. */
static bool ends_sentence(const char *text, size_t end)
{
    size_t at = end;
    for (int i = 0; i < 4 && at > 0; i++) {
        uint32_t cp = 0;
        size_t from = utf8_floor(text, end, at - 1);
        utf8_next(text + from, at - from, &cp);
        if (cp == '.' || cp == '!' || cp == '?' || cp == 0x2026 || cp == 0x3002 || cp == 0xFF01 || cp == 0xFF1F)
            return true;
        if (cp != ')' && cp != ']' && cp != '"' && cp != '\'' && cp != '*' && cp != '_' && cp != 0x201D &&
            cp != 0x2019 && cp != 0xBB)
            return false;
        at = from;
    }
    return false;
}

/* Text set in lines of a fixed width: the line's end means nothing there. */
static bool is_wrapped_line(const char *text, size_t end, size_t gap_end)
{
    char last = end ? text[end - 1] : '\n', next = text[gap_end];
    return gap_end > 0 && text[gap_end - 1] == '\n' && next >= 'a' && next <= 'z' &&
           ((last >= 'a' && last <= 'z') || last == ',' || last == '-');
}

static enum cut_level level_of_gap(const char *text, size_t len, size_t from, size_t to)
{
    size_t newlines = 0;
    for (size_t i = from; i < to; i++)
        newlines += text[i] == '\n';
    if (newlines >= 2)
        return CUT_PARAGRAPH;
    if (newlines == 1 && to < len && !is_wrapped_line(text, from, to))
        return CUT_LINE;
    if (from == 0 || !ends_sentence(text, from))
        return CUT_WORD;
    bool is_wide = (unsigned char)text[from - 1] >= 0xE3; /* CJK sentences are not followed by a blank */
    return to > from || is_wide ? CUT_SENTENCE : CUT_WORD;
}

/* "# Title", as texts made from HTML and DOCX have it, too. */
static bool begins_heading(const struct chunker *c, size_t at)
{
    size_t n = 0;
    while (at + n < c->len && c->text[at + n] == '#')
        n++;
    return n >= 1 && n <= 6 && at + n < c->len && c->text[at + n] == ' ' && (at == 0 || c->text[at - 1] == '\n');
}

void chunker_find_levels(struct chunker *c)
{
    bool is_in_heading = false;
    for (size_t i = 0; i < c->count; i++) {
        size_t start = c->atoms[i].start;
        enum cut_level level = i ? level_of_gap(c->text, c->len, c->atoms[i - 1].end, start) : CUT_PARAGRAPH;
        bool is_new_line = level >= CUT_LINE;
        if (is_new_line && begins_heading(c, start)) {
            level = CUT_HEADING;
        } else if (is_in_heading) { /* a heading stays with what it heads, and in one piece */
            level = CUT_INSIDE;
        }
        is_in_heading = level == CUT_HEADING || (is_in_heading && !is_new_line);
        c->levels[i] = (unsigned char)level;
    }
}

/* ---- cutting ---- */

/* First atom that no longer fits into a chunk that begins with `from`; at least one does. */
static size_t window_end(const struct chunker *c, size_t from, size_t to, size_t at)
{
    while (at < to && chunker_tokens(c, from, at + 1) <= c->size &&
           c->atoms[at].end - c->atoms[from].start <= c->most_bytes)
        at++;
    return at > from ? at : from + 1;
}

/* A block (a fence of code) that would be divided at `end` though it fits into a chunk of its own. */
static size_t before_divided_block(const struct chunker *c, size_t from, size_t end)
{
    if (!c->blocks || c->blocks[end] == 0)
        return 0;
    size_t first = end;
    while (first > from && c->blocks[first - 1] == c->blocks[end])
        first--;
    return first > from && first < end && chunker_tokens(c, first, c->blocks[end]) <= c->size ? first : 0;
}

/* The best place in the later half of the window; what was in the last chunk already doesn't count. */
static size_t choose_cut(const struct chunker *c, size_t from, size_t fresh, size_t end)
{
    size_t block = before_divided_block(c, from, end);
    if (block > fresh)
        return block;
    size_t least = chunker_tokens(c, from, fresh) + (chunker_tokens(c, fresh, end) + 1) / 2;
    size_t best = end;
    for (size_t i = end; i > fresh && chunker_tokens(c, from, i) >= least; i--) {
        if (c->levels[i] > c->levels[best])
            best = i;
    }
    return best;
}

/* Where the chunk after a cut begins: earlier by the overlap, at the start of a sentence if one lies near. */
static size_t overlap_start(const struct chunker *c, size_t from, size_t cut)
{
    size_t overlap = c->overlap;
    if (c->blocks && c->blocks[cut]) { /* leave room for a block that would fit */
        size_t block = chunker_tokens(c, cut, c->blocks[cut]);
        if (block <= c->size && block + overlap > c->size)
            overlap = c->size - block;
    }
    size_t at = cut;
    while (at > from + 1 && chunker_tokens(c, at - 1, cut) <= overlap)
        at--;
    size_t best = at;
    for (size_t i = at; i < cut && chunker_tokens(c, i, cut) * 2 >= overlap; i++) {
        if (c->levels[i] > c->levels[best])
            best = i;
    }
    return best;
}

void chunker_add(struct chunker *c, size_t from, size_t to, const char *heading)
{
    if (c->chunk_count == c->chunk_capacity) {
        c->chunk_capacity = c->chunk_capacity * 2 + 16;
        c->chunks = must_realloc(c->chunks, c->chunk_capacity * sizeof *c->chunks);
    }
    c->chunks[c->chunk_count++] = (struct chunk){.start = c->atoms[from].start,
                                                 .end = c->atoms[to - 1].end,
                                                 .tokens = chunker_tokens(c, from, to),
                                                 .heading = heading,
                                                 .how = c->how};
}

void chunker_cut(struct chunker *c, size_t from, size_t to, const char *heading)
{
    size_t fresh = from; /* first atom that no chunk holds yet */
    while (fresh < to) {
        size_t end = window_end(c, from, to, fresh);
        if (end <= fresh) { /* a long word or a long gap right after the overlap */
            from = fresh;
            continue;
        }
        size_t cut = end < to ? choose_cut(c, from, fresh, end) : to;
        chunker_add(c, from, cut, heading);
        from = cut < to ? overlap_start(c, from, cut) : to;
        fresh = cut;
    }
}

/* ---- all together ---- */

static chunk_strategy *strategy_of(struct chunker *c, const char *name)
{
    for (size_t i = 0; name && i < array_len(strategies); i++) {
        if (strcmp(name, strategies[i].name) == 0)
            return strategies[i].cut;
    }
    if (name && *name)
        c->note = arena_printf(&c->sc->arena, "the chunking strategy '%.60s' is not known; 'recursive' was used", name);
    return chunk_recursive;
}

bool chunk_asks_embedder(const char *strategy)
{
    return strategy && (strcmp(strategy, "semantic") == 0 || strcmp(strategy, "hybrid") == 0);
}

size_t chunker_most_bytes(size_t size)
{
    if (size >= MOST_CHUNK_BYTES / BYTES_A_TOKEN)
        return MOST_CHUNK_BYTES;
    return size * BYTES_A_TOKEN > LEAST_CHUNK_BYTES ? size * BYTES_A_TOKEN : LEAST_CHUNK_BYTES;
}

/* Chunks are numbered from 0, parents from -1 down; both in the order of the text. */
static void number_chunks(struct chunk *chunks, size_t count)
{
    int next = 0, parent = 0;
    for (size_t i = 0; i < count; i++) {
        if (chunks[i].is_parent) {
            chunks[i].ordinal = --parent;
            continue;
        }
        chunks[i].ordinal = next++;
        chunks[i].parent = parent;
    }
}

bool chunk_fit(size_t most_tokens, size_t *size, size_t *overlap)
{
    if (*size <= most_tokens)
        return false;
    *overlap = *overlap * most_tokens / *size;
    *size = most_tokens;
    return true;
}

static struct atom_list atoms_of(struct scope *sc, const struct token_counter *counter, const char *text, size_t len,
                                 size_t size)
{
    struct scope temporary; /* the spans are many times the text */
    scope_init(&temporary, sc->trace_id);
    struct token_span *spans = NULL;
    size_t count = counter->spans(counter->context, &temporary, text, len, &spans);
    struct atom_list atoms = {0};
    find_atoms(&atoms, text, len, size, spans, count);
    scope_done(&temporary);
    return atoms;
}

enum status chunk_text(struct scope *sc, const struct chunk_options *options, const struct token_counter *counter,
                       const struct chunk_embedder *embedder, const char *text, size_t len, struct chunk **out,
                       size_t *out_count, const char **out_note)
{
    if (options->size == 0 || len >= UINT32_MAX)
        return fail(sc, STATUS_INVALID, options->size ? "the text is too long" : "chunk_size must not be 0");
    struct atom_list atoms = atoms_of(sc, counter, text, len, options->size);
    struct chunker c = {.sc = sc,
                        .options = options,
                        .embedder = embedder,
                        .text = text,
                        .len = len,
                        .size = options->size,
                        .overlap = options->overlap,
                        .most_bytes = chunker_most_bytes(options->size),
                        .atoms = atoms.items,
                        .count = atoms.count,
                        .levels = must_calloc(atoms.count + 1, 1)};
    if (c.overlap > c.size / 2) {
        c.overlap = c.size / 2;
        c.note = "chunk_overlap was more than half of chunk_size; half of it was used";
    }
    enum status s = strategy_of(&c, options->strategy)(&c);
    if (s == STATUS_OK) {
        *out = arena_array(&sc->arena, c.chunk_count + 1, sizeof **out);
        if (c.chunk_count > 0)
            memcpy(*out, c.chunks, c.chunk_count * sizeof **out);
        number_chunks(*out, c.chunk_count);
        *out_count = c.chunk_count;
        *out_note = c.note ? c.note : *out_note;
    }
    free(c.chunks);
    free(c.levels);
    free(c.blocks);
    free(c.atoms);
    return s;
}
