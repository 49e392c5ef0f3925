/* Glob patterns over relative paths: * and ? stay within a name, [a-z] and [!a-z], \ quotes, ** stands for any number
 * of directories. A pattern without a slash ("*.md", "node_modules") is compared with names at every depth, one with a
 * slash with the whole path. Work is bounded by pattern length times path length, whatever the pattern. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

bool glob_matches(const char *pattern, const char *path, size_t path_len);
