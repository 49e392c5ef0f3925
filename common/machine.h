/* What is left of the machine, or of the container that the process runs in. */
#pragma once

#include <stdint.h>

/* Bytes; -1 = not known. */
struct machine {
    int64_t memory_total, memory_free; /* the tightest of the machine and the cgroups (version 2) above this process */
    int64_t disk_total, disk_free;     /* of the file system of a folder, for those without privileges */
};

void machine_look(const char *folder, struct machine *out);
/* The number after `name` in lines such as "MemAvailable:  1024 kB" or "inactive_file 4096", in its unit; -1 = no such
 * line. */
int64_t machine_line(const char *text, const char *name);
/* The process's peak of resident memory since the last machine_forget_peak(), in bytes; -1 = not known. */
int64_t machine_peak(void);
/* Begins the peak anew. */
void machine_forget_peak(void);
