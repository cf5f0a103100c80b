/*
 * The store: three keys of one session, and the change counters. Each operation is one atomic step; a node learns the result of
 * a write in a later step than the write itself.
 */
typedef Record { byte home; byte epoch; byte x; byte y }

byte kind = NOTHING;        /* key d: what it holds, and the record; of an alias, home is the nonce */
Record d;
byte v = 0;                 /* key v: the epoch; 0: not there */
byte l = 0;                 /* key l: the cluster lock's holder + 1; 0: nobody */
#ifdef SLOW
bool a_newer[CLIENTS + 1];  /* key a: newer than when a client began to ask (R19) */
#endif
bool moved[NODES];          /* the node's change counter is not what it polled last, or is not there (R17) */
#if EXPIRIES > 0
byte due = 0;               /* the idle limit has passed: 1 for the home, 2 for a foreign judge, who allows for more (R14) */
#endif

/* An epoch is clock * 16 + increments. The clock is ahead of every epoch that was ever given out: a counter that is made anew
 * repeats nothing. */
byte wall = 16;
#define NEXT_MAKING(epoch) ((((epoch) >> 4) + 1) << 4)
#define OTHER_MAKING(one, other) (((one) >> 4) != ((other) >> 4))
#define CLOCK_AHEAD if :: wall <= v -> wall = NEXT_MAKING(v) :: else fi

/* A token is unique for each write. All that matters is whether it is still the current one: one bit for each that holds one,
 * and every write of d clears all of them. The auditor and, in degraded mode, the couriers read tokens as clients do. */
bool copy_token[NODES];     /* the copy's token is the current one */
bool has_token[NODES];      /* the copy has a token (libmemcached does not tell it with a write) */
#if CUTS > 0
bool read_token[CLIENTS + 1 + NODES];
#else
bool read_token[CLIENTS + 1];
#endif
bool late_token;

/* One write whose outcome is unknown, and that has yet to happen. */
#define LATE_SWAP      1
#define LATE_ADD       2
#define LATE_INCREMENT 3
#define LATE_SET_V     4
#define LATE_ADD_V     5
byte late = 0;
byte late_kind;
Record late_d;

byte unknowns = UNKNOWNS;
/* Together with a loss of memory, the write happens at once or never (README.md, exceptions). */
#if LOSSES > 0
#define LATER false
#else
#define LATER true
#endif

inline void_tokens() {
    copy_token[0] = false; copy_token[1] = false; read_token[0] = false; read_token[1] = false;
#if NODES > 2
    copy_token[2] = false;
#endif
#if CLIENTS > 1
    read_token[2] = false;
#endif
#if CUTS > 0
    read_token[CLIENTS + 1] = false; read_token[CLIENTS + 2] = false;
#endif
    late_token = false
}

/* Whatever changes d comes through here. */
inline write_d(w_kind, w_home, w_epoch, w_x, w_y) {
    check_write(w_kind, w_home);
    kind = w_kind; d.home = w_home; d.epoch = w_epoch; d.x = w_x; d.y = w_y;
#if EXPIRIES > 0
    due = 0;
#endif
    if :: w_kind == TOMBSTONE -> d.home = 0; d.epoch = 0; d.x = 0; d.y = 0 :: else fi;
    void_tokens()
}

inline forget_d() {
    kind = NOTHING; d.home = 0; d.epoch = 0; d.x = 0; d.y = 0;
#if EXPIRIES > 0
    due = 0;
#endif
    void_tokens()
}

/* This request's dirty attributes, and nothing else, on a base (R9). */
#define OVERLAY(base_x, base_y) \
    if :: dirty_x -> put_x = dirty_x :: else -> put_x = base_x fi; \
    if :: dirty_y -> put_y = dirty_y :: else -> put_y = base_y fi

/* put(d, if: unchanged since the token) */
inline swap_d(p_token, p_kind, p_home, p_epoch, p_x, p_y) {
    atomic {
        ALIVE;
        OVERLAY(p_x, p_y);
        if
        :: kind == NOTHING -> result = MISSING
        :: kind != NOTHING && !p_token -> result = CONFLICT
        :: kind != NOTHING && p_token ->
            write_d(p_kind, p_home, p_epoch, put_x, put_y); result = STORED
        :: unknowns > 0 -> unknowns--; result = UNKNOWN;
            if
            :: kind != NOTHING && p_token -> write_d(p_kind, p_home, p_epoch, put_x, put_y)
            :: LATER && kind != NOTHING && p_token -> late = LATE_SWAP; late_token = true; late_kind = p_kind;
                late_d.home = p_home; late_d.epoch = p_epoch; late_d.x = put_x; late_d.y = put_y
            :: skip
            fi
        fi
    }
}

/* put(d, if: absent) */
inline add_d(p_kind, p_home, p_epoch, p_x, p_y) {
    atomic {
        ALIVE;
        OVERLAY(p_x, p_y);
        if
        :: kind == NOTHING -> write_d(p_kind, p_home, p_epoch, put_x, put_y); result = STORED
        :: kind != NOTHING -> result = CONFLICT
        :: unknowns > 0 -> unknowns--; result = UNKNOWN;
            if
            :: kind == NOTHING -> write_d(p_kind, p_home, p_epoch, put_x, put_y)
            :: LATER -> late = LATE_ADD; late_kind = p_kind;
                late_d.home = p_home; late_d.epoch = p_epoch; late_d.x = put_x; late_d.y = put_y
            :: skip
            fi
        fi
    }
}

/* R6, R11: raises v beyond a record's epoch. The increment is large enough to pass it, judged by the v that was read; a missing
 * v is made. Unknown: once more, an increment too many costs a reload. */
inline raise_v(p_beyond) {
    do
    :: atomic {
        ALIVE;
        if
        :: v == 0 -> result = MISSING
        :: v != 0 ->
#ifdef BREAK_R11_RAISE
            /* Set to what was read, and one more. */
            if :: p_beyond > seen_v -> v = p_beyond + 1 :: else -> v = seen_v + 1 fi;
#else
            v = v + 1;
            if :: p_beyond > seen_v -> v = v + (p_beyond - seen_v) :: else fi;
#endif
            new_epoch = v; result = STORED; CLOCK_AHEAD
        :: unknowns > 0 && v != 0 -> unknowns--; result = UNKNOWN;
            if
            :: v = v + 1; CLOCK_AHEAD
            :: LATER -> late = LATE_INCREMENT
            :: skip
            fi
        fi };
        if
        :: result == STORED -> break
        :: result == UNKNOWN -> skip
        :: result == MISSING ->
            atomic {
                ALIVE;
                if
                :: v == 0 -> v = wall; new_epoch = v; wall = NEXT_MAKING(wall); result = STORED
                :: else -> result = CONFLICT
                fi };
            if :: result == STORED -> break :: else fi
        fi
    od
}

/* get(d), get(v): the keys of one multi-get are read one after another. What is known of a loss of memory (R19) has to be known
 * from before the read. */
#define READ_D ALIVE; found = kind; rec.home = d.home; rec.epoch = d.epoch; rec.x = d.x; rec.y = d.y; \
    read_token[me] = true; READ_DUE; READ_SWEEPING; noticed[n] = false
#define READ_V atomic { ALIVE; seen_v = v }

#if EXPIRIES > 0
#define READ_DUE found_due = due
#else
#define READ_DUE skip
#endif
#if LOSSES > 0
#define READ_SWEEPING seen_sweeping = SWEEPING
#else
#define READ_SWEEPING skip
#endif

/* R6: bumps the change counter of the home found in d. */
#define TELL(home) if :: (home) != n -> atomic { ALIVE; moved[home] = true } :: else fi

inline tell_others() {
    if :: n != 0 -> moved[0] = true :: else fi;
    if :: n != 1 -> moved[1] = true :: else fi;
#if NODES > 2
    if :: n != 2 -> moved[2] = true :: else fi;
#endif
    skip
}
