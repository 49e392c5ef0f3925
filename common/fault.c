#include "common/fault.h"

#ifdef OPSTREAM_FAULTS
#include "common/log.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[FAULT_POINTS] = {
#define FAULT_POINT(name, text, program, meaning) [FAULT_##name] = text,
#include "common/fault.def"
#undef FAULT_POINT
};

/* One item of FAULT, taken apart. */
struct wish {
    char point[320], action[320], subject[320];
    long value, times; /* times < 0 = always */
};

static atomic_long fired[FAULT_POINTS]; /* owner: is_due(); used without FAULT_DIR only */

static bool parse(const char *item, size_t len, struct wish *out)
{
    char text[320];
    *out = (struct wish){.times = -1};
    snprintf(text, sizeof text, "%.*s", (int)len, item);
    char *subject = strchr(text, '@');
    if (subject) {
        *subject++ = '\0';
        snprintf(out->subject, sizeof out->subject, "%s", subject);
    }
    char *times = strchr(text, '*');
    if (times) {
        *times++ = '\0';
        out->times = strtol(times, NULL, 10);
    }
    char *value = strchr(text, '=');
    if (value) {
        *value++ = '\0';
        out->value = strtol(value, NULL, 10);
    }
    char *action = strchr(text, ':');
    if (!action)
        return false;
    *action++ = '\0';
    snprintf(out->point, sizeof out->point, "%s", text);
    snprintf(out->action, sizeof out->action, "%s", action);
    return true;
}

/* Whether this firing is one of the wanted number of them. */
static bool is_due(enum fault_point point, const struct wish *w)
{
    if (w->times < 0)
        return true;
    const char *folder = getenv("FAULT_DIR");
    if (!folder)
        return atomic_fetch_add(&fired[point], 1) < w->times;
    for (long i = 0; i < w->times; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.%ld", folder, w->point, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            continue;
        close(fd);
        return true;
    }
    return false;
}

static bool act(const struct wish *w, const char *subject)
{
    log_warning("fault", log_text("point", w->point), log_text("action", w->action), log_text("subject", subject));
    if (strcmp(w->action, "kill") == 0)
        raise(SIGKILL);
    else if (strcmp(w->action, "stop") == 0)
        raise(SIGSTOP);
    else if (strcmp(w->action, "exit") == 0)
        _exit((int)w->value);
    else if (strcmp(w->action, "sleep") == 0)
        poll(NULL, 0, (int)w->value);
    return strcmp(w->action, "fail") == 0;
}

/* What is asked for at the moment. `room` is used when it stands in a file. */
static const char *wishes_now(char *room, size_t size)
{
    const char *folder = getenv("FAULT_DIR"), *wishes = getenv("FAULT");
    char path[4096];
    if (wishes || !folder)
        return wishes;
    snprintf(path, sizeof path, "%s/faults", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, room, size - 1) : -1;
    if (fd >= 0)
        close(fd);
    room[n > 0 ? n : 0] = '\0';
    room[strcspn(room, "\n")] = '\0';
    return room;
}

bool fault_at(enum fault_point point, const char *subject)
{
    bool has_to_fail = false;
    char room[2048];
    const char *wishes = wishes_now(room, sizeof room);
    while (wishes && *wishes) {
        size_t len = strcspn(wishes, ",");
        struct wish w;
        if (parse(wishes, len, &w) && strcmp(w.point, names[point]) == 0 &&
            (!*w.subject || (subject && strstr(subject, w.subject))) && is_due(point, &w))
            has_to_fail |= act(&w, subject);
        wishes += len + (wishes[len] == ',');
    }
    return has_to_fail;
}

char **fault_environment(char **environment)
{
    static char *all[8 + 3]; /* after a fork: nobody else is here */
    static char settings[2][4200];
    const char *names_of[] = {"FAULT", "FAULT_DIR"};
    size_t n = 0;
    for (; environment[n] && n < 8; n++)
        all[n] = environment[n];
    for (size_t i = 0; i < array_len(names_of); i++) {
        const char *value = getenv(names_of[i]);
        if (!value)
            continue;
        snprintf(settings[i], sizeof settings[i], "%s=%s", names_of[i], value);
        all[n++] = settings[i];
    }
    all[n] = NULL;
    return all;
}
#endif
