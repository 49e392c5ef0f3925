#include "api/server_state.h"

#include "common/listen.h"
#include "common/metrics.h"

#include <string.h>
#include <unistd.h>

enum { IDLE_SECONDS = 75, METRICS_STACK_BYTES = 256 << 10, MOST_CONNECTIONS = 64 };

struct metrics_server {
    struct MHD_Daemon *daemon;
};

static enum MHD_Result on_metrics(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_len, void **state)
{
    (void)cls;
    (void)version;
    (void)upload;
    static int seen;
    if (!*state) {
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_len > 0) {
        *upload_len = 0;
        return MHD_YES;
    }
    struct text body = {0};
    bool is_found = strcmp(url, "/metrics") == 0;
    bool is_read = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (is_found && is_read)
        metrics_write(&body);
    size_t len = body.len;
    char *bytes = text_take(&body);
    struct MHD_Response *response = MHD_create_response_from_buffer(len, bytes, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(bytes);
        return MHD_NO;
    }
    MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    enum MHD_Result queued = MHD_queue_response(connection, !is_found ? 404 : is_read ? 200 : 405, response);
    MHD_destroy_response(response);
    return queued;
}

enum status metrics_server_start(struct scope *sc, const struct settings *settings, struct metrics_server **out,
                                 int *out_port)
{
    int fds[LISTEN_MAX], count = 0;
    enum status s = listen_open(sc, settings->api_host, settings->api_metrics_port, fds, &count, out_port);
    for (int i = 1; i < count; i++)
        close(fds[i]); /* one address is enough here */
    if (s != STATUS_OK) {
        if (count > 0)
            close(fds[0]);
        return s;
    }
    struct metrics_server *m = must_calloc(1, sizeof *m);
    m->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL,
                                 on_metrics, NULL, MHD_OPTION_EXTERNAL_LOGGER, server_log_message, NULL,
                                 MHD_OPTION_LISTEN_SOCKET, fds[0], MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)IDLE_SECONDS, MHD_OPTION_CONNECTION_LIMIT, (unsigned)MOST_CONNECTIONS,
                                 MHD_OPTION_THREAD_STACK_SIZE, (size_t)METRICS_STACK_BYTES, MHD_OPTION_END);
    if (!m->daemon) {
        close(fds[0]);
        free(m);
        return fail(sc, STATUS_UNAVAILABLE, "cannot serve METRICS_PORT");
    }
    *out = m;
    return STATUS_OK;
}

void metrics_server_free(struct metrics_server *m)
{
    if (!m)
        return;
    MHD_stop_daemon(m->daemon);
    free(m);
}
