/** Schema version 2: bans, and certificates found by the identity they were issued to. */
export const bans = `
-- Kinds are read again by identity/ban.ts, which knows them all. until_ms is null for a ban that stands until it is
-- lifted; actor is JSON.
CREATE TABLE bans (
  kind TEXT NOT NULL,
  value TEXT NOT NULL,
  reason TEXT NOT NULL,
  until_ms INTEGER,
  created_at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  revision INTEGER NOT NULL,
  PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;

CREATE INDEX certificates_by_identity ON certificates (spiffe_id, not_after_ms);
`;
