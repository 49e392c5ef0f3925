#include "worker/listing.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

enum { GAP = 2 };

struct listing listing_new(struct arena *arena, const struct listing_column *columns, size_t count)
{
    return (struct listing){.arena = arena, .columns = columns, .column_count = count};
}

void listing_done(struct listing *t)
{
    free(t->cells);
    t->cells = NULL;
    t->count = t->capacity = 0;
}

/* Marks of direction and the like take no room and move what follows. */
static bool is_invisible(uint32_t c)
{
    return (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

static int width_of(uint32_t c)
{
    int width = wcwidth((wchar_t)c);
    return width < 0 ? 1 : width;
}

static const char *cleaned(struct arena *arena, const char *s)
{
    scoped_text t = {0};
    for (size_t len = strlen(s), n; len > 0; s += n, len -= n) {
        uint32_t c = 0;
        n = utf8_next(s, len, &c);
        if (n == 0 || c < 0x20 || (c >= 0x7F && c < 0xA0))
            text_putc(&t, c == '\n' || c == '\t' ? ' ' : '?');
        else if (!is_invisible(c))
            text_append(&t, s, n);
        n = n ? n : 1;
    }
    return arena_strdup(arena, text_str(&t));
}

void listing_add(struct listing *t, const char *const *cells)
{
    if (t->count + t->column_count > t->capacity) {
        t->capacity = t->capacity ? t->capacity * 2 : 16 * t->column_count;
        t->cells = must_realloc(t->cells, t->capacity * sizeof *t->cells);
    }
    for (size_t i = 0; i < t->column_count; i++)
        t->cells[t->count++] = cells[i] ? cleaned(t->arena, cells[i]) : "";
}

static int columns_of(const char *s)
{
    int width = 0;
    for (size_t len = strlen(s), n; len > 0; s += n, len -= n) {
        uint32_t c = 0;
        n = utf8_next(s, len, &c);
        n = n ? n : 1;
        width += width_of(c);
    }
    return width;
}

static void fit(const struct listing *t, int widths[LISTING_MOST_COLUMNS])
{
    int sum = GAP * ((int)t->column_count - 1);
    for (size_t i = 0; i < t->column_count; i++) {
        widths[i] = columns_of(t->columns[i].title);
        for (size_t r = i; r < t->count; r += t->column_count) {
            int width = columns_of(t->cells[r]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
        sum += widths[i];
    }
    for (size_t widest = 0; sum > LISTING_WIDTH && widest < t->column_count; sum--) {
        widest = t->column_count;
        for (size_t i = 0; i < t->column_count; i++) {
            bool may_shrink = t->columns[i].least > 0 && widths[i] > t->columns[i].least;
            if (may_shrink && (widest == t->column_count || widths[i] > widths[widest]))
                widest = i;
        }
        if (widest < t->column_count)
            widths[widest]--;
    }
}

/* As much of the beginning as takes `width` columns. */
static const char *after(const char *s, int width)
{
    for (size_t len = strlen(s), n; len > 0; s += n, len -= n) {
        uint32_t c = 0;
        n = utf8_next(s, len, &c);
        n = n ? n : 1;
        width -= width_of(c);
        if (width < 0)
            break;
    }
    return s;
}

static void put_cell(struct text *out, const struct listing_column *column, const char *cell, int width, bool is_last)
{
    int own = columns_of(cell);
    if (column->is_right && own < width)
        text_printf(out, "%*s", width - own, "");
    if (own <= width) {
        text_puts(out, cell);
    } else if (column->keeps_end) {
        const char *from = cell;
        while (columns_of(from) > width - 1)
            from = after(from, 1) > from ? after(from, 1) : after(from, 2);
        text_printf(out, "…%s", from);
        own = columns_of(from) + 1;
    } else {
        const char *end = after(cell, width - 1);
        text_append(out, cell, (size_t)(end - cell));
        text_puts(out, "…");
        own = width; /* half of a wide character may be missing */
    }
    if (!is_last)
        text_printf(out, "%*s", GAP + (!column->is_right && own < width ? width - own : 0), "");
}

static void put_row(struct text *out, const struct listing *t, const char *const *cells, const int *widths)
{
    for (size_t i = 0; i < t->column_count; i++)
        put_cell(out, &t->columns[i], cells[i], widths[i], i + 1 == t->column_count);
    while (out->len && out->data[out->len - 1] == ' ')
        out->data[--out->len] = '\0';
    text_putc(out, '\n');
}

void listing_print(struct text *out, struct listing *t)
{
    int widths[LISTING_MOST_COLUMNS];
    const char *titles[LISTING_MOST_COLUMNS];
    if (t->count == 0)
        return;
    fit(t, widths);
    for (size_t i = 0; i < t->column_count; i++)
        titles[i] = t->columns[i].title;
    put_row(out, t, titles, widths);
    for (size_t r = 0; r < t->count; r += t->column_count)
        put_row(out, t, t->cells + r, widths);
}

void listing_line(struct text *out, struct arena *arena, const char *line)
{
    static const struct listing_column whole = {"", false, 1, false};
    put_cell(out, &whole, cleaned(arena, line), LISTING_WIDTH, true);
    text_putc(out, '\n');
}

const char *listing_age(struct arena *arena, double seconds)
{
    if (seconds < 0)
        seconds = 0;
    if (seconds < 10)
        return arena_printf(arena, "%.1f s", seconds);
    if (seconds < 120)
        return arena_printf(arena, "%.0f s", seconds);
    if (seconds < 7200)
        return arena_printf(arena, "%.0f min", seconds / 60);
    return seconds < 48 * 3600 ? arena_printf(arena, "%.0f h", seconds / 3600)
                               : arena_printf(arena, "%.0f d", seconds / 86400);
}
