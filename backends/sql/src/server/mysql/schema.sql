-- Version 1. {p} is the prefix. Statements end at a line with "//" alone. Every one can be run again.

CREATE TABLE IF NOT EXISTS {p}_state (
    id TINYINT NOT NULL PRIMARY KEY CHECK (id = 1),
    version INT NOT NULL,
    floor BIGINT NOT NULL,
    swept BIGINT NOT NULL
) ENGINE = InnoDB
//
-- Changed for no other reason than to be flushed to disk, together with all that was committed before.
CREATE TABLE IF NOT EXISTS {p}_flushes (
    id TINYINT NOT NULL PRIMARY KEY CHECK (id = 1),
    flushes BIGINT NOT NULL
) ENGINE = InnoDB
//
INSERT IGNORE INTO {p}_flushes (id, flushes) VALUES (1, 0)
//
CREATE TABLE IF NOT EXISTS {p}_documents (
    `key` VARCHAR(512) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL,
    modified BIGINT NOT NULL,
    value LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
//
-- One row is one change of one commit: the document after it (value NULL: removed) and before it.
CREATE TABLE IF NOT EXISTS {p}_history (
    revision BIGINT NOT NULL,
    `key` VARCHAR(512) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created BIGINT NOT NULL,
    value LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    old_created BIGINT,
    old_modified BIGINT,
    old_value LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    writer BIGINT NOT NULL,
    batch BIGINT NOT NULL,
    txn INT NOT NULL,
    committed_at DATETIME(6) NOT NULL,
    PRIMARY KEY (revision, `key`)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
//
-- A lease without a holder has been given back; its epoch stays. Times are UTC.
CREATE TABLE IF NOT EXISTS {p}_leases (
    name VARCHAR(512) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    holder VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    expires_at DATETIME(6)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
//
-- Who may write. A row that is gone is a leave that was withdrawn.
CREATE TABLE IF NOT EXISTS {p}_writers (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    started_at DATETIME(6) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC
//
DROP PROCEDURE IF EXISTS {p}_commit
//
-- A whole batch. Lists are JSON arrays of arrays: guards on documents [level, txn, guard, key, revision or null: absent],
-- guards on leases [level, txn, guard, name, epoch], writes [level, txn, place, key, offset, length or null: remove], where
-- place counts the writing transactions of a level from 1, and offset and length are those of the value in p_values.
CREATE PROCEDURE {p}_commit(
    IN p_writer BIGINT, IN p_batch BIGINT, IN p_levels INT, IN p_deletes BOOLEAN,
    IN p_guards LONGTEXT CHARACTER SET utf8mb4, IN p_leases LONGTEXT CHARACTER SET utf8mb4,
    IN p_writes LONGTEXT CHARACTER SET utf8mb4, IN p_values LONGBLOB
) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
    DECLARE v_floor, v_base, v_head BIGINT;
    DECLARE v_now DATETIME(6);
    DECLARE v_level INT DEFAULT 0;
    DECLARE v_failed, v_late, v_conflicts LONGTEXT CHARACTER SET utf8mb4;
    DECLARE v_ends LONGTEXT CHARACTER SET utf8mb4 DEFAULT '[]';
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
    SET v_conflicts = '[]';
    START TRANSACTION;
    SELECT floor INTO v_floor FROM {p}_state WHERE id = 1 FOR UPDATE;
    -- From here on statements see what everybody before has committed.
    SET v_now = SYSDATE(6);
    SELECT GREATEST(v_floor, COALESCE(MAX(revision), 0)) INTO v_base FROM {p}_history;
    IF NOT EXISTS (SELECT 1 FROM {p}_writers WHERE id = p_writer) THEN
        SIGNAL SQLSTATE '45S01' SET MESSAGE_TEXT = 'this writer may not write any more';
    END IF;
    SET v_head = v_base;
    WHILE v_level < p_levels DO
        SET v_failed = NULL;
        IF p_guards <> '[]' THEN
            SELECT JSON_ARRAYAGG(JSON_ARRAY(g.txn, g.guard_index, d.modified)) INTO v_failed
              FROM JSON_TABLE(p_guards, '$[*]' COLUMNS (
                       level_index INT PATH '$[0]', txn INT PATH '$[1]', guard_index INT PATH '$[2]',
                       name VARCHAR(512) PATH '$[3]', revision BIGINT PATH '$[4]')) AS g
              LEFT JOIN {p}_documents d ON d.`key` = CONVERT(g.name USING ascii)
             WHERE g.level_index = v_level AND NOT (d.modified <=> g.revision);
        END IF;
        IF p_leases <> '[]' THEN
            SELECT JSON_ARRAYAGG(JSON_ARRAY(g.txn, g.guard_index, NULL)) INTO v_late
              FROM JSON_TABLE(p_leases, '$[*]' COLUMNS (
                       level_index INT PATH '$[0]', txn INT PATH '$[1]', guard_index INT PATH '$[2]',
                       name VARCHAR(512) PATH '$[3]', epoch BIGINT PATH '$[4]')) AS g
              LEFT JOIN {p}_leases l ON l.name = CONVERT(g.name USING ascii)
             WHERE g.level_index = v_level
               AND NOT COALESCE(l.epoch = g.epoch AND l.holder IS NOT NULL AND l.expires_at > v_now, FALSE);
            IF v_late IS NOT NULL THEN
                SET v_failed = JSON_MERGE_PRESERVE(COALESCE(v_failed, '[]'), v_late);
            END IF;
        END IF;
        IF v_failed IS NULL AND NOT p_deletes THEN
            INSERT INTO {p}_history (revision, `key`, created, value, old_created, old_modified, old_value,
                                     writer, batch, txn, committed_at)
            SELECT v_head + w.place, w.name, COALESCE(d.created, v_head + w.place),
                   CONVERT(SUBSTRING(p_values, w.start_at + 1, w.bytes) USING utf8mb4),
                   d.created, d.modified, d.value, p_writer, p_batch, w.txn, v_now
              FROM JSON_TABLE(p_writes, '$[*]' COLUMNS (
                       level_index INT PATH '$[0]', txn INT PATH '$[1]', place INT PATH '$[2]',
                       name VARCHAR(512) PATH '$[3]', start_at INT PATH '$[4]', bytes INT PATH '$[5]')) AS w
              LEFT JOIN {p}_documents d ON d.`key` = CONVERT(w.name USING ascii)
             WHERE w.level_index = v_level;
        ELSE
            -- Who really changes something, counted again.
            IF v_failed IS NOT NULL THEN
                SET v_conflicts = JSON_MERGE_PRESERVE(v_conflicts, v_failed);
            END IF;
            INSERT INTO {p}_history (revision, `key`, created, value, old_created, old_modified, old_value,
                                     writer, batch, txn, committed_at)
            SELECT v_head + e.place, e.name, COALESCE(d.created, v_head + e.place),
                   CONVERT(SUBSTRING(p_values, e.start_at + 1, e.bytes) USING utf8mb4),
                   d.created, d.modified, d.value, p_writer, p_batch, e.txn, v_now
              FROM (SELECT w.txn, w.name, w.start_at, w.bytes, DENSE_RANK() OVER (ORDER BY w.txn) AS place
                      FROM JSON_TABLE(p_writes, '$[*]' COLUMNS (
                               level_index INT PATH '$[0]', txn INT PATH '$[1]', place INT PATH '$[2]',
                               name VARCHAR(512) PATH '$[3]', start_at INT PATH '$[4]', bytes INT PATH '$[5]')) AS w
                      LEFT JOIN {p}_documents x ON x.`key` = CONVERT(w.name USING ascii)
                     WHERE w.level_index = v_level AND (w.bytes IS NOT NULL OR x.`key` IS NOT NULL)
                       AND NOT EXISTS (SELECT 1 FROM JSON_TABLE(COALESCE(v_failed, '[]'), '$[*]' COLUMNS (
                                                         txn INT PATH '$[0]')) AS f WHERE f.txn = w.txn)) AS e
              LEFT JOIN {p}_documents d ON d.`key` = CONVERT(e.name USING ascii);
        END IF;
        INSERT INTO {p}_documents (`key`, created, modified, value)
        SELECT h.`key`, h.created, h.revision, h.value FROM {p}_history h
         WHERE h.revision > v_head AND h.value IS NOT NULL
            ON DUPLICATE KEY UPDATE modified = VALUES(modified), value = VALUES(value);
        IF p_deletes THEN
            DELETE d FROM {p}_documents d JOIN {p}_history h ON h.`key` = d.`key`
             WHERE h.revision > v_head AND h.value IS NULL;
        END IF;
        SELECT COALESCE(MAX(revision), v_head) INTO v_head FROM {p}_history WHERE revision > v_head;
        SET v_ends = JSON_ARRAY_APPEND(v_ends, '$', v_head);
        SET v_level = v_level + 1;
    END WHILE;
    -- Sent before the end: whoever reads the last answer of this call knows that it is durable.
    SELECT v_base, v_head, v_floor, v_ends, v_conflicts;
    SELECT txn, `key`, revision, created FROM {p}_history WHERE revision > v_base ORDER BY revision, `key`;
    COMMIT;
END
//
DROP PROCEDURE IF EXISTS {p}_fence
//
-- Withdraws a writer's leave and tells what its batch did.
CREATE PROCEDURE {p}_fence(IN p_writer BIGINT, IN p_batch BIGINT, IN p_after BIGINT) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
    DECLARE v_floor BIGINT;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
    START TRANSACTION;
    SELECT floor INTO v_floor FROM {p}_state WHERE id = 1 FOR UPDATE;
    DELETE FROM {p}_writers WHERE id = p_writer;
    -- The writer's own last commit may be visible and not yet on disk; this one's end is after it.
    UPDATE {p}_flushes SET flushes = flushes + 1 WHERE id = 1;
    SELECT v_floor;
    SELECT DISTINCT txn, revision FROM {p}_history
     WHERE revision > p_after AND writer = p_writer AND batch = p_batch;
    COMMIT;
END
//
DROP PROCEDURE IF EXISTS {p}_lease
//
-- Lease calls as a JSON array of [name, kind, epoch, holder, ttl in microseconds]; 0 acquire, 1 take over, 2 renew, 3 revoke.
-- One answer each: [done, epoch, holder, end in microseconds since 1970].
CREATE PROCEDURE {p}_lease(IN p_moves BOOLEAN, IN p_calls LONGTEXT CHARACTER SET utf8mb4) MODIFIES SQL DATA SQL SECURITY INVOKER
BEGIN
    DECLARE v_end BOOLEAN DEFAULT FALSE;
    DECLARE v_name VARCHAR(512) CHARACTER SET ascii COLLATE ascii_bin;
    DECLARE v_holder, v_held_by VARCHAR(256) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
    DECLARE v_kind, v_done INT;
    DECLARE v_epoch, v_ttl, v_has_epoch, v_lock BIGINT;
    DECLARE v_until, v_now DATETIME(6);
    DECLARE c_calls CURSOR FOR
        SELECT c.name, c.kind, c.epoch, c.holder, c.ttl FROM JSON_TABLE(p_calls, '$[*]' COLUMNS (
            place FOR ORDINALITY, name VARCHAR(512) PATH '$[0]', kind INT PATH '$[1]', epoch BIGINT PATH '$[2]',
            holder VARCHAR(256) PATH '$[3]', ttl BIGINT PATH '$[4]')) AS c ORDER BY c.place;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_end = TRUE;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
    START TRANSACTION;
    IF p_moves THEN
        SELECT id INTO v_lock FROM {p}_state WHERE id = 1 FOR UPDATE;
    END IF;
    OPEN c_calls;
    calls: LOOP
        FETCH c_calls INTO v_name, v_kind, v_epoch, v_holder, v_ttl;
        IF v_end THEN LEAVE calls; END IF;
        SET v_done = 0, v_has_epoch = NULL, v_held_by = NULL, v_until = NULL;
        SELECT epoch, holder, expires_at INTO v_has_epoch, v_held_by, v_until
          FROM {p}_leases WHERE name = v_name FOR UPDATE;
        SET v_end = FALSE;
        SET v_now = SYSDATE(6);
        IF v_kind <= 1 THEN
            IF v_kind = 1 OR v_held_by IS NULL OR v_until <= v_now THEN
                INSERT INTO {p}_leases (name, epoch, holder, expires_at)
                VALUES (v_name, 1, v_holder, v_now + INTERVAL v_ttl MICROSECOND)
                    ON DUPLICATE KEY UPDATE epoch = epoch + 1, holder = VALUES(holder), expires_at = VALUES(expires_at);
                SET v_done = 1, v_has_epoch = COALESCE(v_has_epoch, 0) + 1;
            END IF;
        ELSEIF v_has_epoch = v_epoch AND v_kind = 3 THEN
            UPDATE {p}_leases SET holder = NULL, expires_at = NULL WHERE name = v_name;
            SET v_done = 1, v_has_epoch = NULL;
        ELSEIF v_has_epoch = v_epoch AND v_held_by IS NOT NULL AND v_until > v_now THEN
            UPDATE {p}_leases SET expires_at = v_now + INTERVAL v_ttl MICROSECOND WHERE name = v_name;
            SET v_done = 1, v_has_epoch = NULL;
        ELSE
            SET v_has_epoch = NULL;
        END IF;
        SELECT v_done, v_has_epoch, v_held_by, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', v_until);
    END LOOP;
    CLOSE c_calls;
    COMMIT;
END
//
