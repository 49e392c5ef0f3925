#include "common/text.h"
#include "worker/embed/model.h"
#include "worker/embed/safetensors.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A whole model folder of a few KB, of which each test damages one thing. */
enum { HIDDEN = 4, FFN = 6, VOCAB = 5, POSITIONS = 8 };

static const char config[] =
    "{\"model_type\":\"bert\",\"num_hidden_layers\":1,\"hidden_size\":4,\"num_attention_heads\":2,"
    "\"intermediate_size\":6,\"vocab_size\":5,\"max_position_embeddings\":8,\"layer_norm_eps\":1e-12}";
static const char modules[] = "[{\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
                              "{\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models.Pooling\"},"
                              "{\"path\":\"2_Normalize\",\"type\":\"sentence_transformers.models.Normalize\"}]";
static const char pooling[] = "{\"pooling_mode_mean_tokens\":true}";
static const char tokenizer[] =
    "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
    "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"a\":3,\"##b\":4}}}";

static char folder[64];

static void write_file(const char *name, const void *bytes, size_t len)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wbe");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

static void write_weights(const char *header, size_t data_bytes)
{
    scoped_text t = {0};
    uint64_t len = strlen(header);
    text_append(&t, &len, sizeof len); /* little-endian, as the machines that we run on */
    text_append(&t, header, len);
    static const float some[64] = {1, 0.5f, -1, 0.25f};
    for (size_t left = data_bytes; left > 0;) {
        size_t n = left < sizeof some ? left : sizeof some;
        text_append(&t, some, n);
        left -= n;
    }
    write_file("model.safetensors", t.data, t.len);
}

struct entry {
    const char *name;
    int rows, columns;
};

static const struct entry entries[] = {
    {"embeddings.word_embeddings.weight", VOCAB, HIDDEN},
    {"embeddings.position_embeddings.weight", POSITIONS, HIDDEN},
    {"embeddings.token_type_embeddings.weight", 2, HIDDEN},
    {"embeddings.LayerNorm.weight", HIDDEN, 0},
    {"embeddings.LayerNorm.bias", HIDDEN, 0},
    {"encoder.layer.0.attention.self.query.weight", HIDDEN, HIDDEN},
    {"encoder.layer.0.attention.self.query.bias", HIDDEN, 0},
    {"encoder.layer.0.attention.self.key.weight", HIDDEN, HIDDEN},
    {"encoder.layer.0.attention.self.key.bias", HIDDEN, 0},
    {"encoder.layer.0.attention.self.value.weight", HIDDEN, HIDDEN},
    {"encoder.layer.0.attention.self.value.bias", HIDDEN, 0},
    {"encoder.layer.0.attention.output.dense.weight", HIDDEN, HIDDEN},
    {"encoder.layer.0.attention.output.dense.bias", HIDDEN, 0},
    {"encoder.layer.0.attention.output.LayerNorm.weight", HIDDEN, 0},
    {"encoder.layer.0.attention.output.LayerNorm.bias", HIDDEN, 0},
    {"encoder.layer.0.intermediate.dense.weight", FFN, HIDDEN},
    {"encoder.layer.0.intermediate.dense.bias", FFN, 0},
    {"encoder.layer.0.output.dense.weight", HIDDEN, FFN},
    {"encoder.layer.0.output.dense.bias", HIDDEN, 0},
    {"encoder.layer.0.output.LayerNorm.weight", HIDDEN, 0},
    {"encoder.layer.0.output.LayerNorm.bias", HIDDEN, 0},
};

/* All weights, in order, but for the entry `damaged` (NULL = none), which is written as `instead`. */
static void write_all_weights(const char *damaged, const char *instead)
{
    scoped_text t = {0};
    size_t at = 0;
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        const struct entry *e = &entries[i];
        size_t bytes = (size_t)e->rows * (size_t)(e->columns ? e->columns : 1) * sizeof(float);
        char shape[48], line[256];
        snprintf(shape, sizeof shape, e->columns ? "[%d,%d]" : "[%d]", e->rows, e->columns);
        snprintf(line, sizeof line, "%c\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                 i ? ',' : '{', e->name, shape, at, at + bytes);
        if (damaged && strcmp(damaged, e->name) == 0)
            snprintf(line, sizeof line, "%c\"%s\":%s", i ? ',' : '{', e->name, instead);
        text_puts(&t, line);
        at += bytes;
    }
    text_puts(&t, "}");
    write_weights(text_str(&t), at);
}

static int make_folder(void **state)
{
    (void)state;
    char path[128];
    strcpy(folder, "/tmp/opstream-model-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/1_Pooling", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    write_text("config.json", config);
    write_text("modules.json", modules);
    write_text("1_Pooling/config.json", pooling);
    write_text("tokenizer.json", tokenizer);
    write_all_weights(NULL, NULL);
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    static const char *const names[] = {
        "1_Pooling/config.json",     "1_Pooling", "config.json", "modules.json", "tokenizer.json", "model.safetensors",
        "sentence_bert_config.json", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    return 0;
}

static void expect_refused(const char *sentence)
{
    char error[256] = "";
    struct embed_model *m = embed_model_open(folder, error, sizeof error);
    if (m)
        fail_msg("was opened; wanted: %s", sentence);
    if (!strstr(error, sentence))
        fail_msg("'%s' does not hold '%s'", error, sentence);
}

static void a_whole_folder_is_opened(void **state)
{
    (void)state;
    char error[256] = "";
    struct embed_model *m = embed_model_open(folder, error, sizeof error);
    if (!m)
        fail_msg("%s", error);
    assert_int_equal(m->dim, HIDDEN);
    assert_int_equal(m->max_tokens, POSITIONS);
    assert_int_equal(m->bert.normalise, 1);
    embed_model_close(m);
}

static void damaged_configurations_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *change, *into, *sentence;
    } list[] = {
        {"\"bert\"", "\"gpt2\"", "only bert is known"},
        {"\"num_hidden_layers\":1", "\"num_hidden_layers\":0", "num_hidden_layers must be between"},
        {"\"num_hidden_layers\":1", "\"num_hidden_layers\":129", "num_hidden_layers must be between"},
        {"\"num_hidden_layers\":1", "\"num_hidden_layers\":2",
         "encoder.layer.1.attention.self.query.weight is missing"},
        {"\"hidden_size\":4", "\"hidden_size\":-4", "hidden_size must be between"},
        {"\"hidden_size\":4", "\"hidden_size\":1e300", "hidden_size must be between"},
        {"\"hidden_size\":4", "\"hidden_size\":4.5", "hidden_size must be between"},
        {"\"hidden_size\":4", "\"hidden_size\":\"4\"", "hidden_size must be between"},
        {"\"hidden_size\":4", "\"hidden_size\":6", "another shape"},
        {"\"num_attention_heads\":2", "\"num_attention_heads\":3", "no multiple"},
        {"\"intermediate_size\":6", "\"intermediate_size\":7", "another shape"},
        {"\"vocab_size\":5", "\"vocab_size\":4", "more tokens than the model has embeddings"},
        {"\"max_position_embeddings\":8", "\"max_position_embeddings\":9", "another shape"},
        {"1e-12", "-1", "layer_norm_eps must be between"},
        {"1e-12", "1e999", "layer_norm_eps"},
        {"}", "", "config.json is not JSON"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        scoped_text t = {0};
        const char *at = strstr(config, list[i].change);
        assert_non_null(at);
        text_append(&t, config, (size_t)(at - config));
        text_puts(&t, list[i].into);
        text_puts(&t, at + strlen(list[i].change));
        write_text("config.json", text_str(&t));
        if (strstr(list[i].into, "1e999")) { /* "not JSON" and "out of range" are both right */
            char error[256] = "";
            assert_null(embed_model_open(folder, error, sizeof error));
            assert_non_null(strstr(error, "config.json"));
            continue;
        }
        expect_refused(list[i].sentence);
    }
}

static void other_modules_are_refused(void **state)
{
    (void)state;
#define TRANSFORMER "{\"type\":\"x.Transformer\"}"
#define POOLING "{\"type\":\"x.Pooling\"}"
    static const struct {
        const char *text, *sentence;
    } list[] = {
        {"[]", "there is no pooling"},
        {"{}", "there is no pooling"},
        {"7", "there is no pooling"},
        {"[" TRANSFORMER "]", "there is no pooling"},
        {"[" POOLING "," TRANSFORMER "]", "x.Pooling as module 1"},
        {"[" TRANSFORMER "," POOLING "," POOLING "]", "x.Pooling as module 3"},
        {"[" TRANSFORMER "," POOLING ",{\"type\":\"x.Dense\"}]", "x.Dense as module 3"},
        {"[" TRANSFORMER "," POOLING ",{\"type\":\"x.Normalize\"},{\"type\":\"x.Normalize\"}]", "as module 4"},
        {"[" TRANSFORMER ",{\"type\":\"x.Pooling\",\"path\":\"../elsewhere\"}]", "is not a folder's name"},
        {"[" TRANSFORMER ",{\"type\":\"x.Pooling\",\"path\":\"/etc\"}]", "is not a folder's name"},
        {"[" TRANSFORMER ",{\"type\":\"x.Pooling\",\"path\":\"2_Pooling\"}]", "there is no 2_Pooling/config.json"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        write_text("modules.json", list[i].text);
        expect_refused(list[i].sentence);
    }
    write_text("modules.json", modules);
    write_text("1_Pooling/config.json", "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}");
    expect_refused("exactly one");
    write_text("1_Pooling/config.json", "{\"pooling_mode_lasttoken\":true}");
    expect_refused("pooling_mode_lasttoken is not known");
}

static void a_length_past_the_positions_is_refused(void **state)
{
    (void)state;
    static const char *const lengths[] = {"9", "2", "-1", "1e12"};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char text[64];
        snprintf(text, sizeof text, "{\"max_seq_length\":%s}", lengths[i]);
        write_text("sentence_bert_config.json", text);
        expect_refused("max_seq_length must be between 3 and 8");
    }
}

static void damaged_weights_are_refused(void **state)
{
    (void)state;
    static const char name[] = "embeddings.LayerNorm.bias";
    static const char *const damages[] = {
        "null",
        "7",
        "{}",
        "{\"dtype\":\"I64\",\"shape\":[4],\"data_offsets\":[0,16]}",
        "{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,12]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0.5,16.5]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[100000000,100000016]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[18446744073709551600,18446744073709551616]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16,32]}",
        "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":{\"a\":0,\"b\":16}}",
        "{\"dtype\":\"F32\",\"shape\":[4.5],\"data_offsets\":[0,18]}",
        "{\"dtype\":\"F32\",\"shape\":[1000000000,1000000000,1000000000],\"data_offsets\":[0,16]}",
        "{\"dtype\":\"F32\",\"shape\":[2,2,1,1,1],\"data_offsets\":[0,16]}",
    };
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        write_all_weights(name, damages[i]);
        expect_refused("embeddings.LayerNorm.bias is missing or damaged");
    }
    write_all_weights(name, "{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}");
    expect_refused("embeddings.LayerNorm.bias has another shape");
    write_all_weights("embeddings.token_type_embeddings.weight",
                      "{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}");
    expect_refused("token_type_embeddings");
}

static void a_damaged_weights_file_is_refused(void **state)
{
    (void)state;
    static const unsigned char huge[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    write_file("model.safetensors", huge, sizeof huge);
    expect_refused("length is impossible");
    write_file("model.safetensors", huge, 7);
    expect_refused("shorter than its header");
    write_file("model.safetensors", huge, 0);
    expect_refused("no file, or empty");
    write_weights("[1,2]", 16);
    expect_refused("not a JSON object");
    write_weights("{\"a\":", 16);
    expect_refused("not a JSON object");
    write_weights("{}", 16);
    expect_refused("is missing or damaged");
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_int_equal(unlink(path), 0);
    expect_refused("No such file");
    assert_int_equal(mkdir(path, 0700), 0);
    expect_refused("no file, or empty");
}

static void a_damaged_tokenizer_is_refused(void **state)
{
    (void)state;
#define KINDS "\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
    static const struct {
        const char *text, *sentence;
    } list[] = {
        {"", "tokenizer.json"},
        {"{", "it is not JSON"},
        {"[]", "its normalizer"},
        {"{" KINDS "\"model\":{\"type\":\"BPE\"}}", "not BERT's WordPiece"},
        {"{" KINDS "\"model\":{\"type\":\"WordPiece\"}}", "no vocabulary"},
        {"{" KINDS "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "lacks [CLS]"},
        {"{" KINDS "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[CLS]\":0,\"[SEP]\":1,\"[UNK]\":3}}}",
         "out of range"},
        {"{" KINDS "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[CLS]\":0,\"[SEP]\":1,\"[UNK]\":-1}}}",
         "out of range"},
        {"{" KINDS "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[CLS]\":0,\"[SEP]\":1,\"[UNK]\":2}},"
         "\"added_tokens\":[{\"content\":\"x\",\"id\":3}]}",
         "added tokens"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        write_text("tokenizer.json", list[i].text);
        expect_refused(list[i].sentence);
    }
}

/* Weights whose place in the file is no multiple of four are copied, and give the same floats. */
static void unaligned_weights_are_read(void **state)
{
    (void)state;
    for (size_t spaces = 0; spaces < 4; spaces++) {
        write_all_weights(
            "embeddings.LayerNorm.bias",
            (const char *const[]){"{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}",
                                  "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16] }",
                                  "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0, 16] }",
                                  "{\"dtype\":\"F32\",\"shape\":[4], \"data_offsets\":[0, 16] }"}[spaces]);
        char error[256] = "";
        struct embed_model *m = embed_model_open(folder, error, sizeof error);
        assert_non_null(m);
        assert_true(m->bert.embeddings_norm_b[0] == 1 && m->bert.embeddings_norm_b[2] == -1);
        embed_model_close(m);
    }
}

int main(void)
{
#define FOLDER_TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {
        FOLDER_TEST(a_whole_folder_is_opened),       FOLDER_TEST(damaged_configurations_are_refused),
        FOLDER_TEST(other_modules_are_refused),      FOLDER_TEST(a_length_past_the_positions_is_refused),
        FOLDER_TEST(damaged_weights_are_refused),    FOLDER_TEST(a_damaged_weights_file_is_refused),
        FOLDER_TEST(a_damaged_tokenizer_is_refused), FOLDER_TEST(unaligned_weights_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
