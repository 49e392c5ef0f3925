/* Reading ahead, with a reader that reads nothing. */
#include "worker/tasks/ahead.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct {
    atomic_int begun, side_by_side, most_side_by_side, shared, heartbeats;
    atomic_bool is_held; /* readers do not come to an end */
    size_t bytes;        /* that a document takes */
    enum status answer, check;
    bool (*has_to_stop)(void *context);
} fake;

/* What each test reads with. */
static struct {
    struct scope sc;
    struct task task;
    struct reading reading;
} given;

static int begin(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof fake);
    memset(&given, 0, sizeof given);
    given.reading.task = &given.task;
    scope_init(&given.sc, NULL);
    return 0;
}

static int end(void **state)
{
    (void)state;
    scope_done(&given.sc);
    return 0;
}

/* ---- what the program would do ---- */

void task_heartbeat(struct task *task)
{
    (void)task;
    atomic_fetch_add(&fake.heartbeats, 1);
}

enum status task_check(struct scope *sc, struct task *task)
{
    (void)task;
    return fake.check == STATUS_OK ? STATUS_OK : (fail)(sc, fake.check, "told to stop");
}

void reading_share(struct reading *r, const struct reading *of, bool (*should_stop)(void *context), void *context)
{
    *r = *of;
    r->extractor = context; /* for has_to_stop() */
    fake.has_to_stop = should_stop;
    atomic_fetch_add(&fake.shared, 1);
}

void reading_unshare(struct reading *r)
{
    (void)r;
    atomic_fetch_sub(&fake.shared, 1);
}

enum status reading_document(struct scope *sc, struct scope *own, struct reading *r, struct ready_document *d)
{
    int now = atomic_fetch_add(&fake.side_by_side, 1) + 1, most = atomic_load(&fake.most_side_by_side);
    while (now > most && !atomic_compare_exchange_weak(&fake.most_side_by_side, &most, now))
        ;
    atomic_fetch_add(&fake.begun, 1);
    enum status s = fake.answer;
    while (atomic_load(&fake.is_held)) {
        if (fake.has_to_stop(r->extractor)) {
            s = STATUS_CANCELLED;
            break;
        }
        poll(NULL, 0, 5);
    }
    poll(NULL, 0, (int)(d->from->id * 7 % 5)); /* some take longer than those after them */
    d->text = fake.bytes ? arena_zalloc(&own->arena, fake.bytes) : arena_strdup(&own->arena, d->from->name);
    d->count = 1;
    if (d->from->id == 3 && !r->note)
        r->note = arena_strdup(&sc->arena, "a note");
    atomic_fetch_sub(&fake.side_by_side, 1);
    return s == STATUS_OK ? s : (fail)(sc, s, "no reading");
}

/* ---- tests ---- */

static void give(struct ahead *a, int from, int count)
{
    for (int i = from; i < from + count; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        const struct pending_document d = {.id = i, .name = name, .hash = "h", .path = {name, strlen(name)}};
        ahead_give(a, &d);
    }
}

static void documents_come_back_in_their_order(void **state)
{
    (void)state;
    struct ahead *a = ahead_new(&given.sc, &given.reading, 2);
    give(a, 0, AHEAD_MOST);
    assert_int_equal(ahead_count(a), AHEAD_MOST);
    assert_int_equal(ahead_given(a, 5)->id, 5);
    for (int i = 0; i < 3 * AHEAD_MOST; i++) {
        struct ahead_document *d;
        assert_int_equal(ahead_take(&given.sc, a, &d), STATUS_OK);
        assert_int_equal(d->from.id, i);
        assert_ptr_equal(d->ready.from, &d->from);
        assert_string_equal(d->ready.text, d->from.name);
        ahead_document_free(d);
        if (i < 2 * AHEAD_MOST)
            give(a, AHEAD_MOST + i, 1);
    }
    assert_int_equal(ahead_count(a), 0);
    assert_string_equal(given.reading.note, "a note");
    ahead_free(a);
    assert_int_equal(fake.shared, 0);
    assert_string_equal(given.reading.note, "a note"); /* it outlives the readers */
}

static void what_was_read_and_not_taken_is_bounded(void **state)
{
    (void)state;
    struct ahead_document *d;
    fake.bytes = 20 << 20;
    struct ahead *a = ahead_new(&given.sc, &given.reading, 1);
    give(a, 0, 30);
    poll(NULL, 0, 100);
    /* The second one passes the 32 MB; the third is not begun. */
    assert_in_range(fake.begun, 1, 2);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(ahead_take(&given.sc, a, &d), STATUS_OK);
        assert_in_range(fake.begun, i + 1, i + 4);
        ahead_document_free(d);
    }
    ahead_free(a);
}

static void there_are_no_more_readers_than_asked_for(void **state)
{
    (void)state;
    struct ahead_document *d;
    for (int readers = -1; readers <= 2; readers++) {
        fake.most_side_by_side = 0;
        struct ahead *a = ahead_new(&given.sc, &given.reading, readers);
        give(a, 0, 20);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(ahead_take(&given.sc, a, &d), STATUS_OK);
            ahead_document_free(d);
        }
        ahead_free(a);
        assert_in_range(fake.most_side_by_side, 1, readers > 1 ? readers : 1);
    }
}

static void a_stop_ends_the_wait_and_the_readers(void **state)
{
    (void)state;
    struct ahead_document *d = NULL;
    fake.is_held = true;
    struct ahead *a = ahead_new(&given.sc, &given.reading, 2);
    give(a, 0, 10);
    fake.check = STATUS_CANCELLED;
    assert_int_equal(ahead_take(&given.sc, a, &d), STATUS_CANCELLED);
    assert_null(d);
    ahead_free(a);
    assert_int_equal(fake.shared, 0);
}

static void what_ends_the_reading_ends_the_taking(void **state)
{
    (void)state;
    struct ahead_document *d = NULL;
    fake.answer = STATUS_INTERNAL;
    struct ahead *a = ahead_new(&given.sc, &given.reading, 1);
    give(a, 0, 2);
    assert_int_equal(ahead_take(&given.sc, a, &d), STATUS_INTERNAL);
    assert_string_equal(given.sc.problem_text, "no reading");
    ahead_free(a);
}

static void nothing_needs_to_be_taken(void **state)
{
    (void)state;
    ahead_free(ahead_new(&given.sc, &given.reading, 2));
    struct ahead *a = ahead_new(&given.sc, &given.reading, 2);
    give(a, 0, 50);
    ahead_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(documents_come_back_in_their_order, begin, end),
        cmocka_unit_test_setup_teardown(what_was_read_and_not_taken_is_bounded, begin, end),
        cmocka_unit_test_setup_teardown(there_are_no_more_readers_than_asked_for, begin, end),
        cmocka_unit_test_setup_teardown(a_stop_ends_the_wait_and_the_readers, begin, end),
        cmocka_unit_test_setup_teardown(what_ends_the_reading_ends_the_taking, begin, end),
        cmocka_unit_test_setup_teardown(nothing_needs_to_be_taken, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
