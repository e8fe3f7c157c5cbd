-- All times are nanoseconds since 1970 by the server's clock.
CREATE FUNCTION now_ns() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL RESTRICTED
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint';

CREATE TABLE store (
    id smallint PRIMARY KEY CHECK (id = 1),
    created bigint NOT NULL,
    -- Changes when the database comes back behind what replicas have seen. Part of the ids of events, unless 0.
    incarnation bigint NOT NULL DEFAULT 0,
    -- Added to transaction ids, so that positions of records increase also after a dump was restored.
    xid_offset bigint NOT NULL DEFAULT 0,
    -- When the server was started, and which of its databases on which timeline this is, as the replicas have last seen them.
    server text NOT NULL DEFAULT '',
    -- The server that was found to lack what a replica had committed; empty if none was.
    rewound text NOT NULL DEFAULT '',
    -- The configuration that a replica was the last to begin with, and when a replica had it last: what others do not know may be
    -- part of it.
    configuration bigint NOT NULL DEFAULT 0,
    configuration_seen bigint NOT NULL DEFAULT 0,
    schema_step integer NOT NULL,
    -- Bridges of an older step cannot read what was written.
    min_step integer NOT NULL DEFAULT 1
);

-- Positions of records and kept notifications: the transaction's id, shifted by 20 bits, plus a number in the transaction.
CREATE FUNCTION first_position() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL RESTRICTED
    AS 'SELECT (pg_current_xact_id()::text::bigint + xid_offset) << 20 FROM store';
-- Below it, no transaction can add a position any more.
CREATE FUNCTION final_position() RETURNS bigint LANGUAGE sql STABLE PARALLEL RESTRICTED
    AS 'SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + xid_offset) << 20 FROM store';

-- Pauses, holds and heartbeats.
CREATE TABLE controls (
    id smallint PRIMARY KEY CHECK (id = 1),
    version bigint NOT NULL,     -- increases with each change
    generation bigint NOT NULL,  -- increases when every target that depends on controls has to be processed
    body text NOT NULL           -- JSON
);

-- The limits engine.*_per_minute, one row for each direction.
CREATE TABLE rates (
    direction smallint PRIMARY KEY,
    version bigint NOT NULL,
    body text NOT NULL           -- JSON
);

CREATE TABLE targets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- the order of locks, and the group of deliveries
    hash bytea NOT NULL UNIQUE,                          -- 16 bytes, of the key
    key text NOT NULL,
    last_at bigint NOT NULL DEFAULT 0,                   -- the time of its last decision
    due bigint,                                          -- when it has to be processed
    recheck boolean NOT NULL DEFAULT false,              -- a delivery for which its state waits has changed
    depends_on_controls boolean NOT NULL DEFAULT false,
    generation bigint NOT NULL DEFAULT 0,                -- of the controls of its last decision
    watch smallint NOT NULL DEFAULT 0,                   -- 1 tracks events, 2 awaits a delivery
    waits text,                                          -- JSON: waits for calls that succeed; NULL: none
    claimed_by bigint NOT NULL DEFAULT 0,                -- the replica that processes it because it is due
    claimed_until bigint NOT NULL DEFAULT 0,
    open_from bigint NOT NULL DEFAULT 0,                 -- no delivery of an event before this one is open
    tally text,                                          -- what it adds to the counts, see fleet/tally.rs; NULL: nothing
    state text                                           -- JSON; NULL if nothing is known
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX targets_due ON targets (due) WHERE due IS NOT NULL;
-- Not by the id: in the order of the primary key, a query for the first ones could read all targets.
CREATE INDEX targets_recheck ON targets (last_at) WHERE recheck;
CREATE INDEX targets_controls ON targets (generation) WHERE depends_on_controls;
CREATE INDEX targets_waits ON targets (last_at) WHERE waits IS NOT NULL;
-- Few distinct values, so that counting them reads little.
CREATE INDEX targets_tally ON targets (tally) WHERE tally IS NOT NULL;
CREATE INDEX targets_empty ON targets (last_at) WHERE state IS NULL;

-- The targets at which an alert is known.
CREATE TABLE target_alerts (
    alert bytea NOT NULL,        -- 16 bytes, of source and fingerprint
    target bigint NOT NULL,
    PRIMARY KEY (alert, target)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX target_alerts_target ON target_alerts (target);

CREATE TABLE destinations (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    last_success bigint          -- the last call that has succeeded, at most a second late
);

-- The destinations to which live replicas deliver.
CREATE TABLE replica_destinations (
    destination integer NOT NULL,
    replica bigint NOT NULL,
    until bigint NOT NULL,       -- renewed while the replica lives
    PRIMARY KEY (destination, replica)
) WITH (fillfactor = 50);

CREATE TABLE events (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- ascending for each target
    id text NOT NULL,
    target bigint NOT NULL,
    at bigint NOT NULL,
    destinations text[] NOT NULL,
    acting text[] NOT NULL,
    may_decrease boolean NOT NULL,
    episode text,
    phase smallint,              -- 1 firing, 2 resolved
    compensates bigint[],        -- the events that it takes back; NULL if none
    tracked boolean NOT NULL,    -- the state of its target refers to it
    body text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX events_id ON events (id);
CREATE INDEX events_tracked ON events (target) WHERE tracked;
CREATE INDEX events_at ON events (at) WHERE NOT tracked;
CREATE INDEX events_compensating ON events (target) WHERE compensates IS NOT NULL;

CREATE TABLE deliveries (
    destination integer NOT NULL,
    event bigint NOT NULL,
    target bigint NOT NULL,
    state smallint NOT NULL,     -- 0 open, 1 delivered, 2 dead, 3 superseded, 4 withdrawn, 5 discarded, 6 replaced
    attempts integer NOT NULL DEFAULT 0,
    due bigint NOT NULL,         -- open: when it can be claimed
    -- No delivery of its target, of an event before this one, is open: so those before it are looked for without the index
    -- entries of what was settled, which stay until vacuum removes them.
    open_from bigint NOT NULL DEFAULT 0,
    token bigint,                -- of the lease; NULL if it is not claimed
    age_from bigint NOT NULL,    -- when it was emitted, redriven, renewed or resumed
    expiry bigint,               -- the event's expirytime, if it was redriven or renewed with another one
    ended_at bigint,             -- when it was settled
    is_suspended boolean NOT NULL DEFAULT false,
    is_aside boolean NOT NULL DEFAULT false,      -- until it is due, later events of its target can be sent
    is_called boolean NOT NULL DEFAULT false,     -- a call has begun that is not settled
    is_uncertain boolean NOT NULL DEFAULT false,  -- a call may have arrived although no answer said so
    is_expired boolean NOT NULL DEFAULT false,    -- given up because of its age
    is_parked boolean NOT NULL DEFAULT false,     -- not looked at until the one before it in its target's order ends
    expirytime bigint,           -- the event's own, if it was read, by the wall clock; 0 if the event cannot be read
    decreases boolean,           -- whether the age limit of decreases applies; NULL if the event was not read
    error text,                  -- of the last call, or why it was not sent
    answer text,
    PRIMARY KEY (event, destination)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
-- After an ANALYZE while nothing is open, the planner takes partial indexes for empty, and any of them for as good. So that
-- it cannot choose the wrong one, queries say `state = 0` for the first, and `state + 0 = 0` for the second.
CREATE INDEX deliveries_due ON deliveries (destination, due, event) WHERE state = 0 AND NOT is_suspended;
CREATE INDEX deliveries_queue ON deliveries (destination, target, event) WHERE state + 0 = 0;
-- With the end of the lease, so that those that have ended are not visited.
CREATE INDEX deliveries_leased ON deliveries (destination, target, due) WHERE token IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (event, destination) WHERE state = 2;

-- Decision records. The id is a position.
CREATE TABLE records (
    id bigint PRIMARY KEY,
    at bigint NOT NULL,          -- by the wall clock
    ahead bigint NOT NULL,       -- the time of the decision minus `at`
    body text NOT NULL           -- JSON
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX records_at ON records (at);
-- Records that are dated minutes before the one before them, since the server's clock was set back: between two of them,
-- positions and times increase together.
CREATE TABLE clock_steps (
    record bigint PRIMARY KEY
);
CREATE TABLE record_targets (
    target bigint NOT NULL,
    record bigint NOT NULL,
    PRIMARY KEY (target, record)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX record_targets_record ON record_targets (record);

CREATE TABLE notifications (
    id bigint NOT NULL,          -- a position
    at bigint NOT NULL,          -- the time of the decision
    ahead bigint NOT NULL,       -- `at` minus the wall clock
    source text NOT NULL,
    bytes integer NOT NULL,      -- the length of the body, so that all lengths are summed without reading bodies
    body bytea NOT NULL,         -- compressed
    PRIMARY KEY (id) INCLUDE (bytes)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX notifications_at ON notifications (at);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,          -- by the wall clock
    ahead bigint NOT NULL,       -- as of records
    actor text NOT NULL,
    act text NOT NULL,
    body text NOT NULL           -- JSON
);

CREATE TABLE replicas (
    id bigint PRIMARY KEY,       -- random, new at each start
    name text NOT NULL,          -- of its host
    started bigint NOT NULL,
    seen bigint NOT NULL,        -- when it was last heard
    beat bigint NOT NULL,        -- increases each time
    is_ready boolean NOT NULL,   -- whether it accepts notifications
    ready_until bigint,          -- when it was last heard while it was ready
    schema_step integer NOT NULL,
    version text NOT NULL,       -- of its program
    configuration bigint NOT NULL DEFAULT 0,      -- which rules and destinations it has; 0: not known yet
    clock_offset bigint,         -- its wall clock minus the server's clock; NULL if it was not measured
    is_stopped boolean NOT NULL DEFAULT false     -- it was stopped in order
) WITH (fillfactor = 50);

-- The last transactions of each replica: one that was confirmed and is not there was lost.
CREATE TABLE commits (
    replica bigint NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (replica, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
