//! Statements that insert rows as they are.

/// Nothing but the schema, and no replica that uses it.
pub(super) const CHECK: &str = "
    SELECT EXISTS (SELECT FROM targets) OR EXISTS (SELECT FROM events) OR EXISTS (SELECT FROM records)
           OR EXISTS (SELECT FROM audit) OR EXISTS (SELECT FROM notifications)
           OR EXISTS (SELECT FROM controls WHERE version > 0),
           EXISTS (SELECT FROM replicas WHERE seen > now_ns() - $1), now_ns()";
pub(super) const INSERT_DESTINATIONS: &str = "
    INSERT INTO destinations (name) SELECT unnest($1::text[]) ON CONFLICT (name) DO UPDATE SET name = excluded.name
    RETURNING name, id";
pub(super) const INSERT_TARGETS: &str = "
    INSERT INTO targets (id, hash, key, last_at, due, recheck, depends_on_controls, watch, waits, tally, state)
    OVERRIDING SYSTEM VALUE
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[],
        $7::boolean[], $8::smallint[], $9::text[], $10::text[], $11::text[])";
pub(super) const INSERT_ALERTS: &str = "
    INSERT INTO target_alerts (alert, target) SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING";
/// Arrays cannot have lists of different lengths, so lists are texts.
pub(super) const INSERT_EVENTS: &str = "
    INSERT INTO events (seq, id, target, at, destinations, acting, may_decrease, episode, phase, compensates, tracked,
        body) OVERRIDING SYSTEM VALUE
    SELECT seq, id, target, at, destinations::text[], acting::text[], may_decrease, episode, phase,
        compensates::bigint[], tracked, body
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::boolean[],
        $8::text[], $9::smallint[], $10::text[], $11::boolean[], $12::text[])
        AS new (seq, id, target, at, destinations, acting, may_decrease, episode, phase, compensates, tracked, body)";
pub(super) const INSERT_DELIVERIES: &str = "
    INSERT INTO deliveries (destination, event, target, state, attempts, due, age_from, expiry, ended_at,
        is_suspended, is_uncertain, is_expired, error, answer)
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::smallint[], $5::integer[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::boolean[], $11::boolean[], $12::boolean[], $13::text[],
        $14::text[])";
pub(super) const INSERT_RECORDS: &str = "
    WITH put AS (
        INSERT INTO records (id, at, ahead, body)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])
    )
    INSERT INTO record_targets (target, record) SELECT * FROM unnest($5::bigint[], $6::bigint[])";
pub(super) const INSERT_CLOCK_STEPS: &str = "INSERT INTO clock_steps (record) SELECT unnest($1::bigint[])";
pub(super) const INSERT_AUDIT: &str = "
    INSERT INTO audit (id, at, ahead, actor, act, body) OVERRIDING SYSTEM VALUE
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])";
pub(super) const INSERT_NOTIFICATIONS: &str = "
    INSERT INTO notifications (id, at, ahead, source, bytes, body)
    SELECT id, at, ahead, source, octet_length(body), body
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[])
        AS new (id, at, ahead, source, body)";
/// A replica that was ready until the other store was written last: the first start is a gap of reception since then.
pub(super) const INSERT_REPLICA: &str = "
    INSERT INTO replicas (id, name, started, seen, beat, is_ready, ready_until, schema_step, version, is_stopped)
    VALUES ($1, 'copied', $2, $3, 1, false, $3, $4, '', true)";
pub(super) const UPDATE_CONTROLS: &str = "UPDATE controls SET version = $1, generation = $2, body = $3";
/// New numbers and positions are larger than all that were used.
pub(super) const FINISH: &str = "
    WITH last AS (
        SELECT coalesce((SELECT max(id) FROM targets), 0) AS target, coalesce((SELECT max(id) FROM audit), 0) AS entry,
            greatest((SELECT max(id) FROM records), (SELECT max(id) FROM notifications), 0) AS position
    ), store AS (
        UPDATE store SET created = $2,
            xid_offset = greatest(xid_offset, (last.position >> 20) + 1 - pg_current_xact_id()::text::bigint) FROM last
    )
    SELECT setval(pg_get_serial_sequence('targets', 'id'), greatest(target, 1)),
        setval(pg_get_serial_sequence('audit', 'id'), greatest(entry, 1), entry > 0),
        setval(pg_get_serial_sequence('events', 'seq'), greatest($1, 1), $1 > 0)
    FROM last";
