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

struct cut {
    struct scope sc;
    struct chunk *chunks;
    size_t count;
    const char *note;
};

static struct cut cut(const char *strategy, size_t size, size_t overlap, const char *text, size_t len)
{
    struct cut c = {0};
    scope_init(&c.sc, NULL);
    struct chunk_options options = {.strategy = strategy, .size = size, .overlap = overlap};
    assert_int_equal(chunk_text(&c.sc, &options, &toy, text, len, &c.chunks, &c.count, &c.note), STATUS_OK);
    return c;
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

/* What must hold for every text and every setting. */
static void check_properties(const char *strategy, size_t size, size_t overlap, const char *text, size_t len)
{
    struct cut c = cut(strategy, size, overlap, text, len), again = cut(strategy, size, overlap, text, len);
    assert_int_equal(c.count, again.count);
    size_t covered = 0;
    for (size_t i = 0; i < c.count; i++) {
        const struct chunk *k = &c.chunks[i];
        assert_memory_equal(&k->start, &again.chunks[i].start, 3 * sizeof(size_t));
        assert_true(k->start < k->end && k->end <= len);
        assert_true(utf8_is_valid(text + k->start, k->end - k->start));
        assert_true(k->tokens >= 1 && k->tokens <= size);
        assert_true(tokens_of(text, k->start, k->end) <= k->tokens);
        assert_false(is_blank(text, k->start, k->end));
        assert_true(k->start >= covered
                        ? is_blank(text, covered, k->start)
                        : tokens_of(text, k->start, covered) <= (overlap > size / 2 ? size / 2 : overlap));
        assert_true(i == 0 || (k->start > c.chunks[i - 1].start && k->end > c.chunks[i - 1].end));
        covered = k->end;
    }
    assert_true(is_blank(text, covered, len));
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
    static const char *const pieces[] = {
        "word", "a",  "Ünï", "日本語", "。",  ". ", "! ",      "? \"",    "\n",   "\n\n", "\n# Head\n",    "\n```\n",
        "    ", "\t", "- ",  "\r\n",   "x_y", ", ", "\n---\n", "\n===\n", "🦊", "(",    "\n## Two ##\n", "~~~\n"};
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
    static const char *const strategies[] = {"character", "recursive", "markdown"};
    static const size_t sizes[] = {1, 2, 3, 7, 20, 100, 220};
    for (int i = 0; i < 600; i++) {
        scoped_text t = {0};
        for (size_t n = random_below(400); n > 0; n--)
            append_random_piece(&t);
        size_t size = sizes[random_below(array_len(sizes))];
        check_properties(strategies[i % 3], size, random_below(size), text_str(&t), t.len);
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

static void an_unknown_strategy_falls_back_and_says_so(void **state)
{
    (void)state;
    struct cut c = cut("semantic", 10, 2, "a b c", 5);
    assert_int_equal(c.count, 1);
    assert_non_null(c.note);
    assert_non_null(strstr(c.note, "semantic"));
    scope_done(&c.sc);
    c = cut("recursive", 10, 2, "a b c", 5);
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
    assert_int_equal(chunk_text(&sc, &options, &toy, "a", 1, &chunks, &count, &note), STATUS_INVALID);
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
    assert_int_equal(chunk_text(&sc, &options, &counter, text, len, &chunks, &count, &note), STATUS_OK);
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
        cmocka_unit_test(an_unknown_strategy_falls_back_and_says_so),
        cmocka_unit_test(a_size_of_zero_is_refused),
        cmocka_unit_test(a_size_beyond_the_model_shrinks_with_its_overlap),
        cmocka_unit_test(a_chunk_by_itself_has_no_more_tokens_than_were_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
