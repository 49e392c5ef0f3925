/* PDF is left to another program, so that its crashes and its licence stay outside. */
#pragma once

#include "common/scope.h"
#include "common/text.h"

/* Where pdftotext (poppler-utils) is; NULL when it is not installed. */
const char *pdf_tool(void);
/* Turns into pdftotext, reading standard input and writing standard output. Never returns. */
_Noreturn void pdf_exec(const char *path);
/* What its end means for the document: STATUS_OK, or a failure with its sentence. */
enum status pdf_verdict(struct scope *sc, int exit_code, const char *messages) must_check;
/* Cleans what it wrote: page breaks, dotted lines in tables of contents. */
void pdf_tidy(struct text *t);
