/* What the files of the HTTP server share: server.c (requests in, start and end), server_queue.c (the queue and its
 * handler threads), server_answer.c (replies out), and metrics_server.c. Nobody else includes it. */
#pragma once

#include "api/server.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

struct server {
    struct api *api;
    struct MHD_Daemon *daemon;
    struct scope sc; /* owns what was parsed from the settings */
    const struct proxies *trusted;
    char **origins;
    pthread_t *threads;
    int thread_count;
    _Atomic int in_flight;
    _Atomic int64_t body_bytes; /* kept of all requests */
    pthread_mutex_t lock;       /* guards the queue */
    pthread_cond_t has_work;
    struct queue {
        struct server_connection *first, **last;
    } alone, together;
    int groups; /* running */
    int64_t waiting;
    bool is_stopping;
};

/* One request, from its request line to the end of its answer. */
struct server_connection {
    struct server *server;
    struct MHD_Connection *mhd;
    struct scope sc;
    struct request request;
    struct text body;
    char *target;       /* as it stands in the request line */
    const char *origin; /* of a browser that may call us; NULL else */
    bool accepts_gzip;
    bool is_http_1_0;
    bool has_begun;
    bool is_answered;    /* `response` is to be sent */
    enum status refused; /* the answer once the body was swallowed */
    size_t received_bytes;
    int64_t started_us;
    int64_t queued_ms;
    bool may_gather;
    unsigned http;
    struct MHD_Response *response;
    struct server_connection *next;
};

/* ---- server_answer.c ---- */

/* Fills c->http and c->response from the reply; the response stays NULL when there is no memory. */
void server_make_response(struct server_connection *c);
/* Logs the access, and hands the response to the library; on its thread. */
enum MHD_Result server_send_response(struct server_connection *c);
/* What every answer has, and the reply's own. */
void server_add_headers(struct server_connection *c, struct MHD_Response *response);
enum MHD_Result server_send_error(struct server_connection *c, enum status s);
/* What the library has to say, for its option EXTERNAL_LOGGER. */
void server_log_message(void *cls, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* ---- server_stream.c ---- */

/* Gives a connection whose request has a stream to the relay. */
void server_stream_attach(struct server_connection *c);
/* The relay gave it back. */
enum MHD_Result server_stream_answer(struct server_connection *c);

/* ---- server_queue.c ---- */

void server_queue_init(struct server *server);
/* False: the queue is full, or the server stops. */
bool server_enqueue(struct server *server, struct server_connection *c);
/* A handler thread's whole life; `cls` is the server. */
void *server_handle_requests(void *cls);
