/** Schema version 13: the Merkle tree over the log, and its checkpoint. */
export const auditTree = `
-- Hashes of levels of tiles, complete ones only: a row of level 1 is over 256 leaves, one of level 2 over 65,536. Those of
-- level 0 are in audit_leaves. For a log that is older than this table they are made at the first start.
CREATE TABLE audit_nodes (
  level INTEGER NOT NULL CHECK (level BETWEEN 1 AND 7),
  idx INTEGER NOT NULL,
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_nodes_append BEFORE INSERT ON audit_nodes
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM audit_nodes WHERE level = NEW.level)
BEGIN SELECT RAISE(ABORT, 'a level of the tree has no gaps'); END;
CREATE TRIGGER audit_nodes_no_update BEFORE UPDATE ON audit_nodes
BEGIN SELECT RAISE(ABORT, 'the tree only grows'); END;
CREATE TRIGGER audit_nodes_no_delete BEFORE DELETE ON audit_nodes
BEGIN SELECT RAISE(ABORT, 'the tree only grows'); END;

-- The latest. Its size is the number of leaves at the time, its note is what was signed.
CREATE TABLE audit_checkpoint (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  size INTEGER NOT NULL CHECK (size >= 0),
  root BLOB NOT NULL CHECK (length(root) = 32),
  note TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_checkpoint_covers_insert BEFORE INSERT ON audit_checkpoint
WHEN NEW.size IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM audit_leaves)
BEGIN SELECT RAISE(ABORT, 'a checkpoint covers the whole log'); END;
CREATE TRIGGER audit_checkpoint_never_back BEFORE UPDATE ON audit_checkpoint
WHEN NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root IS NOT OLD.root)
BEGIN SELECT RAISE(ABORT, 'a checkpoint never goes back, and never changes'); END;
CREATE TRIGGER audit_checkpoint_no_delete BEFORE DELETE ON audit_checkpoint
BEGIN SELECT RAISE(ABORT, 'the checkpoint stays'); END;
`;
