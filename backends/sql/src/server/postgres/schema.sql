-- Version 1. {p} is schema.prefix. Run in one transaction.

CREATE TABLE {p}_state (
    id smallint PRIMARY KEY CHECK (id = 1),
    version integer NOT NULL,
    floor bigint NOT NULL,
    swept bigint NOT NULL
);

CREATE TABLE {p}_documents (
    key text COLLATE "C" PRIMARY KEY,
    created bigint NOT NULL,
    modified bigint NOT NULL,
    value json NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- One row is one change of one commit: the document after it (value NULL: removed) and before it.
CREATE TABLE {p}_history (
    revision bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    value json,
    old_created bigint,
    old_modified bigint,
    old_value json,
    writer bigint NOT NULL,
    batch bigint NOT NULL,
    txn integer NOT NULL,
    committed_at timestamptz NOT NULL,
    PRIMARY KEY (revision, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- A lease without a holder has been given back; its epoch stays.
CREATE TABLE {p}_leases (
    name text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    holder text,
    expires_at timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- Who may write. A row that is gone is a leave that was withdrawn.
CREATE TABLE {p}_writers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One commit at a time, until it is durable. A lock in memory: no row that every commit would have to rewrite.
CREATE FUNCTION {p}_lock() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(1397447500, '{p}_state'::regclass::oid::integer)
$$;

-- A whole batch. Arrays are parallel: guards on documents (g_, without a number: absent), guards on leases (l_), and
-- writes (w_, without a value: remove; w_place counts the writing transactions of a level from 1).
CREATE FUNCTION {p}_commit(
    p_writer bigint, p_batch bigint, p_levels integer, p_deletes boolean,
    g_level integer[], g_txn integer[], g_guard integer[], g_key text[], g_revision bigint[],
    l_level integer[], l_txn integer[], l_guard integer[], l_name text[], l_epoch bigint[],
    w_level integer[], w_txn integer[], w_place integer[], w_key text[], w_value text[],
    OUT base bigint, OUT head bigint, OUT floor bigint, OUT ends bigint[],
    OUT failed_txn integer[], OUT failed_guard integer[], OUT failed_current bigint[],
    OUT done_row integer[], OUT done_revision bigint[], OUT done_created bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
    v_may boolean;
    v_end bigint;
    v_txn integer[];
    v_guard integer[];
    v_current bigint[];
    v_failed integer[];
    v_place integer[];
    v_row integer[];
    v_revision bigint[];
    v_created bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(1397447500, '{p}_state'::regclass::oid::integer);
    -- From here on statements see what everybody before has committed.
    v_now := clock_timestamp();
    SELECT s.floor,
           greatest(s.floor, coalesce((SELECT h.revision FROM {p}_history h ORDER BY h.revision DESC LIMIT 1), 0)),
           EXISTS (SELECT FROM {p}_writers w WHERE w.id = p_writer)
      INTO STRICT floor, base, v_may
      FROM {p}_state s WHERE s.id = 1;
    IF NOT v_may THEN
        RAISE EXCEPTION 'writer % may not write any more', p_writer USING ERRCODE = 'SKY01';
    END IF;
    head := base;
    FOR v_level IN 0 .. p_levels - 1 LOOP
        v_failed := NULL;
        IF g_txn <> '{}' THEN
            SELECT array_agg(g.txn), array_agg(g.guard), array_agg(d.modified)
              INTO v_txn, v_guard, v_current
              FROM unnest(g_level, g_txn, g_guard, g_key, g_revision) AS g(level, txn, guard, key, revision)
              LEFT JOIN {p}_documents d ON d.key = g.key
             WHERE g.level = v_level AND d.modified IS DISTINCT FROM g.revision;
            IF v_txn IS NOT NULL THEN
                v_failed := v_txn;
                failed_txn := failed_txn || v_txn;
                failed_guard := failed_guard || v_guard;
                failed_current := failed_current || v_current;
            END IF;
        END IF;
        IF l_txn <> '{}' THEN
            SELECT array_agg(g.txn), array_agg(g.guard), array_agg(NULL::bigint)
              INTO v_txn, v_guard, v_current
              FROM unnest(l_level, l_txn, l_guard, l_name, l_epoch) AS g(level, txn, guard, name, epoch)
              LEFT JOIN {p}_leases l ON l.name = g.name
             WHERE g.level = v_level AND (l.epoch = g.epoch AND l.expires_at > v_now) IS NOT TRUE;
            IF v_txn IS NOT NULL THEN
                v_failed := v_failed || v_txn;
                failed_txn := failed_txn || v_txn;
                failed_guard := failed_guard || v_guard;
                failed_current := failed_current || v_current;
            END IF;
        END IF;
        v_place := w_place;
        IF v_failed IS NOT NULL OR p_deletes THEN
            -- Who really changes something, counted again.
            SELECT array_agg(CASE WHEN e.does THEN e.rank ELSE 0 END ORDER BY e.row) INTO v_place
              FROM (SELECT u.row, c.does, dense_rank() OVER (PARTITION BY c.does ORDER BY u.txn)::integer AS rank
                      FROM unnest(w_level, w_txn, w_key, w_value) WITH ORDINALITY AS u(level, txn, key, value, row)
                      LEFT JOIN {p}_documents d ON u.value IS NULL AND d.key = u.key
                     CROSS JOIN LATERAL (SELECT u.level = v_level AND (u.value IS NOT NULL OR d.key IS NOT NULL)
                                                AND (v_failed IS NULL OR u.txn <> ALL (v_failed)) AS does) c) e;
        END IF;
        WITH w AS (
            SELECT u.row, u.txn, u.key, u.value::json AS value, head + u.place AS revision,
                   d.created, d.modified, d.value AS old_value
              FROM unnest(w_level, w_txn, v_place, w_key, w_value) WITH ORDINALITY
                   AS u(level, txn, place, key, value, row)
              LEFT JOIN {p}_documents d ON d.key = u.key
             WHERE u.level = v_level AND u.place > 0
        ), log AS (
            INSERT INTO {p}_history (revision, key, created, value, old_created, old_modified, old_value,
                                     writer, batch, txn, committed_at)
            SELECT w.revision, w.key, coalesce(w.created, w.revision), w.value, w.created, w.modified, w.old_value,
                   p_writer, p_batch, w.txn, v_now
              FROM w
        ), put AS (
            INSERT INTO {p}_documents AS d (key, created, modified, value)
            SELECT w.key, w.revision, w.revision, w.value FROM w WHERE w.value IS NOT NULL
            ON CONFLICT (key) DO UPDATE SET modified = excluded.modified, value = excluded.value
        )
        SELECT array_agg(w.row), array_agg(w.revision), array_agg(coalesce(w.created, w.revision)), max(w.revision)
          INTO v_row, v_revision, v_created, v_end
          FROM w;
        IF v_end IS NOT NULL THEN
            IF p_deletes THEN
                DELETE FROM {p}_documents d
                 USING unnest(w_level, v_place, w_key, w_value) AS u(level, place, key, value)
                 WHERE u.level = v_level AND u.place > 0 AND u.value IS NULL AND d.key = u.key;
            END IF;
            done_row := done_row || v_row;
            done_revision := done_revision || v_revision;
            done_created := done_created || v_created;
            head := v_end;
        END IF;
        ends := ends || head;
    END LOOP;
    -- Every writing process holds its share of this lock: when it can be had whole, there is nobody else to tell. Whoever
    -- comes later waits for it, and looks for itself first.
    IF head > base AND NOT pg_try_advisory_xact_lock(1397447502, '{p}_state'::regclass::oid::integer) THEN
        PERFORM pg_notify('{p}', p_writer::text);
    END IF;
END $$;

-- Withdraws a writer's leave and tells what its batch did.
CREATE FUNCTION {p}_fence(p_writer bigint, p_batch bigint, p_after bigint,
                          OUT floor bigint, OUT found_txn integer[], OUT found_revision bigint[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {p}_lock();
    DELETE FROM {p}_writers w WHERE w.id = p_writer;
    SELECT s.floor INTO STRICT floor FROM {p}_state s WHERE s.id = 1;
    SELECT array_agg(f.txn), array_agg(f.revision) INTO found_txn, found_revision
      FROM (SELECT DISTINCT h.txn, h.revision FROM {p}_history h
             WHERE h.revision > p_after AND h.writer = p_writer AND h.batch = p_batch) f;
END $$;

-- Lease calls: 0 acquire, 1 take over, 2 renew, 3 revoke; p_ttl in microseconds.
CREATE FUNCTION {p}_lease(p_moves boolean, p_kind integer[], p_name text[], p_epoch bigint[], p_holder text[], p_ttl bigint[])
RETURNS TABLE (done boolean, epoch bigint, holder text, expires_at bigint) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz;
    v_ttl interval;
    v_held {p}_leases%ROWTYPE;
BEGIN
    IF p_moves THEN
        PERFORM {p}_lock();
    END IF;
    FOR i IN 1 .. cardinality(p_kind) LOOP
        done := false; epoch := NULL; holder := NULL; expires_at := NULL;
        v_ttl := p_ttl[i] * interval '1 microsecond';
        IF p_kind[i] <= 1 THEN
            SELECT * INTO v_held FROM {p}_leases l WHERE l.name = p_name[i] FOR UPDATE;
            v_now := clock_timestamp();
            IF p_kind[i] = 0 AND v_held.holder IS NOT NULL AND v_held.expires_at > v_now THEN
                epoch := v_held.epoch;
                holder := v_held.holder;
                expires_at := (extract(epoch FROM v_held.expires_at) * 1000000)::bigint;
            ELSE
                INSERT INTO {p}_leases AS l (name, epoch, holder, expires_at)
                VALUES (p_name[i], 1, p_holder[i], v_now + v_ttl)
                ON CONFLICT (name) DO UPDATE
                    SET epoch = l.epoch + 1, holder = excluded.holder, expires_at = excluded.expires_at
                RETURNING l.epoch INTO epoch;
                done := true;
            END IF;
        ELSIF p_kind[i] = 2 THEN
            UPDATE {p}_leases l SET expires_at = clock_timestamp() + v_ttl
             WHERE l.name = p_name[i] AND l.epoch = p_epoch[i] AND l.holder IS NOT NULL
               AND l.expires_at > clock_timestamp();
            done := FOUND;
        ELSE
            UPDATE {p}_leases l SET holder = NULL, expires_at = NULL
             WHERE l.name = p_name[i] AND l.epoch = p_epoch[i];
            done := FOUND;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

