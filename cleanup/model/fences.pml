/*
 * What the fences of ../PROTOCOL.md are for. One publisher and one worker, the only one there may be, on a memory
 * that delays stores.
 *
 * A store goes into a slot of its own in the thread's buffer, and reaches memory whenever `memory` likes; two slots
 * of one buffer may be emptied in either order, but for a Release store, which waits for those before it. A fence
 * waits until the thread's own buffer is empty. A load is made where it stands; so a load that is Acquire is, and of
 * one that need not be, a mutant makes it elsewhere. Modelled so
 * are the stores that the protocol's pairs are about: the publisher's addition to `length`, and the worker's stores
 * to `asleep` and `workers`, together with the release of the lock behind them, which takes effect after them.
 * Everything else is as in queue.pml, and takes effect at once: claims, which are read-modify-writes of memory, the
 * taking of the lock, what a waker does under it, and the flag to park on.
 *
 * Features, by -D:
 *   DEATH       the worker dies once, after it has run a block
 *   RETIRE      it may time out when it sleeps, and then leaves if no waker has chosen it
 *   FAIL        another thread has demanded it, and finds that it cannot be started; if there is work, the monitor
 *               tries again
 *
 * Mutants: NO_PUBLISH_FENCE, NO_SLEEP_FENCE, NO_LOSS_FENCE, NO_FAIL_FENCE; RELAXED_LOWERING, LOOK_IN_DISORDER, RETIRE_IN_DISORDER.
 */

#define BLOCKS 2
#define EMPTY 7                             /* no store waits in the slot */

byte length;
byte asleep;
byte workers = 1;
bool locked;
bool sleeping;                              /* the list of sleepers: it is on it, or not */
bool called;                                /* the flag to park on */
byte ran;                                   /* blocks that have been run */
bool died;

/* The publisher's buffer. An addition, and so 0 is an empty slot. */
byte add_out;

/* The worker's buffer. */
byte asleep_out = EMPTY;
byte workers_out = EMPTY;
bool unlock_out;
bool release_waits;                         /* the store to `asleep` comes after the one to `workers` */

active proctype memory() {
end_idle:
    do
    :: add_out > 0 -> d_step { length = length + add_out; add_out = 0 }
    :: asleep_out != EMPTY && !(release_waits && workers_out != EMPTY) ->
        d_step { asleep = asleep_out; asleep_out = EMPTY; release_waits = false }
    :: workers_out != EMPTY -> d_step { workers = workers_out; workers_out = EMPTY }
    :: asleep_out == EMPTY && workers_out == EMPTY && unlock_out ->
        d_step { locked = false; unlock_out = false }
    od
}

inline acquire() {
    atomic { !locked -> locked = true }
}

/* ---- the publisher ------------------------------------------------------------------------------------------- */

/* W1 to W5. A waker sees its own addition, wherever that is. */
inline wake(seen) {
    acquire();                                                                              /* W1 */
    if
    :: seen > 0 ->                                                                          /* W2 */
        if
        :: sleeping -> d_step { sleeping = false; asleep = 0; woken = true }                /* W3 */
        :: else ->
            if
            :: workers == 0 -> workers = 1; demanded = true                                 /* W4 */
            :: else -> skip
            fi
        fi
    :: else -> skip
    fi;
    atomic { add_out == 0 -> locked = false };                                              /* W5 */
    if
    :: woken -> d_step { called = true; woken = false }
    :: demanded -> atomic { run worker(); demanded = false }
    :: else -> skip
    fi
}

proctype publisher() {
    byte published; bool help; bool woken; bool demanded;
    do
    :: published < BLOCKS ->
        atomic { add_out == 0 -> add_out = 1; published++ };                                /* P2 */
#ifndef NO_PUBLISH_FENCE
        add_out == 0;                                                                       /* P3 */
#endif
        if
        :: length + add_out > 0 ->                                                          /* P4 */
#ifdef LOOK_IN_DISORDER
            help = (workers < 1);                   /* Mutant: what it would be without the Acquire. */
            help = help || asleep > 0;
#else
            help = (asleep > 0);
            help = help || workers < 1;
#endif
            if
            :: help -> help = false; wake(length + add_out)
            :: else -> skip
            fi
        :: else -> skip
        fi
    :: else -> break
    od;
    /* If a block is never run, this is where Spin finds it stuck. */
    ran == BLOCKS
}

/* ---- the worker ---------------------------------------------------------------------------------------------- */

inline store(slot, value) {
    atomic { slot == EMPTY -> slot = value }
}

/* A store to `asleep` is Release. */
inline store_asleep(value) {
    atomic {
        asleep_out == EMPTY ->
            asleep_out = value;
#ifndef RELAXED_LOWERING
            release_waits = (workers_out != EMPTY)  /* Mutant: it is Relaxed. */
#endif
    }
}

inline fence() {
    asleep_out == EMPTY && workers_out == EMPTY && !unlock_out
}

/* The unlock is in the buffer only when all is done, so that SleepFence and LossFence are the same fence. */
inline lost() {
    store(workers_out, 0);                                                                  /* L1 */
#ifndef NO_LOSS_FENCE
    fence();
#endif
    if
    :: length > 0 -> store(workers_out, 1); demanded = true                                 /* L2 */
    :: else -> skip
    fi;
    unlock_out = true;
    if
    :: demanded -> run worker()
    :: else -> skip
    fi
}

proctype worker() {
    bool found; bool demanded;
claim:
    if
    :: atomic { length > 0 -> length--; ran++ }                                             /* C1 */
    :: else -> goto sleep
    fi;
#ifdef DEATH
    if
    :: !died ->
        died = true;
        acquire();
        lost();
        goto left
    :: true
    fi;
#endif
    goto claim;

sleep:
    acquire();                                                                              /* S1 */
    store_asleep(1);                                                                        /* S2 */
#ifndef NO_SLEEP_FENCE
    fence();                                                                                /* S3 */
#endif
    found = (length > 0);                                                                   /* S4 */
    if
    :: found -> store_asleep(0); atomic { found = false; unlock_out = true }; goto claim
    :: else -> atomic { sleeping = true; unlock_out = true }                                /* S5 */
    fi;

end_parked:
    if
    :: atomic { called -> called = false }                                                  /* S6 */
#ifdef RETIRE
    :: true ->                                      /* The time is up. */
        acquire();
        if
        :: sleeping ->
            sleeping = false;
#ifdef RETIRE_IN_DISORDER
            store_asleep(0);                        /* Mutant. */
            store(workers_out, 0);
#else
            store(workers_out, 0);                                                          /* R3 */
            store_asleep(0);
#endif
            unlock_out = true;
            goto left
        :: else -> unlock_out = true; atomic { called -> called = false }
        fi
#endif
    fi;
    goto claim;

left:
    skip
}

#ifdef FAIL
/* The thread that was to start the worker; its buffer is the worker's, which is not there. */
proctype starter() {
    acquire();
    store(workers_out, 0);                                                                  /* L1, and no L2 */
    unlock_out = true;
#ifndef NO_FAIL_FENCE
    fence();                                        /* The LossFence. */
#endif
    if
    :: length > 0 -> run monitor()
    :: else -> skip
    fi
}

/* W1 to W5, for the monitor that tries again. */
proctype monitor() {
    acquire();
    if
    :: length > 0 && sleeping -> d_step { sleeping = false; asleep = 0; called = true }
    :: length > 0 && !sleeping && workers == 0 -> atomic { workers = 1; run worker() }
    :: else -> skip
    fi;
    locked = false
}
#endif

init {
    atomic {
        run publisher();
#ifdef FAIL
        run starter()
#else
        run worker()
#endif
    }
}
