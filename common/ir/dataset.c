#include "common/ir/dataset.h"

#include "common/ir/qrels.h"
#include "common/password.h"

#include <math.h>
#include <string.h>

/* ---- queries by id ---- */

struct named_query {
    const char *id;
    size_t index;
};

static int by_id(const void *a, const void *b)
{
    const struct named_query *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : x->index < y->index ? -1 : x->index > y->index;
}

static int by_id_alone(const void *key, const void *item)
{
    return strcmp(key, ((const struct named_query *)item)->id);
}

static enum status name_queries(struct scope *sc, const struct ir_dataset *d, struct named_query **out)
{
    struct named_query *names = arena_array(&sc->arena, d->query_count + 1, sizeof *names);
    for (size_t i = 0; i < d->query_count; i++)
        names[i] = (struct named_query){d->queries[i].id, i};
    qsort(names, d->query_count, sizeof *names, by_id);
    for (size_t i = 1; i < d->query_count; i++) {
        if (strcmp(names[i].id, names[i - 1].id) == 0)
            return fail(sc, STATUS_UNPROCESSABLE, "query %zu has the same id as query %zu: '%s'", names[i].index + 1,
                        names[i - 1].index + 1, names[i].id);
    }
    *out = names;
    return STATUS_OK;
}

/* ---- the whole ---- */

struct placed_judgment {
    const struct ir_dataset_judgment *judgment;
    const char *query_id;
};

static int by_place(const void *a, const void *b)
{
    const struct placed_judgment *x = a, *y = b;
    int order = strcmp(x->query_id, y->query_id);
    if (order == 0)
        order = strcmp(x->judgment->document, y->judgment->document);
    return order ? order : strcmp(x->judgment->kind, y->judgment->kind);
}

static struct placed_judgment *placed(struct scope *sc, const struct ir_dataset *d)
{
    struct placed_judgment *all = arena_array(&sc->arena, d->judgment_count + 1, sizeof *all);
    for (size_t i = 0; i < d->judgment_count; i++)
        all[i] = (struct placed_judgment){&d->judgments[i], d->queries[d->judgments[i].query].id};
    qsort(all, d->judgment_count, sizeof *all, by_place);
    return all;
}

static void hash_content(struct ir_dataset *d, const struct named_query *names, const struct placed_judgment *judged)
{
    scoped_text t = {0};
    for (size_t i = 0; i < d->query_count; i++)
        text_printf(&t, "%s\t%s\n", names[i].id, d->queries[names[i].index].text);
    for (size_t i = 0; i < d->judgment_count; i++)
        text_printf(&t, "%s\t%s\t%s\t%d\n", judged[i].query_id, judged[i].judgment->kind, judged[i].judgment->document,
                    judged[i].judgment->relevance);
    sha256_hex(text_str(&t), t.len, d->hash);
}

static enum status complete(struct scope *sc, struct ir_dataset *d, const struct named_query *names)
{
    bool is_any_relevant = false;
    const struct placed_judgment *judged = placed(sc, d);
    for (size_t i = 0; i < d->judgment_count; i++) {
        is_any_relevant = is_any_relevant || d->judgments[i].relevance > 0;
        if (i > 0 && by_place(&judged[i], &judged[i - 1]) == 0)
            return fail(sc, STATUS_UNPROCESSABLE, "query '%s' has two judgments of the document '%s'",
                        judged[i].query_id, judged[i].judgment->document);
    }
    if (!is_any_relevant)
        return fail(sc, STATUS_UNPROCESSABLE,
                    "no query has a relevant document (a grade of 1 or more): nothing could be measured");
    hash_content(d, names, judged);
    return STATUS_OK;
}

/* ---- JSON ---- */

static enum status read_text(struct scope *sc, const char *place, const cJSON *object, const char *field,
                             size_t longest, const char **out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, field);
    if (!cJSON_IsString(item))
        return fail(sc, STATUS_UNPROCESSABLE, "%s: %s is missing or no string", place, field);
    *out = item->valuestring;
    return ir_check_text(sc, arena_printf(&sc->arena, "%s: %s", place, field),
                         (struct ir_span){item->valuestring, strlen(item->valuestring)}, longest);
}

static enum status read_query(struct scope *sc, const cJSON *item, size_t number, struct ir_query *out)
{
    const char *place = arena_printf(&sc->arena, "query %zu", number);
    if (!cJSON_IsObject(item))
        return fail(sc, STATUS_UNPROCESSABLE, "%s is no object with id, text and relevant", place);
    enum status s = read_text(sc, place, item, "id", IR_LONGEST_NAME, &out->id);
    if (s == STATUS_OK && strcspn(out->id, " \t\r\n") != strlen(out->id))
        return fail(sc, STATUS_UNPROCESSABLE, "%s: id holds white space", place);
    if (s == STATUS_OK)
        s = read_text(sc, arena_printf(&sc->arena, "query %zu ('%s')", number, out->id), item, "text", IR_LONGEST_QUERY,
                      &out->text);
    if (s == STATUS_OK && strspn(out->text, " \t\r\n") == strlen(out->text))
        return fail(sc, STATUS_UNPROCESSABLE, "%s ('%s'): text is empty", place, out->id);
    return s;
}

static enum status read_document(struct scope *sc, const char *place, const cJSON *item,
                                 struct ir_dataset_judgment *out)
{
    static const char *const fields[] = {"document", "document_id", "path", "file_name"};
    const char *field = NULL;
    for (size_t i = 0; i < array_len(fields); i++) {
        if (!cJSON_GetObjectItemCaseSensitive(item, fields[i]))
            continue;
        if (field)
            return fail(sc, STATUS_UNPROCESSABLE, "%s names the document twice: %s and %s", place, field, fields[i]);
        field = fields[i];
    }
    if (!field)
        return fail(sc, STATUS_UNPROCESSABLE, "%s names no document: document, document_id, path or file_name", place);
    out->kind = strcmp(field, "document") == 0 ? "any" : field;
    return read_text(sc, place, item, field, IR_LONGEST_NAME, &out->document);
}

static enum status read_judgment(struct scope *sc, const char *place, const cJSON *item,
                                 struct ir_dataset_judgment *out)
{
    if (!cJSON_IsObject(item))
        return fail(sc, STATUS_UNPROCESSABLE, "%s is no object", place);
    enum status s = read_document(sc, place, item, out);
    const cJSON *grade = cJSON_GetObjectItemCaseSensitive(item, "relevance");
    out->relevance = 1;
    if (s != STATUS_OK || !grade)
        return s;
    double n = cJSON_IsNumber(grade) ? grade->valuedouble : NAN;
    if (!(n >= 0 && n <= IR_HIGHEST_GRADE) || n != floor(n))
        return fail(sc, STATUS_UNPROCESSABLE, "%s: relevance is no whole number from 0 (not relevant) to %d", place,
                    IR_HIGHEST_GRADE);
    out->relevance = (int)n;
    return STATUS_OK;
}

static size_t count_judgments(const cJSON *queries)
{
    size_t count = 0;
    for (const cJSON *q = queries->child; q; q = q->next)
        count += (size_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(q, "relevant"));
    return count;
}

static enum status read_judgments(struct scope *sc, const cJSON *item, size_t query, struct ir_dataset *d)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(item, "relevant");
    const char *id = d->queries[query].id;
    size_t number = 0;
    if (list && !cJSON_IsNull(list) && !cJSON_IsArray(list))
        return fail(sc, STATUS_UNPROCESSABLE, "query %zu ('%s'): relevant is no list", query + 1, id);
    for (const cJSON *j = list ? list->child : NULL; j; j = j->next) {
        const char *place = arena_printf(&sc->arena, "query %zu ('%s'): judgment %zu", query + 1, id, ++number);
        struct ir_dataset_judgment *out = &d->judgments[d->judgment_count];
        *out = (struct ir_dataset_judgment){.query = query};
        enum status s = read_judgment(sc, place, j, out);
        if (s != STATUS_OK)
            return s;
        d->judgment_count++;
    }
    return STATUS_OK;
}

enum status ir_dataset_from_json(struct scope *sc, const cJSON *queries, struct ir_dataset *out)
{
    struct named_query *names = NULL;
    size_t count = cJSON_IsArray(queries) ? (size_t)cJSON_GetArraySize(queries) : 0;
    if (count == 0)
        return fail(sc, STATUS_UNPROCESSABLE, "queries is no list, or an empty one");
    size_t judgments = count_judgments(queries);
    if (count > IR_MOST_QUERIES || judgments > IR_MOST_JUDGMENTS)
        return fail(sc, STATUS_UNPROCESSABLE, "a dataset has at most %d queries and %d judgments", IR_MOST_QUERIES,
                    IR_MOST_JUDGMENTS);
    *out = (struct ir_dataset){.queries = arena_array(&sc->arena, count, sizeof *out->queries),
                               .judgments = arena_array(&sc->arena, judgments + 1, sizeof *out->judgments)};
    for (const cJSON *q = queries->child; q; q = q->next) {
        enum status s = read_query(sc, q, out->query_count + 1, &out->queries[out->query_count]);
        if (s == STATUS_OK)
            s = read_judgments(sc, q, out->query_count, out);
        if (s != STATUS_OK)
            return s;
        out->query_count++;
    }
    enum status s = name_queries(sc, out, &names);
    return s == STATUS_OK ? complete(sc, out, names) : s;
}

/* ---- TREC ---- */

static enum status take_qrels(struct scope *sc, const struct ir_qrel *qrels, size_t count,
                              const struct named_query *names, struct ir_dataset *d)
{
    d->judgments = arena_array(&sc->arena, count + 1, sizeof *d->judgments);
    for (size_t i = 0; i < count; i++) {
        const struct named_query *q = !names
                                          ? NULL
                                          : bsearch(qrels[i].query, names, d->query_count, sizeof *names, by_id_alone);
        if (!q)
            return fail(sc, STATUS_UNPROCESSABLE, "line %zu: there is no query '%s'", qrels[i].line, qrels[i].query);
        d->judgments[d->judgment_count++] = (struct ir_dataset_judgment){q->index, "any", qrels[i].document,
                                                                         qrels[i].relevance};
    }
    return STATUS_OK;
}

enum status ir_dataset_from_trec(struct scope *sc, const char *topics, const char *qrels, struct ir_dataset *out,
                                 const char **out_field)
{
    struct named_query *names = NULL;
    struct ir_qrel *judged = NULL;
    size_t count = 0;
    *out = (struct ir_dataset){0};
    *out_field = "queries";
    enum status s = ir_parse_topics(sc, topics, strlen(topics), IR_MOST_QUERIES, &out->queries, &out->query_count);
    if (s == STATUS_OK)
        s = name_queries(sc, out, &names);
    if (s != STATUS_OK)
        return s;
    *out_field = "qrels";
    s = ir_parse_qrels(sc, qrels, strlen(qrels), IR_MOST_JUDGMENTS, &judged, &count);
    if (s == STATUS_OK)
        s = take_qrels(sc, judged, count, names, out);
    return s == STATUS_OK ? complete(sc, out, names) : s;
}
