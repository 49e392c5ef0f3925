#include "common/text.h"
#include "worker/chunk/strategy.h"

#include <string.h>

enum { MOST_HEADING_BYTES = 200, MOST_LEVELS = 6 };

struct line {
    const char *at; /* without indentation, line end and blanks at the end */
    size_t len, indent, start, next;
};

struct reader {
    struct chunker *c;
    struct arena *arena;
    section_function *cut;
    enum status status;        /* of the first section that could not be cut */
    size_t min_tokens;         /* smaller sections are joined with the next */
    int deepest;               /* deeper headings are text */
    char *titles[MOST_LEVELS]; /* the headings above the line at hand */
    size_t section;            /* its first byte */
    const char *path;
    bool has_body; /* something stands below its heading already */
    bool had_body; /* the same before the line above */
    char fence;    /* '`' or '~' while inside of one, else 0 */
    size_t fence_len, fence_start;
    size_t table_lines, table_start; /* of the table that the line above belongs to; 0 = none */
};

static struct line read_line(const struct chunker *c, size_t start)
{
    const char *newline = memchr(c->text + start, '\n', c->len - start);
    size_t end = newline ? (size_t)(newline - c->text) : c->len;
    struct line l = {.start = start, .next = newline ? end + 1 : end};
    for (; start < end && (c->text[start] == ' ' || c->text[start] == '\t'); start++)
        l.indent += c->text[start] == '\t' ? 4 : 1;
    while (end > start && (c->text[end - 1] == ' ' || c->text[end - 1] == '\t' || c->text[end - 1] == '\r'))
        end--;
    l.at = c->text + start;
    l.len = end - start;
    return l;
}

static size_t run_of(const struct line *l, char mark)
{
    size_t n = 0;
    while (n < l->len && l->at[n] == mark)
        n++;
    return n;
}

/* 1 to 6, or 0 when the line is no heading of the "# …" kind. */
static int atx_level(const struct line *l)
{
    size_t n = run_of(l, '#');
    bool is_heading = l->indent < 4 && n >= 1 && n <= MOST_LEVELS &&
                      (n == l->len || l->at[n] == ' ' || l->at[n] == '\t');
    return is_heading ? (int)n : 0;
}

/* A line of = or - makes the paragraph line above it a heading. */
static int setext_level(const struct line *l, const struct line *above)
{
    static const char *const no_paragraph = "#>|-*+`~<";
    if (l->indent >= 4 || l->len == 0 || above->len == 0 || above->indent >= 4 || strchr(no_paragraph, above->at[0]))
        return 0;
    return run_of(l, '=') == l->len ? 1 : run_of(l, '-') == l->len && l->len >= 2 ? 2 : 0;
}

static char *title_of(struct arena *a, const char *at, size_t len, char mark)
{
    while (len > 0 && (*at == mark || *at == ' ' || *at == '\t')) {
        at++;
        len--;
    }
    while (len > 0 && (at[len - 1] == mark || at[len - 1] == ' ' || at[len - 1] == '\t'))
        len--;
    return arena_strndup(a, at, len > MOST_HEADING_BYTES ? utf8_floor(at, len, MOST_HEADING_BYTES) : len);
}

static const char *join_titles(const struct reader *r)
{
    scoped_text t = {0};
    for (int i = 0; i < MOST_LEVELS; i++) {
        if (!r->titles[i] || !*r->titles[i])
            continue;
        text_puts(&t, t.len ? " > " : "");
        text_puts(&t, r->titles[i]);
    }
    return t.len ? arena_strdup(r->arena, t.data) : NULL;
}

static void end_section(struct reader *r, size_t at)
{
    if (r->status == STATUS_OK)
        r->status = r->cut(r->c, chunker_atom_at(r->c, r->section), chunker_atom_at(r->c, at), r->path);
    r->section = at;
    r->has_body = false;
}

static bool is_large_enough(const struct reader *r, size_t end)
{
    const struct chunker *c = r->c;
    return r->min_tokens == 0 ||
           chunker_tokens(c, chunker_atom_at(c, r->section), chunker_atom_at(c, end)) >= r->min_tokens;
}

/* Headings that follow each other without a text between stay together. */
static void begin_section(struct reader *r, size_t at, int level, char *title)
{
    if (r->has_body && is_large_enough(r, at))
        end_section(r, at);
    r->titles[level - 1] = title;
    for (int i = level; i < MOST_LEVELS; i++)
        r->titles[i] = NULL;
    if (!r->has_body)
        r->path = join_titles(r);
}

/* What fits is not divided; something larger is cut between its lines only. */
static void mark_block(const struct reader *r, size_t start, size_t end)
{
    struct chunker *c = r->c;
    size_t from = chunker_atom_at(c, start), to = chunker_atom_at(c, end);
    bool fits = chunker_tokens(c, from, to) <= c->size;
    for (size_t i = from; i < to; i++) {
        if (fits)
            c->blocks[i] = (uint32_t)to;
        if (i > from)
            c->levels[i] = fits ? CUT_INSIDE : c->levels[i] >= CUT_LINE ? CUT_LINE : CUT_WORD;
    }
}

static void end_fence(struct reader *r, size_t end)
{
    mark_block(r, r->fence_start, end);
    r->fence = 0;
}

static bool is_fence(const struct reader *r, const struct line *l)
{
    if (l->indent >= 4)
        return false;
    if (r->fence)
        return run_of(l, r->fence) == l->len && l->len >= r->fence_len;
    size_t ticks = run_of(l, '`');
    if (ticks >= 3)
        return !memchr(l->at + ticks, '`', l->len - ticks);
    return run_of(l, '~') >= 3;
}

static void take_fence(struct reader *r, const struct line *l)
{
    if (r->fence) {
        end_fence(r, l->next);
        return;
    }
    r->fence = l->at[0];
    r->fence_len = run_of(l, r->fence);
    r->fence_start = l->start;
    r->has_body = true;
}

/* Lines that begin with a bar. One of them alone is no table. */
static void end_table(struct reader *r, size_t end)
{
    if (r->table_lines > 1)
        mark_block(r, r->table_start, end);
    r->table_lines = 0;
}

static bool take_table_line(struct reader *r, const struct line *l)
{
    if (l->len == 0 || l->at[0] != '|' || l->indent >= 4) {
        end_table(r, l->start);
        return false;
    }
    if (r->table_lines++ == 0)
        r->table_start = l->start;
    r->has_body = r->had_body = true;
    return true;
}

static void take_line(struct reader *r, const struct line *l, const struct line *above)
{
    if (!r->fence && take_table_line(r, l))
        return;
    if (is_fence(r, l)) {
        take_fence(r, l);
        return;
    }
    if (r->fence)
        return;
    int level = atx_level(l);
    if (level > 0 && level <= r->deepest) {
        begin_section(r, l->start, level, title_of(r->arena, l->at, l->len, '#'));
        return;
    }
    level = setext_level(l, above);
    if (level > 0 && level <= r->deepest) { /* the line above was taken for a text; it is the heading */
        r->has_body = r->had_body;
        begin_section(r, above->start, level, title_of(r->arena, above->at, above->len, ' '));
        return;
    }
    r->had_body = r->has_body;
    r->has_body = r->has_body || l->len > 0;
}

/* "---", keys, "---" at the very beginning is data about the text. */
static size_t skip_front_matter(const struct chunker *c)
{
    struct line l = read_line(c, 0);
    if (l.len != 3 || memcmp(l.at, "---", 3) != 0)
        return 0;
    while (l.next < c->len) {
        l = read_line(c, l.next);
        if (l.len == 3 && memcmp(l.at, "---", 3) == 0)
            return l.next;
    }
    return 0;
}

enum status chunker_cut_sections(struct chunker *c, section_function *cut, size_t min_tokens)
{
    chunker_find_levels(c);
    c->blocks = must_calloc(c->count + 1, sizeof *c->blocks);
    struct reader r = {.c = c,
                       .arena = &c->sc->arena,
                       .cut = cut,
                       .min_tokens = min_tokens,
                       .deepest = (int)c->options->config.heading_levels};
    if (r.deepest < 1)
        r.deepest = MOST_LEVELS;
    struct line above = {.at = ""};
    size_t at = skip_front_matter(c);
    r.has_body = at > 0;
    while (at < c->len) {
        struct line l = read_line(c, at);
        take_line(&r, &l, &above);
        above = r.fence ? (struct line){.at = ""} : l;
        at = l.next;
    }
    end_table(&r, c->len);
    if (r.fence)
        end_fence(&r, c->len);
    end_section(&r, c->len);
    return r.status;
}

static enum status cut_by_size(struct chunker *c, size_t from, size_t to, const char *heading)
{
    chunker_cut(c, from, to, heading);
    return STATUS_OK;
}

/* At headings; what is longer than a chunk is cut as `recursive` does. */
enum status chunk_markdown(struct chunker *c)
{
    int64_t least = c->options->config.min_chunk_size;
    return chunker_cut_sections(c, cut_by_size, least > 0 ? (size_t)least : 0);
}
