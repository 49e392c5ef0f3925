#include "common/ir/qrels.h"

#include <string.h>

static enum status read_grade(struct scope *sc, size_t line, struct ir_span field, int *out)
{
    int grade = 0;
    if (field.len > 1 && field.bytes[0] == '-')
        return fail(sc, STATUS_UNPROCESSABLE, "line %zu: the grade is negative; grades go from 0 (not relevant) to %d",
                    line, IR_HIGHEST_GRADE);
    for (size_t i = 0; i < field.len; i++) {
        if (field.bytes[i] < '0' || field.bytes[i] > '9')
            return fail(sc, STATUS_UNPROCESSABLE, "line %zu: the grade is not a whole number", line);
        grade = grade * 10 + (field.bytes[i] - '0');
        if (grade > IR_HIGHEST_GRADE)
            return fail(sc, STATUS_UNPROCESSABLE, "line %zu: the grade is larger than %d", line, IR_HIGHEST_GRADE);
    }
    *out = grade;
    return STATUS_OK;
}

static enum status read_line(struct scope *sc, size_t number, struct ir_span line, struct ir_qrel *out)
{
    struct ir_span query = ir_next_field(&line), iteration = ir_next_field(&line), document = ir_next_field(&line),
                   grade = ir_next_field(&line);
    (void)iteration;
    if (grade.len == 0 || ir_trimmed(line).len > 0)
        return fail(sc, STATUS_UNPROCESSABLE,
                    "line %zu: a judgment is four fields (query id, 0, document, grade), this line has %s", number,
                    grade.len == 0 ? "fewer" : "more");
    *out = (struct ir_qrel){.line = number};
    enum status s = ir_check_text(sc, arena_printf(&sc->arena, "line %zu: the query's id", number), query,
                                  IR_LONGEST_NAME);
    if (s == STATUS_OK)
        s = ir_check_text(sc, arena_printf(&sc->arena, "line %zu: the document's name", number), document,
                          IR_LONGEST_NAME);
    if (s == STATUS_OK)
        s = read_grade(sc, number, grade, &out->relevance);
    if (s != STATUS_OK)
        return s;
    out->query = arena_strndup(&sc->arena, query.bytes, query.len);
    out->document = arena_strndup(&sc->arena, document.bytes, document.len);
    return STATUS_OK;
}

static size_t count_lines(const char *bytes, size_t len)
{
    size_t count = 1;
    for (size_t i = 0; i < len; i++)
        count += bytes[i] == '\n';
    return count;
}

enum status ir_parse_qrels(struct scope *sc, const char *bytes, size_t len, size_t most, struct ir_qrel **out,
                           size_t *out_count)
{
    struct ir_lines lines = {bytes, bytes + len, 0};
    size_t room = count_lines(bytes, len), count = 0;
    struct ir_qrel *all = arena_array(&sc->arena, room < most ? room : most, sizeof *all);
    for (struct ir_span line; ir_next_line(&lines, &line);) {
        if (ir_trimmed(line).len == 0)
            continue;
        if (count == most)
            return fail(sc, STATUS_UNPROCESSABLE, "line %zu: there are more than %zu judgments", lines.number, most);
        enum status s = read_line(sc, lines.number, line, &all[count]);
        if (s != STATUS_OK)
            return s;
        count++;
    }
    if (count == 0)
        return fail(sc, STATUS_UNPROCESSABLE, "there is no judgment in it");
    *out = all;
    *out_count = count;
    return STATUS_OK;
}
