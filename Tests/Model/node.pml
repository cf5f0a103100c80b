/*
 * A node: its copy of the session, and the session's lock on it (R23).
 */

/* suspect 0: in order · 1: not to be read from, but still the newest that this node knows · 2: known to have moved or ended,
 * while a request is still in the session */
typedef Copy {
    bool has; byte suspect; byte home; byte epoch; byte x; byte y;
#if EXPIRIES > 0
    bool due
#endif
}
Copy copy[NODES];

bool incarnation[NODES];    /* turns with the node's crash: a request of the old one goes nowhere */
bool lock[NODES];           /* R23: a request, or the watch, is in the session */
bool polling[NODES];
bool noticed[NODES];        /* R5: the watch saw the session change while a request was loading it */
bool asking[NODES];         /* R19: the request inside waits for other nodes */
bool sweeping[NODES];       /* R19: memory was lost, and this node has not put back what it is home of */

#define UP (incarnation[n] == mine)
#define ALIVE if :: !UP -> goto aborted :: else fi

#if EXPIRIES > 0
#define DUE(q) copy[q].due
#else
#define DUE(q) false
#endif

#define POLLED_TWO (!moved[0] && !polling[0] && !moved[1] && !polling[1])
#define IDLE_TWO (!lock[0] && !lock[1])
#define SWEEPING_TWO (sweeping[0] || sweeping[1])
#define OWING_TWO (OWES(0) || OWES(1))
#define RESOLVED_TWO (!OUTDATED(0) && !OUTDATED(1) && !noticed[0] && !noticed[1])
#if NODES > 2
#define POLLED (POLLED_TWO && !moved[2] && !polling[2])
#define IDLE (IDLE_TWO && !lock[2])
#define SWEEPING (SWEEPING_TWO || sweeping[2])
#define OWING (OWING_TWO || OWES(2))
#define RESOLVED (RESOLVED_TWO && !OUTDATED(2) && !noticed[2])
#else
#define POLLED POLLED_TWO
#define IDLE IDLE_TWO
#define SWEEPING SWEEPING_TWO
#define OWING OWING_TWO
#define RESOLVED RESOLVED_TWO
#endif

/* A suspect copy whose session has moved or ended: the watch has not looked at it again. */
#define OUTDATED(q) (copy[q].has && copy[q].suspect == 1 \
    && (kind == TOMBSTONE || kind == ALIAS || (kind == RECORD && d.home != q)))

/* R18: whether a missing record may be put back from this copy, by what was seen of v. */
#ifdef BREAK_R18_MAKING
#define NOT_OVERTAKEN(q, seen) ((seen) == 0 || (seen) == copy[q].epoch)
#else
#define NOT_OVERTAKEN(q, seen) ((seen) == 0 || (seen) == copy[q].epoch || OTHER_MAKING(seen, copy[q].epoch))
#endif
#define MAY_PUT_BACK(q, seen) \
    (copy[q].has && copy[q].home == q && copy[q].suspect < 2 && !DUE(q) && NOT_OVERTAKEN(q, seen))
/* A node that has yet to put its copy back. */
#define OWES(q) (kind == NOTHING && MAY_PUT_BACK(q, v))

/* R8: the record in the store is the one that this copy was made from. */
#ifdef BREAK_R8
#define SAME(q) true
#else
#define SAME(q) (d.home == copy[q].home && d.epoch == copy[q].epoch)
#endif

inline forget_copy(q) {
    copy[q].has = false; copy[q].suspect = 0; copy[q].home = 0; copy[q].epoch = 0; copy[q].x = 0; copy[q].y = 0;
#if EXPIRIES > 0
    copy[q].due = false;
#endif
    has_token[q] = false; copy_token[q] = false
}

/* After a write: the copy is what was written; its new token is not known. */
inline keep_copy(p_home, p_epoch, p_x, p_y) {
    copy[n].has = true; copy[n].home = p_home; copy[n].epoch = p_epoch; copy[n].x = p_x; copy[n].y = p_y;
#if EXPIRIES > 0
    copy[n].due = false;
#endif
    /* R5: what the watch saw meanwhile counts. */
    if :: noticed[n] -> copy[n].suspect = 1 :: else -> copy[n].suspect = 0 fi;
    has_token[n] = false; copy_token[n] = false
}

/* R12: a takeover or merge that nobody knows of. If it happened, this is the only copy; it is without the request's changes. */
inline keep_suspect(p_epoch) {
    atomic { ALIVE; keep_copy(n, p_epoch, rec.x, rec.y); copy[n].suspect = 1 }
}

/* A copy that is no longer this session's: forgotten, or, while somebody is in the session, as good as forgotten. */
inline outdate_copy(q) {
    if :: lock[q] -> copy[q].suspect = 2 :: else -> forget_copy(q) fi
}

inline leave() {
    lock[n] = false; noticed[n] = false;
#ifdef CLUSTER
    if :: l == me + 1 -> l = 0 :: else fi;
#endif
    skip
}
