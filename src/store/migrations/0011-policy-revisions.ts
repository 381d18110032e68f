/** Schema version 11: revisions of the policies. What is in force is part of them, and kept nowhere else. */
export const policyRevisions = `
-- Each text once, by its SHA-256.
CREATE TABLE policy_texts (
  sha256 TEXT PRIMARY KEY,
  source TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- parent is the number of the one before it, restores that of the one whose policies it brought back; 0 for none.
-- author is JSON.
CREATE TABLE policy_revisions (
  number INTEGER PRIMARY KEY CHECK (number > parent),
  id TEXT NOT NULL,
  parent INTEGER NOT NULL CHECK (parent >= 0),
  parent_id TEXT NOT NULL,
  restores INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  author TEXT NOT NULL,
  message TEXT NOT NULL,
  record_sha256 TEXT NOT NULL,
  public_key TEXT NOT NULL,
  signature TEXT NOT NULL
) STRICT;

CREATE TRIGGER policy_revisions_follow BEFORE INSERT ON policy_revisions
WHEN NEW.parent IS NOT (SELECT coalesce(max(number), 0) FROM policy_revisions)
BEGIN SELECT RAISE(ABORT, 'a policy revision follows the one in force'); END;
CREATE TRIGGER policy_revisions_no_update BEFORE UPDATE ON policy_revisions
BEGIN SELECT RAISE(ABORT, 'a policy revision never changes'); END;
CREATE TRIGGER policy_revisions_keep_active BEFORE DELETE ON policy_revisions
WHEN OLD.number IS (SELECT max(number) FROM policy_revisions)
BEGIN SELECT RAISE(ABORT, 'the policy revision in force stays'); END;

-- How many policies of each namespace a revision changed.
CREATE TABLE policy_revision_changes (
  number INTEGER NOT NULL REFERENCES policy_revisions (number),
  namespace TEXT NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  deleted INTEGER NOT NULL,
  PRIMARY KEY (number, namespace)
) STRICT, WITHOUT ROWID;

-- A policy is of the revisions from since on, up to but not with until; null: it is in force. mesh_revision is that of the
-- mesh which last wrote it.
CREATE TABLE policy_versions (
  key TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER CHECK (until > since),
  sha256 TEXT NOT NULL REFERENCES policy_texts (sha256),
  file TEXT NOT NULL,
  line INTEGER NOT NULL,
  mesh_revision INTEGER NOT NULL,
  PRIMARY KEY (key, since)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX policy_in_force ON policy_versions (key) WHERE until IS NULL;
CREATE INDEX policy_versions_by_end ON policy_versions (until) WHERE until IS NOT NULL;
CREATE INDEX policy_versions_by_text ON policy_versions (sha256);

-- What is there now becomes the first revision when the server next starts: it takes a signature.
INSERT OR IGNORE INTO policy_texts SELECT sha256, source FROM policies;
INSERT INTO policy_versions SELECT key, 0, NULL, sha256, file, line, revision FROM policies;
DROP TABLE policies;
`;
