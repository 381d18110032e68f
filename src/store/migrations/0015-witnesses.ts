/** Schema version 15: what witnesses have cosigned, of our log and we of others. */
export const witnesses = `
-- A REPLACE deletes without asking the trigger that no row is deleted, so it is held here: what it would put in.
CREATE TRIGGER audit_checkpoint_one_root BEFORE INSERT ON audit_checkpoint
WHEN EXISTS (SELECT 1 FROM audit_checkpoint WHERE NEW.size < size OR (NEW.size = size AND NEW.root IS NOT root))
BEGIN SELECT RAISE(ABORT, 'a checkpoint never goes back, and never changes'); END;

-- The latest checkpoint of our log that a quorum of witnesses has cosigned.
CREATE TABLE audit_witnessed (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  size INTEGER NOT NULL CHECK (size >= 0),
  note TEXT NOT NULL
) STRICT;

-- Of each log that we witness, the latest checkpoint that we have cosigned.
CREATE TABLE witnessed_logs (
  origin TEXT PRIMARY KEY,
  size INTEGER NOT NULL CHECK (size >= 0),
  root BLOB NOT NULL CHECK (length(root) = 32),
  note TEXT NOT NULL,
  cosigned_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER witnessed_logs_once BEFORE INSERT ON witnessed_logs
WHEN EXISTS (SELECT 1 FROM witnessed_logs WHERE origin = NEW.origin)
BEGIN SELECT RAISE(ABORT, 'a log is witnessed in one row'); END;
CREATE TRIGGER witnessed_logs_never_back BEFORE UPDATE ON witnessed_logs
WHEN NEW.origin IS NOT OLD.origin OR NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root IS NOT OLD.root)
BEGIN SELECT RAISE(ABORT, 'a witness never goes back, and never changes its word'); END;
CREATE TRIGGER witnessed_logs_no_delete BEFORE DELETE ON witnessed_logs
BEGIN SELECT RAISE(ABORT, 'a witness does not forget'); END;

-- Of a log that was caught with two roots of one size: the two notes of the first time.
CREATE TABLE witnessed_forks (
  origin TEXT PRIMARY KEY,
  held TEXT NOT NULL,
  other TEXT NOT NULL,
  seen_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`;
