/* load: many WebSocket clients in one thread, told on standard input what to do; each line is answered by one line of
 * JSON. Connections are the lines "PORT CHANNEL PATH TOKEN" of a file ("-" = no token).
 *
 * load FILE [SOURCES] [engineio]
 *   open FIRST COUNT WINDOW EVENTS SECONDS  opens, WINDOW at a time; ready after so many EVENTS (0 = after the
 * handshake) close FIRST COUNT soft|hard stop FIRST COUNT       reads no more             read FIRST COUNT    reads
 * again buffer BYTES           SO_RCVBUF of connections that are opened from now on (0 = the system's) reconnect 0|1
 * opens again what was closed, with last_id mark                   a new window of figures drain TOTAL CHANNELS SECONDS
 * waits until every open connection has had all of TOTAL events published in turn lost TOTAL CHANNELS FIRST COUNT ports
 * FIRST COUNT      local ports turn SECONDS           goes on for a while report | quit */
#include "tests/bench/relay/load_client.h"

#include "common/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE_BYTES = 8192, TURN_MS = 20 };

static void die(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(1);
}

static void read_connections(struct load *l, const char *file)
{
    FILE *in = fopen(file, "r");
    char line[LINE_BYTES], path[LINE_BYTES], token[LINE_BYTES];
    size_t capacity = 0;
    if (!in)
        die("the file of connections cannot be read");
    while (fgets(line, sizeof line, in)) {
        if (l->count == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            l->conns = must_realloc(l->conns, capacity * sizeof *l->conns);
        }
        struct conn *c = &l->conns[l->count++];
        *c = (struct conn){.fd = -1};
        if (sscanf(line, "%d %u %8191s %8191s", &c->port, &c->channel, path, token) != 4)
            die("a line of the file of connections is not PORT CHANNEL PATH TOKEN");
        c->path = must_strdup(path);
        c->token = must_strdup(token);
    }
    fclose(in);
}

struct range {
    struct conn *first, *end;
};

static struct range range_of(const struct load *l, size_t first, size_t count)
{
    first = first < l->count ? first : l->count;
    count = count < l->count - first ? count : l->count - first;
    return (struct range){l->conns + first, l->conns + first + count};
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double at(double *sorted, size_t count, double share)
{
    return count ? sorted[(size_t)((double)(count - 1) * share)] : 0;
}

static void do_open(struct load *l, const char *words)
{
    size_t first, count, window, events;
    double seconds;
    if (sscanf(words, "%zu %zu %zu %zu %lf", &first, &count, &window, &events, &seconds) != 5)
        die("open FIRST COUNT WINDOW EVENTS SECONDS");
    struct range r = range_of(l, first, count);
    l->wanted_events = (uint32_t)events;
    l->ready = l->refused = 0;
    l->first_refusal[0] = '\0';
    uint64_t started = load_now(), deadline = started + (uint64_t)(seconds * 1e9);
    struct conn *next = r.first;
    while ((next < r.end || l->opening > 0) && load_now() < deadline) {
        while (next < r.end && l->opening < window)
            conn_open(l, next++);
        load_turn(l, TURN_MS);
    }
    double took = (double)(load_now() - started) / 1e9;
    double *waits = must_malloc((count + 1) * sizeof *waits);
    size_t n = 0;
    for (struct conn *c = r.first; c < r.end; c++) {
        if (c->state == CONN_OPEN && c->ready_ns)
            waits[n++] = (double)(c->ready_ns - c->started_ns) / 1e6;
    }
    qsort(waits, n, sizeof *waits, by_size);
    printf("{\"ready\":%zu,\"refused\":%zu,\"unanswered\":%zu,\"seconds\":%.3f,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"first_"
           "refusal\":\"%s\"}\n",
           l->ready, l->refused, l->opening + (size_t)(r.end - next), took, at(waits, n, 0.5), at(waits, n, 0.99),
           l->first_refusal);
    free(waits);
}

/* Events are published to the channels in turn: how many came to this one. */
static uint32_t share_of(uint64_t total, uint64_t channels, uint32_t channel)
{
    return total > channel ? (uint32_t)((total - channel - 1) / channels) + 1 : 0;
}

static uint64_t lost_of(struct range r, uint64_t total, uint64_t channels, bool is_open_only)
{
    uint64_t lost = 0;
    for (struct conn *c = r.first; c < r.end; c++) {
        if (!is_open_only || (c->state == CONN_OPEN && !c->is_stopped))
            lost += sequence_missing(&c->seen, share_of(total, channels, c->channel));
    }
    return lost;
}

static void do_drain(struct load *l, const char *words)
{
    unsigned long long total, channels;
    double seconds;
    if (sscanf(words, "%llu %llu %lf", &total, &channels, &seconds) != 3 || channels == 0)
        die("drain TOTAL CHANNELS SECONDS");
    uint64_t started = load_now(), deadline = started + (uint64_t)(seconds * 1e9), looked = 0, lost = 1;
    while (lost > 0 && load_now() < deadline) {
        load_turn(l, TURN_MS);
        if (load_now() - looked < 50000000)
            continue; /* looking at all of them costs a little */
        looked = load_now();
        lost = lost_of(range_of(l, 0, l->count), total, channels, true);
    }
    printf("{\"lost\":%llu,\"seconds\":%.3f}\n", (unsigned long long)lost, (double)(load_now() - started) / 1e9);
}

static void do_lost(const struct load *l, const char *words)
{
    unsigned long long total, channels;
    size_t first, count;
    if (sscanf(words, "%llu %llu %zu %zu", &total, &channels, &first, &count) != 4 || channels == 0)
        die("lost TOTAL CHANNELS FIRST COUNT");
    struct range r = range_of(l, first, count);
    uint64_t connections = 0, all = lost_of(r, total, channels, false);
    for (struct conn *c = r.first; c < r.end; c++)
        connections += sequence_missing(&c->seen, share_of(total, channels, c->channel)) > 0;
    printf("{\"lost\":%llu,\"connections\":%llu}\n", (unsigned long long)all, (unsigned long long)connections);
}

static void do_ports(const struct load *l, const char *words)
{
    size_t first = 0, count = 0;
    sscanf(words, "%zu %zu", &first, &count);
    struct range r = range_of(l, first, count);
    printf("[");
    for (struct conn *c = r.first; c < r.end; c++) {
        struct sockaddr_in self = {0};
        socklen_t size = sizeof self;
        if (c->fd >= 0)
            getsockname(c->fd, (struct sockaddr *)&self, &size);
        printf("%s%d", c == r.first ? "" : ",", ntohs(self.sin_port));
    }
    printf("]\n");
}

/* How long after it stopped reading each slow reader was cut. */
static void print_cuts(const struct load *l)
{
    double *cuts = must_malloc((l->count + 1) * sizeof *cuts);
    size_t n = 0, slow = 0;
    for (struct conn *c = l->conns; c < l->conns + l->count; c++) {
        slow += c->is_slow;
        if (c->is_slow && c->closed_ns > c->stopped_ns)
            cuts[n++] = (double)(c->closed_ns - c->stopped_ns) / 1e6;
    }
    qsort(cuts, n, sizeof *cuts, by_size);
    printf("\"slow\":%zu,\"slow_cut\":%zu,\"cut_p50_ms\":%.0f,\"cut_max_ms\":%.0f,", slow, n, at(cuts, n, 0.5),
           at(cuts, n, 1));
    free(cuts);
}

static void print_codes(const struct load *l)
{
    static const int codes[] = {0, 1000, 1005, 1006, 1008, 1009, 1011, 1012, 1013};
    bool is_first = true;
    printf("\"closed_with\":{");
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        size_t n = 0;
        for (struct conn *c = l->conns; c < l->conns + l->count; c++)
            n += c->state == CONN_CLOSED && !c->is_closing && c->close_code == codes[i];
        if (n)
            printf("%s\"%d\":%zu", is_first ? "" : ",", codes[i], n);
        is_first = is_first && !n;
    }
    printf("},");
}

static void do_report(const struct load *l)
{
    const struct figures *f = &l->now;
    const struct histogram *h = &f->latency;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    size_t open = 0;
    for (struct conn *c = l->conns; c < l->conns + l->count; c++)
        open += c->state == CONN_OPEN;
    printf("{\"open\":%zu,\"delivered\":%llu,\"bytes\":%llu,\"window_s\":%.4f,", open, (unsigned long long)f->delivered,
           (unsigned long long)f->bytes, f->last_ns > f->since_ns ? (double)(f->last_ns - f->since_ns) / 1e9 : 0);
    printf("\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,\"p999_ms\":%.4f,\"max_ms\":%.4f,", histogram_at(h, 0.5),
           histogram_at(h, 0.9), histogram_at(h, 0.99), histogram_at(h, 0.999), (double)h->max_ns / 1e6);
    printf("\"late\":%llu,\"twice\":%llu,\"published_twice\":%llu,\"wrong_channel\":%llu,\"wrong_frames\":%llu,",
           (unsigned long long)f->late, (unsigned long long)f->twice, (unsigned long long)f->published_twice,
           (unsigned long long)f->wrong_channel, (unsigned long long)f->wrong_frames);
    printf("\"apart_delivered\":%llu,\"apart_bytes\":%llu,\"apart_twice\":%llu,",
           (unsigned long long)f->apart_delivered, (unsigned long long)f->apart_bytes,
           (unsigned long long)f->apart_twice);
    printf("\"pings\":%llu,\"others\":%llu,\"truncated\":%llu,\"closed\":%llu,\"cut\":%llu,",
           (unsigned long long)f->pings, (unsigned long long)f->others, (unsigned long long)f->truncated,
           (unsigned long long)f->closed, (unsigned long long)f->cut);
    print_cuts(l);
    print_codes(l);
    printf("\"client_cpu_s\":%.3f}\n", (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6 +
                                           (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec / 1e6);
}

static void do_follow(const struct load *l, const char *words)
{
    size_t first = 0, count = 0, from = 0;
    if (sscanf(words, "%zu %zu %zu", &first, &count, &from) != 3 || from >= l->count)
        die("follow FIRST COUNT FROM");
    struct range r = range_of(l, first, count);
    const struct conn *leader = &l->conns[from];
    for (struct conn *c = r.first; c < r.end; c++) {
        sequence_begin(&c->seen, leader->seen.last + 1);
        memcpy(c->id, leader->id, sizeof c->id);
        c->id_len = leader->id_len;
    }
    printf("{}\n");
}

static void do_turn(struct load *l, double seconds)
{
    uint64_t deadline = load_now() + (uint64_t)(seconds * 1e9);
    while (load_now() < deadline)
        load_turn(l, TURN_MS);
    printf("{}\n");
}

static void on_range(struct load *l, const char *command, const char *words)
{
    size_t first = 0, count = 0;
    char how[16] = "soft";
    sscanf(words, "%zu %zu %15s", &first, &count, how);
    struct range r = range_of(l, first, count);
    for (struct conn *c = r.first; c < r.end; c++) {
        if (strcmp(command, "close") == 0)
            conn_close(l, c, strcmp(how, "soft") == 0);
        else if (strcmp(command, "stop") == 0)
            conn_stop(l, c);
        else
            conn_go_on(l, c);
    }
    printf("{}\n");
}

static void obey(struct load *l, char *line)
{
    char command[16] = "";
    int at_words = 0;
    sscanf(line, "%15s %n", command, &at_words);
    const char *words = line + at_words;
    if (strcmp(command, "open") == 0) {
        do_open(l, words);
    } else if (strcmp(command, "close") == 0 || strcmp(command, "stop") == 0 || strcmp(command, "read") == 0) {
        on_range(l, command, words);
    } else if (strcmp(command, "buffer") == 0) {
        l->receive_buffer = atoi(words);
        printf("{}\n");
    } else if (strcmp(command, "reconnect") == 0) {
        l->reconnects = atoi(words) != 0;
        printf("{}\n");
    } else if (strcmp(command, "mark") == 0) {
        l->now = (struct figures){.since_ns = load_now()};
        printf("{}\n");
    } else if (strcmp(command, "drain") == 0) {
        do_drain(l, words);
    } else if (strcmp(command, "lost") == 0) {
        do_lost(l, words);
    } else if (strcmp(command, "follow") == 0) {
        do_follow(l, words);
    } else if (strcmp(command, "ports") == 0) {
        do_ports(l, words);
    } else if (strcmp(command, "turn") == 0) {
        do_turn(l, atof(words));
    } else if (strcmp(command, "report") == 0) {
        do_report(l);
    } else if (strcmp(command, "quit") == 0) {
        exit(0);
    } else {
        die("an unknown command");
    }
    fflush(stdout);
}

/* One line at a time; the connections are served between them. */
static void listen_to_commands(struct load *l)
{
    char line[LINE_BYTES];
    size_t len = 0;
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    for (;;) {
        ssize_t n = read(STDIN_FILENO, line + len, sizeof line - 1 - len);
        if (n == 0)
            return;
        len += n > 0 ? (size_t)n : 0;
        char *newline = memchr(line, '\n', len);
        if (newline) {
            *newline = '\0';
            obey(l, line);
            len -= (size_t)(newline + 1 - line);
            memmove(line, newline + 1, len);
        } else {
            load_turn(l, TURN_MS);
        }
    }
}

int main(int argc, char **argv)
{
    struct load l = {.sources = argc > 2 ? atoi(argv[2]) : 1,
                     .speaks_engineio = argc > 3 && strcmp(argv[3], "engineio") == 0};
    struct rlimit files;
    if (argc < 2 || l.sources < 1)
        die("load FILE [SOURCES] [engineio]");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.buffer = must_malloc(LOAD_BUFFER_BYTES + MOST_FRAME_BYTES + 16);
    l.now.since_ns = load_now();
    read_connections(&l, argv[1]);
    printf("{\"connections\":%zu}\n", l.count);
    fflush(stdout);
    listen_to_commands(&l);
    return 0;
}
