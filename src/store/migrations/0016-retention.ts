/** Schema version 16: contents of the log that are kept no longer, and personal values that can be wiped where they are. */
export const retention = `
-- What the log has announced of a span of 8,192 leaves: its leaves of these types go. The trigger holds the row to the leaf
-- that says so, which is the last one when the row is written; the last two spans keep what they have.
CREATE TABLE audit_pruned (
  first INTEGER NOT NULL CHECK (first >= 0 AND first % 8192 = 0),
  class TEXT NOT NULL CHECK (class IN ('calls', 'records')),
  -- With a space before and after each.
  types TEXT NOT NULL CHECK (types GLOB ' * ' AND instr(types, ' retention ') = 0 AND instr(types, ' loss ') = 0),
  entries INTEGER NOT NULL CHECK (entries > 0),
  event_idx INTEGER NOT NULL,
  PRIMARY KEY (first, class)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_pruned_announced BEFORE INSERT ON audit_pruned
WHEN NOT EXISTS (
  SELECT 1 FROM audit_leaves WHERE idx = NEW.event_idx AND idx = (SELECT max(idx) FROM audit_leaves)
    AND idx >= NEW.first + 16384 AND type = 'retention'
    AND json_extract(CAST(leaf AS TEXT), '$.class') = NEW.class
    AND json_extract(CAST(leaf AS TEXT), '$.first') = NEW.first
    AND json_extract(CAST(leaf AS TEXT), '$.last') = NEW.first + 8191
    AND json_extract(CAST(leaf AS TEXT), '$.entries') = NEW.entries)
BEGIN SELECT RAISE(ABORT, 'what is pruned is announced in the log first'); END;
CREATE TRIGGER audit_pruned_no_update BEFORE UPDATE ON audit_pruned
BEGIN SELECT RAISE(ABORT, 'what was announced stays'); END;
CREATE TRIGGER audit_pruned_no_delete BEFORE DELETE ON audit_pruned
BEGIN SELECT RAISE(ABORT, 'what was announced stays'); END;

-- The hashes of 256 leaves of which some are gone.
CREATE TABLE audit_pruned_tiles (
  tile INTEGER PRIMARY KEY,
  hashes BLOB NOT NULL CHECK (length(hashes) = 8192)
) STRICT;
CREATE TRIGGER audit_pruned_tiles_no_update BEFORE UPDATE ON audit_pruned_tiles
BEGIN SELECT RAISE(ABORT, 'the tree only grows'); END;
CREATE TRIGGER audit_pruned_tiles_no_delete BEFORE DELETE ON audit_pruned_tiles
BEGIN SELECT RAISE(ABORT, 'the tree only grows'); END;

-- A leaf goes only when its going was announced, and its hash is kept.
DROP TRIGGER audit_leaves_no_delete;
CREATE TRIGGER audit_leaves_no_delete BEFORE DELETE ON audit_leaves
WHEN NOT EXISTS (
    SELECT 1 FROM audit_pruned
    WHERE first = OLD.idx - OLD.idx % 8192 AND instr(types, ' ' || OLD.type || ' ') > 0)
  OR NOT EXISTS (
    SELECT 1 FROM audit_pruned_tiles
    WHERE tile = OLD.idx >> 8 AND substr(hashes, (OLD.idx & 255) * 32 + 1, 32) = OLD.hash)
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

-- Values are overwritten where they stand, by zeros of the same length, and only then deleted. For that they are in a table
-- that is only appended to: in one kept in order of a key SQLite moves rows between pages, and leaves copies behind.
CREATE TABLE audit_personal_new (
  id INTEGER PRIMARY KEY,
  idx INTEGER NOT NULL REFERENCES audit_leaves (idx),
  field TEXT NOT NULL,
  -- All zeros when the value was shredded.
  salt BLOB NOT NULL CHECK (length(salt) = 32),
  value TEXT NOT NULL
) STRICT;
INSERT INTO audit_personal_new (idx, field, salt, value)
  SELECT idx, field, salt, value FROM audit_personal ORDER BY idx, field;
DROP TABLE audit_personal;
ALTER TABLE audit_personal_new RENAME TO audit_personal;
CREATE UNIQUE INDEX audit_personal_by_entry ON audit_personal (idx, field);
CREATE TRIGGER audit_personal_only_shredded BEFORE UPDATE ON audit_personal
WHEN NEW.id IS NOT OLD.id OR NEW.idx IS NOT OLD.idx OR NEW.field IS NOT OLD.field
  OR NEW.salt IS NOT zeroblob(32)
  OR CAST(NEW.value AS BLOB) IS NOT zeroblob(length(CAST(OLD.value AS BLOB)))
BEGIN SELECT RAISE(ABORT, 'a personal value is kept as it is, or shredded'); END;
`;
