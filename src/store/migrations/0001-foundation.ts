/** Schema version 1. Times are milliseconds since 1970, hashes and serials lower-case hex unless they are BLOBs. */
export const foundation = `
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mesh (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  revision INTEGER NOT NULL
) STRICT;
INSERT INTO mesh (id, revision) VALUES (1, 0);

CREATE TABLE entries (
  id TEXT PRIMARY KEY,
  spiffe_id TEXT NOT NULL,
  selectors TEXT NOT NULL,
  ttl_seconds INTEGER NOT NULL,
  dns_names TEXT NOT NULL,
  labels TEXT NOT NULL,
  hint TEXT NOT NULL,
  expires_at_ms INTEGER,
  revision INTEGER NOT NULL
) STRICT;

CREATE TABLE policies (
  key TEXT PRIMARY KEY,
  source TEXT NOT NULL,
  file TEXT NOT NULL,
  line INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  revision INTEGER NOT NULL
) STRICT;

CREATE TABLE authorities (
  key_id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('root', 'intermediate')),
  certificate BLOB NOT NULL,
  not_before_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('active', 'retired'))
) STRICT;

CREATE TABLE admin_tokens (
  id TEXT PRIMARY KEY,
  role TEXT NOT NULL,
  label TEXT NOT NULL,
  secret_sha256 TEXT NOT NULL UNIQUE,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL
) STRICT;

-- The log. idx counts from 0 without a gap; leaf is what was recorded, all else is derived from it.
CREATE TABLE audit_leaves (
  idx INTEGER PRIMARY KEY,
  leaf BLOB NOT NULL CHECK (length(leaf) <= 65535),
  hash BLOB NOT NULL CHECK (length(hash) = 32),
  type TEXT NOT NULL,
  time_ms INTEGER NOT NULL,
  source TEXT,
  destination TEXT,
  verdict TEXT CHECK (verdict IN ('allow', 'deny')),
  serial TEXT
) STRICT;

CREATE TRIGGER audit_leaves_append BEFORE INSERT ON audit_leaves
WHEN NEW.idx IS NOT (SELECT coalesce(max(idx) + 1, 0) FROM audit_leaves)
BEGIN SELECT RAISE(ABORT, 'the log has no gaps'); END;
CREATE TRIGGER audit_leaves_no_update BEFORE UPDATE ON audit_leaves
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER audit_leaves_no_delete BEFORE DELETE ON audit_leaves
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

-- SQLite ends each index with idx, so one equality, a range of idx and the order of idx are one walk along one index.
CREATE INDEX audit_by_type ON audit_leaves (type);
CREATE INDEX audit_by_source ON audit_leaves (source) WHERE source IS NOT NULL;
CREATE INDEX audit_by_destination ON audit_leaves (destination) WHERE destination IS NOT NULL;
CREATE INDEX audit_by_serial ON audit_leaves (serial) WHERE serial IS NOT NULL;
CREATE INDEX audit_by_verdict ON audit_leaves (verdict) WHERE verdict IS NOT NULL;
-- Denials are few and asked for most: they must not be looked for among a caller's million allows.
CREATE INDEX audit_denials_by_source ON audit_leaves (source) WHERE verdict = 'deny' AND source IS NOT NULL;
CREATE INDEX audit_denials_by_destination ON audit_leaves (destination)
  WHERE verdict = 'deny' AND destination IS NOT NULL;

-- The span of time in each 1,024 leaves. Times need not grow with idx (clocks step, requests wait), so a window of time
-- is turned into a range of idx that is certain to hold it, and no more than a page or two too wide.
CREATE TABLE audit_blocks (
  block INTEGER PRIMARY KEY,
  min_ms INTEGER NOT NULL,
  max_ms INTEGER NOT NULL
) STRICT;

-- What opens the commitments in the leaves. Deleting a row here forgets the value and leaves the log provable.
CREATE TABLE audit_personal (
  idx INTEGER NOT NULL REFERENCES audit_leaves (idx),
  field TEXT NOT NULL,
  salt BLOB NOT NULL CHECK (length(salt) = 32),
  value TEXT NOT NULL,
  PRIMARY KEY (idx, field)
) STRICT, WITHOUT ROWID;

-- Derived from issuance leaves; rows of certificates long expired are removed.
CREATE TABLE certificates (
  serial TEXT PRIMARY KEY,
  spiffe_id TEXT NOT NULL,
  entry_id TEXT NOT NULL,
  not_after_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_entry ON certificates (entry_id, not_after_ms);
CREATE INDEX certificates_by_expiry ON certificates (not_after_ms);
`;
