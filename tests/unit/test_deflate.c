/* permessage-deflate: what is answered to an offer, what is compressed, what is unpacked. */
#include "api/relay/deflate.h"
#include "api/relay/extension.h"
#include "api/relay/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#define PLAIN "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
#define LIMITED PLAIN "; server_max_window_bits=12"

static void an_offer_that_can_be_kept_is_answered(void **state)
{
    (void)state;
    static const struct {
        const char *offers, *answer;
    } cases[] = {
        {"permessage-deflate", PLAIN},
        {"permessage-deflate; client_max_window_bits", PLAIN},
        {"permessage-deflate;client_max_window_bits=8", PLAIN},
        {"permessage-deflate; client_no_context_takeover; server_no_context_takeover", PLAIN},
        {" \tpermessage-deflate ;\tserver_max_window_bits = 12 ", LIMITED},
        {"permessage-deflate; server_max_window_bits=15; client_max_window_bits=15", LIMITED},
        {"permessage-deflate; server_max_window_bits=\"13\"", LIMITED},
        {"permessage-deflate; server_max_window_bits=\"1\\3\"", LIMITED},
        {"x-other; a=\"b, permessage-deflate; c\", permessage-deflate", PLAIN},
        {",, permessage-deflate,,", PLAIN},
        /* The first that can be kept, in the client's order. */
        {"permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=14, "
         "permessage-deflate",
         LIMITED},
        {"permessage-deflate; server_max_window_bits=9, permessage-deflate", PLAIN},
        {"permessage-deflate; surprise, permessage-deflate; client_max_window_bits", PLAIN},
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        const char *answer = extension_answer(cases[i].offers, strlen(cases[i].offers));
        assert_non_null(answer);
        assert_string_equal(answer, cases[i].answer);
    }
}

static void what_cannot_be_kept_is_declined(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        ",",
        "x-webkit-deflate-frame",
        "Permessage-Deflate",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=11",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=012",
        "permessage-deflate; server_max_window_bits=12x",
        "permessage-deflate; server_max_window_bits=999999999999999999999",
        "permessage-deflate; server_max_window_bits=-12",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=\" 12\"",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=\"a\"",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover=\"true\"",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; unknown",
        "permessage-deflate; Client_No_Context_Takeover",
        /* Not a header at all: nothing in it counts. */
        "permessage-deflate; ",
        "permessage-deflate; =12",
        "permessage-deflate; a=",
        "permessage-deflate; a=\"12",
        "permessage-deflate; a=\"12\\",
        "permessage-deflate; a=\"1\"2",
        "permessage-deflate x, permessage-deflate",
        "permessage-deflate, (",
        "permessage-deflate, x; y=z w",
        "permessage-deflate=1",
    };
    for (size_t i = 0; i < array_len(cases); i++)
        assert_null(extension_answer(cases[i], strlen(cases[i])));
    assert_null(extension_answer("permessage-deflate\0", 19));
}

static enum deflate_end unpack(const void *bytes, size_t len, size_t most, struct text *out)
{
    char *exact = must_malloc(len); /* a step beyond the end is seen by the sanitizers */
    memcpy(exact, bytes, len);
    enum deflate_end end = deflate_unpack(out, exact, len, most);
    free(exact);
    return end;
}

static void what_is_packed_is_unpacked_as_it_was(void **state)
{
    (void)state;
    for (size_t len = 200; len < 100000; len = len * 5 / 4) {
        scoped_text plain = {0}, packed = {0}, again = {0};
        for (size_t i = 0; plain.len < len; i++)
            text_printf(&plain, "{\"n\":%zu,\"current_file\":\"/srv/docs/%zu.pdf\"}", i, i * i);
        plain.len = len;
        assert_true(deflate_pack(&packed, plain.data, plain.len));
        assert_true(packed.len < len * 2 / 3);
        assert_int_equal(unpack(packed.data, packed.len, len, &again), DEFLATE_OK);
        assert_int_equal(again.len, len);
        assert_memory_equal(again.data, plain.data, len);
    }
}

/* The promise of server_max_window_bits=12. */
static void a_small_window_is_enough_to_unpack_what_is_packed(void **state)
{
    (void)state;
    scoped_text plain = {0}, packed = {0};
    for (size_t i = 0; plain.len < 60000; i++)
        text_printf(&plain, "%zu ", i * i * 7919 % 5000);
    assert_true(deflate_pack(&packed, plain.data, plain.len));
    text_append(&packed, "\0\0\xFF\xFF", 4);
    z_stream z = {0};
    assert_int_equal(inflateInit2(&z, -DEFLATE_WINDOW_BITS), Z_OK);
    z.next_in = (unsigned char *)packed.data;
    z.avail_in = (unsigned)packed.len;
    size_t at = 0;
    for (unsigned char piece[100]; at < plain.len; at += sizeof piece - z.avail_out) {
        z.next_out = piece;
        z.avail_out = sizeof piece;
        assert_int_equal(inflate(&z, Z_SYNC_FLUSH), Z_OK);
        assert_memory_equal(piece, plain.data + at, sizeof piece - z.avail_out);
    }
    assert_int_equal(at, plain.len);
    inflateEnd(&z);
}

static void what_is_short_or_does_not_shrink_is_not_packed(void **state)
{
    (void)state;
    char noise[4000];
    scoped_text packed = {0};
    unsigned x = 1;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)((x = x * 1103515245u + 12345u) >> 16);
    assert_false(deflate_pack(&packed, noise, sizeof noise));
    memset(noise, 'a', sizeof noise);
    assert_false(deflate_pack(&packed, noise, 199));
    assert_int_equal(packed.len, 0);
    assert_true(deflate_pack(&packed, noise, 200));
}

/* The examples of RFC 7692, section 7.2.3. */
static void messages_of_other_makers_are_unpacked(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\xf2\x48\xcd\xc9\xc9\x07\x00", 7},                          /* one block */
        {"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 11},         /* not compressed */
        {"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8},                      /* the last block, says it */
        {"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", 13}, /* two blocks */
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        scoped_text out = {0};
        assert_int_equal(unpack(cases[i].bytes, cases[i].len, 5, &out), DEFLATE_OK);
        assert_int_equal(out.len, 5);
        assert_memory_equal(out.data, "Hello", 5);
        text_clear(&out);
        assert_int_equal(unpack(cases[i].bytes, cases[i].len, 4, &out), DEFLATE_TOO_LARGE);
    }
    scoped_text out = {0};
    assert_int_equal(unpack("", 1, 5, &out), DEFLATE_OK);
    assert_int_equal(out.len, 0);
}

/* "ab" as a last block, then "abab…" that refers to it. */
static void a_block_after_the_last_one_may_refer_to_it(void **state)
{
    (void)state;
    unsigned char bytes[64];
    scoped_text out = {0};
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_FIXED), Z_OK);
    z.next_out = bytes;
    z.avail_out = sizeof bytes;
    z.next_in = (unsigned char *)"abcdefgh";
    z.avail_in = 8;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateReset(&z);
    assert_int_equal(deflateSetDictionary(&z, (const unsigned char *)"abcdefgh", 8), Z_OK);
    z.next_in = (unsigned char *)"abcdefghabcdefgh";
    z.avail_in = 16;
    assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
    size_t len = sizeof bytes - z.avail_out - 4;
    deflateEnd(&z);
    assert_true(len < 24);
    assert_int_equal(unpack(bytes, len, 100, &out), DEFLATE_OK);
    assert_string_equal(text_str(&out), "abcdefghabcdefghabcdefgh");
}

static void what_is_no_whole_message_is_broken(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"", 0},                             /* an empty message has a byte */
        {"\xf2\x48\xcd", 3},                 /* cut */
        {"\xf3\x48\xcd\xc9\xc9\x07\x00", 7}, /* a last block, and no byte behind it */
        {"\x06", 1},                         /* a kind of block that is none */
        {"\xff\xff\xff\xff", 4},
        {"\x00\x05\x00\xfa\xfe\x48\x65\x6c\x6c\x6f\x00", 11}, /* lengths that differ */
        {"\x02\x08\x20\x80\x00", 5},
    };
    for (size_t i = 0; i < array_len(cases); i++) {
        scoped_text out = {0};
        assert_int_equal(unpack(cases[i].bytes, cases[i].len, 1000, &out), DEFLATE_BROKEN);
    }
}

static void a_bomb_is_left_when_it_is_too_large(void **state)
{
    (void)state;
    const size_t bomb_bytes = 64 << 20, most = 64 << 10;
    z_stream z = {0};
    unsigned char *bomb = must_malloc(1 << 17), *zeros = must_calloc(1, bomb_bytes);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = zeros;
    z.avail_in = (unsigned)bomb_bytes;
    z.next_out = bomb;
    z.avail_out = 1 << 17;
    assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
    scoped_text out = {0};
    assert_int_equal(unpack(bomb, (1 << 17) - z.avail_out, most, &out), DEFLATE_TOO_LARGE);
    assert_true(out.len <= most && out.capacity <= 2 * most);
    deflateEnd(&z);
    free(bomb);
    free(zeros);
}

static struct frame *event_of(int filler)
{
    char json[2000];
    int len = snprintf(json, sizeof json,
                       "{\"id\":\"0123456789abcdef-5-0\",\"type\":\"document_processed\",\"operation_id\":\"o\","
                       "\"data\":{\"operation_id\":\"o\",\"total\":2,\"processed\":1,\"current_file\":\"%0*d\"}}",
                       filler, 7);
    return frame_event(json, (size_t)len, NULL);
}

static void a_compressed_rendering_is_made_once_and_marked(void **state)
{
    (void)state;
    struct frame *f = event_of(600);
    const struct frame *packed = frame_rendered(f, FRAME_WS_DEFLATED);
    assert_ptr_equal(frame_rendered(f, FRAME_WS_DEFLATED), packed);
    assert_int_equal(packed->bytes[0], 0xC1);
    assert_true(packed->len < f->len / 2);
    assert_true(packed->is_event && packed->is_progress);
    assert_string_equal(packed->type, f->type);
    size_t header = packed->bytes[1] < 126 ? 2 : 4;
    scoped_text out = {0};
    assert_int_equal(unpack(packed->bytes + header, packed->len - header, 2000, &out), DEFLATE_OK);
    assert_int_equal(out.len, f->json_len);
    assert_memory_equal(out.data, f->json, f->json_len);
    frame_unref(f);
}

static void a_flat_rendering_of_two_frames_is_compressed_frame_by_frame(void **state)
{
    (void)state;
    struct frame *f = event_of(600);
    const struct frame *flat = frame_rendered(f, FRAME_FLAT), *packed = frame_rendered(f, FRAME_FLAT_DEFLATED);
    assert_true(packed->len < flat->len);
    size_t frames = 0;
    for (size_t at = 0; at < packed->len; frames++) {
        assert_int_equal(packed->bytes[at], 0xC1);
        bool is_short = packed->bytes[at + 1] < 126;
        at += is_short ? 2 + (size_t)packed->bytes[at + 1]
                       : 4 + ((size_t)packed->bytes[at + 2] << 8 | packed->bytes[at + 3]);
    }
    assert_int_equal(frames, 2);
    frame_unref(f);
}

static void small_events_go_as_they_are(void **state)
{
    (void)state;
    struct frame *f = event_of(1);
    assert_ptr_equal(frame_rendered(f, FRAME_WS_DEFLATED), f);
    assert_ptr_equal(frame_rendered(f, FRAME_FLAT_DEFLATED), frame_rendered(f, FRAME_FLAT));
    frame_unref(f);
    static const char stage[] = "{\"type\":\"scanning_documents\",\"data\":{}}";
    f = frame_event(stage, strlen(stage), NULL);
    assert_null(frame_rendered(f, FRAME_FLAT_DEFLATED));
    frame_unref(f);
}

/* Each of two bytes, and each would have the window set anew. */
static void thousands_of_last_blocks_are_refused(void **state)
{
    (void)state;
    scoped_text bomb = {0}, out = {0};
    for (int i = 0; i < 4; i++)
        text_append(&bomb, "\x03", 2);
    text_append(&bomb, "", 1);
    assert_int_equal(deflate_unpack(&out, bomb.data, bomb.len, 65536), DEFLATE_OK);
    text_clear(&bomb);
    for (int i = 0; i < 30000; i++)
        text_append(&bomb, "\x03", 2);
    text_append(&bomb, "", 1);
    assert_int_equal(deflate_unpack(&out, bomb.data, bomb.len, 65536), DEFLATE_BROKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands_of_last_blocks_are_refused),
        cmocka_unit_test(an_offer_that_can_be_kept_is_answered),
        cmocka_unit_test(what_cannot_be_kept_is_declined),
        cmocka_unit_test(what_is_packed_is_unpacked_as_it_was),
        cmocka_unit_test(a_small_window_is_enough_to_unpack_what_is_packed),
        cmocka_unit_test(what_is_short_or_does_not_shrink_is_not_packed),
        cmocka_unit_test(messages_of_other_makers_are_unpacked),
        cmocka_unit_test(a_block_after_the_last_one_may_refer_to_it),
        cmocka_unit_test(what_is_no_whole_message_is_broken),
        cmocka_unit_test(a_bomb_is_left_when_it_is_too_large),
        cmocka_unit_test(a_compressed_rendering_is_made_once_and_marked),
        cmocka_unit_test(a_flat_rendering_of_two_frames_is_compressed_frame_by_frame),
        cmocka_unit_test(small_events_go_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
