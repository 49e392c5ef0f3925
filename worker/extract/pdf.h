/* PDF is left to another program, so that its crashes and its licence stay outside. */
#pragma once

#include "common/scope.h"
#include "common/text.h"

enum pdf_tool { PDF_TO_TEXT, PDF_INFO };

/* Where pdftotext or pdfinfo (poppler-utils) is; NULL when it is not installed. */
const char *pdf_tool_path(enum pdf_tool tool);
/* Turns into that program, reading standard input and writing standard output. Never returns. */
_Noreturn void pdf_exec(enum pdf_tool tool, const char *path);
/* What its end means for the document: STATUS_OK, or a failure with its sentence. */
enum status pdf_verdict(struct scope *sc, int exit_code, const char *messages) must_check;
/* Cleans what it wrote: page breaks, dotted lines in tables of contents. */
void pdf_tidy(struct text *t);
/* The title in what pdfinfo wrote, unless it is only the name of the file that the PDF was made from. */
void pdf_title(const struct text *info, struct text *out);
