/* The life of one operation: API, two workers, sweeper, reconciler, and everything that may go wrong between two of their steps. README.md
 * says which step is which function and statement of the code, and how to run this.
 *
 * A statement of PostgreSQL, or the publish script, is one atomic step unless it can wait for a row lock or works from a snapshot: then it is
 * two. A process that is frozen, or slow, or cut off is one that the scheduler does not choose. Everything that decides lies in PostgreSQL's
 * row (row_*), in the workers' rows (lease) and in Redis (queued, meta, closed); all the rest is what processes remember. */

#ifndef DOCS
#define DOCS 2 /* documents to be committed, each by a transaction of its own */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2 /* max_attempts */
#endif
#ifndef FAULTS
#define FAULTS 2 /* crashes, failures, lapses, drains, lost answers, power cuts: all together */
#endif
#ifndef FLUSHES
#define FLUSHES 1 /* losses of all of Redis */
#endif

/* ---- PostgreSQL ---- */

mtype:status = { NONE, PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED };
mtype:status row_status = NONE;
byte row_task;     /* 0: none. Every claim writes a new one */
byte row_attempt;  /* rises with every claim */
byte row_worker;   /* 0: none; 1, 2: the workers; 3, 4: what they were before they started anew */
byte row_failures;
bool row_due = true;    /* not_before <= now() */
bool row_announced;     /* announced_at */
bool row_locked;        /* by a transaction that has passed its fence */
bool collection_busy;
byte committed[DOCS];   /* how often a document's chunks were committed: 1 is right, 2 is doubled work */
bool is_claim_soft;     /* the claim's asynchronous commit is not on the disk yet */
bool is_announced_soft; /* so is announced_at */
byte tasks;             /* made so far */

mtype:lease = { GONE, LIVE, LAPSED };
mtype:lease lease[5] = GONE; /* by worker id: the rows of `workers` */
bool is_draining[3];         /* the worker's own knowledge, and its row's */

/* ---- Redis ---- */

bool is_queued;   /* an entry of the queue names the operation; another one comes when that was popped */
byte meta;        /* the newest attempt that published */
bool closed;      /* by the last event */
bool has_last;    /* what the stream really holds: the last event … */
byte last_attempt /* … and the newest attempt */;

/* ---- what processes remember ---- */

mtype:turn = { IDLE, CLAIMING, BUSY, OWING };
mtype:turn turn[3] = IDLE; /* the supervisors */
byte task[3];              /* of the child, or of what is owed */
bool is_counted[3];        /* the hand-back that is owed */
bool is_lost[3];           /* the lease thread found no row */

mtype:phase = { RESTING, STARTING, LOOKING, WRITING, FENCED, TELLING, ENDING };
mtype:phase phase[3] = RESTING; /* the children */
byte doc[3], attempt[3];
bool is_hopeless[3]; /* ends as failed */

/* What is left in the server of a client that is gone, or waits no longer. */
mtype:late = { NOTHING, LATE_WRITE, LATE_COMMIT, LATE_END, LATE_CLAIM };
mtype:late late = NOTHING;
byte late_task, late_doc, late_worker;

byte swept_task; /* the sweep's snapshot */
bool is_sweeping;
bool was_taken[5]; /* rows of `workers` that the sweep has locked */
mtype:announcing = { NOBODY, READ, PUBLISHED };
mtype:announcing telling = NOBODY, announcing = NOBODY; /* who made it final; the reconciler */
byte faults = FAULTS, flushes = FLUSHES;

#define IS_FINAL (row_status == COMPLETED || row_status == FAILED || row_status == CANCELLED)
#define IS_ACTIVE (row_status == PENDING || row_status == PROCESSING)
#define HOLDS(t) (row_status == PROCESSING && row_task == (t))
#ifdef NO_FENCE
#define IS_FREE true /* a mere WHERE EXISTS locks nothing */
#define LOCK skip
#else
#define IS_FREE (!row_locked)
#define LOCK row_locked = true
#endif

#ifdef POWER_CUTS
#define SOFT_CLAIM(is) is_claim_soft = (is)
#define SOFT_END(is) is_announced_soft = (is)
#else
#define SOFT_CLAIM(is) skip
#define SOFT_END(is) skip
#endif

/* The one place where a status changes: the table of operation.c and the trigger. A final one has no row in it. */
inline become(next) {
    assert((row_status == NONE && next == PENDING) ||
           (row_status == PENDING && (next == PROCESSING || next == CANCELLED || next == FAILED)) ||
           (row_status == PROCESSING && (next == COMPLETED || next == FAILED || next == CANCELLED || next == PENDING)));
    row_status = next;
    collection_busy = (next == PENDING || next == PROCESSING);
    SOFT_CLAIM(next == PROCESSING)
}

/* Whoever made it final tells of it afterwards, as well as it can. */
inline finish_as(next) {
    become(next);
    is_queued = false; /* a final row is never claimed: what the queue says of it is of no more interest */
    telling = READ
}

inline push_maybe() {
    if
    :: is_queued = true
#ifndef ACK_ON_POP
    :: true /* Redis is away, or the process died before it */
#endif
    fi
}

/* The publish script. */
inline publish(by, is_last) {
    if
#ifdef NO_CLOSED_CHECK
    :: by < meta -> skip
#elif defined(NO_ATTEMPT_CHECK)
    :: closed -> skip
#elif defined(REFUSE_LAST_OF_OLD)
    :: closed || by < meta ->
        assert(!is_last || closed) /* a last event is refused only if one is out */
#else
    :: closed || (by < meta && !is_last) -> skip
#endif
    :: else ->
        assert(!has_last);                       /* nothing comes after the last event */
        assert(is_last || by >= last_attempt);   /* no older attempt speaks after a newer one */
        assert(!is_last || IS_FINAL);
        has_last = is_last;
        last_attempt = by;
        meta = by;
        closed = is_last
    fi
}

inline claim_by(id) {
    become(PROCESSING);
    tasks++;
    row_attempt++;
    row_task = tasks;
    row_worker = id
}

/* operation_hand_back and workers_sweep count alike. */
inline give_back(is_failure) {
    if
    :: is_failure ->
        row_failures++;
        assert(row_failures <= FAULTS - faults); /* nobody is charged for what did not happen */
        assert(row_failures <= ATTEMPTS);
        if
        :: row_failures >= ATTEMPTS -> finish_as(FAILED)
        :: else -> become(PENDING)
        fi
    :: else -> become(PENDING)
    fi
}

inline commit_document(t, d) {
    assert(HOLDS(t)); /* an attempt that lost its operation changes nothing */
    committed[d]++;
    assert(committed[d] == 1);
    row_failures = 0;
    SOFT_CLAIM(false)
}

inline end_as(t, is_failed) {
    if
    :: HOLDS(t) ->
        if
        :: is_failed -> finish_as(FAILED)
        :: else -> assert(committed[0] == 1 && committed[DOCS - 1] == 1); finish_as(COMPLETED)
        fi
    :: else
    fi
}

/* The child rests; its supervisor is idle, or owes what it had. */
inline rest(w, next) {
    turn[w] = next;
    phase[w] = RESTING;
    doc[w] = 0;
    attempt[w] = 0;
    is_hopeless[w] = false;
    if
    :: next == IDLE -> task[w] = 0
    :: else
    fi
}

/* A child's process is gone; what it had sent may still be on its way in the server. */
inline kill_child(w) {
    if
    :: phase[w] == WRITING && late == NOTHING -> late = LATE_WRITE; late_task = task[w]; late_doc = doc[w]
    :: phase[w] == FENCED && late == NOTHING -> late = LATE_COMMIT; late_task = task[w]; late_doc = doc[w]
    :: phase[w] == FENCED && late != NOTHING -> row_locked = false
    :: phase[w] == ENDING && late == NOTHING && !is_hopeless[w] -> late = LATE_END; late_task = task[w]
    :: else
    fi
}

/* The old worker id lives on in rows only. */
inline new_id(w) {
    if
    :: row_worker == w -> row_worker = w + 2
    :: else
    fi;
    if
    :: late == LATE_CLAIM && late_worker == w -> late_worker = w + 2
    :: else
    fi
}

inline forget(w) {
    rest(w, IDLE);
    is_counted[w] = false;
    is_lost[w] = false;
    is_draining[w] = false
}

/* ---- the API ---- */

proctype Api() {
    /* accept, and after the COMMIT: push */
    atomic { become(PENDING); push_maybe() }
    /* cancel, and after the COMMIT: announce */
end: if
    :: atomic { IS_ACTIVE && IS_FREE -> finish_as(CANCELLED) }
#ifdef FAIR
    :: skip /* nobody cancels */
#endif
    fi
}

/* ---- a worker ---- */

proctype Supervisor(byte w) {
end: do
    /* pop; claim: the statement's snapshot. What is not to be had is dropped */
    :: atomic { turn[w] == IDLE && !is_lost[w] && !is_draining[w] && is_queued ->
        is_queued = false;
        if
        :: row_status == PENDING && row_due && lease[w] == LIVE -> turn[w] = CLAIMING
        :: else
        fi }
    /* claim: the row is locked, looked at again and written; the child gets its order */
    :: atomic { turn[w] == CLAIMING && IS_FREE ->
        if
        :: row_status == PENDING && row_due ->
            claim_by(w);
            task[w] = row_task; attempt[w] = row_attempt;
            turn[w] = BUSY; phase[w] = STARTING
        :: else -> turn[w] = IDLE
        fi }
    /* check rows: not held any more */
    :: atomic { turn[w] == BUSY && !HOLDS(task[w]) -> kill_child(w); rest(w, IDLE) }
    /* hand back, and after the COMMIT: push or announce */
    :: atomic { turn[w] == OWING && IS_FREE ->
        if
        :: HOLDS(task[w]) ->
            give_back(is_counted[w]);
            row_worker = 0;
            if
            :: row_status == PENDING && is_counted[w] -> row_due = false
            :: row_status == PENDING && !is_counted[w] -> push_maybe()
            :: else
            fi
        :: else
        fi;
        turn[w] = IDLE;
        task[w] = 0;
        is_counted[w] = false }
#ifndef NO_ORPHANS
    /* check orphans */
    :: atomic { turn[w] == IDLE && row_status == PROCESSING && row_worker == w && !is_lost[w] && IS_FREE ->
        give_back(false);
        row_worker = 0;
        push_maybe() }
#endif
    /* drain: the child stops between two documents; it is handed back for nothing, if there is time for it */
    :: atomic { is_draining[w] && phase[w] == LOOKING -> rest(w, OWING) }
    :: atomic { is_draining[w] && (turn[w] == IDLE || turn[w] == OWING) -> lease[w] = GONE; new_id(w); forget(w); lease[w] = LIVE }
    /* start over */
    :: atomic { is_lost[w] -> kill_child(w); new_id(w); forget(w); lease[w] = LIVE }
    od
}

proctype Child(byte w) {
end: do
    /* start: its event */
    :: atomic { phase[w] == STARTING -> publish(attempt[w], false); phase[w] = LOOKING }
    /* the next document that is not done, or the end */
    :: atomic { phase[w] == LOOKING ->
        do
        :: doc[w] < DOCS && committed[doc[w]] > 0 -> doc[w]++
        :: doc[w] < DOCS && committed[doc[w]] == 0 -> phase[w] = WRITING; break
        :: doc[w] == DOCS -> phase[w] = ENDING; break
        od }
    /* it fails for good */
    :: atomic { phase[w] == LOOKING && committed[0] == 0 -> is_hopeless[w] = true; phase[w] = ENDING }
    /* fence */
    :: atomic { phase[w] == WRITING && IS_FREE ->
        if
        :: HOLDS(task[w]) -> LOCK; phase[w] = FENCED
        :: else -> rest(w, IDLE)
        fi }
    /* commit */
    :: atomic { phase[w] == FENCED -> commit_document(task[w], doc[w]); row_locked = false; phase[w] = TELLING }
    /* the document's event */
    :: atomic { phase[w] == TELLING -> publish(attempt[w], false); doc[w]++; phase[w] = LOOKING }
    /* end, and after the COMMIT: announce */
    :: atomic { phase[w] == ENDING && IS_FREE -> end_as(task[w], is_hopeless[w]); rest(w, IDLE) }
    od
}

/* The server's side of connections whose other end is gone: goes on, or is rolled back, or terminated by the next attempt. */
proctype Server() {
end: do
    :: atomic { late == LATE_WRITE && IS_FREE ->
        if
        :: HOLDS(late_task) -> LOCK; late = LATE_COMMIT
        :: late = NOTHING; late_task = 0; late_doc = 0
        fi }
    :: atomic { late == LATE_COMMIT ->
        if
        :: commit_document(late_task, late_doc)
        :: skip
        fi;
        row_locked = false; late = NOTHING; late_task = 0; late_doc = 0 }
    :: atomic { late == LATE_END && IS_FREE ->
        if
        :: end_as(late_task, false)
        :: skip
        fi;
        late = NOTHING; late_task = 0 }
    :: atomic { late == LATE_CLAIM && IS_FREE ->
        if
        :: row_status == PENDING && row_due -> claim_by(late_worker)
        :: skip
        fi;
        late = NOTHING; late_worker = 0 }
    od
}

/* Renewals, and what time does. */
proctype Clock() {
    byte i;
end: do
    /* renew */
    :: atomic { lease[1] == LAPSED && !was_taken[1] -> lease[1] = LIVE }
    :: atomic { lease[2] == LAPSED && !was_taken[2] -> lease[2] = LIVE }
    /* renew: no row */
    :: atomic { lease[1] == GONE && !is_lost[1] -> is_lost[1] = true }
    :: atomic { lease[2] == GONE && !is_lost[2] -> is_lost[2] = true }
    /* a lease that nobody renews */
    :: atomic { lease[3] == LIVE -> lease[3] = LAPSED }
    :: atomic { lease[4] == LIVE -> lease[4] = LAPSED }
    :: atomic { !row_due -> row_due = true }
    od
}

#ifdef SWEEP_WITHOUT_LAPSE
#define IS_LAPSED(id) (lease[id] != GONE)
#else
#define IS_LAPSED(id) (lease[id] == LAPSED)
#endif
#ifdef SWEEP_LAPSED_ONLY
#define IS_UNOWNED false
#else
#define IS_UNOWNED (row_status == PROCESSING && lease[row_worker] == GONE)
#endif

proctype Sweeper() {
    byte i;
end: do
    /* sweep: the statement's snapshot; it locks the lapsed rows */
    :: atomic { !is_sweeping && (IS_LAPSED(1) || IS_LAPSED(2) || IS_LAPSED(3) || IS_LAPSED(4) || IS_UNOWNED) ->
        is_sweeping = true;
        for (i : 1 .. 4) {
            was_taken[i] = IS_LAPSED(i)
        }
        i = 0;
        if
        :: row_status == PROCESSING && (was_taken[row_worker] || IS_UNOWNED) -> swept_task = row_task
        :: else -> swept_task = 0
        fi }
    /* sweep: the operation's row is locked, looked at again and written; COMMIT; push */
    :: atomic { is_sweeping && IS_FREE ->
        if
        :: swept_task != 0 && HOLDS(swept_task) ->
            give_back(true);
            if
            :: row_status == PENDING -> push_maybe()
            :: else
            fi
        :: else
        fi;
        for (i : 1 .. 4) {
            if
            :: was_taken[i] -> lease[i] = GONE; was_taken[i] = false
            :: else
            fi
        }
        i = 0;
        swept_task = 0;
        is_sweeping = false }
    od
}

/* ---- announcing, pushing what no queue holds ---- */

/* Whoever made the operation final: API, child, supervisor or sweeper. It may die before each step. */
proctype Teller() {
end: do
    :: atomic { telling == READ -> publish(row_attempt, true); telling = PUBLISHED }
    :: atomic { telling == PUBLISHED -> row_announced = true; SOFT_END(true); telling = NOBODY }
    :: atomic { telling != NOBODY -> telling = NOBODY }
    od
}

proctype Reconciler() {
end: do
#ifndef ACK_ON_POP
    /* push what is due and absent */
    :: atomic { row_status == PENDING && row_due && !is_queued -> is_queued = true }
#endif
#ifndef NO_ANNOUNCER
    /* announce */
    :: atomic { IS_FINAL && !row_announced && announcing == NOBODY -> announcing = READ }
    :: atomic { announcing == READ -> publish(row_attempt, true); announcing = PUBLISHED }
    :: atomic { announcing == PUBLISHED -> row_announced = true; SOFT_END(true); announcing = NOBODY }
#endif
    od
}

/* ---- what goes wrong ---- */

inline crash(w) {
    kill_child(w);
    lease[w + 2] = lease[w];
    new_id(w);
    forget(w);
    lease[w] = LIVE
}

#ifdef POWER_CUTS
inline power_cut() {
    if
    :: is_claim_soft -> row_status = PENDING; row_attempt--; row_task = 0; row_worker = 0; is_claim_soft = false
    :: true
    fi;
    if
    :: is_announced_soft -> row_announced = false
    :: true
    fi;
    is_announced_soft = false;
    late = NOTHING; late_task = 0; late_doc = 0; late_worker = 0;
    row_locked = false;
    swept_task = 0; is_sweeping = false;
    was_taken[1] = false; was_taken[2] = false; was_taken[3] = false; was_taken[4] = false;
    for (i : 1 .. 2) {
        if
        :: turn[i] == CLAIMING -> turn[i] = IDLE
        :: phase[i] == WRITING || phase[i] == FENCED -> rest(i, OWING); is_counted[i] = true
        :: else
        fi
    }
    i = 0
}
#endif

/* Only the first worker's processes fail, but the lease of either may lapse: which one is called first does not matter. */
proctype Faults() {
    byte i;
end: do
#ifdef CRASHES
    /* a child is killed, or its attempt fails in a way that may pass */
    :: atomic { faults > 0 && turn[1] == BUSY -> faults--; kill_child(1); rest(1, OWING); is_counted[1] = true }
    /* a worker is killed with its children */
    :: atomic { faults > 0 && lease[3] == GONE && lease[1] != GONE && !was_taken[1] -> faults--; crash(1) }
#endif
#ifdef LAPSES
    /* a worker is frozen or cut off for longer than its lease */
    :: atomic { faults > 0 && lease[1] == LIVE -> faults--; lease[1] = LAPSED }
    :: atomic { faults > 0 && lease[2] == LIVE -> faults--; lease[2] = LAPSED }
#endif
#ifdef DRAINS
    /* a worker is told to end */
    :: atomic { faults > 0 && !is_draining[1] && lease[1] == LIVE -> faults--; is_draining[1] = true }
#endif
#ifdef LOST_ANSWERS
    /* a claim is given up while its statement waits; or it is done, and only the answer is lost */
    :: atomic { faults > 0 && turn[1] == CLAIMING && late == NOTHING -> faults--; late = LATE_CLAIM; late_worker = 1; turn[1] = IDLE }
#endif
#ifdef POWER_CUTS
    /* PostgreSQL's machine loses power */
    :: atomic { faults > 0 && (is_claim_soft || is_announced_soft || late != NOTHING || row_locked) -> faults--; power_cut() }
#endif
    /* Redis loses everything */
    :: atomic { flushes > 0 && (is_queued || meta > 0 || closed) ->
        flushes--; is_queued = false; meta = 0; closed = false; has_last = false; last_attempt = 0 }
#ifdef FAIR
    :: break
#endif
    od
}

init {
    atomic {
        lease[1] = LIVE;
        lease[2] = LIVE;
        run Api();
        run Supervisor(1); run Supervisor(2);
        run Child(1); run Child(2);
        run Server(); run Clock(); run Sweeper();
        run Teller(); run Reconciler();
        run Faults()
    }
}

#ifdef FAIR
/* What has to happen at last, if no process is starved for ever and faults come to an end. */
ltl what_is_accepted_ends_and_frees_its_collection { [] ((IS_ACTIVE || collection_busy) -> <> (IS_FINAL && !collection_busy)) }
ltl an_end_is_announced { [] (IS_FINAL -> <> (row_announced && announcing == NOBODY && telling == NOBODY)) }
ltl every_worker_comes_to_rest { [] (IS_FINAL -> <> (turn[1] == IDLE && turn[2] == IDLE && late == NOTHING && !row_locked)) }
ltl cancelled_stays_cancelled { [] (row_status == CANCELLED -> [] (row_status == CANCELLED)) }
#endif
