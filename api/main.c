/* opstream-api: read the settings, start, wait, drain, stop. */
#include "api/api.h"
#include "api/door.h"
#include "api/health.h"
#include "api/limit.h"
#include "api/openapi.h"
#include "api/rate.h"
#include "api/reconciler.h"
#include "api/relay/relay.h"
#include "api/server.h"
#include "api/web_root.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/message.h"
#include "common/version.h"
#include "sql/migrate.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    EXIT_SETTINGS = 2,
    SPREAD_PER_SOCKET_MS = 1,
    MIGRATE_TIMEOUT_MS = 0,
    LAST_REQUESTS_MS = 20,
    CONNECTING_USERS = 16384
};

static const char usage[] = "opstream-api: REST and WebSockets of Opstream\n"
                            "\n"
                            "  opstream-api                      serve\n"
                            "  opstream-api --migrate            bring the database up to date\n"
                            "  opstream-api --openapi            print the OpenAPI document\n"
                            "  opstream-api --settings-markdown  print docs/settings.md\n"
                            "  opstream-api --version\n"
                            "  opstream-api --help\n"
                            "\n"
                            "Settings come from the environment:\n\n";

struct program {
    struct settings settings;
    struct api api;
    struct server *server;
    struct door *door;
    struct reconciler *reconciler;
    struct metrics_server *metrics;
    int metrics_port;
};

static int print(struct text *t)
{
    bool is_written = fwrite(text_str(t), 1, t->len, stdout) == t->len && fflush(stdout) == 0;
    text_free(t);
    return is_written ? 0 : 1;
}

static int print_help(void)
{
    struct text t = {0};
    text_puts(&t, usage);
    settings_help(&t, SETTING_API);
    return print(&t);
}

static int print_openapi(void)
{
    struct text t = {0};
    openapi_write(&t);
    text_putc(&t, '\n');
    return print(&t);
}

static int print_settings(void)
{
    struct text t = {0};
    settings_markdown(&t);
    return print(&t);
}

/* Every fault of the settings at once, one a line. */
static enum status read_settings(struct settings *out)
{
    struct scope sc;
    scope_init(&sc, NULL);
    enum status s = settings_load(&sc, out, SETTING_API);
    if (s == STATUS_OK && strchr(out->cors_origins, '*'))
        s = fail(&sc, STATUS_INVALID, "CORS_ORIGINS: `*` cannot be combined with credentials; name the origins");
    if (s != STATUS_OK)
        fprintf(stderr, "opstream-api: the settings are not usable:\n%s\n", sc.problem_text);
    scope_done(&sc);
    if (s == STATUS_OK)
        log_set_level(out->log_level);
    return s;
}

static int migrate(void)
{
    struct settings settings;
    struct scope sc;
    scoped_text report = {0};
    /* A migration job need not know this secret. */
    setenv("JWT_SECRET_KEY", "no token is signed while migrating", 1);
    if (read_settings(&settings) != STATUS_OK)
        return EXIT_SETTINGS;
    scope_init(&sc, NULL);
    struct db *db = db_new(&(struct db_options){.url = settings.database_url,
                                                .application_name = "opstream-api --migrate",
                                                .statement_timeout_ms = MIGRATE_TIMEOUT_MS});
    enum status s = migrate_run(&sc, db, &report);
    fputs(text_str(&report), stdout);
    if (s != STATUS_OK)
        fprintf(stderr, "opstream-api: %s\n", sc.problem_text ? sc.problem_text : status_text(s));
    db_free(db);
    scope_done(&sc);
    settings_done(&settings);
    return s == STATUS_OK ? 0 : 1;
}

static enum status start(struct scope *sc, struct program *p)
{
    struct api *api = &p->api;
    api->settings = &p->settings;
    api->limiter = limiter_new();
    api->user_connects = rate_table_new(CONNECTING_USERS);
    api->health = health_new(api);
    uuid_make(api->instance_id);
    enum status s = web_root_open(sc, api->settings->web_root, &api->web_root);
    if (s == STATUS_OK)
        s = relay_start(sc, api, &api->relay);
    if (s == STATUS_OK)
        s = server_start(sc, api, &p->server);
    if (s == STATUS_OK)
        s = metrics_server_start(sc, api->settings, &p->metrics, &p->metrics_port);
    if (s == STATUS_OK)
        s = health_start(sc, api->health);
    if (s == STATUS_OK)
        s = reconciler_start(sc, api, &p->reconciler);
    return s == STATUS_OK ? door_open(sc, api, p->server, &p->door) : s;
}

/* In the order in which the parts lean on each other. */
static void stop(struct program *p)
{
    door_close(p->door);
    relay_stop(p->api.relay);
    server_free(p->server);
    relay_free(p->api.relay); /* whether it is well is asked as long as the server runs */
    reconciler_free(p->reconciler);
    metrics_server_free(p->metrics);
    health_free(p->api.health);
    limiter_free(p->api.limiter);
    rate_table_free(p->api.user_connects);
    if (p->api.web_root >= 0)
        close(p->api.web_root);
    settings_done(&p->settings);
}

static void leave_at_once(int signal_number)
{
    (void)signal_number;
    _exit(0);
}

static int left_ms(int64_t until)
{
    int64_t left = until - clock_monotonic_ms();
    return left > 0 ? (int)left : 0;
}

/* Readiness goes first; the port stays open meanwhile, because load balancers learn of it late. */
static bool drain(struct program *p)
{
    int limit_ms = (int)p->settings.drain_seconds * 1000;
    int64_t until = clock_monotonic_ms() + limit_ms;
    int sockets = relay_connections(p->api.relay);
    int spread_ms = sockets * SPREAD_PER_SOCKET_MS < limit_ms ? sockets * SPREAD_PER_SOCKET_MS : limit_ms;
    p->api.is_draining = true;
    log_info("api_draining", log_int("websockets", sockets), log_int("spread_ms", spread_ms),
             log_int("requests", server_in_flight(p->server)));
    relay_drain(p->api.relay, spread_ms);
    if (!server_drain(p->server, left_ms(until)))
        return false;
    door_close(p->door);
    p->door = NULL;
    usleep(LAST_REQUESTS_MS * 1000); /* until the server has read those that the door let in last */
    return server_drain(p->server, left_ms(until));
}

static void wait_for_signal(const sigset_t *signals)
{
    int number = 0;
    while (sigwait(signals, &number) != 0)
        continue;
    signal(SIGTERM, leave_at_once); /* the second one does not wait */
    signal(SIGINT, leave_at_once);
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &ends, NULL);
}

static int serve(void)
{
    static struct program p;
    struct scope sc;
    sigset_t signals;
    if (read_settings(&p.settings) != STATUS_OK)
        return EXIT_SETTINGS;
    /* Blocked before threads exist: none of them is ever interrupted, and nothing that comes during the start is lost.
     */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    scope_init(&sc, NULL);
    enum status s = start(&sc, &p);
    if (s != STATUS_OK) {
        log_error("api_failed", log_text("problem", sc.problem_text ? sc.problem_text : status_text(s)));
        scope_done(&sc);
        stop(&p);
        return 1;
    }
    scope_done(&sc);
    log_info("api_ready", log_text("host", p.settings.api_host), log_int("port", door_port(p.door)),
             log_int("ws_port", door_ws_port(p.door)), log_int("metrics_port", p.metrics_port),
             log_text("instance", p.api.instance_id), log_text("version", OPSTREAM_VERSION));
    wait_for_signal(&signals);
    if (!drain(&p)) {
        log_warning("api_stopped", log_int("requests_cut", server_in_flight(p.server)));
        _exit(0); /* handlers hang in what they wait for: nothing is gained by waiting with them */
    }
    log_info("api_stopped", log_int("requests_cut", 0));
    stop(&p);
    return 0;
}

/* Few arenas, and large blocks (a password's 19 MiB) go back to the system at once. */
static void bound_memory(void)
{
    mallopt(M_ARENA_MAX, 4);
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    bound_memory();
    log_set_program("api");
    if (argc > 2) {
        fprintf(stderr, "opstream-api: one argument at most, see --help\n");
        return EXIT_SETTINGS;
    }
    if (strcmp(what, "") == 0)
        return serve();
    if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0)
        return print_help();
    if (strcmp(what, "--version") == 0)
        return puts("opstream-api " OPSTREAM_VERSION) < 0;
    if (strcmp(what, "--migrate") == 0)
        return migrate();
    if (strcmp(what, "--openapi") == 0)
        return print_openapi();
    if (strcmp(what, "--settings-markdown") == 0)
        return print_settings();
    fprintf(stderr, "opstream-api: %s is not known, see --help\n", what);
    return EXIT_SETTINGS;
}
