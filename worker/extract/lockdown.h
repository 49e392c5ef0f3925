/* Giving up rights, for good, before a file that nobody vouches for is looked at. */
#pragma once

#include <stdbool.h>

struct lockdown_limits {
    int seconds;   /* of CPU time */
    int memory_mb; /* of address space */
};

/* A parser: memory and the descriptors that are open already are all it has. No file, socket, process or program can be
 * opened any more. NULL, or a constant sentence on what could not be given up: then nothing may be parsed. */
const char *lockdown_parser(const struct lockdown_limits *limits);
/* A program about to be executed (`path` must be the very pointer that goes to execve): it may also load its libraries
 * and read what the system installed below /usr; still no writing, network or processes. */
const char *lockdown_tool(const struct lockdown_limits *limits, const char *path);
