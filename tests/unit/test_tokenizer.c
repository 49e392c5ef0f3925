#include "common/text.h"
#include "tests/support/golden.h"
#include "worker/embed/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct tokenizer *tokenizer;

static int open_tokenizer(void **state)
{
    (void)state;
    char path[600], error[256] = "";
    snprintf(path, sizeof path, "%s/tokenizer.json", golden_model_dir());
    tokenizer = tokenizer_open(path, error, sizeof error);
    if (!tokenizer)
        print_error("%s: %s\n", path, error);
    return tokenizer ? 0 : -1;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static void ids_are_those_of_the_reference_implementation(void **state)
{
    (void)state;
    scoped(cJSON) *golden = golden_json("tests/golden/embed_tokens.json");
    int count = 0;
    for (const cJSON *c = cJSON_GetObjectItem(golden, "cases")->child; c; c = c->next, count++) {
        size_t len, i = 0;
        char *text = golden_unhex(json_get_text(c, "text", ""), &len);
        struct token_list got = {0};
        tokenizer_encode(tokenizer, text, len, 0, &got);
        for (const cJSON *id = cJSON_GetObjectItem(c, "ids")->child; id; id = id->next, i++) {
            if (i >= got.count || got.ids[i] != id->valueint)
                fail_msg("case %d, token %zu of '%s'", count, i, text);
        }
        assert_int_equal(got.count, i);
        token_list_free(&got);
        free(text);
    }
    assert_true(count > 400);
}

static void every_code_point_is_treated_as_the_reference_does(void **state)
{
    (void)state;
    scoped(cJSON) *golden = golden_json("tests/golden/embed_tokens.json");
    struct token_list got = {0};
    uint32_t block = 0;
    for (const cJSON *h = cJSON_GetObjectItem(golden, "block_hashes")->child; h; h = h->next, block += 4096) {
        uint64_t hash = 0xCBF29CE484222325u;
        for (uint32_t cp = block; cp < block + 4096; cp++) {
            if (cp >= 0xD800 && cp <= 0xDFFF)
                continue;
            char text[16], c[4];
            size_t n = utf8_put(c, cp);
            int len = 0;
            text[len++] = 'a';
            memcpy(text + len, c, n);
            len += (int)n;
            memcpy(text + len, "b ", 2);
            len += 2;
            memcpy(text + len, c, n);
            got.count = 0;
            tokenizer_encode(tokenizer, text, (size_t)len + n, 0, &got);
            for (size_t i = 0; i < got.count; i++)
                hash = (hash ^ (uint64_t)got.ids[i]) * 0x100000001B3u;
        }
        char hex[17];
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)hash);
        if (strcmp(hex, h->valuestring) != 0)
            fail_msg("a code point of U+%04X … U+%04X differs", block, block + 4095);
    }
    token_list_free(&got);
    assert_int_equal(block, 0x110000);
}

static void long_text_is_cut_to_the_limit_between_the_special_tokens(void **state)
{
    (void)state;
    scoped_text t = {0};
    for (int i = 0; i < 1000; i++)
        text_puts(&t, "word ");
    struct token_list got = {0};
    tokenizer_encode(tokenizer, t.data, t.len, 256, &got);
    assert_int_equal(got.count, 256);
    assert_int_equal(got.ids[0], 101);
    assert_int_equal(got.ids[255], 102);
    token_list_free(&got);
}

static void spans_name_the_bytes_of_each_token(void **state)
{
    (void)state;
    const char text[] = "Caf\xC3\xA9, unaffable";
    struct token_span *spans = NULL;
    size_t count = 0;
    tokenizer_encode_spans(tokenizer, text, strlen(text), &spans, &count);
    assert_true(count >= 4);
    assert_int_equal(spans[0].start, 0);
    assert_int_equal(spans[0].end, 5);
    assert_int_equal(spans[1].start, 5);
    assert_int_equal(spans[1].end, 6);
    assert_int_equal(spans[count - 1].end, strlen(text));
    for (size_t i = 1; i < count; i++)
        assert_true(spans[i].start >= spans[i - 1].end);
    free(spans);
}

static void invalid_utf8_is_dropped(void **state)
{
    (void)state;
    struct token_list clean = {0}, dirty = {0};
    tokenizer_encode(tokenizer, "hello world", 11, 0, &clean);
    tokenizer_encode(tokenizer, "hel\xFFlo wo\xC3rld", 13, 0, &dirty);
    assert_int_equal(clean.count, dirty.count);
    assert_memory_equal(clean.ids, dirty.ids, clean.count * sizeof *clean.ids);
    token_list_free(&clean);
    token_list_free(&dirty);
}

static void a_damaged_tokenizer_file_is_refused_with_a_sentence(void **state)
{
    (void)state;
    static const char *const files[] = {
        "", "{", "[]", "{\"normalizer\":{\"type\":\"NFC\"}}",
        "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
        "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":7}}}"};
    for (size_t i = 0; i < array_len(files); i++) {
        char path[] = "/tmp/opstream-tokenizer-XXXXXX", error[256] = "";
        int fd = mkstemp(path);
        FILE *f = fdopen(fd, "w");
        fputs(files[i], f);
        fclose(f);
        assert_null(tokenizer_open(path, error, sizeof error));
        assert_true(strlen(error) > 10);
        remove(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_reference_implementation),
        cmocka_unit_test(every_code_point_is_treated_as_the_reference_does),
        cmocka_unit_test(long_text_is_cut_to_the_limit_between_the_special_tokens),
        cmocka_unit_test(spans_name_the_bytes_of_each_token),
        cmocka_unit_test(invalid_utf8_is_dropped),
        cmocka_unit_test(a_damaged_tokenizer_file_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
