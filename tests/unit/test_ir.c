#include "common/ir/dataset.h"
#include "common/ir/metrics.h"
#include "common/ir/qrels.h"
#include "common/ir/significance.h"
#include "common/ir/topics.h"
#include "tests/support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_near(double value, double expected)
{
    if (fabs(value - expected) > 1e-12)
        fail_msg("%.17g is not %.17g", value, expected);
}

/* ---- metrics ---- */

/* Judged: d1 = 3, d3 = 2, d4 = 0, d5 = 1, d6 = 3, d7 = 1, so five are relevant. Found, in this order: d1 d2 d3 d4 d5;
 * d2 is not judged. The definitions are those of trec_eval's documentation, the arithmetic is on paper:
 *
 *   P_3 = 2/3 (d1, d3), P_5 = 3/5, P_10 = 3/10 (ten asked for, five found)
 *   recall_3 = 2/5, recall_5 = 3/5
 *   recip_rank = 1 (d1 is first)
 *   map_cut_5 = (1/1 + 2/3 + 3/5) / 5 = 34/75
 *   ndcg_cut_3: DCG = 3/log2(2) + 0 + 2/log2(4) = 3 + 1 = 4; ideal grades 3 3 2 1 1: 3 + 3/log2(3) + 2/2
 *   ndcg_cut_5: DCG = 4 + 0 + 1/log2(6); ideal = 3 + 3/log2(3) + 1 + 1/log2(5) + 1/log2(6) */
static void the_file_computed_by_hand_agrees(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct ir_judgment judged[] = {{"d1", 3}, {"d3", 2}, {"d4", 0}, {"d5", 1}, {"d6", 3}, {"d7", 1}};
    struct ir_ranked found[] = {{"d4", 0.6f}, {"d1", 0.9f}, {"d5", 0.5f}, {"d2", 0.8f}, {"d3", 0.7f}};
    ir_sort(found, array_len(found));
    struct ir_metrics at3 = ir_measure(&arena, found, array_len(found), judged, array_len(judged), 3);
    struct ir_metrics at5 = ir_measure(&arena, found, array_len(found), judged, array_len(judged), 5);
    struct ir_metrics at10 = ir_measure(&arena, found, array_len(found), judged, array_len(judged), 10);
    assert_near(at3.precision, 2.0 / 3);
    assert_near(at5.precision, 3.0 / 5);
    assert_near(at10.precision, 3.0 / 10);
    assert_near(at3.recall, 2.0 / 5);
    assert_near(at5.recall, 3.0 / 5);
    assert_near(at5.reciprocal_rank, 1);
    assert_near(at5.average_precision, 34.0 / 75);
    assert_near(at3.ndcg, 4 / (3 + 3 / log2(3) + 1));
    assert_near(at5.ndcg, (4 + 1 / log2(6)) / (3 + 3 / log2(3) + 1 + 1 / log2(5) + 1 / log2(6)));
    assert_int_equal(at5.relevant, 5);
    assert_int_equal(at5.relevant_returned, 3);
    assert_int_equal(at5.judged_returned, 4);
    assert_int_equal(at10.returned, 5);
    arena_reset(&arena);
}

static void measure_case(const cJSON *one)
{
    struct arena arena = {0};
    struct ir_judgment judged[64];
    struct ir_ranked found[64];
    size_t judged_count = 0, found_count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(one, "judged"))
        judged[judged_count++] = (struct ir_judgment){item->string, item->valueint};
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(one, "run"))
        found[found_count++] = (struct ir_ranked){item->string, (float)item->valuedouble};
    ir_sort(found, found_count);
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(one, "expected"))
    {
        size_t k = (size_t)strtoul(item->string, NULL, 10);
        struct ir_metrics m = ir_measure(&arena, found, found_count, judged, judged_count, k);
        assert_near(m.precision, json_get_real(item, "precision", -1));
        assert_near(m.recall, json_get_real(item, "recall", -1));
        assert_near(m.reciprocal_rank, json_get_real(item, "mrr", -1));
        assert_near(m.ndcg, json_get_real(item, "ndcg", -1));
        assert_near(m.average_precision, json_get_real(item, "map", -1));
    }
    arena_reset(&arena);
}

static void trec_eval_agrees(void **state)
{
    (void)state;
    scoped(cJSON) *golden = golden_json("tests/golden/ir_metrics.json");
    const cJSON *one;
    int count = 0;
    cJSON_ArrayForEach(one, cJSON_GetObjectItem(golden, "cases"))
    {
        measure_case(one);
        count++;
    }
    assert_int_equal(count, 16);
}

static void a_query_without_relevant_documents_has_no_figures(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct ir_judgment judged[] = {{"a", 0}};
    struct ir_ranked found[] = {{"a", 1}};
    struct ir_metrics m = ir_measure(&arena, found, 1, judged, 1, 5);
    assert_int_equal(m.relevant, 0);
    assert_near(m.ndcg + m.recall + m.precision + m.average_precision + m.reciprocal_rank, 0);
    m = ir_measure(&arena, NULL, 0, NULL, 0, 5);
    assert_int_equal(m.judged_returned, 0);
    arena_reset(&arena);
}

static void percentiles_are_values_that_occurred(void **state)
{
    (void)state;
    double values[] = {5, 1, 4, 2, 3};
    assert_near(ir_percentile(values, 5, 0.5), 3);
    assert_near(ir_percentile(values, 5, 0.95), 5);
    assert_near(ir_percentile(values, 5, 0), 1);
    assert_near(ir_percentile(values, 0, 0.5), 0);
}

/* Three differences of the same sign: of the eight ways to sign them two are as far from 0, so p = 1/4. */
static void the_randomisation_test_is_exact_for_few_queries(void **state)
{
    (void)state;
    static const double same[] = {0.1, 0, 0.2, 0.3}, none[] = {0, 0}, mixed[] = {1, -1};
    assert_near(ir_randomisation_test(same, 4, 1000), 0.25);
    assert_near(ir_randomisation_test(none, 2, 1000), 1);
    assert_near(ir_randomisation_test(mixed, 2, 1000), 1);
    double many[40];
    for (size_t i = 0; i < 40; i++)
        many[i] = 0.01;
    assert_near(ir_randomisation_test(many, 40, 999), 1.0 / 1000);
    for (size_t i = 0; i < 40; i++)
        many[i] = i % 2 ? 0.01 : -0.01;
    assert_near(ir_randomisation_test(many, 40, 999), 1);
}

/* ---- parsers ---- */

static struct scope sc;

static int begin(void **state)
{
    (void)state;
    scope_init(&sc, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    scope_done(&sc);
    return 0;
}

static void refuses_topics(const char *text, const char *sentence)
{
    struct ir_query *queries;
    size_t count;
    scope_forgive(&sc);
    assert_int_equal(ir_parse_topics(&sc, text, strlen(text), 3, &queries, &count), STATUS_UNPROCESSABLE);
    assert_string_equal(sc.problem_text, sentence);
}

static void refuses_qrels(const char *text, const char *sentence)
{
    struct ir_qrel *qrels;
    size_t count;
    scope_forgive(&sc);
    assert_int_equal(ir_parse_qrels(&sc, text, strlen(text), 3, &qrels, &count), STATUS_UNPROCESSABLE);
    assert_string_equal(sc.problem_text, sentence);
}

static void topics_come_as_lines_or_as_tags(void **state)
{
    (void)state;
    static const char lines[] = "\n1\tfirst query\r\nq-2 \t second\tquery \n";
    static const char tags[] = "\n<top>\n\n<num> Number: 301\n<title> Topic: International\nOrganized Crime\n\n"
                               "<desc> Description:\nNot the query\n</top>\n";
    static const char closed[] = "<top>\n<num>7</num>\n<title>the title</title>\n<narr>x</narr>\n</top>";
    struct ir_query *q;
    size_t count;
    assert_int_equal(ir_parse_topics(&sc, lines, strlen(lines), 9, &q, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_string_equal(q[0].id, "1");
    assert_string_equal(q[0].text, "first query");
    assert_string_equal(q[1].id, "q-2");
    assert_string_equal(q[1].text, "second\tquery");
    assert_int_equal(ir_parse_topics(&sc, tags, strlen(tags), 9, &q, &count), STATUS_OK);
    assert_string_equal(q[0].id, "301");
    assert_string_equal(q[0].text, "International Organized Crime");
    assert_int_equal(ir_parse_topics(&sc, closed, strlen(closed), 9, &q, &count), STATUS_OK);
    assert_string_equal(q[0].id, "7");
    assert_string_equal(q[0].text, "the title");
}

static void a_fault_in_topics_names_its_line(void **state)
{
    (void)state;
    refuses_topics("", "there is no query in it");
    refuses_topics("1\ta\n2 b\n", "line 2: there is no tab between the query's id and its text");
    refuses_topics("1\t \n", "line 1: the query's text is empty");
    refuses_topics("\n\tx\n", "line 2: the query's id is empty");
    refuses_topics("a b\tx\n", "line 1: the query's id holds white space");
    refuses_topics("a\t\xff\n", "line 1: the query's text is not UTF-8");
    refuses_topics("1\ta\n2\ta\n3\ta\n4\ta\n", "line 4: there are more than 3 queries");
    refuses_topics("<top>\n<title> x\n</top>\n", "line 1: the topic has no <num>");
    refuses_topics("<top>\n<num> 1\n</top>\n", "line 1: the query's text is empty");
    refuses_topics("<top>\n<num> 1\n", "line 1: the topic has no </top>");
    refuses_topics("<top>\n<num> 1\n<top>\n", "line 3: the topic before has no </top>");
    refuses_topics("<num> 1\n", "line 1: text outside of <top> … </top>");
    refuses_topics("<top>\n<num> 1\n<title>x\n</top>\ny", "line 5: text outside of <top> … </top>");
}

static void a_fault_in_qrels_names_its_line(void **state)
{
    (void)state;
    struct ir_qrel *q;
    size_t count;
    static const char good[] = "1 0 a 2\r\n\n1\tQ0\tb\t0";
    assert_int_equal(ir_parse_qrels(&sc, good, strlen(good), 3, &q, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_string_equal(q[1].document, "b");
    assert_int_equal(q[0].relevance, 2);
    refuses_qrels("", "there is no judgment in it");
    refuses_qrels("1 0 a\n", "line 1: a judgment is four fields (query id, 0, document, grade), this line has fewer");
    refuses_qrels("1 0 a 1\n1 0 b c 1\n",
                  "line 2: a judgment is four fields (query id, 0, document, grade), this line has more");
    refuses_qrels("1 0 a -1\n", "line 1: the grade is negative; grades go from 0 (not relevant) to 1000");
    refuses_qrels("1 0 a x\n", "line 1: the grade is not a whole number");
    refuses_qrels("1 0 a 99999999999999999999\n", "line 1: the grade is larger than 1000");
    refuses_qrels("1 0 a 1\n1 0 b 1\n1 0 c 1\n1 0 d 1\n", "line 4: there are more than 3 judgments");
}

/* ---- datasets ---- */

static enum status from_json(const char *text, struct ir_dataset *out)
{
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    scope_forgive(&sc);
    enum status s = ir_dataset_from_json(&sc, json, out);
    cJSON_Delete(json);
    return s;
}

static void refuses_json(const char *text, const char *sentence)
{
    struct ir_dataset d;
    assert_int_equal(from_json(text, &d), STATUS_UNPROCESSABLE);
    assert_string_equal(sc.problem_text, sentence);
}

static void the_same_content_has_the_same_hash_in_both_forms(void **state)
{
    (void)state;
    struct ir_dataset json, trec, other;
    const char *field;
    assert_int_equal(from_json("[{\"id\":\"b\",\"text\":\"two\",\"relevant\":[{\"document\":\"y.txt\",\"relevance\":2},"
                               "{\"document\":\"x.txt\"}]},{\"id\":\"a\",\"text\":\"one\"}]",
                               &json),
                     STATUS_OK);
    assert_int_equal(ir_dataset_from_trec(&sc, "a\tone\nb\ttwo\n", "b 0 x.txt 1\nb 0 y.txt 2\n", &trec, &field),
                     STATUS_OK);
    assert_string_equal(json.hash, trec.hash);
    assert_int_equal(ir_dataset_from_trec(&sc, "a\tone\nb\ttwo\n", "b 0 x.txt 1\nb 0 y.txt 1\n", &other, &field),
                     STATUS_OK);
    assert_string_not_equal(json.hash, other.hash);
}

static void a_fault_in_a_dataset_names_its_place(void **state)
{
    (void)state;
    struct ir_dataset d;
    const char *field;
    refuses_json("[]", "queries is no list, or an empty one");
    refuses_json("[1]", "query 1 is no object with id, text and relevant");
    refuses_json("[{\"id\":1,\"text\":\"x\"}]", "query 1: id is missing or no string");
    refuses_json("[{\"id\":\"a\",\"text\":\" \"}]", "query 1 ('a'): text is empty");
    refuses_json("[{\"id\":\"a\",\"text\":\"x\"},{\"id\":\"a\",\"text\":\"y\"}]",
                 "query 2 has the same id as query 1: 'a'");
    refuses_json("[{\"id\":\"a\",\"text\":\"x\",\"relevant\":[{\"relevance\":1}]}]",
                 "query 1 ('a'): judgment 1 names no document: document, document_id, path or file_name");
    refuses_json("[{\"id\":\"a\",\"text\":\"x\",\"relevant\":[{\"document\":\"d\",\"relevance\":-1}]}]",
                 "query 1 ('a'): judgment 1: relevance is no whole number from 0 (not relevant) to 1000");
    refuses_json("[{\"id\":\"a\",\"text\":\"x\",\"relevant\":[{\"document\":\"d\"},{\"document\":\"d\"}]}]",
                 "query 'a' has two judgments of the document 'd'");
    refuses_json("[{\"id\":\"a\",\"text\":\"x\",\"relevant\":[{\"path\":\"d\",\"file_name\":\"d\"}]}]",
                 "query 1 ('a'): judgment 1 names the document twice: path and file_name");
    refuses_json("[{\"id\":\"a\",\"text\":\"x\"}]",
                 "no query has a relevant document (a grade of 1 or more): nothing could be measured");
    scope_forgive(&sc);
    assert_int_equal(ir_dataset_from_trec(&sc, "a\tx\n", "a 0 d 1\nb 0 d 1\n", &d, &field), STATUS_UNPROCESSABLE);
    assert_string_equal(field, "qrels");
    assert_string_equal(sc.problem_text, "line 2: there is no query 'b'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_computed_by_hand_agrees),
        cmocka_unit_test(trec_eval_agrees),
        cmocka_unit_test(a_query_without_relevant_documents_has_no_figures),
        cmocka_unit_test(percentiles_are_values_that_occurred),
        cmocka_unit_test(the_randomisation_test_is_exact_for_few_queries),
        cmocka_unit_test_setup_teardown(topics_come_as_lines_or_as_tags, begin, end),
        cmocka_unit_test_setup_teardown(a_fault_in_topics_names_its_line, begin, end),
        cmocka_unit_test_setup_teardown(a_fault_in_qrels_names_its_line, begin, end),
        cmocka_unit_test_setup_teardown(the_same_content_has_the_same_hash_in_both_forms, begin, end),
        cmocka_unit_test_setup_teardown(a_fault_in_a_dataset_names_its_place, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
