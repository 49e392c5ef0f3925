/* opstream-worker: one program in several roles. Without arguments it is the supervisor, which starts the others. */
#include "common/config.h"
#include "common/log.h"
#include "common/message.h"
#include "common/version.h"
#include "worker/by_hand.h"
#include "worker/child.h"
#include "worker/embed/embedder.h"
#include "worker/extract/extract.h"
#include "worker/operator.h"
#include "worker/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

struct role {
    const char *option;
    int values;        /* how many arguments follow it; -n = up to n, which run() reads up to a NULL */
    const char *flag;  /* that may stand last; NULL = none */
    const char *usage; /* NULL = for the program's own use */
    int (*run)(const struct settings *settings, char **values, bool has_flag);
};

static int run_embedder(const struct settings *settings, char **values, bool has_flag)
{
    (void)has_flag;
    char *end;
    long device = strtol(values[0], &end, 10);
    if (*end || end == values[0] || device < 0 || device > 1023) {
        fprintf(stderr, "opstream-worker: `%s` is not the number of a device\n", values[0]);
        return EXIT_USAGE;
    }
    return embedder_main(settings, (int)device, values[1]);
}

static int run_child(const struct settings *settings, char **values, bool has_flag)
{
    (void)has_flag;
    return child_main(settings, values[0]);
}

static bool is_uuid(const char *value)
{
    bool is_valid = uuid_is_valid(value);
    if (!is_valid)
        fprintf(stderr, "opstream-worker: `%s` is not the UUID of an operation\n", value);
    return is_valid;
}

static int run_by_hand(const struct settings *settings, char **values, bool has_flag)
{
    (void)has_flag;
    return is_uuid(values[0]) ? by_hand_run(settings, values[0]) : EXIT_USAGE;
}

static int run_status(const struct settings *settings, char **values, bool is_json)
{
    (void)values;
    return operator_status(settings, is_json);
}

static int run_requeue(const struct settings *settings, char **values, bool is_forced)
{
    return is_uuid(values[0]) ? operator_requeue(settings, values[0], is_forced) : EXIT_USAGE;
}

static int run_drain(const struct settings *settings, char **values, bool is_not_awaited)
{
    return operator_drain(settings, values[0], is_not_awaited);
}

static int run_schedule(const struct settings *settings, char **values, bool is_json)
{
    (void)values;
    return operator_schedule(settings, is_json);
}

static int run_scheduled(const struct settings *settings, char **values, bool has_flag)
{
    (void)has_flag;
    return operator_run_scheduled(settings, values[0]);
}

static int run_check_integrity(const struct settings *settings, char **values, bool has_flag)
{
    bool is_json = false, has_to_repair = has_flag;
    for (; *values; values++) {
        bool is_known = strcmp(*values, "--json") == 0 || strcmp(*values, "--repair") == 0;
        if (!is_known) {
            fprintf(stderr, "opstream-worker: --check-integrity knows --json and --repair, not `%s`\n", *values);
            return EXIT_USAGE;
        }
        is_json |= strcmp(*values, "--json") == 0;
        has_to_repair |= strcmp(*values, "--repair") == 0;
    }
    return operator_check_integrity(settings, is_json, has_to_repair);
}

static int run_supervisor(const struct settings *settings, char **values, bool has_flag)
{
    (void)values;
    (void)has_flag;
    return supervisor_run(settings);
}

static const struct role roles[] = {
    {NULL, 0, NULL, "", run_supervisor},
    {"--status", 0, "--json",
     "--status         shows workers, what they do, queues and what waits; --json for programs", run_status},
    {"--requeue", 1, "--force",
     "--requeue UUID   makes an operation due now that waits for its next try; --force takes a running one back",
     run_requeue},
    {"--drain", 1, "--no-wait",
     "--drain WORKER   asks a worker (or `all`) to end, and waits until it has; --no-wait does not", run_drain},
    {"--schedule", 0, "--json",
     "--schedule       shows what runs by the clock, its last run and its next; --json for programs", run_schedule},
    {"--run-scheduled", 1, NULL, "--run-scheduled NAME   runs one of those now", run_scheduled},
    {"--check-integrity", -2, NULL,
     "--check-integrity  looks whether all that is stored fits together; --json for programs, --repair mends it",
     run_check_integrity},
    {"--task", 1, NULL, "--task UUID      runs one operation in the foreground", run_by_hand},
    {"--embedder", 2, NULL, NULL, run_embedder},
    {"--child", 1, NULL, NULL, run_child},
};

static int help(void)
{
    scoped_text t = {0};
    text_puts(&t, "opstream-worker: takes operations from the queues and carries them out.\n\n"
                  "  opstream-worker                  runs until SIGTERM\n");
    for (size_t i = 1; i < array_len(roles); i++) {
        if (roles[i].usage)
            text_printf(&t, "  opstream-worker %s\n", roles[i].usage);
    }
    text_puts(&t, "  opstream-worker --version        prints the version\n"
                  "  opstream-worker --help           prints this\n\n");
    settings_help(&t, SETTING_WORKER);
    fwrite(t.data, 1, t.len, stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}

static const struct role *find_role(int argc, char **argv)
{
    for (size_t i = 0; i < array_len(roles); i++) {
        bool is_named = argc < 2 ? !roles[i].option : roles[i].option && strcmp(argv[1], roles[i].option) == 0;
        if (is_named)
            return &roles[i];
    }
    return NULL;
}

static int run_role(const struct role *role, char **values, bool has_flag)
{
    struct scope sc;
    struct settings settings;
    scope_init(&sc, NULL);
    if (settings_load(&sc, &settings, SETTING_WORKER) != STATUS_OK) {
        fprintf(stderr, "opstream-worker: these settings cannot be used:\n%s\n", sc.problem_text);
        scope_done(&sc);
        return EXIT_USAGE;
    }
    scope_done(&sc);
    log_set_program("worker");
    log_set_level(settings.log_level);
    int exit_status = role->run(&settings, values, has_flag);
    settings_done(&settings);
    return exit_status;
}

int main(int argc, char **argv)
{
    /* The one role that reads no settings: it is handed everything, and is trusted with nothing. */
    if (argc >= 2 && strcmp(argv[1], "--extractor") == 0)
        return extractor_main(argc, argv);
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return help();
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts("opstream-worker " OPSTREAM_VERSION) < 0 ? 1 : 0;
    const struct role *role = find_role(argc, argv);
    if (!role) {
        fprintf(stderr, "opstream-worker: `%s` is no option; --help tells what there is\n", argv[1]);
        return EXIT_USAGE;
    }
    int least = role->values > 0 ? role->values : 0, most = abs(role->values);
    bool has_flag = role->flag && argc == 3 + most && strcmp(argv[argc - 1], role->flag) == 0;
    argc -= has_flag;
    if (argc > 2 + most) {
        fprintf(stderr, "opstream-worker: `%s` is one argument too many\n", argv[2 + most]);
        return EXIT_USAGE;
    }
    if (role->option && argc < 2 + least) {
        fprintf(stderr, "opstream-worker: %s needs %d more argument%s\n", role->option, least, least == 1 ? "" : "s");
        return EXIT_USAGE;
    }
    argv[argc] = NULL;
    return run_role(role, argv + 2, has_flag);
}
