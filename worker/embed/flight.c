#include "worker/embed/flight.h"

#include "common/arena.h"
#include "common/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAGIC = 0x4F504632, MOST_SUSPECTS = 2 * FLIGHT_MOST_TEXTS, CRASHES_ALONE = 2 };

struct suspect {
    uint64_t mark; /* 0 = none */
    uint32_t crashes;
};

struct lane {
    atomic_uint in_flight;
    uint64_t marks[FLIGHT_MOST_TEXTS];
};

struct page {
    uint32_t magic;
    struct lane lanes[FLIGHT_LANES];
    uint32_t next; /* suspect to be forgotten when there is no room */
    uint32_t suspect_count;
    struct suspect suspects[MOST_SUSPECTS];
};

struct flight {
    struct page *page;
    pthread_mutex_t lock; /* guards the suspects; a lane is its thread's own */
};

int flight_memory(void)
{
    int fd = memfd_create("opstream-flight", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, sizeof(struct page)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static struct suspect *find(const struct flight *f, uint64_t mark)
{
    for (size_t i = 0; f->page->suspect_count > 0 && i < MOST_SUSPECTS; i++) {
        if (f->page->suspects[i].mark == mark)
            return &f->page->suspects[i];
    }
    return NULL;
}

static void accuse(struct flight *f, uint64_t mark, bool was_alone)
{
    struct suspect *s = find(f, mark);
    if (!s) {
        s = &f->page->suspects[f->page->next++ % MOST_SUSPECTS];
        f->page->suspect_count += s->mark == 0;
        *s = (struct suspect){.mark = mark};
    }
    s->crashes += was_alone;
}

static void judge(struct flight *f)
{
    uint32_t counts[FLIGHT_LANES], all = 0;
    bool is_usable = f->page->magic == MAGIC;
    for (int l = 0; l < FLIGHT_LANES; l++) {
        counts[l] = atomic_load(&f->page->lanes[l].in_flight);
        is_usable = is_usable && counts[l] <= FLIGHT_MOST_TEXTS;
        all += counts[l];
    }
    if (!is_usable) { /* fresh */
        memset(f->page, 0, sizeof *f->page);
        f->page->magic = MAGIC;
        return;
    }
    for (int l = 0; l < FLIGHT_LANES; l++) {
        for (uint32_t i = 0; i < counts[l]; i++)
            accuse(f, f->page->lanes[l].marks[i], all == 1);
        atomic_store(&f->page->lanes[l].in_flight, 0);
    }
}

struct flight *flight_open(int fd)
{
    struct flight *f = must_calloc(1, sizeof *f);
    struct stat st;
    bool is_ours = fd >= 0 && fstat(fd, &st) == 0 && st.st_size == (off_t)sizeof(struct page);
    f->page = mmap(NULL, sizeof *f->page, PROT_READ | PROT_WRITE, is_ours ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                   is_ours ? fd : -1, 0);
    if (f->page == MAP_FAILED)
        f->page = must_calloc(1, sizeof *f->page); /* and is not given back: there is no memory to speak of */
    pthread_mutex_init(&f->lock, NULL);
    judge(f);
    return f;
}

void flight_close(struct flight *f)
{
    if (!f)
        return;
    munmap(f->page, sizeof *f->page);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* FNV-1a. */
uint64_t flight_mark(const int32_t *ids, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325u;
    const unsigned char *bytes = (const unsigned char *)ids;
    for (size_t i = 0; i < count * sizeof *ids; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash ? hash : 1;
}

/* How often the text was alone at a crash; -1 = it is not suspected. */
static int crashes_of(struct flight *f, uint64_t mark)
{
    pthread_mutex_lock(&f->lock);
    const struct suspect *s = find(f, mark);
    int crashes = s ? (int)s->crashes : -1;
    pthread_mutex_unlock(&f->lock);
    return crashes;
}

bool flight_is_suspect(struct flight *f, uint64_t mark)
{
    return crashes_of(f, mark) >= 0;
}

bool flight_is_rejected(struct flight *f, uint64_t mark)
{
    return crashes_of(f, mark) >= CRASHES_ALONE;
}

void flight_begin(struct flight *f, int lane, const uint64_t *marks, size_t count)
{
    struct lane *l = &f->page->lanes[lane];
    memcpy(l->marks, marks, count * sizeof *marks);
    atomic_store(&l->in_flight, (unsigned)count);
}

void flight_end(struct flight *f, int lane)
{
    struct lane *l = &f->page->lanes[lane];
    bool was_alone = atomic_load(&l->in_flight) == 1;
    atomic_store(&l->in_flight, 0);
    if (!was_alone)
        return;
    pthread_mutex_lock(&f->lock);
    struct suspect *s = find(f, l->marks[0]);
    if (s) {
        *s = (struct suspect){0};
        f->page->suspect_count--;
    }
    pthread_mutex_unlock(&f->lock);
}
