/*
 * A client: its requests, one after another, each of them from the cookie to the answer. The sections are the life of a
 * request; what they do stands in the files before.
 */
byte strays = STRAYS, ends = ENDS;

#ifdef ANY_ROUTE
#define ANY_FIRST_ROUTE true
#else
#define ANY_FIRST_ROUTE auditor
#endif
#define ELSEWHERE (strays > 0 || auditor || crashed)
#define STRAY_TO(node) ELSEWHERE && route != node -> n = node; if :: strays > 0 && !auditor -> strays-- :: else fi

/* What the request is, and where the balancer sends it: to the cookie's node, mostly. */
inline arrive() {
    atomic {
        left--;
        if
        :: op = READ
        :: !auditor -> op = WRITE
#if ENDS > 0
        :: !auditor && ends > 0 -> ends--; op = INVALIDATE
#endif
#if ROTATIONS > 0
        :: !auditor && rotations > 0 -> rotations--; op = ROTATE
#endif
        fi;
        if
        :: n = route
        :: STRAY_TO(0)
        :: STRAY_TO(1)
#if NODES > 2
        :: STRAY_TO(2)
#endif
        fi;
#if defined(ROAMING) || defined(CLUSTER)
        floor_x = answered_x; floor_y = answered_y;
#endif
    }
}

/* Forgets what the request knew: fewer states. */
inline clean_up() {
    op = READ; new_epoch = 0; seen_v = 0; found = 0; rec.home = 0; rec.epoch = 0; rec.x = 0; rec.y = 0; result = 0; tries = 0;
    read_x = 0; read_y = 0; dirty_x = 0; dirty_y = 0; put_x = 0; put_y = 0; asked = false; read_token[me] = false;
#if defined(ROAMING) || defined(CLUSTER)
    floor_x = 0; floor_y = 0;
#endif
#if LOSSES > 0
    seen_sweeping = false;
#endif
#if EXPIRIES > 0
    judging = false; judged_home = 0; judged_epoch = 0; found_due = 0;
#endif
    skip
}

proctype Client(byte me; bool auditor)
{
    byte left = 0, n = 0, route = 0, op = READ, tries = 0, result = 0;
    byte found = 0, seen_v = 0, new_epoch = 0;      /* what was read, and the epoch that this request gives */
    Record rec;
    byte read_x = 0, read_y = 0;                    /* what the handler read */
    byte dirty_x = 0, dirty_y = 0;                  /* what it wrote; 0: nothing */
    byte put_x = 0, put_y = 0;
    byte own_x = 0, own_y = 0;                      /* the newest that this client has seen or written */
    byte written = 0;
    bool mine = false;                              /* the node's incarnation when the request came */
    bool asked = false;                             /* R19 */
#if LOSSES > 0
    bool seen_sweeping = false;
#endif
#if defined(ROAMING) || defined(CLUSTER)
    byte floor_x = 0, floor_y = 0;
#endif
#if EXPIRIES > 0
    byte judged_home = 0, judged_epoch = 0, found_due = 0;
    bool judging = false;
#endif

    atomic {
#ifdef CREATE
        if :: auditor || me > 0 -> created :: else fi;
#endif
        if
        :: auditor -> left = 1; own_x = acknowledged_x; own_y = acknowledged_y
        :: !auditor && me == 0 -> left = REQUESTS
        :: !auditor && me == 1 -> left = REQUESTS1
        fi;
        if
        :: route = 0
        :: ANY_FIRST_ROUTE -> route = 1
#if NODES > 2
        :: ANY_FIRST_ROUTE -> route = 2
#endif
        fi
    };
#ifdef CREATE
    if
    :: me == 0 && !auditor -> create_session()
    :: else
    fi;
#endif

next:
    do
    :: left == 0 -> break
    :: left > 0 ->
        arrive();
        enter();
        read_copy();
take:
        take_over();
missing:
        find_missing();
put_back:
        put_record_back();
found_after_all:    /* R18: somebody was first, and this copy may be older */
        atomic {
            ALIVE;
            if :: copy[n].has && copy[n].suspect == 0 -> copy[n].suspect = 1 :: else fi;
            if :: dirty_x + dirty_y > 0 -> goto merge :: else -> goto take fi };
use:
        handle();
        commit();
merge:
        merge_changes();
#if EXPIRIES > 0
expire:
        expire_copy();
not_due:            /* whoever changed the session since has judged otherwise */
        atomic { ALIVE; judging = false; judged_home = 0; judged_epoch = 0; tries = 0; goto take };
#endif
bury:
        bury_session();
rotate:
        rotate_id();
new_id:
        tell_new_id();
alias:
        read_alias();

answer:
        atomic {
            ALIVE;
            check_answer();
            if :: dirty_x -> own_x = dirty_x; acknowledged_x = dirty_x :: else -> own_x = read_x fi;
            if :: dirty_y -> own_y = dirty_y; acknowledged_y = dirty_y :: else -> own_y = read_y fi;
#if defined(ROAMING) || defined(CLUSTER)
            if :: own_x > answered_x -> answered_x = own_x :: else fi;
            if :: own_y > answered_y -> answered_y = own_y :: else fi;
#endif
            route = n;
            if :: copy[n].suspect == 2 -> forget_copy(n) :: else fi;
            leave(); clean_up(); goto next };
busy:               /* 503, nothing is acknowledged: the copy stays without this request's changes, suspect (R12) */
        atomic {
            ALIVE;
            if :: copy[n].has && copy[n].suspect < 2 -> copy[n].suspect = 1 :: else -> forget_copy(n) fi;
            leave(); clean_up(); goto next };
#if CUTS > 0
degraded:
        serve_degraded();
#endif
aborted:            /* the node died under the request: no answer */
        atomic {
#ifdef CLUSTER
            if :: l == me + 1 -> l = 0 :: else fi;
#endif
            clean_up(); goto next };
gone:
        atomic { ALIVE; assert(ending); forget_copy(n); leave(); clean_up(); break };
not_found:
        atomic {
            ALIVE;
            check_not_found();
            /* R18: a copy that may not be put back for this request is kept, unless it has expired or was overtaken. */
            if :: copy[n].has && !MAY_PUT_BACK(n, seen_v) -> forget_copy(n) :: else fi;
            leave(); clean_up(); break }
    od;
    finished++
}
