#include "worker/extract/pdf.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { EXIT_CANNOT_EXECUTE = 126, FEWEST_LEADERS = 4 };

const char *pdf_tool_path(enum pdf_tool tool)
{
    static const char *const places[][2] = {[PDF_TO_TEXT] = {"/usr/bin/pdftotext", "/usr/local/bin/pdftotext"},
                                            [PDF_INFO] = {"/usr/bin/pdfinfo", "/usr/local/bin/pdfinfo"}};
    for (size_t i = 0; i < array_len(places[tool]); i++) {
        if (access(places[tool][i], X_OK) == 0)
            return places[tool][i];
    }
    return NULL;
}

/* pdftotext's reading order (not -layout) keeps the columns of a page apart. */
void pdf_exec(enum pdf_tool tool, const char *path)
{
    static char *text_arguments[] = {"pdftotext", "-enc", "UTF-8", "-eol", "unix", "-", "-", NULL};
    static char *info_arguments[] = {"pdfinfo", "-enc", "UTF-8", "-", NULL};
    static char *environment[] = {"LC_ALL=C.UTF-8", NULL};
    execve(path, tool == PDF_INFO ? info_arguments : text_arguments, environment);
    _exit(EXIT_CANNOT_EXECUTE);
}

enum status pdf_verdict(struct scope *sc, int exit_code, const char *messages)
{
    if (exit_code == 0)
        return STATUS_OK;
    if (exit_code == EXIT_CANNOT_EXECUTE)
        return fail(sc, STATUS_UNAVAILABLE, "pdftotext cannot be started");
    if (strstr(messages, "Incorrect password"))
        return fail(sc, STATUS_UNPROCESSABLE, "the PDF is protected by a password");
    if (exit_code == 3)
        return fail(sc, STATUS_UNPROCESSABLE, "the PDF does not permit its text to be copied");
    if (strstr(messages, "emory"))
        return fail(sc, STATUS_TOO_LARGE, "reading the PDF takes more memory than EXTRACT_MEMORY_MB");
    return fail(sc, STATUS_UNPROCESSABLE, "the PDF is damaged");
}

/* "Chapter 1 . . . . . . . 9" and "....": leaders cost tokens and say nothing. */
static size_t leaders_at(const char *s, size_t len)
{
    size_t i = 0, dots = 0, end = 0;
    while (i < len && (s[i] == '.' || s[i] == ' ')) {
        dots += s[i] == '.';
        i++;
        if (s[i - 1] == '.')
            end = i;
    }
    return dots >= FEWEST_LEADERS ? end : 0;
}

void pdf_tidy(struct text *t)
{
    size_t to = 0;
    for (size_t i = 0; i < t->len;) {
        size_t n = t->data[i] == '.' ? leaders_at(t->data + i, t->len - i) : 0;
        if (n > 0) {
            memcpy(t->data + to, "...", 3);
            to += 3;
            i += n;
            continue;
        }
        t->data[to++] = t->data[i++];
    }
    t->len = to;
    if (t->data)
        t->data[to] = '\0';
}

static bool is_file_name(const char *s, size_t len)
{
    static const char *const endings[] = {".doc", ".docx", ".tex", ".dvi", ".indd",
                                          ".qxd", ".pdf",  ".odt", ".rtf", ".ps"};
    for (size_t i = 0; i < array_len(endings); i++) {
        size_t n = strlen(endings[i]);
        if (len >= n && strncasecmp(s + len - n, endings[i], n) == 0)
            return true;
    }
    return false;
}

void pdf_title(const struct text *info, struct text *out)
{
    static const char key[] = "Title:";
    const char *s = text_str(info), *end;
    if (strncmp(s, key, strlen(key)) != 0) {
        s = strstr(s, "\nTitle:");
        if (!s)
            return;
        s++;
    }
    s += strlen(key);
    s += strspn(s, " ");
    end = s + strcspn(s, "\n");
    if (!is_file_name(s, (size_t)(end - s)) && strncmp(s, "untitled", 8) != 0)
        text_append(out, s, (size_t)(end - s));
}
