/*
 * A request finds its session: R1 to R5.
 */

/* R23: in the session's lock from before the read. */
inline enter() {
#if CUTS > 0
    /* What could not be sent goes first, as soon as the store can be asked (R25). */
    atomic { !lock[n] && (!UNSENT(n) || cut[n]) -> lock[n] = true; mine = incarnation[n] };
#else
    atomic { !lock[n] -> lock[n] = true; mine = incarnation[n] };
#endif
#ifdef CLUSTER
    do
    :: atomic { !UP -> goto aborted }
    :: atomic { UP && l == 0 -> l = me + 1; break }
    od;
#endif
}

#ifdef BREAK_R1
#define ROUTE_AGREES true
#else
#define ROUTE_AGREES (route == n)
#endif

/* R1: without any operation. How old the copy may be is a matter of time; here, it may always be too old. */
#if defined(ROAMING) || (defined(CLUSTER) && !defined(BREAK_R23))
#define TRUSTED false
#else
#define TRUSTED (copy[n].has && copy[n].home == n && copy[n].suspect == 0 && ROUTE_AGREES)
#endif
#ifdef ROAMING
#define VERIFIABLE copy[n].has
#else
#define VERIFIABLE (copy[n].has && copy[n].home == n && copy[n].suspect == 0)
#endif
#ifdef BREAK_R2
#define VERIFIED true
#else
#define VERIFIED (v != 0 && v == copy[n].epoch)
#endif

inline read_copy() {
    atomic {
        ALIVE;
#if CUTS > 0
        if
        :: cut[n] && TRUSTED -> goto degraded
        :: cut[n] && !(TRUSTED) -> leave(); clean_up(); goto next      /* 503 */
        :: else
        fi;
#endif
        if
        :: TRUSTED -> goto use
        :: copy[n].has -> skip
        :: !copy[n].has -> goto take
        fi };
    /* R2: v is the copy's epoch. */
    atomic {
        ALIVE;
        if
        :: VERIFIABLE && VERIFIED -> goto use
        :: else
        fi }
}

/* R3: the record comes home to this node. In roaming mode it is only read. */
inline take_over() {
    atomic { if :: tries >= ATTEMPTS -> goto busy :: else -> tries++ fi; READ_D };
    READ_V;
    if
    :: found == TOMBSTONE -> goto gone
    :: found == ALIAS -> goto alias
    :: found == NOTHING -> goto missing
    :: found == RECORD
    fi;
#if EXPIRIES > 0
    /* A foreign judge of expiry ends only what it has judged (R15). */
    atomic {
        if
        :: found_due == 2 -> ending = true; judging = true; judged_home = rec.home; judged_epoch = rec.epoch; tries = 0;
            goto bury
        :: else
        fi };
#endif
#if defined(ROAMING)
    /* A missing v is made, a lower one raised. */
    if
    :: seen_v == 0 -> atomic { ALIVE; if :: v == 0 -> v = wall; wall = NEXT_MAKING(wall) :: else fi }
    :: seen_v != 0 && seen_v < rec.epoch ->
        atomic { ALIVE; if :: v != 0 -> v = v + (rec.epoch - seen_v); CLOCK_AHEAD :: else fi }
    :: else
    fi;
    atomic {
        ALIVE;
#ifdef BREAK_R4
        keep_copy(rec.home, seen_v, rec.x, rec.y);
#else
        keep_copy(rec.home, rec.epoch, rec.x, rec.y);      /* R4 */
#endif
        has_token[n] = true; copy_token[n] = read_token[me];
        goto use };
#else
#ifdef BREAK_R3
    atomic { ALIVE; keep_copy(n, rec.epoch, rec.x, rec.y); has_token[n] = true; copy_token[n] = read_token[me]; goto use };
#endif
#ifdef BREAK_R12_FENCE
    if
    :: rec.home == n && rec.epoch == seen_v ->
        atomic { ALIVE; keep_copy(n, rec.epoch, rec.x, rec.y); has_token[n] = true; copy_token[n] = read_token[me]; goto use }
    :: else
    fi;
#endif
#ifdef BREAK_R6_EPOCH
    atomic { ALIVE; new_epoch = rec.epoch };
#else
    raise_v(rec.epoch);
#endif
#ifndef BREAK_R6
    TELL(rec.home);
#endif
    swap_d(read_token[me], RECORD, n, new_epoch, rec.x, rec.y);
    if
    :: result == STORED -> skip
#ifndef BREAK_R12_COPY
    :: result == UNKNOWN -> keep_suspect(new_epoch); goto take
    :: result != STORED && result != UNKNOWN -> goto take
#else
    :: result != STORED -> goto take
#endif
    fi;
    atomic { ALIVE; keep_copy(n, new_epoch, rec.x, rec.y) };
#ifdef BREAK_R6
    TELL(rec.home);
#endif
    goto use
#endif
}
