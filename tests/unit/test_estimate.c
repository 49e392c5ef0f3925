#include "common/estimate.h"
#include "common/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct estimate_input plain(void)
{
    return (struct estimate_input){.documents = 10,
                                   .bytes = 100000,
                                   .chunks = -1,
                                   .chunk_size = 200,
                                   .chunk_overlap = 40,
                                   .dim = 384,
                                   .quantization = "float16",
                                   .graph_from = 10000};
}

static void text_is_cut_by_the_step_between_two_chunks(void **state)
{
    (void)state;
    struct estimate_input in = plain();
    struct estimate e;
    estimate_make(&in, &e);
    /* 25,000 tokens, 160 further with each chunk */
    assert_int_equal(e.chunks, 156);
    assert_int_equal(e.tokens, 31250);
    assert_int_equal(e.documents, 10);
    assert_int_equal(e.gpu_memory_bytes, 0);
    assert_true(e.seconds > 0);
}

static void past_operations_replace_the_guesses(void **state)
{
    (void)state;
    struct estimate_input in = plain();
    struct estimate guessed, known;
    estimate_make(&in, &guessed);
    in.tokens_per_second = 31250;
    in.tokens_per_byte = 0.5;
    estimate_make(&in, &known);
    assert_int_equal(known.chunks, 2 * guessed.chunks + 1); /* 312.5 to the nearest */
    assert_true(known.seconds < guessed.seconds);
    assert_true(known.seconds >= 2 && known.seconds < 2.1);
}

static void chunks_that_are_there_are_taken_as_they_are_and_a_graph_costs_its_part(void **state)
{
    (void)state;
    struct estimate_input in = plain();
    struct estimate small, large;
    in.keeps_chunks = true;
    in.chunks = 9999;
    in.tokens_per_chunk = 100;
    estimate_make(&in, &small);
    assert_int_equal(small.chunks, 9999);
    assert_int_equal(small.tokens, 999900);
    assert_int_equal(small.text_bytes, 0);
    in.chunks = 10000;
    estimate_make(&in, &large);
    assert_true(large.vector_bytes > small.vector_bytes * 3 / 2);
    in.quantization = "float32";
    estimate_make(&in, &small);
    assert_true(small.vector_bytes > large.vector_bytes * 3 / 2);
}

static void every_document_has_a_chunk_and_nothing_has_none(void **state)
{
    (void)state;
    struct estimate_input in = plain();
    struct estimate e;
    in.bytes = 10;
    estimate_make(&in, &e);
    assert_int_equal(e.chunks, 10);
    in.bytes = in.documents = 0;
    estimate_make(&in, &e);
    assert_int_equal(e.chunks, 0);
    assert_int_equal(e.vector_bytes, 0);
    assert_true(e.seconds == 0);
}

static void absurd_input_neither_overflows_nor_divides_by_nothing(void **state)
{
    (void)state;
    struct estimate_input in = plain();
    struct estimate e;
    in.bytes = in.documents = INT64_MAX;
    in.chunk_size = 0;
    in.chunk_overlap = INT64_MAX;
    in.dim = 4000;
    in.has_gpu = true;
    estimate_make(&in, &e);
    assert_true(e.chunks > 0 && e.tokens > 0 && e.vector_bytes > 0 && e.text_bytes >= 0);
    assert_true(INT64_MAX - e.vector_bytes >= e.text_bytes); /* they are added */
    assert_true(e.gpu_memory_bytes > 0);
}

static void an_estimate_is_written_with_all_its_fields(void **state)
{
    (void)state;
    struct text t = {0};
    const struct estimate e = {1, 2, 3, 4, 5.5, 6, 7, 8, true, "a \"guess\""};
    text_puts(&t, "{");
    estimate_write(&t, &e);
    assert_non_null(strstr(text_str(&t), "\"documents\":1,\"bytes\":2,\"chunks\":3,\"tokens\":4,\"seconds\":5.5,"
                                         "\"vector_bytes\":6,\"text_bytes\":7,\"gpu_memory_bytes\":8,"
                                         "\"is_complete\":true,\"basis\":\"a \\\"guess\\\"\""));
    text_free(&t);
}

static void numbers_are_found_at_the_beginning_of_lines(void **state)
{
    (void)state;
    static const char text[] = "MemTotal:       16000 kB\nMemAvailable:\t  8000 kB\ninactive_file 4096\n"
                               "xinactive_file 1\nempty:\nword: many\nminus: -5";
    assert_int_equal(machine_line(text, "MemAvailable"), 8000);
    assert_int_equal(machine_line(text, "inactive_file"), 4096);
    assert_int_equal(machine_line(text, "Mem"), -1);
    assert_int_equal(machine_line(text, "word"), -1);
    assert_int_equal(machine_line(text, "minus"), -1);
    assert_int_equal(machine_line(text, "absent"), -1);
    assert_int_equal(machine_line("", "x"), -1);
}

static void the_machine_tells_what_it_has_and_a_peak_begins_anew(void **state)
{
    (void)state;
    struct machine m;
    enum { LARGE = 64 << 20 };
    machine_look("/tmp", &m);
    assert_true(m.memory_total >= m.memory_free && m.memory_free > 0);
    assert_true(m.disk_total >= m.disk_free && m.disk_free > 0);
    machine_look("/no/such/folder", &m);
    assert_int_equal(m.disk_free, -1);
    volatile char *p = malloc(LARGE);
    for (size_t i = 0; i < LARGE; i += 4096)
        p[i] = 1;
    int64_t high = machine_peak();
    free((void *)p);
    assert_true(high >= LARGE);
    machine_forget_peak();
    assert_true(machine_peak() <= high + (LARGE >> 3)); /* the kernel counts in batches; a sanitizer frees late */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_cut_by_the_step_between_two_chunks),
        cmocka_unit_test(past_operations_replace_the_guesses),
        cmocka_unit_test(chunks_that_are_there_are_taken_as_they_are_and_a_graph_costs_its_part),
        cmocka_unit_test(every_document_has_a_chunk_and_nothing_has_none),
        cmocka_unit_test(absurd_input_neither_overflows_nor_divides_by_nothing),
        cmocka_unit_test(an_estimate_is_written_with_all_its_fields),
        cmocka_unit_test(numbers_are_found_at_the_beginning_of_lines),
        cmocka_unit_test(the_machine_tells_what_it_has_and_a_peak_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
