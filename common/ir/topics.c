#include "common/ir/topics.h"

#include "common/text.h"

#include <string.h>

struct queries {
    struct ir_query *items;
    size_t count, capacity, most;
};

static enum status add(struct scope *sc, struct queries *all, size_t line, struct ir_span id, struct ir_span text)
{
    const char *what = arena_printf(&sc->arena, "line %zu: the query's id", line);
    enum status s = ir_check_text(sc, what, id, IR_LONGEST_NAME);
    if (s == STATUS_OK && strcspn(arena_strndup(&sc->arena, id.bytes, id.len), " \t\r\n") != id.len)
        return fail(sc, STATUS_UNPROCESSABLE, "%s holds white space", what);
    if (s == STATUS_OK)
        s = ir_check_text(sc, arena_printf(&sc->arena, "line %zu: the query's text", line), text, IR_LONGEST_QUERY);
    if (s != STATUS_OK)
        return s;
    if (all->count == all->most)
        return fail(sc, STATUS_UNPROCESSABLE, "line %zu: there are more than %zu queries", line, all->most);
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? all->capacity * 2 : 64;
        struct ir_query *grown = arena_array(&sc->arena, capacity, sizeof *grown);
        if (all->count)
            memcpy(grown, all->items, all->count * sizeof *grown);
        all->items = grown;
        all->capacity = capacity;
    }
    all->items[all->count++] = (struct ir_query){arena_strndup(&sc->arena, id.bytes, id.len),
                                                 arena_strndup(&sc->arena, text.bytes, text.len)};
    return STATUS_OK;
}

static enum status parse_lines(struct scope *sc, struct ir_lines *lines, struct queries *all)
{
    for (struct ir_span line; ir_next_line(lines, &line);) {
        if (ir_trimmed(line).len == 0)
            continue;
        const char *tab = memchr(line.bytes, '\t', line.len);
        if (!tab)
            return fail(sc, STATUS_UNPROCESSABLE, "line %zu: there is no tab between the query's id and its text",
                        lines->number);
        size_t id_len = (size_t)(tab - line.bytes);
        enum status s = add(sc, all, lines->number, ir_trimmed((struct ir_span){line.bytes, id_len}),
                            ir_trimmed((struct ir_span){tab + 1, line.len - id_len - 1}));
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

/* ---- <top> … </top> ---- */

enum part { PART_NONE, PART_TITLE, PART_OTHER };

struct topic {
    bool is_open;
    size_t line;
    struct ir_span number;
    enum part part;
    struct text title;
};

static bool begins_with(struct ir_span s, const char *word)
{
    size_t len = strlen(word);
    return s.len >= len && strncasecmp(s.bytes, word, len) == 0;
}

static struct ir_span after(struct ir_span s, const char *word)
{
    size_t len = strlen(word);
    return ir_trimmed((struct ir_span){s.bytes + len, s.len - len});
}

static struct ir_span without(struct ir_span s, const char *label)
{
    return begins_with(s, label) ? after(s, label) : s;
}

static struct ir_span before_closing(struct ir_span s)
{
    const char *closing = s.len > 1 ? memmem(s.bytes, s.len, "</", 2) : NULL;
    return closing ? ir_trimmed((struct ir_span){s.bytes, (size_t)(closing - s.bytes)}) : s;
}

static void append_title(struct topic *t, struct ir_span s)
{
    if (s.len == 0)
        return;
    if (t->title.len > 0)
        text_putc(&t->title, ' ');
    text_append(&t->title, s.bytes, s.len);
}

static enum status finish(struct scope *sc, struct queries *all, struct topic *t, size_t line)
{
    if (!t->is_open)
        return fail(sc, STATUS_UNPROCESSABLE, "line %zu: </top> without a <top>", line);
    enum status s = t->number.len > 0 ? STATUS_OK
                                      : fail(sc, STATUS_UNPROCESSABLE, "line %zu: the topic has no <num>", t->line);
    if (s == STATUS_OK)
        s = add(sc, all, t->line, t->number, (struct ir_span){text_str(&t->title), t->title.len});
    text_clear(&t->title);
    t->is_open = false;
    return s;
}

static enum status take_tag(struct scope *sc, struct queries *all, struct topic *t, size_t number, struct ir_span line)
{
    if (begins_with(line, "<top>")) {
        if (t->is_open)
            return fail(sc, STATUS_UNPROCESSABLE, "line %zu: the topic before has no </top>", number);
        text_clear(&t->title);
        t->is_open = true;
        t->line = number;
        t->number = (struct ir_span){"", 0};
        t->part = PART_NONE;
        return STATUS_OK;
    }
    if (begins_with(line, "</top>"))
        return finish(sc, all, t, number);
    if (!t->is_open)
        return fail(sc, STATUS_UNPROCESSABLE, "line %zu: text outside of <top> … </top>", number);
    t->part = begins_with(line, "<title>") ? PART_TITLE : begins_with(line, "</") ? PART_NONE : PART_OTHER;
    if (begins_with(line, "<num>"))
        t->number = before_closing(without(after(line, "<num>"), "number:"));
    else if (t->part == PART_TITLE)
        append_title(t, before_closing(without(after(line, "<title>"), "topic:")));
    return STATUS_OK;
}

static enum status take_line(struct scope *sc, struct queries *all, struct topic *t, size_t number, struct ir_span line)
{
    if (line.len == 0)
        return STATUS_OK;
    if (line.bytes[0] == '<')
        return take_tag(sc, all, t, number, line);
    if (!t->is_open)
        return fail(sc, STATUS_UNPROCESSABLE, "line %zu: text outside of <top> … </top>", number);
    if (t->part == PART_TITLE)
        append_title(t, before_closing(line));
    return STATUS_OK;
}

static enum status parse_tags(struct scope *sc, struct ir_lines *lines, struct queries *all)
{
    struct topic t = {.title.max_len = IR_LONGEST_QUERY + 1};
    enum status s = STATUS_OK;
    for (struct ir_span line; s == STATUS_OK && ir_next_line(lines, &line);)
        s = take_line(sc, all, &t, lines->number, ir_trimmed(line));
    text_free(&t.title);
    if (s == STATUS_OK && t.is_open)
        return fail(sc, STATUS_UNPROCESSABLE, "line %zu: the topic has no </top>", t.line);
    return s;
}

enum status ir_parse_topics(struct scope *sc, const char *bytes, size_t len, size_t most, struct ir_query **out,
                            size_t *out_count)
{
    struct ir_lines lines = {bytes, bytes + len, 0};
    struct queries all = {.most = most};
    size_t first = 0;
    while (first < len && strchr(" \t\r\n", bytes[first]) && bytes[first])
        first++;
    bool has_tags = first < len && bytes[first] == '<';
    enum status s = has_tags ? parse_tags(sc, &lines, &all) : parse_lines(sc, &lines, &all);
    if (s == STATUS_OK && all.count == 0)
        return fail(sc, STATUS_UNPROCESSABLE, "there is no query in it");
    *out = all.items;
    *out_count = all.count;
    return s;
}
