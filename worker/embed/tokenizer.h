/* Token ids as Hugging Face's tokenizers makes them for BERT models: BertNormalizer (lower-casing), BertPreTokenizer,
 * WordPiece. Read-only after opening, so threads may share one. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct tokenizer;

struct token_list {
    int32_t *ids; /* heap */
    size_t count, capacity;
};
void token_list_free(struct token_list *list);

/* A token and the bytes of the text that it stands for. */
struct token_span {
    int32_t id;
    uint32_t start, end;
};

/* Reads a tokenizer.json (untrusted). Its truncation and padding are ignored: the model's own limit counts. NULL with a
 * sentence in `error` when it is damaged or of a kind not known here. */
struct tokenizer *tokenizer_open(const char *path, char *error, size_t error_size);
void tokenizer_close(struct tokenizer *t);
/* Number of entries of the vocabulary: every id is below it. */
int tokenizer_vocab_size(const struct tokenizer *t);
/* Appends [CLS] … [SEP] to `out`; at most `max_tokens` ids with these two, cut on the right; 0 = uncut. Invalid UTF-8
 * is dropped as U+FFFD is. Text that holds a special token literally ("[SEP]") gets its id, as the reference does. */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, size_t max_tokens,
                      struct token_list *out);
/* The tokens of a text without special ones added, with the bytes they stand for; *out_spans is malloc'ed. */
void tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t len, struct token_span **out_spans,
                            size_t *out_count);
