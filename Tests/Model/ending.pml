/*
 * A session ends: R15, for a request that invalidates it and for an expiry.
 */

/* Only the winner of the swap tells `destroyed`. */
inline bury_session() {
#ifdef BREAK_R15
    rec.home = copy[n].home;
    atomic { ALIVE; write_d(TOMBSTONE, 0, 0, 0, 0) };
    raise_v(0);
    TELL(rec.home);
    result = STORED;
#else
    atomic { if :: tries >= ATTEMPTS -> goto busy :: else -> tries++ fi; READ_D };
    READ_V;
#ifndef BREAK_R15_FORGET
    /* Forgotten first: whatever happens below, this node serves it no more. */
    atomic { ALIVE; if :: copy[n].has -> copy[n].suspect = 2 :: else fi };
#endif
#if EXPIRIES > 0 && !defined(BREAK_R15_JUDGED)
    /* An expiry ends only what it was judged by. */
    if
    :: judging && found == RECORD && (rec.home != judged_home || rec.epoch != judged_epoch) -> goto not_due
    :: else
    fi;
#endif
    if
    :: found == TOMBSTONE -> goto gone                      /* somebody else has ended it, and told it */
    :: found == ALIAS -> goto busy
    :: found == NOTHING ->
        /* Whose it is, nobody knows: all are told. */
#ifndef BREAK_R15_TELL
        atomic { ALIVE; if :: v != 0 -> v++; CLOCK_AHEAD :: else fi; tell_others() };
#endif
        add_d(TOMBSTONE, 0, 0, 0, 0)
    :: found == RECORD ->
        raise_v(rec.epoch);
        TELL(rec.home);
        atomic {
#if EXPIRIES > 0
            assert(!judging || !read_token[me] || due > 0);
#endif
            swap_d(read_token[me], TOMBSTONE, 0, 0, 0, 0) }
    fi;
#endif
    if
    :: result == STORED -> check_destroyed()
    :: result == UNKNOWN -> goto busy                       /* `destroyed` may go untold */
    :: else -> goto bury
    fi;
    atomic { ALIVE; forget_copy(n); ended = true; leave(); clean_up(); break }
}

#if EXPIRIES > 0
/* The home finds that its copy has expired. The store may know better. */
inline expire_copy() {
    atomic { READ_D };
    READ_V;
    atomic {
        ALIVE;
        forget_copy(n);
        if
        :: found == RECORD && (rec.home != judged_home || rec.epoch != judged_epoch) -> goto not_due
        :: found == NOTHING && seen_v != judged_epoch -> goto gone
        :: else -> goto bury
        fi }
}
#endif
