#include "common/text.h"
#include "tests/support/golden.h"
#include "worker/chunk/chunk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A tokenizer that can be reckoned with: a word is a token every four letters, a mark is a token, words of more than
 * 100 letters are one. */
static bool is_letter(unsigned char c)
{
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static size_t word_spans(const char *text, size_t from, size_t to, struct token_span *out)
{
    size_t letters = 0, count = 0;
    for (size_t i = from; i < to; i++)
        letters += ((unsigned char)text[i] & 0xC0) != 0x80;
    size_t piece = letters > 100 ? SIZE_MAX : 4, n = 0;
    for (size_t i = from; i < to; i++) {
        if (((unsigned char)text[i] & 0xC0) != 0x80 && n++ % piece == 0)
            out[count++] = (struct token_span){1, (uint32_t)i, (uint32_t)i};
        out[count - 1].end = (uint32_t)i + 1;
    }
    return count;
}

static size_t toy_spans(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out)
{
    (void)context;
    struct token_span *spans = arena_array(&sc->arena, len + 1, sizeof *spans);
    size_t count = 0;
    for (size_t i = 0, end; i < len; i = end) {
        for (end = i; end < len && is_letter((unsigned char)text[end]); end++)
            ;
        if (end > i) {
            count += word_spans(text, i, end, spans + count);
            continue;
        }
        end = i + 1;
        if ((unsigned char)text[i] > ' ')
            spans[count++] = (struct token_span){2, (uint32_t)i, (uint32_t)end};
    }
    *out = spans;
    return count;
}

static const struct token_counter toy = {.spans = toy_spans};

/* A text is where its letters point: dimension d counts those that are d modulo 8, upper or lower case. */
enum { TOY_DIM = 8 };
struct toy_embedder {
    size_t texts, calls, most_at_a_time;
    enum status status; /* what it answers */
};

static enum status toy_embed(void *context, struct scope *sc, const struct embed_text *texts, size_t count,
                             const float **out, int *out_dim)
{
    struct toy_embedder *e = context;
    float *vectors = arena_array(&sc->arena, count * TOY_DIM, sizeof *vectors);
    e->texts += count;
    e->calls++;
    e->most_at_a_time = count > e->most_at_a_time ? count : e->most_at_a_time;
    for (size_t i = 0; i < count; i++) {
        for (size_t b = 0; b < texts[i].len; b++) {
            if (is_letter((unsigned char)texts[i].bytes[b]))
                vectors[i * TOY_DIM + (size_t)(texts[i].bytes[b] & 7)] += 1;
        }
    }
    *out = vectors;
    *out_dim = TOY_DIM;
    return e->status == STATUS_OK ? STATUS_OK : (fail)(sc, e->status, "the toy is away"); /* cmocka has a macro fail */
}

struct cut {
    struct scope sc;
    struct chunk *chunks;
    size_t count;
    const char *note;
};

/* With keys, as JSON. */
static struct cut cut_with(const char *strategy, const char *keys, size_t size, size_t overlap, const char *text,
                           size_t len)
{
    struct cut c = {0};
    struct toy_embedder toy_texts = {0};
    struct chunk_embedder embedder = {toy_embed, &toy_texts, 5};
    scope_init(&c.sc, NULL);
    struct chunk_options options = {.strategy = strategy, .size = size, .overlap = overlap};
    scoped(cJSON) *json = keys ? cJSON_Parse(keys) : NULL;
    assert_int_equal(chunking_read(&c.sc, strategy, json, &options.config), STATUS_OK);
    assert_int_equal(chunk_text(&c.sc, &options, &toy, &embedder, text, len, &c.chunks, &c.count, &c.note), STATUS_OK);
    assert_true(toy_texts.most_at_a_time <= 5);
    return c;
}

static struct cut cut(const char *strategy, size_t size, size_t overlap, const char *text, size_t len)
{
    return cut_with(strategy, NULL, size, overlap, text, len);
}

static void assert_chunk(const struct cut *c, const char *text, size_t i, const char *expected)
{
    assert_true(i < c->count);
    scoped_memory char *got = strndup(text + c->chunks[i].start, c->chunks[i].end - c->chunks[i].start);
    assert_string_equal(got, expected);
}

static size_t tokens_of(const char *text, size_t from, size_t to)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct token_span *spans;
    size_t count = toy_spans(NULL, &sc, text + from, to - from, &spans);
    scope_done(&sc);
    return count;
}

static bool is_blank(const char *text, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if ((unsigned char)text[i] > ' ')
            return false;
    }
    return true;
}

/* A parent lies behind the one before it, and holds all chunks up to the next. */
static void check_parents(const struct cut *c, const char *text, size_t len, size_t most)
{
    const struct chunk *parent = NULL;
    size_t covered = 0;
    int next = -1;
    for (size_t i = 0; i < c->count; i++) {
        const struct chunk *k = &c->chunks[i];
        if (k->is_parent) {
            assert_true(k->start >= covered && is_blank(text, covered, k->start));
            assert_true(k->tokens >= 1 && k->tokens <= most && k->end <= len);
            assert_true(i + 1 < c->count && !c->chunks[i + 1].is_parent);
            assert_int_equal(k->ordinal, next--);
            assert_int_equal(k->parent, 0);
            covered = k->end;
            parent = k;
        } else {
            assert_int_equal(k->parent, parent ? parent->ordinal : 0);
            assert_true(!parent || (k->start >= parent->start && k->end <= parent->end));
        }
    }
    assert_true(!parent || is_blank(text, covered, len));
}

/* What must hold for every text and every setting. */
static void check_properties(const char *strategy, size_t size, size_t overlap, const char *text, size_t len)
{
    struct cut c = cut(strategy, size, overlap, text, len), again = cut(strategy, size, overlap, text, len);
    assert_int_equal(c.count, again.count);
    size_t covered = 0, last_start = 0;
    int ordinal = 0;
    for (size_t i = 0; i < c.count; i++) {
        const struct chunk *k = &c.chunks[i];
        assert_memory_equal(&k->start, &again.chunks[i].start, 3 * sizeof(size_t));
        assert_true(k->start < k->end && k->end <= len);
        assert_true(utf8_is_valid(text + k->start, k->end - k->start));
        assert_false(is_blank(text, k->start, k->end));
        if (k->is_parent)
            continue;
        assert_int_equal(k->ordinal, ordinal);
        assert_true(k->tokens >= 1 && k->tokens <= size);
        assert_true(tokens_of(text, k->start, k->end) <= k->tokens);
        assert_true(k->start >= covered
                        ? is_blank(text, covered, k->start)
                        : tokens_of(text, k->start, covered) <= (overlap > size / 2 ? size / 2 : overlap));
        assert_true(ordinal == 0 || (k->start > last_start && k->end > covered));
        covered = k->end;
        last_start = k->start;
        ordinal++;
    }
    assert_true(is_blank(text, covered, len));
    check_parents(&c, text, len, size * 4);
    scope_done(&c.sc);
    scope_done(&again.sc);
}

static uint64_t seed = 88172645463325252u;
static size_t random_below(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed % n);
}

static void append_random_piece(struct text *t)
{
    static const char *const pieces[] = {"word",
                                         "a",
                                         "Ünï",
                                         "日本語",
                                         "。",
                                         ". ",
                                         "! ",
                                         "? \"",
                                         "\n",
                                         "\n\n",
                                         "\n# Head\n",
                                         "\n```\n",
                                         "    ",
                                         "\t",
                                         "- ",
                                         "\r\n",
                                         "x_y",
                                         ", ",
                                         "\n---\n",
                                         "\n===\n",
                                         "🦊",
                                         "(",
                                         "\n## Two ##\n",
                                         "~~~\n",
                                         "\n| a | b |\n",
                                         "|---|\n",
                                         ". The "};
    size_t kind = random_below(array_len(pieces) + 3);
    if (kind < array_len(pieces)) {
        text_puts(t, pieces[kind]);
        return;
    }
    size_t n = kind == array_len(pieces) ? random_below(300) : random_below(12);
    for (size_t i = 0; i < n; i++)
        text_putc(t, "abcdefgh"[random_below(8)]);
    text_puts(t, kind == array_len(pieces) ? "" : " ");
}

static void every_text_is_covered_in_order_within_size_and_overlap(void **state)
{
    (void)state;
    size_t strategy_count;
    const struct chunking_strategy *strategies = chunking_strategies(&strategy_count);
    static const size_t sizes[] = {1, 2, 3, 7, 20, 100, 220};
    for (size_t i = 0; i < 1200; i++) {
        scoped_text t = {0};
        for (size_t n = random_below(400); n > 0; n--)
            append_random_piece(&t);
        size_t size = sizes[random_below(array_len(sizes))];
        check_properties(strategies[i % strategy_count].name, size, random_below(size), text_str(&t), t.len);
    }
}

static void a_text_without_blanks_is_cut_between_code_points(void **state)
{
    (void)state;
    scoped_text t = {0};
    for (int i = 0; i < 100000; i++)
        text_puts(&t, i % 3 ? "a" : "é");
    check_properties("recursive", 220, 40, t.data, t.len);
    check_properties("recursive", 1, 0, t.data, 3000);
}

static void a_long_gap_does_not_make_a_long_chunk(void **state)
{
    (void)state;
    scoped_text t = {0};
    text_puts(&t, "one ");
    for (int i = 0; i < 100000; i++)
        text_putc(&t, ' ');
    text_puts(&t, "two");
    struct cut c = cut("recursive", 100, 10, t.data, t.len);
    assert_int_equal(c.count, 2);
    assert_chunk(&c, t.data, 0, "one");
    assert_chunk(&c, t.data, 1, "two");
    scope_done(&c.sc);
}

static void a_text_of_blanks_has_no_chunks(void **state)
{
    (void)state;
    struct cut c = cut("markdown", 10, 2, " \n\t\n ", 5);
    assert_int_equal(c.count, 0);
    scope_done(&c.sc);
    c = cut(NULL, 10, 2, "", 0);
    assert_int_equal(c.count, 0);
    scope_done(&c.sc);
}

static void paragraphs_are_kept_together(void **state)
{
    (void)state;
    const char text[] = "One two three four.\n\nFive six seven eight. Nine ten.\n\nEnd.";
    struct cut c = cut("recursive", 10, 0, text, strlen(text));
    assert_chunk(&c, text, 0, "One two three four.");
    assert_chunk(&c, text, 1, "Five six seven eight. Nine ten.");
    assert_chunk(&c, text, 2, "End.");
    assert_int_equal(c.count, 3);
    scope_done(&c.sc);
}

static void a_long_paragraph_is_cut_between_sentences(void **state)
{
    (void)state;
    const char text[] = "One two six ten. Two six ten. Six ten two one red. Ten.";
    struct cut c = cut("recursive", 11, 0, text, strlen(text));
    assert_chunk(&c, text, 0, "One two six ten. Two six ten.");
    assert_chunk(&c, text, 1, "Six ten two one red. Ten.");
    scope_done(&c.sc);
}

static void an_overlap_repeats_the_end_of_the_chunk_before(void **state)
{
    (void)state;
    const char text[] = "a b c d e f g h i j";
    struct cut c = cut("character", 4, 2, text, strlen(text));
    assert_chunk(&c, text, 0, "a b c d");
    assert_chunk(&c, text, 1, "c d e f");
    assert_chunk(&c, text, 2, "e f g h");
    assert_chunk(&c, text, 3, "g h i j");
    assert_int_equal(c.count, 4);
    scope_done(&c.sc);
}

static void a_heading_stays_with_what_it_heads(void **state)
{
    (void)state;
    const char text[] = "one two six\n\n# Top\n\nten red two one six ten two red";
    struct cut c = cut("recursive", 6, 0, text, strlen(text));
    assert_chunk(&c, text, 0, "one two six");
    assert_chunk(&c, text, 1, "# Top\n\nten red two one");
    scope_done(&c.sc);
}

static void markdown_is_cut_at_headings_and_tells_their_path(void **state)
{
    (void)state;
    const char text[] =
        "intro\n\n# Manual\n\n## Set-up\n\nInstall it.\n\nUse\n---\nRun it.\n\nOther\n=====\nThe end.\n";
    struct cut c = cut("markdown", 100, 20, text, strlen(text));
    assert_int_equal(c.count, 4);
    assert_chunk(&c, text, 0, "intro");
    assert_null(c.chunks[0].heading);
    assert_chunk(&c, text, 1, "# Manual\n\n## Set-up\n\nInstall it.");
    assert_string_equal(c.chunks[1].heading, "Manual > Set-up");
    assert_chunk(&c, text, 2, "Use\n---\nRun it.");
    assert_string_equal(c.chunks[2].heading, "Manual > Use");
    assert_chunk(&c, text, 3, "Other\n=====\nThe end.");
    assert_string_equal(c.chunks[3].heading, "Other");
    scope_done(&c.sc);
}

static void a_hash_in_a_fence_is_no_heading(void **state)
{
    (void)state;
    const char text[] = "# Top\n```sh\n# comment\nls\n```\nafter\n~~~\n## no\n```\n~~~~\n";
    struct cut c = cut("markdown", 100, 0, text, strlen(text));
    assert_int_equal(c.count, 1);
    assert_string_equal(c.chunks[0].heading, "Top");
    scope_done(&c.sc);
}

static void a_fence_that_fits_is_not_divided(void **state)
{
    (void)state;
    const char text[] = "one two three four\n\n```\na b c d e\n\nf g h i\n```\n\nlast words";
    struct cut c = cut("markdown", 16, 4, text, strlen(text));
    bool is_whole = false;
    for (size_t i = 0; i < c.count; i++) {
        scoped_memory char *got = strndup(text + c.chunks[i].start, c.chunks[i].end - c.chunks[i].start);
        is_whole = is_whole || strstr(got, "```\na b c d e\n\nf g h i\n```");
    }
    assert_true(is_whole);
    scope_done(&c.sc);
}

static void a_megabyte_is_cut_by_every_strategy(void **state)
{
    (void)state;
    size_t count;
    const struct chunking_strategy *strategies = chunking_strategies(&count);
    scoped_text prose = {0}, log = {0}, line = {0};
    while (prose.len < 1 << 20)
        append_random_piece(&prose);
    for (int i = 0; log.len < 1 << 20; i++)
        text_printf(&log, "2026-01-01T00:00:%02d host%d daemon[%d]: value=%d\n", i % 60, i % 7, i, i * 31);
    while (line.len < 1 << 20)
        text_puts(&line, "word ");
    for (size_t i = 0; i < count; i++) {
        check_properties(strategies[i].name, 220, 40, prose.data, prose.len);
        check_properties(strategies[i].name, 220, 40, log.data, log.len);
        check_properties(strategies[i].name, 220, 40, line.data, line.len);
    }
}

static void a_table_that_fits_is_not_divided(void **state)
{
    (void)state;
    const char text[] = "one two three four six\n\n| a | b |\n|--|--|\n| c | d |\n\nlast words";
    struct cut c = cut("markdown", 24, 4, text, strlen(text));
    bool is_whole = false;
    for (size_t i = 0; i < c.count; i++) {
        scoped_memory char *got = strndup(text + c.chunks[i].start, c.chunks[i].end - c.chunks[i].start);
        is_whole = is_whole || strstr(got, "| a | b |\n|--|--|\n| c | d |");
    }
    assert_true(is_whole);
    assert_true(c.count > 1);
    scope_done(&c.sc);
}

static void small_sections_are_joined_up_to_the_least_size(void **state)
{
    (void)state;
    const char text[] = "# One\na b c\n# Two\nd e f\n# Three\ng h i\n";
    struct cut c = cut_with("markdown", "{\"min_chunk_size\": 8}", 50, 0, text, strlen(text));
    assert_int_equal(c.count, 2);
    assert_chunk(&c, text, 0, "# One\na b c\n# Two\nd e f");
    assert_string_equal(c.chunks[0].heading, "One");
    assert_chunk(&c, text, 1, "# Three\ng h i");
    scope_done(&c.sc);
}

static void deeper_headings_than_asked_for_begin_no_chunk(void **state)
{
    (void)state;
    const char text[] = "# One\na\n## Deep\nb\n# Two\nc\n";
    struct cut c = cut_with("markdown", "{\"heading_levels\": 1}", 50, 0, text, strlen(text));
    assert_int_equal(c.count, 2);
    assert_chunk(&c, text, 0, "# One\na\n## Deep\nb");
    assert_string_equal(c.chunks[0].heading, "One");
    scope_done(&c.sc);
}

static void separators_are_cut_behind_rather_than_elsewhere(void **state)
{
    (void)state;
    const char text[] = "a b c;d e f\n\ng h;i j k";
    struct cut c = cut_with("recursive", "{\"separators\": [\";\"]}", 10, 0, text, strlen(text));
    assert_chunk(&c, text, 0, "a b c;d e f\n\ng h;");
    assert_chunk(&c, text, 1, "i j k");
    assert_int_equal(c.count, 2);
    scope_done(&c.sc);
}

#define SUBJECT(w)                                                                                                     \
    w " " w " " w ". " w " " w " " w " " w ". " w " " w " " w ". " w " " w " " w " " w ". " w " " w " " w ". " w " " w \
      " " w " " w ". "
static const char two_subjects[] = SUBJECT("Aaaaaa") SUBJECT("Bbbbbb");

static void a_change_of_meaning_is_cut_at(void **state)
{
    (void)state;
    static const char *const keys[] = {"{}", "{\"breakpoint_type\": \"standard_deviation\"}",
                                       "{\"breakpoint_type\": \"interquartile\", \"buffer_size\": 1}",
                                       "{\"breakpoint_percentile\": 80}"};
    for (size_t i = 0; i < array_len(keys); i++) {
        struct cut c = cut_with("semantic", keys[i], 60, 10, two_subjects, strlen(two_subjects));
        assert_null(c.note);
        assert_int_equal(c.count, 2);
        assert_int_equal(two_subjects[c.chunks[0].start], 'A');
        assert_int_equal(two_subjects[c.chunks[1].start], 'B');
        scope_done(&c.sc);
    }
}

static void a_part_without_changes_is_cut_at_its_largest_distances(void **state)
{
    (void)state;
    struct cut c = cut_with("semantic", "{\"breakpoint_percentile\": 99.9}", 30, 0, two_subjects, strlen(two_subjects));
    bool has_cut = false;
    for (size_t i = 0; i < c.count; i++)
        has_cut = has_cut || (two_subjects[c.chunks[i].start] == 'B' && two_subjects[c.chunks[i].start - 2] == '.' &&
                              two_subjects[c.chunks[i].start - 3] == 'a');
    assert_true(has_cut && c.count >= 3);
    scope_done(&c.sc);
}

static void one_sentence_is_one_chunk_by_meaning(void **state)
{
    (void)state;
    struct cut c = cut("semantic", 60, 10, "One two six.", 12);
    assert_int_equal(c.count, 1);
    scope_done(&c.sc);
}

static void a_breakpoint_leaves_no_part_smaller_than_the_least_size(void **state)
{
    (void)state;
    struct cut c = cut_with("semantic", "{\"min_chunk_size\": 60}", 60, 0, two_subjects, strlen(two_subjects));
    for (size_t i = 0; i + 1 < c.count; i++)
        assert_true(c.chunks[i].tokens >= 30); /* cut by size alone: never below half of it */
    scope_done(&c.sc);
}

static void an_embedder_that_is_away_ends_the_cutting(void **state)
{
    (void)state;
    static const enum status statuses[] = {STATUS_UNAVAILABLE, STATUS_INVALID, STATUS_CANCELLED};
    for (size_t i = 0; i < array_len(statuses); i++) {
        struct scope sc;
        scope_init(&sc, NULL);
        struct toy_embedder toy_texts = {.status = statuses[i]};
        struct chunk_embedder embedder = {toy_embed, &toy_texts, 2};
        struct chunk_options options = {.strategy = "semantic", .size = 60};
        struct chunk *chunks;
        size_t count;
        const char *note = NULL;
        assert_int_equal(chunking_read(&sc, "semantic", NULL, &options.config), STATUS_OK);
        assert_int_equal(
            chunk_text(&sc, &options, &toy, &embedder, two_subjects, strlen(two_subjects), &chunks, &count, &note),
            statuses[i]);
        assert_string_equal(sc.problem_text, "the toy is away");
        scope_done(&sc);
    }
}

static void chunks_lie_in_parents_that_come_before_them(void **state)
{
    (void)state;
    const char text[] = "a b c d. e f g h. i j k l.\n\nm n o p. q r s t.";
    struct cut c = cut_with("hierarchical", "{\"parent_chunk_size\": 20}", 5, 0, text, strlen(text));
    assert_int_equal(c.count, 7);
    assert_true(c.chunks[0].is_parent && c.chunks[4].is_parent);
    assert_chunk(&c, text, 0, "a b c d. e f g h. i j k l.");
    assert_chunk(&c, text, 1, "a b c d.");
    assert_chunk(&c, text, 4, "m n o p. q r s t.");
    assert_chunk(&c, text, 6, "q r s t.");
    assert_int_equal(c.chunks[6].parent, -2);
    assert_int_equal(c.chunks[6].ordinal, 4);
    scope_done(&c.sc);
}

static void hybrid_takes_each_section_as_it_is(void **state)
{
    (void)state;
    scoped_text t = {0};
    text_puts(&t, "# Code\n\n```\na b c d\n```\n\nuse it so.\n\n# Prose\n\n");
    text_puts(&t, two_subjects);
    struct cut c = cut_with("hybrid", "{\"min_chunk_size\": 0, \"semantic_from\": 80}", 60, 0, t.data, t.len);
    assert_int_equal(c.count, 3);
    assert_string_equal(c.chunks[0].how, "markdown");
    assert_string_equal(c.chunks[0].heading, "Code");
    assert_string_equal(c.chunks[1].how, "semantic");
    assert_string_equal(c.chunks[2].how, "semantic");
    assert_string_equal(c.chunks[2].heading, "Prose");
    assert_int_equal(t.data[c.chunks[2].start], 'B');
    scope_done(&c.sc);
    c = cut("hybrid", 60, 0, "a b c", 5);
    assert_string_equal(c.chunks[0].how, "recursive");
    scope_done(&c.sc);
}

static void what_cannot_be_done_is_done_otherwise_and_said(void **state)
{
    (void)state;
    static const char *const strategies[] = {"sideways", "semantic", "hybrid"};
    static const char *const words[] = {"sideways", "embedder", "embedder"};
    for (size_t i = 0; i < array_len(strategies); i++) {
        struct cut c = {0};
        scope_init(&c.sc, NULL);
        struct chunk_options options = {.strategy = strategies[i], .size = 10, .overlap = 2};
        assert_int_equal(chunk_text(&c.sc, &options, &toy, NULL, "a b c", 5, &c.chunks, &c.count, &c.note), STATUS_OK);
        assert_int_equal(c.count, 1);
        assert_non_null(c.note);
        assert_non_null(strstr(c.note, words[i]));
        scope_done(&c.sc);
    }
    struct cut c = cut("recursive", 10, 2, "a b c", 5);
    assert_null(c.note);
    scope_done(&c.sc);
}

static void a_size_of_zero_is_refused(void **state)
{
    (void)state;
    struct scope sc;
    scope_init(&sc, NULL);
    struct chunk *chunks;
    size_t count;
    const char *note = NULL;
    struct chunk_options options = {.size = 0};
    assert_int_equal(chunk_text(&sc, &options, &toy, NULL, "a", 1, &chunks, &count, &note), STATUS_INVALID);
    scope_done(&sc);
}

/* ---- by the model's own tokenizer ---- */

static struct tokenizer *open_model_tokenizer(void)
{
    char path[600], error[256] = "";
    snprintf(path, sizeof path, "%s/tokenizer.json", golden_model_dir());
    struct tokenizer *t = tokenizer_open(path, error, sizeof error);
    if (!t)
        fail_msg("%s", error);
    return t;
}

static size_t model_spans(void *context, struct scope *sc, const char *text, size_t len, struct token_span **out)
{
    struct token_span *spans = NULL;
    size_t count = 0;
    tokenizer_encode_spans(context, text, len, &spans, &count);
    *out = arena_array(&sc->arena, count + 1, sizeof **out);
    if (count > 0)
        memcpy(*out, spans, count * sizeof **out);
    free(spans);
    return count;
}

/* Cut by the whole text's tokens, a chunk must not have more of them when the model reads it alone. */
static void check_by_model(struct tokenizer *t, const char *text, size_t len, size_t size)
{
    struct scope sc;
    scope_init(&sc, NULL);
    struct token_counter counter = {.spans = model_spans, .context = t};
    struct chunk_options options = {.strategy = "recursive", .size = size, .overlap = size / 4};
    struct chunk *chunks;
    size_t count;
    const char *note = NULL;
    assert_int_equal(chunk_text(&sc, &options, &counter, NULL, text, len, &chunks, &count, &note), STATUS_OK);
    assert_true(count > 0);
    struct token_list ids = {0};
    for (size_t i = 0; i < count; i++) {
        ids.count = 0;
        tokenizer_encode(t, text + chunks[i].start, chunks[i].end - chunks[i].start, 0, &ids);
        if (ids.count - 2 > chunks[i].tokens)
            fail_msg("chunk %zu of size %zu: %zu tokens instead of %zu", i, size, ids.count - 2, chunks[i].tokens);
    }
    token_list_free(&ids);
    scope_done(&sc);
}

static void a_chunk_by_itself_has_no_more_tokens_than_were_counted(void **state)
{
    (void)state;
    struct tokenizer *t = open_model_tokenizer();
    static const char *const texts[] = {
        "unaffable internationalization, hyper-ventilation. Antidisestablishmentarianism!",
        "한국어라는말은아주길게이어붙여쓸수도있습니다 그리고 띄어쓰기도 합니다",
        "z\xE2\x80\x8Bzo@zz z\xCC\x81o\xCC\x81zoo", /* invisible characters and accents within words */
        "吹雪の夜、梟は森の中で狩りをします。ナイト",
        "a[SEP]b [CLS] x[MASK]",
        "eeKKKKKKKKKK\vK\x02\x01\bOn the KKKKK\fKKKKKKKK 'e two"}; /* control characters that divide no words */
    for (size_t i = 0; i < array_len(texts); i++) {
        for (size_t size = 4; size < 12; size++)
            check_by_model(t, texts[i], strlen(texts[i]), size);
    }
    size_t len;
    scoped_memory char *page = golden_read("docs/architecture.md", &len);
    check_by_model(t, page, len, 100);
    tokenizer_close(t);
}

static void a_size_beyond_the_model_shrinks_with_its_overlap(void **state)
{
    (void)state;
    size_t size = 1024, overlap = 200;
    assert_true(chunk_fit(254, &size, &overlap));
    assert_int_equal(size, 254);
    assert_int_equal(overlap, 49);
    assert_false(chunk_fit(254, &size, &overlap));
    assert_int_equal(overlap, 49);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_text_is_covered_in_order_within_size_and_overlap),
        cmocka_unit_test(a_text_without_blanks_is_cut_between_code_points),
        cmocka_unit_test(a_long_gap_does_not_make_a_long_chunk),
        cmocka_unit_test(a_text_of_blanks_has_no_chunks),
        cmocka_unit_test(paragraphs_are_kept_together),
        cmocka_unit_test(a_long_paragraph_is_cut_between_sentences),
        cmocka_unit_test(an_overlap_repeats_the_end_of_the_chunk_before),
        cmocka_unit_test(a_heading_stays_with_what_it_heads),
        cmocka_unit_test(markdown_is_cut_at_headings_and_tells_their_path),
        cmocka_unit_test(a_hash_in_a_fence_is_no_heading),
        cmocka_unit_test(a_fence_that_fits_is_not_divided),
        cmocka_unit_test(a_megabyte_is_cut_by_every_strategy),
        cmocka_unit_test(a_table_that_fits_is_not_divided),
        cmocka_unit_test(small_sections_are_joined_up_to_the_least_size),
        cmocka_unit_test(deeper_headings_than_asked_for_begin_no_chunk),
        cmocka_unit_test(separators_are_cut_behind_rather_than_elsewhere),
        cmocka_unit_test(a_change_of_meaning_is_cut_at),
        cmocka_unit_test(a_part_without_changes_is_cut_at_its_largest_distances),
        cmocka_unit_test(one_sentence_is_one_chunk_by_meaning),
        cmocka_unit_test(a_breakpoint_leaves_no_part_smaller_than_the_least_size),
        cmocka_unit_test(an_embedder_that_is_away_ends_the_cutting),
        cmocka_unit_test(chunks_lie_in_parents_that_come_before_them),
        cmocka_unit_test(hybrid_takes_each_section_as_it_is),
        cmocka_unit_test(what_cannot_be_done_is_done_otherwise_and_said),
        cmocka_unit_test(a_size_of_zero_is_refused),
        cmocka_unit_test(a_size_beyond_the_model_shrinks_with_its_overlap),
        cmocka_unit_test(a_chunk_by_itself_has_no_more_tokens_than_were_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
