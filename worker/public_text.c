#include "common/text.h"
#include "worker/task_run.h"

#include <string.h>

static bool is_below_a_root(struct scope *sc, const struct settings *settings, const char *path)
{
    char **roots = settings_list(&sc->arena, settings->source_roots, ':', NULL);
    for (; *roots; roots++) {
        size_t len = strlen(*roots);
        while (len > 1 && (*roots)[len - 1] == '/')
            len--;
        if (strncmp(path, *roots, len) == 0 && strchr("/ \t\n'\"`,;:)", path[len]))
            return true;
    }
    return false;
}

static bool begins_path(const char *text, const char *at)
{
    return *at == '/' && at[1] && !strchr(" /", at[1]) && (at == text || strchr(" \t\n'\"`(=:<[", at[-1]));
}

/* Outside the roots only the name of a file is left; of a URL only its scheme. */
static void hide_paths(struct scope *sc, const struct settings *settings, const char *text, struct text *out)
{
    for (const char *p = text; *p;) {
        if (strncmp(p, "://", 3) == 0) {
            text_puts(out, "://…");
            p += strcspn(p, " \t\n'\"`<>");
            continue;
        }
        if (!begins_path(text, p) || is_below_a_root(sc, settings, p)) {
            text_putc(out, *p++);
            continue;
        }
        size_t len = strcspn(p, " \t\n'\"`,;:)<>");
        const char *name = memrchr(p, '/', len);
        text_puts(out, "…");
        text_append(out, name, len - (size_t)(name - p));
        p += len;
    }
}

bool task_problem_is_of_database(const char *problem)
{
    return strncmp(problem, "PostgreSQL", 10) == 0 || strstr(problem, ": PostgreSQL");
}

const char *task_public_text(struct scope *sc, const struct settings *settings, enum status s, const char *text)
{
    if (!text || !*text)
        return status_text(s);
    if (task_problem_is_of_database(text))
        return s == STATUS_INTERNAL ? "the database refused a statement" : "the database does not answer";
    if (strncmp(text, "Redis", 5) == 0)
        return "Redis does not answer";
    scoped_text out = {.max_len = REASON_BYTES - 8};
    hide_paths(sc, settings, text, &out);
    size_t len = utf8_floor(text_str(&out), out.len, out.is_cut && out.len ? out.len - 1 : out.len);
    scoped_text repaired = {0};
    text_append_repaired(&repaired, text_str(&out), len);
    return arena_strdup(&sc->arena, text_str(&repaired));
}
