/*
 * The record is missing: R18 puts it back, R19 asks those who may have it.
 */

/* Once the others were asked, the route need not agree: this node's watch cannot put the copy back while a request is inside. */
#ifdef BREAK_R18_ROUTE
#define ROUTE_PUTS_BACK true
#else
#define ROUTE_PUTS_BACK (route == n || asked)
#endif

/* Whether a node was not through with a loss of memory: now, and when the store was read. */
#if LOSSES > 0
#define NOT_THROUGH SWEEPING
#else
#define NOT_THROUGH false
#endif
#if LOSSES > 0 && !defined(BREAK_R19_ORDER)
#define WAS_NOT_THROUGH seen_sweeping
#else
#define WAS_NOT_THROUGH false
#endif

/* R19: memory was lost and not everybody is through; or d alone is gone; or the cookie names another node. */
#ifdef BREAK_R19
#define MUST_ASK false
#else
#define MUST_ASK (NOT_THROUGH || seen_v != 0 || route != n)
#endif

/* A node that cannot put the session back, since a request is in it, says so with a newer access time. */
#if defined(SLOW) && !defined(BREAK_R19_BUSY)
#define SAID_BUSY a_newer[me]
#else
#define SAID_BUSY false
#endif

/* What is waited for: the next polls of the others. They take longer than a request that is under way there, unless the scope
 * says otherwise. A request there that asks as well waits, too. */
#ifdef SLOW
#define HAS_LOOKED(q) (q == n || (!moved[q] && !polling[q]))
#else
#define HAS_LOOKED(q) (q == n || (!moved[q] && !polling[q] && (asking[q] || (!lock[q] && !OWES(q)))))
#endif
#if NODES > 2
#define ALL_HAVE_LOOKED (HAS_LOOKED(0) && HAS_LOOKED(1) && HAS_LOOKED(2))
#else
#define ALL_HAVE_LOOKED (HAS_LOOKED(0) && HAS_LOOKED(1))
#endif

inline find_missing() {
    READ_V;
    atomic {
        ALIVE;
        if
        :: MAY_PUT_BACK(n, seen_v) && ROUTE_PUTS_BACK -> goto put_back
        :: else
        fi;
        /* Kept, as a suspect, unless it has expired or was overtaken: it may be the only one. */
#ifdef BREAK_R18_KEEP
        forget_copy(n);
#endif
        if
        :: copy[n].has && copy[n].suspect == 0 -> copy[n].suspect = 1
        :: else
        fi;
        /* Whoever has changes to commit does not ask: 503. */
        if
        :: dirty_x + dirty_y > 0 -> goto busy
        :: else
        fi;
        if
        :: !asked && !ending && MUST_ASK -> skip
        :: asked && (NOT_THROUGH || SAID_BUSY) -> goto busy         /* 503 is no log-out */
#ifndef BREAK_R19
        :: !(asked && (NOT_THROUGH || SAID_BUSY)) && !(!asked && !ending && MUST_ASK) && WAS_NOT_THROUGH -> goto take
#endif
        :: else -> goto not_found
        fi;
        /* R19: a node that finds its change counter raised looks at what it has, and puts it back. */
        asked = true; asking[n] = true;
#ifdef SLOW
        a_newer[me] = false;
#endif
        tell_others()
    };
    do
    :: atomic { !UP -> goto aborted }
    :: atomic { UP && (ALL_HAVE_LOOKED || kind != NOTHING) -> break }
    od;
    atomic { ALIVE; asking[n] = false; tries = 0; goto take }
}

/* R18: under a fresh epoch, d before v. */
inline put_record_back() {
#ifdef BREAK_R18_ORDER
    atomic {
        ALIVE;
        new_epoch = wall; wall = NEXT_MAKING(wall);
        if :: v == 0 || v == copy[n].epoch -> v = new_epoch; result = STORED :: else -> result = CONFLICT fi };
    if :: result == CONFLICT -> goto found_after_all :: else fi;
#elif defined(BREAK_R18_FRESH)
    atomic { ALIVE; new_epoch = copy[n].epoch };
#else
    atomic { ALIVE; new_epoch = wall; wall = NEXT_MAKING(wall) };
#endif
    add_d(RECORD, n, new_epoch, copy[n].x, copy[n].y);
    if
    :: result != STORED -> goto found_after_all
    :: result == STORED
    fi;
    atomic { ALIVE; keep_copy(n, new_epoch, put_x, put_y) };
#ifndef BREAK_R18_ORDER
    atomic { ALIVE; if :: v < new_epoch -> v = new_epoch :: else fi };
#endif
    if
    :: dirty_x + dirty_y > 0 -> goto answer                 /* this request's changes are in the record */
    :: else -> goto use
    fi
}
