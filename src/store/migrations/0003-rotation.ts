/** Schema version 3: slots of the CA's keys, the issuer of each certificate, and what each proxy has confirmed. */
export const rotation = `
-- SQLite cannot change a CHECK: the table is made again. Until now there was one root, and it was published first.
CREATE TABLE authority_slots (
  key_id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('root', 'intermediate')),
  root_key_id TEXT NOT NULL,
  certificate BLOB NOT NULL,
  not_before_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'retiring', 'retired')),
  tainted INTEGER NOT NULL CHECK (tainted IN (0, 1)),
  published_in INTEGER NOT NULL
) STRICT;
INSERT INTO authority_slots
  SELECT key_id, kind,
         coalesce((SELECT key_id FROM authorities WHERE kind = 'root' ORDER BY state LIMIT 1), ''),
         certificate, not_before_ms, not_after_ms,
         CASE WHEN kind = 'intermediate' AND state = 'retired' THEN 'retiring' ELSE state END,
         0, CASE kind WHEN 'root' THEN 1 ELSE 0 END
  FROM authorities;
DROP TABLE authorities;
ALTER TABLE authority_slots RENAME TO authorities;
CREATE UNIQUE INDEX one_active_slot ON authorities (kind) WHERE state = 'active';
INSERT INTO meta (key, value) SELECT 'bundle_sequence', '1' FROM authorities WHERE state = 'active' LIMIT 1
  ON CONFLICT (key) DO NOTHING;

-- Empty: nobody knows, it was issued by an earlier version.
ALTER TABLE certificates ADD COLUMN issuer_key_id TEXT NOT NULL DEFAULT '';

-- What each proxy was sent and has confirmed; identity/coverage.ts reads and writes the records.
CREATE TABLE coverage (
  key TEXT PRIMARY KEY,
  record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
`;
