/*
 * The peer watch (R17), the sweep (R19) and the reading of tokens behind the answers (R7, R8), for each node. They happen at any
 * time, also very late: how old a copy may be is not bounded here.
 */

#ifdef BREAK_R17_MISSING
#define V_CHANGED(w) (v != 0 && v != copy[w].epoch)
#else
#define V_CHANGED(w) (v != copy[w].epoch)
#endif

/* R18: in the session's lock, so that no request is inside. A lock that is taken: at the next poll. */
#ifdef BREAK_R18_LOCK
#define WATCH_ENTERS(w) true
#else
#define WATCH_ENTERS(w) !lock[w]
#endif

#ifdef BREAK_R19_INSIDE
#define SWEEP_WAITS(w) true
#else
#define SWEEP_WAITS(w) !noticed[w]
#endif

inline watch_puts_back() {
    atomic {
        if
        :: mine == incarnation[w] && MAY_PUT_BACK(w, v) && kind == NOTHING ->
            write_d(RECORD, w, fresh_epoch, copy[w].x, copy[w].y);
            copy[w].epoch = fresh_epoch; has_token[w] = false; copy_token[w] = false
        :: else ->
            fresh_epoch = 0;
            if :: mine == incarnation[w] && copy[w].has && copy[w].suspect == 0 -> copy[w].suspect = 1 :: else fi
        fi };
    atomic {
        if :: fresh_epoch != 0 && mine == incarnation[w] && v < fresh_epoch -> v = fresh_epoch :: else fi;
        if :: fresh_epoch != 0 && mine == incarnation[w] && copy[w].suspect == 1 -> copy[w].suspect = 0 :: else fi;
#ifndef BREAK_R18_LOCK
        if :: mine == incarnation[w] -> lock[w] = false :: else fi;
#endif
        fresh_epoch = 0 }
}

inline watch_enters() {
    fresh_epoch = wall; wall = NEXT_MAKING(wall);
#ifndef BREAK_R18_LOCK
    lock[w] = true
#endif
}

proctype Watch(byte w)
{
    byte fresh_epoch = 0;
    bool mine = false;
end:
    do
    :: atomic { moved[w] && NOT_CUT(w) -> moved[w] = false; polling[w] = true; mine = incarnation[w] };
        /* A copy whose v differs or is missing is looked up in d. */
        atomic {
            /* R5: also what a request is loading just now. */
#ifndef BREAK_R5
            if :: lock[w] && mine == incarnation[w] -> noticed[w] = true :: else fi;
#endif
            if
            :: mine == incarnation[w] && copy[w].has && kind != NOTHING && V_CHANGED(w) ->
#ifdef BREAK_R17_LOOK
                outdate_copy(w)
#else
                if
                /* Its own, also one that it is about to hear of. */
                :: kind == RECORD && d.home == w ->
                    if :: copy[w].suspect == 0 -> copy[w].suspect = 1 :: else fi
                :: else -> outdate_copy(w)
                fi
#endif
            :: mine == incarnation[w] && OWES(w) && WATCH_ENTERS(w) -> watch_enters()
            :: mine == incarnation[w] && copy[w].has && kind == NOTHING && !(OWES(w) && WATCH_ENTERS(w)) ->
#ifdef BREAK_R17_LOOK
                if :: V_CHANGED(w) -> outdate_copy(w) :: else fi
#else
                if :: copy[w].suspect == 0 -> copy[w].suspect = 1 :: else fi;
#ifdef SLOW
                if
                :: OWES(w) ->
                    a_newer[0] = true; a_newer[1] = true;
#if CLIENTS > 1
                    a_newer[2] = true
#endif
                :: else
                fi
#endif
#endif
            :: else
            fi };
        if
        :: fresh_epoch != 0 -> watch_puts_back()
        :: else
        fi;
        atomic { polling[w] = false; mine = false }

    /* A suspect copy is looked at again each poll. */
    :: atomic { OUTDATED(w) && NOT_CUT(w) -> outdate_copy(w) }
    :: atomic { OWES(w) && copy[w].suspect == 1 && WATCH_ENTERS(w) && NOT_CUT(w) ->
            watch_enters(); polling[w] = true; mine = incarnation[w] };
        watch_puts_back();
        atomic { polling[w] = false; mine = false }

#if LOSSES > 0
    /* R19: through. A request that is inside may be about to bring the only copy. */
    :: atomic { sweeping[w] && !moved[w] && !polling[w] && !OWES(w) && SWEEP_WAITS(w) -> sweeping[w] = false }
#endif

    /* R8: a token is adopted only with the record that this copy is. */
    :: atomic { copy[w].has && !has_token[w] && kind == RECORD && SAME(w) && NOT_CUT(w) ->
            has_token[w] = true; copy_token[w] = true }
    od
}
